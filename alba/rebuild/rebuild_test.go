package rebuild_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"openvstorage/alba/albatest"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/alba/rebuild"
	"openvstorage/backend"
)

var (
	ctx    = context.Background()
	twoOne = policy.Policy{K: 2, M: 1, C: 2, X: 3}
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// filled is a backend with objects of several sizes, some of which were replaced or deleted.
func filled(t *testing.T) (*albatest.Backend, map[string][]byte) {
	b := albatest.New(t, 4, albatest.Small(twoOne), nil)
	check(t, b.CreateNamespace(ctx, "vdisk"))
	ns := b.Namespace("vdisk")
	r := rand.New(rand.NewPCG(1, 2))
	want := make(map[string][]byte)
	bytesOf := func(n int) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		return p
	}
	for i, n := range []int{1, 4096, 5000, 100_000, 200_000, 64 << 10, 0} {
		name := fmt.Sprintf("object-%d", i)
		want[name] = bytesOf(n)
		check(t, ns.Put(ctx, name, want[name]))
	}
	var v backend.Version
	for i := range 5 { // a catalog
		var err error
		want["catalog"] = bytesOf(1000 + i)
		v, err = ns.(interface {
			PutIf(context.Context, string, []byte, backend.Version) (backend.Version, error)
		}).PutIf(ctx, "catalog", want["catalog"], v)
		check(t, err)
	}
	check(t, ns.Put(ctx, "gone", bytesOf(70_000)))
	check(t, ns.Delete(ctx, []string{"gone"}, nil))
	b.Settle()
	check(t, b.Work.Survey(ctx))
	return b, want
}

// lost is an empty NSM host to which namespace 1 is to come from the disks.
func lost(t *testing.T, b *albatest.Backend) (*nsmtest.Store, *nsm.Client) {
	s := nsmtest.New(nsm.Functions()...)
	h := nsm.NewClient(s, s)
	messages := []nsm.Message{{Kind: nsm.MessageImportNamespace, Namespace: 1, Generation: 1}}
	for n := range b.Disks {
		messages = append([]nsm.Message{{Kind: nsm.MessageKnowOSD, OSD: n, Node: "node"}}, messages...)
	}
	_, err := h.Deliver(ctx, 1, messages)
	check(t, err)
	return s, h
}

// An NSM host that is rebuilt has every object as it was, names, versions and hashes, and no
// object that was deleted.
func TestRebuild(t *testing.T) {
	b, want := filled(t)
	before, err := b.NSM.List(ctx, 1, "", "", nsm.MaxPage, userfn.Consistent)
	check(t, err)
	for _, names := range []int{0, 2} { // with little memory too
		s, h := lost(t, b)
		r, err := rebuild.Run(ctx, rebuild.Options{Namespace: 1, Generation: 1, Host: h, Fleet: b.Fleet, Names: names})
		check(t, err)
		if !r.Clean() || r.Entered != len(want) {
			t.Errorf("%+v", r)
		}
		check(t, s.View(func(tx userfn.Tx) error { return nsm.Check(tx) }))
		for _, o := range before {
			got, err := h.Get(ctx, 1, o.Name, userfn.Consistent)
			check(t, err)
			if got.ID != o.ID || got.Size != o.Size || got.Hash != o.Hash || got.Revision != o.Revision || fmt.Sprint(got.Chunks) != fmt.Sprint(o.Chunks) {
				t.Errorf("%+v became %+v", o, got)
			}
			if len(o.Chunks) == 0 && got.Version != o.Version {
				t.Errorf("%s has version %d, had %d", o.Name, got.Version, o.Version)
			}
		}
	}
}

