package recovery

import (
	"context"
	"errors"
	"math/rand/v2"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"openvstorage/arakoon"
	"openvstorage/arakoon/groups"
	"openvstorage/arakoon/roster"
	"openvstorage/host/cluster"
	"openvstorage/host/groupkeys"
	"openvstorage/host/members"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

const dir = "/data"

var (
	first = uuid.MustParse("6ba7b810-9dad-41d1-80b4-00c04fd430c8") // the host that is lost, and the cluster
	specs = []groups.Spec{{Name: "abm"}, {Name: members.Config}}
)

// wires brings the messages of two members to each other.
type wires struct {
	mu sync.Mutex
	to map[uint64]*arakoon.Node
}

func (w *wires) Send(messages []*pb.Message) {
	for _, m := range messages {
		w.mu.Lock()
		n := w.to[m.GetTo()]
		w.mu.Unlock()
		if n != nil {
			_ = n.Step(proto.Clone(m).(*pb.Message))
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// two makes the data directory of a second host: learners of all groups, in sync, with a key.
func two(t *testing.T) *crashdisk.FS {
	t.Helper()
	fs, lost := crashdisk.New(), crashdisk.New()
	d, err := datadir.Open(fs, dir)
	must(t, err)
	must(t, d.Change(func(r *datadir.Record) { r.Cluster, r.Groups = first, []string{"abm.2", "registry.2"} }))
	list := &roster.Roster{Revision: 3, Hosts: []roster.Host{{ID: first, Addresses: []string{"127.0.0.1:1"}}, {ID: d.ID, Addresses: []string{"127.0.0.1:2"}, Leaves: true, Maintenance: true}}}
	for _, s := range specs {
		list.PutGroup(roster.Group{Name: s.Name, Next: 3, Members: []roster.Member{{ID: 1, Host: first}, {ID: 2, Host: d.ID}}})
	}
	list.Sort()
	for _, s := range specs {
		learn(t, lost, fs, s.Name, func(n *arakoon.Node) {
			if s.Name == members.Config {
				must(t, (roster.Book{Store: &groupkeys.Keys{Node: n}}).Change(t.Context(), func(r *roster.Roster) error {
					r.Hosts, r.Groups = list.Hosts, list.Groups
					return nil
				}))
			}
			_, err := n.Do(t.Context(), new(arakoon.Sequence).Set([]byte("k"), []byte(s.Name)))
			must(t, err)
		})
	}
	f, err := members.LoadRoster(fs, dir, first)
	must(t, err)
	must(t, f.Put(list))
	must(t, d.Close())
	return fs
}

// learn makes a group of a voter on one disk and a learner in sync on the other, and ends both.
func learn(t *testing.T, one, two *crashdisk.FS, name string, write func(*arakoon.Node)) {
	t.Helper()
	w := &wires{to: map[uint64]*arakoon.Node{}}
	must(t, two.MkdirAll(path.Join(dir, "arakoon"), 0o700))
	opt := arakoon.Options{
		FS: one, Dir: "/one/" + name, Cluster: groups.Cluster(first, name), Member: 1, Transport: w, SyncPatience: arakoon.SyncPatience,
		SegmentBytes: 64 << 10, MemTableBytes: 256 << 10, StateCacheBytes: 1 << 20,
	}
	must(t, one.MkdirAll("/one", 0o700))
	voter, err := arakoon.Open(opt)
	must(t, err)
	opt.FS, opt.Dir, opt.Member, opt.Joining = two, path.Join(dir, "arakoon", name+".2"), 2, true
	learner, err := arakoon.Open(opt)
	must(t, err)
	w.mu.Lock()
	w.to[1], w.to[2] = voter, learner
	w.mu.Unlock()
	must(t, voter.AddLearner(t.Context(), 2))
	for !slices.Equal(voter.Status().InSync, []uint64{2}) {
		time.Sleep(10 * time.Millisecond) // the bubble's
	}
	write(voter)
	must(t, errors.Join(voter.Close(), learner.Close()))
}

func away(context.Context, uuid.UUID, string) error { return cluster.ErrAway }

func options(fs disk.FS) Options { return Options{FS: fs, Dir: dir, Specs: specs, Ask: away} }

// recovers takes a recovery from where it is to its end.
func recovers(t *testing.T, fs disk.FS) Plan {
	t.Helper()
	r, err := Open(t.Context(), options(fs))
	must(t, err)
	must(t, errors.Join(r.Run(t.Context()), r.Close()))
	return r.Plan()
}

// done checks that a directory is recovered.
func done(t *testing.T, fs disk.FS) {
	t.Helper()
	must(t, Check(fs, dir))
	d, err := datadir.Open(fs, dir)
	must(t, err)
	defer d.Close()
	if r := d.Record(); r.Life != 1 || r.Suspended.IsZero() {
		t.Errorf("the record has life %d, and deletion is suspended since %v", r.Life, r.Suspended)
	}
	f, err := members.LoadRoster(fs, dir, first)
	must(t, err)
	for _, s := range specs {
		g, _ := f.Now().Group(s.Name)
		if g.Life != 1 || g.Next != 3 || !slices.Equal(g.Members, []roster.Member{{ID: 2, Host: d.ID}}) {
			t.Errorf("the roster has %+v", g)
		}
		n, err := arakoon.Open(arakoon.Options{FS: fs, Dir: path.Join(dir, "arakoon", s.Name+".2"), Cluster: groups.Cluster(first, s.Name), Member: 2, Existing: true, Life: 1, SameLife: true})
		must(t, err)
		v, err := n.MultiGet(t.Context(), arakoon.Consistent, []byte("k"))
		must(t, errors.Join(err, n.Close()))
		if string(v[0]) != s.Name {
			t.Errorf("group %s holds %q", s.Name, v[0])
		}
	}
	if h, _ := f.Now().Host(d.ID); h.Leaves || h.Maintenance {
		t.Errorf("the host that is left is to do without itself: %+v", h)
	}
	if _, known := f.Now().Host(first); known {
		t.Error("the host that was given up is in the roster")
	}
}

// A power cut anywhere in a recovery leaves a directory that was not touched yet, one that
// ovs up refuses, or one that is recovered; and the next try ends it.
func TestCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := two(t)
		unfinished := 0
		for at, ended := 0, false; !ended; at += 9 {
			under := before.Kill()
			faulty := faultdisk.New(under)
			var images []*crashdisk.FS
			var mu sync.Mutex
			rng := rand.New(rand.NewPCG(uint64(at), 1))
			cut := faulty.Inject(faultdisk.Rule{
				Ops:  faultdisk.Write | faultdisk.Datasync | faultdisk.Rename | faultdisk.SyncDir,
				Skip: at, Times: 1,
				Before: func(faultdisk.Op, string) {
					mu.Lock()
					defer mu.Unlock()
					for _, mode := range []crashdisk.Options{crashdisk.LoseAll, crashdisk.Mixed} {
						images = append(images, under.Crash(rng, mode))
					}
				},
			})
			if p := recovers(t, faulty); at == 0 && (p.Life != 1 || !p.Groups[0].InSync || !p.Groups[1].InSync || len(p.GivenUp) != 1) {
				t.Fatalf("%+v", p)
			}
			ended = cut.Fired() == 0
			done(t, under.Crash(rng, crashdisk.LoseAll))
			for _, image := range images {
				err := Check(image, dir)
				d, e := readDecision(image, dir)
				must(t, e)
				switch {
				case errors.Is(err, ErrUnfinished) && strings.Contains(err.Error(), "ovs recover"):
					unfinished++
				case err != nil:
					t.Fatal(err)
				case d != nil:
					done(t, image)
					continue
				}
				time.Sleep(time.Minute)
				recovers(t, image)
				done(t, image)
				now, e := readDecision(image, dir)
				must(t, e)
				if d != nil && (!now.Began.Equal(d.Began) || !reflect.DeepEqual(now.Groups, d.Groups)) {
					t.Errorf("decided: %+v; after it was taken up again: %+v", d, now)
				}
			}
		}
		if unfinished < 5 {
			t.Errorf("only %d cuts left something unfinished", unfinished)
		}
	})
}

// Nothing is recovered, or changed, while a voter that the group needs may be there: also if it
// takes connections and says nothing.
func TestMajorityIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := two(t)
		for _, answer := range []error{nil, context.DeadlineExceeded} {
			o := options(fs)
			o.Ask = func(context.Context, uuid.UUID, string) error { return answer }
			if _, err := Open(t.Context(), o); !errors.Is(err, ErrMajority) || !strings.Contains(err.Error(), first.String()) {
				t.Errorf("it answers with %v: %v", answer, err)
			}
		}
		o := options(fs)
		o.Groups = []string{"abm"}
		if _, err := Open(t.Context(), o); !errors.Is(err, ErrNothing) || !strings.Contains(err.Error(), members.Config) {
			t.Errorf("without the config group: %v", err)
		}
		recovers(t, fs)
		if _, err := Open(t.Context(), options(fs)); !errors.Is(err, ErrMajority) {
			t.Errorf("once more: %v", err)
		}
		done(t, fs)
	})
}

// What the first try has seen in a log is not there any more when it was cut short: numbers of
// members that the roster does not know.
func TestNumbersOfTheFirstTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := two(t)
		r, err := Open(t.Context(), options(fs))
		must(t, err)
		p := r.Plan()
		must(t, r.Close())
		p.Groups[0].Next = 9 // it was 3
		must(t, (&decision{Version: decisionVersion, Life: p.Life, Groups: p.Groups, GivenUp: p.GivenUp}).write(fs, dir))
		recovers(t, fs)
		f, err := members.LoadRoster(fs, dir, first)
		must(t, err)
		if g, _ := f.Now().Group(p.Groups[0].Name); g.Next != 9 {
			t.Errorf("the next member of group %s would be %d", g.Name, g.Next)
		}
	})
}
