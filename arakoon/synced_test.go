package arakoon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	pb "go.etcd.io/raft/v3/raftpb"
)

// inSync is a group of a voter, member 1, and a learner, member 2, that is in sync.
func inSync(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t)
	c.change = func(_ uint64, o *Options) { o.SyncPatience = SyncPatience }
	first := c.start(1)
	c.start(2)
	if err := first.AddLearner(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	c.synced(1, 2)
	return c
}

// synced waits until learners are in sync, as the leader and its state have it.
func (c *cluster) synced(leader uint64, learners ...uint64) {
	c.t.Helper()
	c.until(fmt.Sprintf("learners %v are in sync", learners), func() bool {
		n := c.node(leader)
		marked, err := n.markedIn()
		return err == nil && slices.Equal(n.Status().InSync, learners) && slices.Equal(marked, learners)
	})
}

// write begins a write; its error comes later.
func write(t *testing.T, n *Node, key, value string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := n.Do(t.Context(), new(Sequence).Set([]byte(key), []byte(value)))
		done <- err
	}()
	return done
}

func answered(done <-chan error) bool {
	synctest.Wait()
	return len(done) > 0
}

// Nothing is answered, or seen, before the learner holds it. One that does not answer is
// dropped in the end, which is marked durably before anything is answered, and said; and it is
// in sync again when it has caught up.
func TestLearnerInSync(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := inSync(t)
		n := c.node(1)
		set(t, n, "a", "1")
		c.cutOff(2)
		began := time.Now()
		done := write(t, n, "a", "2")
		time.Sleep(SyncPatience - time.Second)
		if answered(done) {
			t.Fatalf("answered after %v without the learner", time.Since(began))
		}
		if v, err := n.Get(t.Context(), Consistent, []byte("a")); err != nil || string(v) != "1" {
			t.Errorf("a read sees %q, %v", v, err)
		}
		if n.Status().Obstacle == "" {
			t.Error("nothing is said")
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*SyncPatience+time.Second {
			t.Errorf("answered after %v", took)
		}
		if marked, err := n.markedIn(); err != nil || len(marked) > 0 {
			t.Errorf("marked: %v, %v", marked, err)
		}
		if s := n.Status(); len(s.InSync) > 0 || !slices.Equal(s.Behind, []uint64{2}) {
			t.Errorf("said: %+v", s)
		}
		set(t, n, "a", "3") // at once
		c.cutOff()
		c.synced(1, 2)
		c.same("a", "3")
	})
}

// The learner holds everything that was answered, whenever both end, and says so; where it was
// dropped, and has heard of that, it says that too.
func TestRecoverLosesNothingInSync(t *testing.T) {
	for seed := range uint64(12) {
		inBubble(t, func(t *testing.T) {
			c := inSync(t)
			rng := rand.New(rand.NewPCG(seed, 1))
			n := c.node(1)
			var answered []string
			for i := range 40 {
				switch rng.IntN(8) {
				case 0: // the learner's power is cut, and comes back
					c.kill(2, func(d *crashdisk.FS) *crashdisk.FS { return d.Crash(rng, crashdisk.LoseAll) })
					c.start(2)
				case 1: // the voter's
					c.kill(1, func(d *crashdisk.FS) *crashdisk.FS { return d.Crash(rng, crashdisk.LoseAll) })
					c.start(1)
					n = c.leader(1)
				case 2: // the network, not for long
					c.cutOff(2)
					time.Sleep(time.Duration(rng.IntN(int(SyncPatience / 2))))
					c.cutOff()
				}
				err := <-write(t, n, fmt.Sprint(i), "x")
				if err != nil && !errors.Is(err, ErrUnknownOutcome) && !errors.Is(err, ErrNotLeader) {
					t.Fatal(err)
				}
				if err == nil {
					answered = append(answered, fmt.Sprint(i))
				}
			}
			if len(answered) < 30 {
				t.Fatalf("only %d writes", len(answered))
			}
			c.kill(1, killed)
			c.kill(2, func(d *crashdisk.FS) *crashdisk.FS { return d.Crash(rng, crashdisk.LoseAll) })
			s, err := Recover(c.options(2), 1)
			if err != nil {
				t.Fatal(err)
			}
			if !s.InSync {
				t.Errorf("seed %d: it does not say that it was in sync", seed)
			}
			n = c.reopened(2, 1)
			for _, key := range answered {
				has(t, n, key, "x")
			}
		})
	}
}

// A voter that starts anew answers nothing that its learner lacks, although nobody has told it
// that the learner is required: the mark is in the log behind what the state holds.
func TestSyncAfterRestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := inSync(t)
		set(t, c.node(1), "a", "1")
		c.kill(2, killed)
		c.kill(1, killed)
		c.start(1)
		n := c.leader(1)
		done := write(t, n, "a", "2")
		time.Sleep(SyncPatience - time.Second)
		if answered(done) {
			t.Fatal("answered without the learner")
		}
		c.start(2)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		c.synced(1, 2)
	})
}

// A change of the members is behind a mark that names nobody, and none behind it names anybody
// before it is done. With three voters nothing is marked and nothing waits for one of them.
func TestSyncEndsWithThreeVoters(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := inSync(t)
		n := c.node(1)
		c.start(3)
		if err := n.AddLearner(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		c.synced(1, 2, 3)
		c.promote(n, 2, 3)
		if marked, err := n.markedIn(); err != nil || len(marked) > 0 {
			t.Errorf("marked: %v, %v", marked, err)
		}
		c.cutOff(3)
		set(t, c.leader(1, 2), "a", "1")
		c.cutOff()
		last, _ := n.log.LastIndex()
		entries, err := n.log.Entries(n.log.Marker().Index+1, last+1, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		var named []uint64
		for _, e := range entries {
			if e.GetType() != pb.EntryNormal && len(named) > 0 {
				t.Errorf("entry %d changes the members while %v are marked", e.GetIndex(), named)
			}
			if ids, found, err := marksOf(e); err != nil {
				t.Fatal(err)
			} else if found {
				named = ids
			}
		}
		if len(named) > 0 {
			t.Errorf("in the end %v are marked", named)
		}
	})
}