// A rebuild that is cut at any call of the host or any disk is begun again, and ends as one that was not.
func TestRebuildCutAnywhere(t *testing.T) {
	b, want := filled(t)
	for cut := 0; ; cut++ {
		s, _ := lost(t, b)
		calls := 0
		h := nsm.NewClient(cutter{s, &calls, cut}, s)
		o := rebuild.Options{Namespace: 1, Generation: 1, Host: h, Fleet: b.Fleet, Names: 3}
		_, err := rebuild.Run(ctx, o)
		if err == nil {
			if cut == 0 {
				t.Error("nothing was cut")
			}
			return
		}
		if !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		o.Host = nsm.NewClient(s, s)
		_, err = rebuild.Run(ctx, o)
		check(t, err)
		n, err := o.Host.Record(ctx, 1, userfn.Consistent)
		check(t, err)
		if n.State != nsm.NamespaceActive || int(n.Objects) != len(want) {
			t.Errorf("cut %d: %+v", cut, n)
		}
		check(t, s.View(func(tx userfn.Tx) error { return nsm.Check(tx) }))
	}
}

var errCut = errors.New("cut")

// cutter makes one call without an answer, and none after it.
type cutter struct {
	*nsmtest.Store
	calls *int
	at    int
}

func (c cutter) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	if *c.calls++; *c.calls > c.at+1 {
		return nil, errCut
	}
	b, err := c.Store.Call(ctx, name, version, arg)
	if *c.calls == c.at+1 {
		return nil, errCut
	}
	return b, err
}

// What lacks fragments is told by name and is not entered, and nothing is deleted; with too
// many nodes missing nothing is entered at all.
func TestRebuildTells(t *testing.T) {
	b, want := filled(t)
	o, err := b.NSM.Get(ctx, 1, "object-2", userfn.Consistent)
	check(t, err)
	b.Take(o.Chunks[0].Fragments[0].OSD)
	_, h := lost(t, b)
	opt := rebuild.Options{Namespace: 1, Generation: 1, Host: h, Fleet: b.Fleet}
	if _, err := rebuild.Run(ctx, opt); !errors.Is(err, rebuild.ErrMissing) {
		t.Errorf("a node is missing: %v", err)
	}
	opt.MayMiss = 1
	b.Take(o.Chunks[0].Fragments[1].OSD)
	r, err := rebuild.Run(ctx, opt)
	check(t, err)
	told := false
	for _, f := range r.Findings {
		told = told || f.Name == "object-2" && f.Why != ""
	}
	if !told || r.Clean() || r.Entered+r.NotThere > len(want) {
		t.Errorf("%+v", r)
	}
	if _, err := h.Get(ctx, 1, "object-2", userfn.Consistent); !errors.Is(err, nsm.ErrNotFound) {
		t.Errorf("it was entered: %v", err)
	}
}

