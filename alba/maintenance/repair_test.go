package maintenance_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/alba/albatest"
	"openvstorage/alba/client"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"
)

var errBroken = errors.New("broken")

// narrow makes a backend of three disks with n objects that lack the fragments of
// disk 3, which is there again.
func narrow(t *testing.T, n int) *albatest.Backend {
	t.Helper()
	b := albatest.New(t, 3, twoOne, nil)
	b.Take(3)
	fill(t, b, "ns", n)
	b.Return(3)
	return b
}

// rested ends the time for which disks are left alone: the set of disks is what it
// was before one of them failed.
func rested(b *albatest.Backend) {
	for _, d := range b.Fleet.All() {
		d.TryAgain()
	}
}

// wide demands that every object has its width now, and that nothing is left over.
func wide(t *testing.T, b *albatest.Backend, n int) {
	t.Helper()
	check(t, b.Work.Repair(ctx))
	check(t, b.Work.Survey(ctx))
	if left := b.Work.Narrow(); left != 0 {
		t.Fatalf("%d objects are below full width: %+v", left, b.Work.Stats())
	}
	if s := b.Work.Stats(); s.Waiting != 0 || s.NoPlace != 0 || s.Unreadable != 0 {
		t.Errorf("it still waits for something: %+v", s)
	}
	check(t, b.Work.Collect(ctx, 0))
	b.Check()
	for n := range uint64(3) {
		if bad, _, err := b.Disks[1+n].Verify(ctx, nil, 1000); err != nil || len(bad) != 0 {
			t.Errorf("disk %d: %v, %v", 1+n, bad, err)
		}
	}
	b.Take(1)
	verify(t, b, "ns", n)
	b.Return(1)
}

// One failed call to a disk, of any kind and at any time, leaves nothing that is not
// made again, though the disks are the same ones afterwards.
func TestOneFailureStopsNothing(t *testing.T) {
	for _, op := range []osdtest.Op{osdtest.Apply, osdtest.Read} {
		for _, after := range []bool{false, true} {
			for skip := range 8 {
				b := narrow(t, 6)
				var rules []*osdtest.Injected
				for _, f := range b.Faults {
					rules = append(rules, f.Add(osdtest.Rule{Ops: []osdtest.Op{op}, Skip: skip, Count: 1, Err: errBroken, After: after}))
				}
				_ = b.Work.Survey(ctx)
				rested(b)
				_ = b.Work.Survey(ctx)
				rested(b)
				for _, r := range rules {
					r.Remove()
				}
				wide(t, b, 6)
			}
		}
	}
}

// caller fails calls to the NSM, before or after they took effect.
type caller struct {
	*albatest.Backend
	skip  atomic.Int32 // calls that pass; then one fails
	name  string
	after bool
}

func (c *caller) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	fail := strings.Contains(name, c.name) && c.skip.Add(-1) == -1
	if fail && !c.after {
		return nil, errBroken
	}
	result, err := c.States[1].Call(ctx, name, version, arg)
	if fail && err == nil {
		return nil, errBroken
	}
	return result, err
}

// A commit whose outcome is unknown is neither: whether it took effect or not, the
// next try goes on from there.
func TestUnknownOutcomeOfRepair(t *testing.T) {
	for _, after := range []bool{false, true} {
		for skip := range int32(5) {
			b := narrow(t, 3)
			c := &caller{Backend: b, name: "update", after: after}
			c.skip.Store(skip)
			o := b.WorkOptions()
			o.Host = func(uint64) (*nsm.Client, error) { return nsm.NewClient(c, b.States[1]), nil }
			b.Work = maintenance.New(o)
			check(t, b.Work.Survey(ctx))
			if left := c.skip.Load(); left >= 0 {
				t.Fatalf("no outcome was unknown: %d calls are missing", left+1)
			}
			wide(t, b, 3)
		}
	}
}

