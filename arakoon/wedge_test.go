package arakoon

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/arakoon/state"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	pb "go.etcd.io/raft/v3/raftpb"
)

// stallable is a group whose only voter, member 1, has a disk that can be made to hang:
// nobody else can take the lead.
type stallable struct {
	*absent
	faults *faultdisk.FS
	free   chan struct{}
}

func newStallable(t *testing.T) *stallable {
	s := &stallable{absent: &absent{cluster: newCluster(t)}, free: make(chan struct{})}
	s.change = func(id uint64, o *Options) {
		o.SegmentBytes, o.MemTableBytes, o.CompactBytes = 64<<10, 256<<10, 128<<10
		if id == 1 {
			s.faults = faultdisk.New(o.FS)
			o.FS = s.faults
		}
		o.Fetcher = &carrier{c: s.cluster, fs: o.FS}
	}
	s.lead = s.start(1)
	s.start(2)
	if err := s.lead.AddLearner(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	return s
}

// stall has the log's disk hang, under do, until free is closed, and returns when the
// leader has fallen silent.
func (s *stallable) stall(do func()) (done chan struct{}) {
	wait := func(faultdisk.Op, string) { <-s.free }
	s.faults.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "*.raft", Before: wait})
	s.faults.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "spare", Before: wait})
	done = make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	s.until("a leader that fell silent", func() bool { return strings.Contains(s.lead.Status().Obstacle, "disk") })
	return done
}

// A leader that fell silent as its disk hung, and is alone when the disk answers, leads on.
func TestSilentLeaderIsLeftAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newStallable(t)
		done := s.stall(func() { _ = s.lead.Remove(t.Context(), 2) }) // its outcome is not known
		close(s.free)
		<-done
		s.until("a member that leads alone", func() bool { return len(s.lead.Members().All()) == 1 && s.lead.Leading() })
		set(t, s.lead, "a", "1")
		has(t, s.lead, "a", "1")
	})
}

// A leader that fell silent sends no word of a snapshot. It does not wait for ever for the
// member to have fetched it.
func TestSilentLeaderHasASnapshot(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newStallable(t)
		set(t, s.lead, "old", "1")
		s.same("old", "1")
		s.kill(2, killed)
		s.fill(0, 60)
		s.until("a log that was cut", func() bool { return s.lead.log.Marker().Index > 40 })
		done := s.stall(func() { _, _ = s.lead.Do(t.Context(), new(Sequence).Set([]byte("a"), []byte("1"))) })
		s.until("a snapshot", func() bool { _, err := s.lead.source.snapshot(); return err == nil })
		// An answer that was under way.
		if err := s.lead.Step(&pb.Message{
			Type: pb.MsgAppResp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(s.lead.Status().Term),
			Index: new(s.lead.Applied()), Reject: new(true),
		}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		close(s.free)
		<-done
		s.start(2)
		s.same("last", "60")
	})
}

// A snapshot that is dropped before raft's word of it is sent counts as not fetched: raft
// sends that member nothing else until it is told.
func TestSnapshotDroppedBeforeItIsSent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newStallable(t)
		n := s.lead
		s.until("a snapshot", func() bool { _, err := n.source.snapshot(); return err == nil })
		snap, err := n.source.snapshot()
		if err != nil {
			t.Fatal(err)
		}
		alone := &source{work: newQueue[any](), behind: map[uint64]*follower{}}
		alone.sentTo(2, snap.GetData(), time.Now())
		if told := alone.work.take(); len(told) != 1 || len(told[0].(snapshotFailed)) != 1 || told[0].(snapshotFailed)[0] != 2 {
			t.Errorf("raft is told %v", told)
		}
	})
}

// What comes for a node that has ended takes no memory, however long it is not closed.
func TestEndedNodeGathersNothing(t *testing.T) {
	n := open(t, testOptions(crashdisk.New()))
	n.end.fail(errors.New("gone"))
	n.end.running.Wait()
	n.work.take()
	for range 10 {
		n.ReportUnreachable(2)
		if _, err := n.RequireZones(t.Context(), 1, false); !errors.Is(err, ErrFailed) {
			t.Error(err)
		}
		if s := n.Status(); s.Role != RoleFailed {
			t.Error(s)
		}
		if err := n.Transfer(t.Context(), 0); !errors.Is(err, ErrFailed) {
			t.Error(err)
		}
		if err := n.Remove(t.Context(), 2); !errors.Is(err, ErrFailed) || errors.Is(err, ErrUnknownOutcome) {
			t.Error(err)
		}
	}
	if left := n.work.take(); len(left) > 0 {
		t.Errorf("%d items wait for nobody", len(left))
	}
}

// A member that has joined knows of no members until it has applied the first change of
// them. Its hash from before that would differ from the others'.
func TestHashBeforeJoining(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		n := c.start(1)
		if err := n.RaiseLevel(t.Context(), state.LevelNewest, false); err != nil {
			t.Fatal(err)
		}
		index, sum, err := n.Hash(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.start(2)
		if err := n.AddLearner(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		c.until("a learner that follows", func() bool { return len(c.node(2).Members().Learners) == 1 })
		if got, err := c.node(2).HashAt(t.Context(), index); err == nil && got != sum || err != nil && !errors.Is(err, ErrNoHash) {
			t.Errorf("member 2 has hash %x, %v, and member 1 has %x", got, err, sum)
		}
		if index, sum, err = n.Hash(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := c.node(2).HashAt(t.Context(), index); err != nil || got != sum {
			t.Errorf("member 2 has hash %x, %v, and member 1 has %x", got, err, sum)
		}
	})
}

// A dump shows the state in use, also of a member that has taken another's and was not
// opened since.
func TestDumpAfterAnInstall(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := away(t)
		n := a.start(3)
		a.whole(60)
		if _, err := n.state.Flush(); err != nil {
			t.Fatal(err)
		}
		a.kill(3, killed)
		var out bytes.Buffer
		if err := Dump(a.disks[3], "/node", &out, 3); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), `key "k59"`) {
			t.Error("the state in use is not in it")
		}
	})
}

// While nobody has said that these are the newest files no snapshot is made: making one
// flushes the state.
func TestNoSnapshotOfHeldFiles(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.change = func(_ uint64, o *Options) { o.HoldCompaction = true }
		n := c.start(1)
		set(t, n, "a", "1")
		was := n.state.state().Durable()
		for range 10 {
			if _, err := n.source.snapshot(); err == nil {
				t.Fatal("a snapshot")
			}
			time.Sleep(time.Second)
		}
		if now := n.state.state().Durable(); now.Index != was.Index {
			t.Errorf("the state was durable up to entry %d, and is up to %d", was.Index, now.Index)
		}
		n.MayCompact()
		c.until("a snapshot", func() bool { _, err := n.source.snapshot(); return err == nil })
	})
}
