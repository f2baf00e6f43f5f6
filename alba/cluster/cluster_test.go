package cluster_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/cluster"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/arakoon"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"

	"github.com/google/uuid"
)

var (
	ctx         = context.Background()
	testCluster = uuid.MustParse("7d444840-9dc0-11d1-b245-5ffdce74fad2")
)

func id(n uint64) (b [16]byte) {
	binary.LittleEndian.PutUint64(b[:], n)
	b[15] = 1
	return b
}

// link tells an NSM host of namespace 1 and of OSDs 1 to 9, three to a node.
func link(t testing.TB, host *nsm.Client) {
	t.Helper()
	messages := []nsm.Message{{Kind: nsm.MessageCreateNamespace, Namespace: 1}}
	for osd := uint64(1); osd <= 9; osd++ {
		messages = append(messages, nsm.Message{Kind: nsm.MessageLinkOSD, OSD: osd, Node: fmt.Sprintf("node%d", osd%3)})
	}
	if n, err := host.Deliver(ctx, 1, messages); err != nil || n != 10 {
		t.Fatal(n, err)
	}
}

// twin makes each call on a cluster and on a store in memory and wants the
// same of both. It reads from the cluster.
type twin struct {
	t     testing.TB
	disk  *crashdisk.FS
	store *nsmtest.Store
	fns   []userfn.Function
	now   int64 // of both

	node *arakoon.Node
	*cluster.Client
}

func newTwin(t testing.TB, fns []userfn.Function) *twin {
	w := &twin{t: t, disk: crashdisk.New(), store: nsmtest.New(fns...), fns: fns, now: 1}
	w.open()
	t.Cleanup(func() { _ = w.node.Close() })
	return w
}

func openNode(fsys disk.FS, fns []userfn.Function, now func() time.Time) (*arakoon.Node, error) {
	return arakoon.Open(arakoon.Options{
		FS: fsys, Dir: "/node", Cluster: testCluster, Member: 1, Functions: cluster.Functions(fns), Now: now,
		SegmentBytes: 64 << 10, CompactBytes: 128 << 10, MemTableBytes: 256 << 10, StateCacheBytes: 1 << 20,
	})
}