// A fragment that was reported bad is not missing to the NSM: if its repair fails,
// nobody but the report knows of it.
func TestReportOutlivesItsFailure(t *testing.T) {
	b := albatest.New(t, 4, twoOne, nil)
	fill(t, b, "ns", 1)
	o, err := b.NSM.Get(ctx, 1, "o0", userfn.Consistent)
	check(t, err)
	f := o.Chunks[0].Fragments[0]
	k := manifest.Key{Namespace: 1, Object: o.ID}
	if !b.Disks[f.OSD].Corrupt(k.Append(nil), 100) {
		t.Fatal("there is no such fragment")
	}
	var rules []*osdtest.Injected
	for _, faults := range b.Faults {
		rules = append(rules, faults.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Err: errBroken}))
	}
	b.Work.Bad(client.Bad{Namespace: 1, Name: "o0", Object: o.ID, OSD: f.OSD})
	if err := b.Work.Repair(ctx); !errors.Is(err, errBroken) {
		t.Fatalf("repair on broken disks: %v", err)
	}
	if s := b.Work.Stats(); s.Waiting != 1 || s.Failures != 1 {
		t.Errorf("after a failure: %+v", s)
	}
	for _, r := range rules {
		r.Remove()
	}
	rested(b)
	check(t, b.Work.Repair(ctx))
	if s := b.Work.Stats(); s.Waiting != 0 || s.Repaired != 1 {
		t.Errorf("after the repair: %+v", s)
	}
	check(t, b.Work.Survey(ctx))
	b.Check()
	for number, d := range b.Disks {
		if bad, _, err := d.Verify(ctx, nil, 1000); err != nil || len(bad) != 0 {
			t.Errorf("disk %d: %v, %v", number, bad, err)
		}
	}
}

// A read that fails for another reason than the fragment says nothing about it.
func TestErrorIsNotDamage(t *testing.T) {
	b := albatest.New(t, 4, twoOne, nil)
	fill(t, b, "ns", 1)
	o, err := b.NSM.Get(ctx, 1, "o0", userfn.Consistent)
	check(t, err)
	f := o.Chunks[0].Fragments[0]
	b.Faults[f.OSD].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Read}, Err: errBroken, Count: 1})
	b.Work.Bad(client.Bad{Namespace: 1, Name: "o0", Object: o.ID, OSD: f.OSD})
	if err := b.Work.Repair(ctx); !errors.Is(err, errBroken) {
		t.Errorf("repair: %v", err)
	}
	check(t, b.Work.Repair(ctx))
	if s := b.Work.Stats(); s.Repaired != 0 || s.Waiting != 0 {
		t.Errorf("a good fragment: %+v", s)
	}
	b.Check()
}

// clock is a clock that tests move.
type clock struct{ now atomic.Int64 }

func (c *clock) Now() time.Time       { return time.Unix(1, c.now.Load()) }
func (c *clock) pass(d time.Duration) { c.now.Add(int64(d)) }
func (c *clock) ticking() time.Time   { c.pass(time.Millisecond); return c.Now() }
func of(name string) func(k []byte) bool {
	return func(k []byte) bool { return strings.Contains(string(k), name) }
}

// What fails is tried again after a second, two, four, and so on up to the bound,
// and the others are repaired meanwhile.
func TestBackOff(t *testing.T) {
	b := narrow(t, 4)
	c := new(clock)
	opt := b.WorkOptions()
	opt.Now, opt.Retry, opt.RetryMax = c.Now, time.Second, 8*time.Second
	b.Work = maintenance.New(opt)
	o, err := b.NSM.Get(ctx, 1, "o2", userfn.Consistent)
	check(t, err)
	rule := b.Faults[3].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Match: of(string(o.ID[:])), Err: errBroken})
	survey := func(narrow, hits int) {
		t.Helper()
		rested(b)
		_ = b.Work.Repair(ctx)
		rested(b)
		check(t, b.Work.Survey(ctx))
		if got := b.Work.Narrow(); got != uint64(narrow) || rule.Hits() != hits || b.Work.Stats().Waiting != 1 {
			t.Fatalf("%d narrow, %d tries: %+v", got, rule.Hits(), b.Work.Stats())
		}
	}
	_ = b.Work.Survey(ctx) // with the disk resting, some others wait for it
	survey(1, 1)
	for i, wait := range []time.Duration{1, 2, 4, 8, 8} {
		c.pass(wait*time.Second - 1)
		survey(1, 1+i)
		c.pass(1)
		survey(1, 2+i)
	}
	rule.Remove()
	c.pass(8 * time.Second)
	rested(b)
	check(t, b.Work.Repair(ctx))
	b.Work = maintenance.New(b.WorkOptions())
	wide(t, b, 4)
}

// lists counts the pages of objects that are asked for.
type lists struct {
	*albatest.Backend
	n atomic.Int32
}

func (l *lists) MultiGet(ctx context.Context, keys [][]byte, c userfn.Consistency) ([][]byte, error) {
	return l.States[1].MultiGet(ctx, keys, c)
}

func (l *lists) Range(ctx context.Context, first, last []byte, limit int, c userfn.Consistency) (p []userfn.Pair, err error) {
	if strings.HasPrefix(string(first), "nsm/B") {
		l.n.Add(1)
	}
	return l.States[1].Range(ctx, first, last, limit, c)
}

