package arakoon

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	pb "go.etcd.io/raft/v3/raftpb"
)

// A mark that is applied while a term begins is not missed: what the state says counts only up
// to what was applied before it was asked.
func TestMarkAppliedMeanwhile(t *testing.T) {
	s := &stepper{conf: &pb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}, progress: &progress{waiters: map[chan struct{}]uint64{}}}
	s.progress.advance(7, 1)
	y := newSynced(Options{Tick: time.Second, SyncPatience: SyncPatience}, func() (marked, intended []uint64, err error) {
		defer s.progress.advance(9, 1) // with a mark at 8 that names member 2
		return nil, nil, nil
	})
	y.begin(s, 2, 10)
	if y.required[2] == nil {
		t.Error("a learner that the newest mark names is not required")
	}
}

// A learner that has acknowledged the first entry of a term before the leader's own log has is
// not waited for: it does not say so again.
func TestLearnerAcknowledgesFirst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := inSync(t)
		n := c.node(1)
		c.net.mu.Lock()
		delete(c.net.nodes, 1)
		c.net.mu.Unlock()
		if err := n.Close(); err != nil { // so that all of its log is applied, also after the start
			t.Fatal(err)
		}
		change := c.change
		c.change = func(id uint64, o *Options) {
			change(id, o)
			f := faultdisk.New(o.FS.(disk.FS))
			late := func(faultdisk.Op, string) { time.Sleep(20 * time.Millisecond) }
			f.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "*.raft", Before: late})
			f.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "spare", Before: late})
			o.FS = f
		}
		c.start(1)
		n = c.leader(1)
		began := time.Now()
		var absent *ErrNotFound
		if _, err := n.Get(t.Context(), Consistent, []byte("none")); !errors.As(err, &absent) {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the first read was answered after %v", took)
		}
		if s := n.Status(); !slices.Equal(s.InSync, []uint64{2}) {
			t.Errorf("a learner that holds everything was dropped: %+v", s)
		}
	})
}

// A mark that is left of an earlier life names nobody any more when the members change: whoever
// it names could be a learner again, and would say that it lacks nothing.
func TestMarkOfEarlierLife(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := inSync(t)
		c.kill(1, killed)
		c.kill(2, killed)
		n := c.recovered(2, 1)
		if marked, err := n.markedIn(); err != nil || !slices.Equal(marked, []uint64{2}) {
			t.Fatalf("marked in the beginning: %v, %v", marked, err)
		}
		if err := n.AddLearner(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		if marked, err := n.markedIn(); err != nil || len(marked) > 0 {
			t.Errorf("marked when the members have changed: %v, %v", marked, err)
		}
	})
}

// A member whose learner's host refuses it may be of an older life: it answers no read either.
func TestRefusedByLearnerReadsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := inSync(t)
		n := c.node(1)
		set(t, n, "a", "1")
		c.cutOff(2)
		n.ReportRefused(2, true)
		time.Sleep(time.Second)
		was, _ := n.AsOf()
		brief, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if v, err := n.Get(brief, Consistent, []byte("a")); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a read is answered: %q, %v", v, err)
		}
		time.Sleep(time.Second)
		if now, _ := n.AsOf(); now.After(was) {
			t.Error("it says that all is there as of a time at which another life may have answered")
		}
		c.cutOff()
		n.ReportRefused(2, false)
		has(t, n, "a", "1")
	})
}

// A leader that lacks a zone does not know how old its state is: the group may have been
// recovered in the other zone.
func TestNoAgeWithoutTheZone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := zoned(t, 2)
		c.grow(3)
		n := c.leaderInA()
		c.require(n, 2, false)
		follower := c.node(3 - n.opt.Member)
		c.knows(n, time.Now())
		c.knows(follower, time.Now())
		c.cutOff(3)
		time.Sleep(20 * time.Second)
		cut := time.Now()
		for range 10 {
			for _, m := range []*Node{n, follower} {
				if asOf, _ := m.AsOf(); asOf.After(cut) {
					t.Fatalf("member %d says that it has everything as of %v after the other zone was cut off", m.opt.Member, asOf.Sub(cut))
				}
			}
			time.Sleep(time.Second)
		}
		c.cutOff()
		c.knows(n, time.Now())
		c.knows(follower, time.Now())
	})
}

// Reads that wait for a leader are forgotten when nobody waits for them any more, however long
// there is none.
func TestReadsThatEndAreForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		c.kill(2, killed)
		c.kill(3, killed)
		n := c.node(1)
		time.Sleep(10 * time.Second)
		for range 1000 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			if _, err := n.Get(ctx, Consistent, []byte("a")); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			cancel()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		var left int
		if err := ask(t.Context(), n, func(s *stepper) error { left = len(s.reads); return nil }); err != nil || left > 0 {
			t.Errorf("%d reads are kept, %v", left, err)
		}
	})
}

// A file of a snapshot whose sync has failed is removed, also if the member ends at that moment:
// another sync of it would succeed, and say nothing.
func TestFileOfFailedSyncGoes(t *testing.T) {
	d := faultdisk.New(crashdisk.New())
	if err := d.MkdirAll("/in", 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := d.OpenFile("/in/a", disk.Write|disk.Create, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("abc"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	size, sum, err := sumFile(d, "/in/a", func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	d.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "/in/a", Times: 1, Before: func(faultdisk.Op, string) { cancel() }, Err: errors.New("bad sector")})
	i := &incoming{opt: Options{FS: d}}
	if err := i.verify(ctx, "/in", []SnapshotFile{{"a", size, sum}}); err == nil {
		t.Fatal("it is good")
	}
	if _, err := d.Stat("/in/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there still: %v", err)
	}
}