func (w *twin) open() {
	w.t.Helper()
	node, err := openNode(w.disk, w.fns, func() time.Time { return time.Unix(0, w.now) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.node, w.Client = node, cluster.NewClient(node)
}

// restart closes the node, or cuts its power, and opens it again.
func (w *twin) restart(r *rand.Rand) {
	w.t.Helper()
	if r.IntN(2) == 0 {
		if err := w.node.Close(); err != nil {
			w.t.Fatal(err)
		}
	} else {
		image := w.disk.Crash(r, []crashdisk.Options{crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}[r.IntN(3)])
		_ = w.node.Close()
		w.disk = image
	}
	w.open()
}

// tick moves the time on.
func (w *twin) tick() {
	w.now++
	w.store.SetTime(w.now)
}

func (w *twin) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	got, err := w.Client.Call(ctx, name, version, arg)
	want, expected := w.store.Call(ctx, name, version, arg)
	var a, b *userfn.Error
	if (err == nil) != (expected == nil) || err != nil && (!errors.As(err, &a) || !errors.As(expected, &b) || *a != *b) {
		w.t.Fatalf("%s: the cluster says %v, the store %v", name, err, expected)
	}
	if !bytes.Equal(got, want) {
		w.t.Fatalf("%s: the cluster returns %x, the store %x", name, got, want)
	}
	return got, err
}

// copyOf returns what a node holds as a store in memory.
func copyOf(t testing.TB, c *cluster.Client, fns []userfn.Function) *nsmtest.Store {
	t.Helper()
	pairs, err := c.Range(ctx, nil, nil, 1<<20, userfn.Consistent)
	if err != nil {
		t.Fatal(err)
	}
	s := nsmtest.New(fns...)
	s.Edit(func(tx userfn.Tx) {
		for _, p := range pairs {
			tx.Set(p.Key, p.Value)
		}
	})
	return s
}

// compare wants the same keys of both, and that the manager's check passes.
func (w *twin) compare(check func(userfn.Tx) error) {
	w.t.Helper()
	s := copyOf(w.t, w.Client, w.fns)
	if !bytes.Equal(s.Dump(), w.store.Dump()) {
		w.t.Fatal("the cluster holds other keys than the store")
	}
	if err := s.View(check); err != nil {
		w.t.Fatal(err)
	}
}

// object makes an object 2+1 of one or two chunks.
func object(r *rand.Rand, n, epoch uint64) *nsm.Object {
	o := &nsm.Object{
		Name: fmt.Sprintf("n%02d", r.IntN(12)), ID: id(n), Epoch: epoch, Size: 1 + r.Uint64N(3), Manifest: fmt.Appendf(nil, "manifest %d", n),
		Policy: nsm.Policy{K: 2, M: 1, C: 2, X: 3}, Chunks: make([]nsm.Chunk, 1+r.IntN(2)),
	}
	for i := range o.Chunks {
		o.Chunks[i].Length = 4096
		for _, osd := range r.Perm(9)[:3] {
			o.Chunks[i].Fragments = append(o.Chunks[i].Fragments, nsm.Fragment{OSD: uint64(osd) + 1})
		}
	}
	if r.IntN(3) == 0 {
		o.Chunks[0].Fragments[r.IntN(3)].OSD = 0
	}
	return o
}

// An NSM host on a cluster does what it does in memory, over restarts and
// power cuts.
func TestNSM(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	w := newTwin(t, nsm.Functions())
	c := nsm.NewClient(w, w)
	link(t, c)
	for n := uint64(1); n <= 600; n++ {
		w.tick()
		e, err := c.Epochs(ctx, 1, userfn.Consistent)
		if err != nil {
			t.Fatal(err)
		}
		number := n
		if r.IntN(8) == 0 {
			number = 1 + r.Uint64N(n)
		}
		switch r.IntN(10) {
		case 0, 1, 2, 3, 4:
			_, _ = c.Put(ctx, 1, nsm.Mode(1+r.IntN(4)), r.Uint64N(n), object(r, number, e.Next-1-r.Uint64N(2)))
		case 5:
			_, _ = c.Delete(ctx, 1, []string{fmt.Sprintf("n%02d", r.IntN(12)), fmt.Sprintf("n%02d", r.IntN(12))}, nil)
		case 6:
			if o, err := c.Get(ctx, 1, fmt.Sprintf("n%02d", r.IntN(12)), userfn.Consistent); err == nil {
				_, _ = c.Update(ctx, 1, nsm.Update{
					Name: o.Name, ID: o.ID, Revision: o.Revision, Epoch: e.Next - 1, Manifest: fmt.Appendf(nil, "repaired %d", n),
					Changes: []nsm.Change{{Fragment: uint16(r.IntN(3)), To: nsm.Fragment{OSD: 1 + r.Uint64N(9), Version: o.Revision + 1}}},
				})
			}
		case 7:
			keys, err := c.ListObsolete(ctx, 1+r.Uint64N(9), nil, 20, userfn.Local)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.MarkDeleted(ctx, 1+r.Uint64N(9), keys)
		case 8:
			if r.IntN(2) == 0 {
				_, _ = c.OpenEpoch(ctx, 1, e.Next)
			} else {
				_, _ = c.CloseEpoch(ctx, 1, e.Minimum)
			}
		default:
			if r.IntN(3) == 0 {
				w.restart(r)
			}
		}
		if n%50 == 0 {
			w.compare(nsm.Check)
		}
	}
	w.compare(nsm.Check)
	if _, err := c.Put(ctx, 1, nsm.Create, 0, &nsm.Object{Name: "x"}); !errors.Is(err, nsm.ErrInvalid) {
		t.Fatal(err)
	}
}

// The ABM on a cluster does what it does in memory.
func TestABM(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	w := newTwin(t, abm.Functions())
	c := abm.NewClient(w, w)
	begin(t, c)
	for range 300 {
		w.tick()
		name, long, number := fmt.Sprint("n", r.IntN(10)), [16]byte{byte(1 + r.IntN(6))}, 1+r.Uint64N(12)
		switch r.IntN(10) {
		case 0, 1:
			_, _ = c.CreateNamespace(ctx, name, "")
		case 2:
			_, _ = c.DeleteNamespace(ctx, name)
		case 3:
			_ = c.RegisterOSD(ctx, abm.OSD{LongID: long, Node: name})
		case 4:
			_, _ = c.ClaimOSD(ctx, long)
		case 5:
			_, _ = c.ReplaceOSD(ctx, number, long)
		case 6:
			_ = c.DecommissionOSD(ctx, number)
		case 7:
			_ = c.PurgeOSD(ctx, number)
		case 8:
			_, _ = c.MarkDelivered(ctx, 1, r.Uint64N(40))
		default:
			if r.IntN(2) == 0 {
				w.restart(r)
			}
		}
	}
	w.compare(abm.Check)
}

// begin initialises an ABM with a default preset and one NSM host.
func begin(t testing.TB, c *abm.Client) {
	t.Helper()
	_, err := c.Backend(ctx, userfn.Consistent)
	if !errors.Is(err, abm.ErrNotFound) {
		t.Fatal(err)
	}
	err = c.Init(ctx, [16]byte{1})
	if err == nil {
		_, err = c.PutPreset(ctx, "default", 0, []byte("p"))
	}
	if err == nil {
		err = c.SetDefaultPreset(ctx, "default")
	}
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.PutHost(ctx, "host1", nil, false); err != nil || n != 1 {
		t.Fatal(n, err)
	}
}

// lossy delivers messages and loses the answer, or not even that.
type lossy struct {
	abm.Carrier
	r *rand.Rand
}

var errLost = errors.New("lost")

func (l lossy) Deliver(ctx context.Context, first uint64, messages []nsm.Message) (uint64, error) {
	how := l.r.IntN(3)
	if how == 0 {
		return 0, errLost
	}
	n, err := l.Carrier.Deliver(ctx, first, messages)
	if how == 1 && err == nil {
		err = errLost
	}
	return n, err
}

// Messages go from the ABM's node to the NSM's, each applied once, whichever
// of the two loses power and whatever gets lost in between.
func TestCarry(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	manager, host := newTwin(t, abm.Functions()), newTwin(t, nsm.Functions())
	a, h := abm.NewClient(manager, manager), nsm.NewClient(host, host)
	begin(t, a)
	for i := range 120 {
		manager.tick()
		host.tick()
		long := [16]byte{1, byte(i)}
		if err := a.RegisterOSD(ctx, abm.OSD{LongID: long, Node: "node"}); err != nil {
			t.Fatal(err)
		}
		_, err := a.ClaimOSD(ctx, long)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.CreateNamespace(ctx, fmt.Sprint("n", i), ""); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			if _, err := a.DeleteNamespace(ctx, fmt.Sprint("n", i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Carry(ctx, 1, lossy{h, r}); err != nil && !errors.Is(err, errLost) {
			t.Fatal(err)
		}
		if r.IntN(8) == 0 {
			manager.restart(r)
		}
		if r.IntN(8) == 0 {
			host.restart(r)
		}
	}
	if err := a.Carry(ctx, 1, h); err != nil {
		t.Fatal(err)
	}
	manager.compare(abm.Check)
	host.compare(nsm.Check)
	list, err := a.Namespaces(ctx, 0, abm.MaxPage, userfn.Consistent)
	if err != nil || len(list) != 80 {
		t.Fatal(len(list), err)
	}
	for _, n := range list {
		if _, err := h.Namespace(ctx, n.Number, userfn.Consistent); n.State != abm.NamespaceActive || err != nil {
			t.Fatal(n, err)
		}
	}
	if osds, err := h.OSDs(ctx, 0, nsm.MaxKeys, userfn.Consistent); err != nil || len(osds) != 120 {
		t.Fatal(len(osds), err)
	}
}