// What the disks do not allow is counted, and not looked at in vain: not before they
// have changed, or much time has passed.
func TestBeyondTheDisks(t *testing.T) {
	b := albatest.New(t, 3, twoOne, nil)
	b.Take(3)
	fill(t, b, "ns", 50)
	c, l := new(clock), &lists{Backend: b}
	opt := b.WorkOptions()
	opt.Now = c.ticking // each look at the clock takes a millisecond
	opt.Host = func(uint64) (*nsm.Client, error) { return nsm.NewClient(b.States[1], l), nil }
	b.Work = maintenance.New(opt)
	looked := func(want bool) {
		t.Helper()
		was := l.n.Load()
		check(t, b.Work.Survey(ctx))
		if got := l.n.Load() > was; got != want {
			t.Errorf("looked: %v", got)
		}
		if s := b.Work.Stats(); b.Work.Narrow() != 50 || s.NoPlace != 50 || s.Waiting != 0 {
			t.Errorf("%d narrow, %+v", b.Work.Narrow(), s)
		}
	}
	looked(true) // and has asked the disks how much they take
	looked(true)
	looked(false)
	looked(false)
	c.pass(time.Hour)
	looked(true)
	looked(false)
	b.Fleet.Disk(2).SetLeaving(true)
	looked(true)
	b.Fleet.Disk(2).SetLeaving(false)
	looked(true)
	b.Return(3)
	wide(t, b, 50)
}

// With too few disks there to read an object it waits for them, and is counted.
func TestUnreadableWaitsForDisks(t *testing.T) {
	b := narrow(t, 3)
	b.Take(1)
	check(t, b.Work.Survey(ctx))
	if s := b.Work.Stats(); s.Unreadable != 3 || s.Waiting != 0 || b.Work.Narrow() != 3 {
		t.Errorf("%+v", s)
	}
	b.Return(1)
	wide(t, b, 3)
}

// A full disk is no place, one with room again is.
func TestFullDiskIsNoPlace(t *testing.T) {
	b := narrow(t, 3)
	b.Disks[3].SetFull(true) // which nobody has noticed
	_ = b.Work.Survey(ctx)
	check(t, b.Fleet.Disk(3).Refresh(ctx))
	check(t, b.Work.Survey(ctx))
	if s := b.Work.Stats(); s.NoPlace+s.Waiting != 3 || b.Work.Narrow() != 3 {
		t.Errorf("%+v", s)
	}
	b.Disks[3].SetFull(false)
	check(t, b.Fleet.Disk(3).Refresh(ctx))
	wide(t, b, 3)
}

// A chunk lacks fragment 0, and fragment 1 is bad. The only disk that can take one
// is that of the bad one: it is rewritten there, and nothing is put beside it.
func TestOneDiskTakesOneFragment(t *testing.T) {
	b := albatest.New(t, 4, albatest.Small(policy.Policy{K: 2, M: 2, C: 2, X: 8}), nil)
	var rules []*osdtest.Injected
	for _, f := range b.Faults {
		rules = append(rules, f.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Err: errBroken, Match: func(key []byte) bool {
			k, err := manifest.ParseKey(key)
			return err == nil && k.Fragment == 0
		}}))
	}
	check(t, b.CreateNamespace(ctx, "ns"))
	check(t, b.Namespace("ns").Put(ctx, "o", osdtest.Data(50_000, 1)))
	o, err := b.NSM.Get(ctx, 1, "o", userfn.Consistent)
	check(t, err)
	for _, r := range rules {
		r.Remove()
	}
	rested(b)
	for n := range uint64(4) { // the disk that did not get fragment 0
		if !onDisk(o, 1+n) {
			b.Take(1 + n)
		}
	}
	f := o.Chunks[0].Fragments
	if f[0].OSD != policy.None || f[1].OSD == policy.None {
		t.Fatalf("fragments: %+v", f)
	}
	b.Disks[f[1].OSD].Corrupt(manifest.Key{Namespace: 1, Object: o.ID, Fragment: 1}.Append(nil), 5)
	b.Work.Bad(client.Bad{Namespace: 1, Name: "o", Object: o.ID, Fragment: 1, OSD: f[1].OSD})
	check(t, b.Work.Repair(ctx))
	if s := b.Work.Stats(); s.Repaired != 1 || s.Failures != 0 {
		t.Errorf("%+v", s)
	}
	check(t, b.Work.Survey(ctx))
	b.Check() // no orphan
	for n := range uint64(4) {
		if b.Fleet.Disk(1+n).Missing() != nil {
			b.Return(1 + n)
		}
	}
	check(t, b.Work.Survey(ctx))
	if b.Work.Narrow() != 0 {
		t.Error("with the fourth disk it is below full width")
	}
	b.Check()
}