// After the host's state was lost and rebuilt, every object reads back as it was, also with any
// one disk away; a fragment that is lost then is made again; and what is written goes on.
func TestAsGoodAsNew(t *testing.T) {
	b, want := filled(t)
	b.States[1].Edit(func(tx userfn.Tx) {
		var keys [][]byte
		tx.Range([]byte("nsm/"), userfn.PrefixEnd([]byte("nsm/")), 1_000_000, func(k, _ []byte) bool {
			keys = append(keys, append([]byte(nil), k...))
			return true
		})
		for _, k := range keys {
			tx.Delete(k)
		}
	})
	messages := []nsm.Message{{Kind: nsm.MessageImportNamespace, Namespace: 1, Generation: 1}}
	for n := range b.Disks {
		messages = append([]nsm.Message{{Kind: nsm.MessageLinkOSD, OSD: n, Node: "node"}}, messages...)
	}
	_, err := b.NSM.Deliver(ctx, 1, messages)
	check(t, err)
	r, err := rebuild.Run(ctx, rebuild.Options{Namespace: 1, Generation: 1, Host: b.NSM, Fleet: b.Fleet})
	check(t, err)
	if !r.Clean() {
		t.Errorf("%+v", r)
	}
	same := func() {
		t.Helper()
		for name, data := range want {
			b.Invalidate(1, name)
			got := make([]byte, len(data))
			if _, err := b.Namespace("vdisk").Get(ctx, name, got, 0); err != nil || string(got) != string(data) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	same()
	b.Check()
	for n := range b.Disks {
		b.Take(n)
		same()
		b.Return(n)
	}
	list, err := b.Disks[1].Range(ctx, nil, []byte("p"), 1)
	check(t, err)
	check(t, b.Disks[1].Apply(ctx, nil, []osd.Update{{Key: list[0].Key, Delete: true}}))
	check(t, b.Work.FindAbsent(ctx))
	if n := b.Work.Stats().Repaired; n != 1 {
		t.Errorf("%d fragments were made again", n)
	}
	same()
	info, err := b.Namespace("vdisk").Stat(ctx, "catalog")
	check(t, err)
	_, err = b.Namespace("vdisk").PutIf(ctx, "catalog", []byte("next"), info.Version)
	check(t, err)
	check(t, b.Namespace("vdisk").Put(ctx, "new", make([]byte, 70_000)))
}

// When a fragment is deleted, its record is too.
func TestRecordsGoWithFragments(t *testing.T) {
	b, want := filled(t)
	var names []string
	for name := range want {
		names = append(names, name)
	}
	check(t, b.Namespace("vdisk").Delete(ctx, names, nil))
	check(t, b.Work.Survey(ctx))
	b.Check()
	for n, d := range b.Disks {
		list, err := d.Range(ctx, nil, nil, 1000)
		check(t, err)
		for _, info := range list {
			if k, err := manifest.ParseRecoveryKey(info.Key); err != nil || !k.Inline() {
				t.Errorf("disk %d has %x", n, info.Key)
			}
		}
	}
}

// A record whose fragment is not there is not taken for it.
func TestRecordWithoutFragment(t *testing.T) {
	b, _ := filled(t)
	o, err := b.NSM.Get(ctx, 1, "object-2", userfn.Consistent)
	check(t, err)
	for j, f := range o.Chunks[0].Fragments[:2] {
		k := manifest.Key{Namespace: 1, Object: o.ID, Fragment: uint8(j), Version: f.Version}
		check(t, b.Disks[f.OSD].Apply(ctx, nil, []osd.Update{{Key: k.Append(nil), Delete: true}}))
	}
	_, h := lost(t, b)
	r, err := rebuild.Run(ctx, rebuild.Options{Namespace: 1, Generation: 1, Host: h, Fleet: b.Fleet})
	check(t, err)
	if len(r.Findings) != 1 || r.Findings[0].Name != "object-2" {
		t.Errorf("%+v", r)
	}
}

// What was written before there were records is given them, and so is the inline object
// whose client died.
func TestRecordsOfBefore(t *testing.T) {
	b, want := filled(t)
	for _, d := range b.Disks {
		list, err := d.Range(ctx, []byte("r"), nil, 1000)
		check(t, err)
		for _, info := range list {
			check(t, d.Apply(ctx, nil, []osd.Update{{Key: info.Key, Delete: true}}))
		}
	}
	check(t, b.Work.FindAbsent(ctx))
	_, h := lost(t, b)
	r, err := rebuild.Run(ctx, rebuild.Options{Namespace: 1, Generation: 1, Host: h, Fleet: b.Fleet})
	check(t, err)
	if !r.Clean() || r.Entered != len(want) {
		t.Errorf("%+v", r)
	}
	b.Check()
}

// What records cost: at most 2 % of the bytes written, keys and heads of entries (48 bytes and a
// CRC) among that, for an object of 16 MiB.
func TestCost(t *testing.T) {
	p := preset.Default(6)
	p.Policies = []policy.Policy{{K: 4, M: 2, C: 5, X: 6}}
	b := albatest.New(t, 6, p, nil)
	name := "0f0e0d0c-0b0a-0908-0706-050403020100"
	check(t, b.CreateNamespace(ctx, name))
	data := make([]byte, 16<<20)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(data)
	check(t, b.Namespace(name).Put(ctx, "sco-000000001", data))
	b.Settle()
	var all, cost, n uint64
	for _, d := range b.Disks {
		list, err := d.Range(ctx, nil, nil, 1000)
		check(t, err)
		for _, info := range list {
			all += uint64(info.Size)
			if _, err := manifest.ParseRecoveryKey(info.Key); err == nil {
				n++
				cost += uint64(info.Size) + uint64(len(info.Key)) + 48 + 4
			}
		}
	}
	t.Logf("%d records cost %d bytes of %d: %.3f %%", n, cost, all, 100*float64(cost)/float64(all))
	if n == 0 || cost*50 > all {
		t.Errorf("%d records cost %d bytes of %d", n, cost, all)
	}
}