// A learner that was dropped, and was heard from after that, says so when it is recovered.
func TestDroppedLearnerSaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := inSync(t)
		n := c.node(1)
		c.cutOff(2)
		set(t, n, "a", "1") // drops it
		c.cutOff()
		c.until("it hears of that", func() bool {
			marked, err := c.node(2).markedIn()
			return err == nil && len(marked) == 0
		})
		c.kill(2, killed)
		if s, err := Survey(c.options(2)); err != nil || s.InSync {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// A group that waits for its learner for ever drops it never.
func TestNeverDropped(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := inSync(t)
		c.kill(1, killed)
		c.change = func(_ uint64, o *Options) { o.SyncPatience = -1 }
		c.start(1)
		n := c.leader(1)
		c.cutOff(2)
		done := write(t, n, "a", "1")
		time.Sleep(time.Hour)
		if answered(done) {
			t.Fatal("answered without the learner")
		}
		c.cutOff()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// What the key of a mark holds is read back, and anything else is refused.
func TestSyncedKey(t *testing.T) {
	for _, ids := range [][]uint64{nil, {2}, {2, 9}} {
		if got, err := decodeSynced(appendSynced(nil, ids)); err != nil || !slices.Equal(got, ids) {
			t.Errorf("%v: %v, %v", ids, got, err)
		}
	}
	for _, b := range [][]byte{{}, {2, 0, 0, 0, 0, 0, 0, 0}, append(appendSynced(nil, []uint64{2}), 0)} {
		if got, err := decodeSynced(b); err == nil {
			t.Errorf("%x: %v", b, got)
		}
	}
}

// A member of an older life, which the host of its learner refuses, answers nothing, however
// long that lasts.
func TestRefusedByLearner(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := inSync(t)
		n := c.node(1)
		c.cutOff(2)
		n.ReportRefused(2, true)
		done := write(t, n, "a", "1")
		time.Sleep(time.Hour)
		if answered(done) {
			t.Fatal("answered, although the learner refuses this member")
		}
		if s := n.Status(); !strings.Contains(s.Obstacle, "ovs recover") {
			t.Errorf("nothing is said: %q", s.Obstacle)
		}
		n.ReportRefused(2, false)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// A member that is told at once after a restart that the host of its learner has refused it
// answers nothing, though that host is off and nobody refuses it any more.
func TestRefusedBeforeARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := inSync(t)
		c.kill(2, killed)
		c.kill(1, killed)
		n := c.start(1)
		n.ReportRefused(2, true) // before its log tells it that there is a learner
		for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(time.Second) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err := n.Do(ctx, new(Sequence).Set([]byte("a"), []byte("1")))
			cancel()
			if err == nil {
				t.Fatalf("answered after %v, although the learner has refused this member", time.Since(began))
			}
		}
		if s := n.Status(); !strings.Contains(s.Obstacle, "ovs recover") {
			t.Errorf("nothing is said: %q", s.Obstacle)
		}
		n.ReportRefused(2, false)
		c.start(2)
		c.until("it answers again", func() bool {
			_, err := n.Do(t.Context(), new(Sequence).Set([]byte("a"), []byte("1")))
			return err == nil
		})
	})
}

// A learner may hold a mark that a power cut took from the leader's log. Then the leader still
// waits for it: if not, whoever recovers the learner would be told that nothing is missing.
func TestMarkThatTheLeaderLost(t *testing.T) {
	lost := 0
	for after := time.Duration(0); after < 4*time.Second; after += 100 * time.Millisecond {
		inBubble(t, func(t *testing.T) {
			c := newCluster(t)
			var stuck atomic.Bool
			opened := make(chan struct{})
			c.change = func(id uint64, o *Options) {
				o.SyncPatience = SyncPatience
				f := faultdisk.New(o.FS.(disk.FS))
				if id == 1 {
					wait := func(faultdisk.Op, string) {
						if stuck.Load() {
							<-opened
						}
					}
					f.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "*.raft", Before: wait})
					f.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "spare", Before: wait})
				}
				o.FS = f
			}
			first := c.start(1)
			c.start(2)
			if err := first.AddLearner(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after)
			v := first.state.use() // if the state lacked entries of the log, each learner would be required anyhow
			if _, err := v.Flush(); err != nil {
				t.Fatal(err)
			}
			first.state.leave(v)
			stuck.Store(true)
			time.Sleep(2 * time.Second) // what is proposed now reaches the learner, and not the leader's disk
			c.kill(1, func(d *crashdisk.FS) *crashdisk.FS {
				d = d.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
				stuck.Store(false)
				close(opened)
				return d
			})
			c.cutOff(2)
			c.start(1)
			done := write(t, c.leader(1), "a", "1")
			time.Sleep(SyncPatience / 2)
			answered := answered(done)
			c.kill(2, killed)
			c.kill(1, killed)
			if err := <-done; err == nil {
				answered = true
			}
			s, err := Recover(c.options(2), 1)
			if err != nil {
				t.Fatal(err)
			}
			if answered && s.InSync {
				t.Errorf("stuck after %v: what was answered is not there, and the member says that it lacks nothing", after)
			}
			if !answered {
				lost++
			}
		})
	}
	if lost == 0 {
		t.Error("no moment was one at which the leader had to wait")
	}
}