func onDisk(o *nsm.Object, disk uint64) bool {
	for _, f := range o.Chunks[0].Fragments {
		if f.OSD == disk {
			return true
		}
	}
	return false
}

// A disk that the scrub cannot read does not keep it from the others, and what it
// found is not passed over while the NSM does not answer.
func TestScrubGoesOn(t *testing.T) {
	b := albatest.New(t, 3, twoOne, nil)
	fill(t, b, "ns", 2)
	list, err := b.Disks[2].Range(ctx, nil, nil, 1)
	check(t, err)
	b.Disks[2].Corrupt(list[0].Key, 0)
	b.Faults[1].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Verify}, Err: errBroken})
	away := true
	opt := b.WorkOptions()
	opt.Host = func(uint64) (*nsm.Client, error) {
		if away {
			return nil, fmt.Errorf("the NSM is away")
		}
		return b.NSM, nil
	}
	b.Work = maintenance.New(opt)
	if err := b.Work.ScrubSome(ctx, 1); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "away") {
		t.Errorf("scrub: %v", err)
	}
	away = false
	_ = b.Work.ScrubSome(ctx, 1)
	check(t, b.Work.Repair(ctx))
	if n := b.Work.Stats().Repaired; n != 1 {
		t.Errorf("%d fragments were repaired", n)
	}
	check(t, b.Work.Survey(ctx))
	b.Check()
}

// A disk that does not say what it has does not keep what others lack from being
// found, in whatever order they are asked.
func TestFindAbsentGoesOn(t *testing.T) {
	for broken := range uint64(3) {
		b := albatest.New(t, 4, twoOne, nil)
		fill(t, b, "a", 3)
		fill(t, b, "b", 3)
		lacks := 1 + (broken+1)%3
		list, err := b.Disks[lacks].Range(ctx, nil, []byte("p"), 1000) // without the recovery records
		check(t, err)
		last := list[len(list)-1].Key // of the second namespace
		check(t, b.Disks[lacks].Apply(ctx, nil, []osd.Update{{Key: last, Delete: true}}))
		b.Faults[1+broken].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Stat}, Err: errBroken})
		if err := b.Work.FindAbsent(ctx); !errors.Is(err, errBroken) {
			t.Errorf("with a broken disk: %v", err)
		}
		if n := b.Work.Stats().Repaired; n != 1 {
			t.Errorf("disk %d is broken: %d fragments were repaired", 1+broken, n)
		}
	}
}

// However failures fall, maintenance ends where all that the disks allow is done.
func TestRepairModel(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		b := albatest.New(t, 6, albatest.Small(policy.Policy{K: 2, M: 2, C: 2, X: 8}), nil)
		away := 1 + r.Uint64N(6)
		b.Take(away)
		fill(t, b, "ns", 5)
		b.Return(away)
		var rules []*osdtest.Injected
		for _, f := range b.Faults {
			for range 3 {
				rules = append(rules, f.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply, osdtest.Read, osdtest.Stat, osdtest.Range}, Skip: r.IntN(12), Count: 1 + r.IntN(2), Err: errBroken, After: r.IntN(2) == 0}))
			}
		}
		c := &caller{Backend: b, after: r.IntN(2) == 0}
		c.skip.Store(r.Int32N(20))
		opt := b.WorkOptions()
		opt.Host = func(uint64) (*nsm.Client, error) { return nsm.NewClient(c, b.States[1]), nil }
		b.Work = maintenance.New(opt)
		if r.IntN(2) == 0 {
			check(t, b.ABM.DecommissionOSD(ctx, 2))
			b.Fleet.Disk(2).SetLeaving(true)
		}
		for range 12 {
			switch r.IntN(4) {
			case 0:
				_ = b.Work.Collect(ctx, 0)
			case 1:
				_ = b.Work.FindAbsent(ctx)
			case 2:
				_ = b.Work.Repair(ctx)
			}
			_ = b.Work.Survey(ctx)
			rested(b)
		}
		for _, rule := range rules {
			rule.Remove()
		}
		c.skip.Store(-1)
		rested(b)
		check(t, b.Work.Survey(ctx))
		check(t, b.Work.Collect(ctx, 0))
		check(t, b.Work.Survey(ctx))
		if s := b.Work.Stats(); b.Work.Narrow() != 0 || s.Waiting != 0 || s.NoPlace != 0 {
			t.Fatalf("seed %d: %d narrow, %+v", seed, b.Work.Narrow(), s)
		}
		b.Check()
		verify(t, b, "ns", 5)
	}
}
