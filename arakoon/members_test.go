package arakoon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	pb "go.etcd.io/raft/v3/raftpb"
)

// One to three to five members and back, online; nobody who was removed comes back.
func TestMembersChangeOnline(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		ctx := t.Context()
		n := c.leader()
		for _, id := range []uint64{4, 5} {
			c.start(id)
		}
		if err := n.AddLearner(ctx, 4, 5); err != nil {
			t.Fatal(err)
		}
		c.promote(n, 4, 5)
		set(t, n, "five", "1")
		c.same("five", "1")
		if got := n.Members(); !slices.Equal(got.Voters, []uint64{1, 2, 3, 4, 5}) || got.Learners != nil || got.Outgoing != nil {
			t.Fatal(got)
		}
		// Back to three, among those that go the one that leads.
		lead := n.opt.Member
		other := 1 + lead%5
		c.remove(lead, other)
		var stay []uint64
		for id := range uint64(5) {
			if id+1 != lead && id+1 != other {
				stay = append(stay, id+1)
			}
		}
		n = c.leader(stay...)
		set(t, n, "three", "1")
		has(t, n, "five", "1")
		if err := n.AddLearner(ctx, lead); !errors.Is(err, ErrUsed) {
			t.Fatalf("a removed member came back: %v", err)
		}
		// What was removed is known after a restart too, and so that its messages are
		// not taken.
		c.kill(n.opt.Member, killed)
		n = c.start(n.opt.Member)
		c.until("it knows", func() bool { return n.state.Gone(lead) && n.state.Gone(other) })
		before := n.Stats().Dropped
		if err := n.Step(&pb.Message{Type: pb.MsgVote.Enum(), From: new(lead), To: new(n.opt.Member), Term: new(uint64(1000))}); err != nil {
			t.Fatal(err)
		}
		n.Status()
		if n.Stats().Dropped != before+1 {
			t.Error("the vote of a removed member was taken")
		}
		n = c.leader(stay...)
		c.remove(stay[1], stay[2])
		n = c.leader(stay[0])
		set(t, n, "one", "1")
	})
}

// The only voter goes in two steps: beside another one for a while, which then takes the lead.
func TestOnlyVoterGoes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(1)
		n, ctx := c.leader(), t.Context()
		set(t, n, "a", "1")
		c.start(2)
		if err := n.AddLearner(ctx, 2); err != nil {
			t.Fatal(err)
		}
		c.until("member 2 is a voter", func() bool { return n.ChangeMembers(ctx, Members{Voters: []uint64{1, 2}}) == nil })
		if err := n.ChangeMembers(ctx, Members{Voters: []uint64{1, 2}, Learners: []uint64{1}}); !errors.Is(err, ErrMembers) {
			t.Errorf("a member is asked for twice: %v", err)
		}
		c.until("member 1 is gone", func() bool {
			return c.leader(1, 2).ChangeMembers(ctx, Members{Voters: []uint64{2}}) == nil
		})
		has(t, c.leader(2), "a", "1")
		set(t, c.leader(2), "a", "2")
	})
}

// What would end the group is refused, and nothing is done.
func TestChangesRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		n := c.leader()
		ctx := t.Context()
		lead := n.opt.Member
		a, b := 1+lead%3, 1+(lead+1)%3
		for _, try := range []struct {
			want Members
			err  error
		}{
			{Members{Voters: []uint64{lead, a}}, ErrMembers},
			{Members{}, ErrMembers},
			{Members{Voters: []uint64{lead}, Learners: []uint64{lead}}, ErrMembers},
			{Members{Voters: []uint64{lead, a, a}}, ErrMembers},
			{Members{Voters: []uint64{0, a, b}}, ErrMembers},
			{Members{Voters: []uint64{lead, a, 9}}, ErrNotCaughtUp},
			{Members{Voters: []uint64{1, 2, 3}}, nil},
		} {
			if err := n.ChangeMembers(ctx, try.want); !errors.Is(err, try.err) {
				t.Errorf("to %v: %v", try.want, err)
			}
		}
		if err := c.node(a).AddLearner(ctx, 4); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a follower changes members: %v", err)
		}
		var hint *NotLeaderError
		if _, err := c.node(a).Do(ctx, new(Sequence)); !errors.As(err, &hint) || hint.Leader != lead {
			t.Errorf("a follower says %v", err)
		}
		if _, err := c.node(a).Get(ctx, Consistent, []byte("a")); !errors.As(err, &hint) || hint.Leader != lead {
			t.Errorf("a follower says %v", err)
		}
		// A learner that is not heard from is not made a voter.
		if err := n.AddLearner(ctx, 4, 5); err != nil {
			t.Fatal(err)
		}
		var behind *NotCaughtUpError
		if err := n.Promote(ctx, 4, 5); !errors.As(err, &behind) || behind.Member != 4 {
			t.Errorf("an empty learner was promoted: %v", err)
		}
		// With one voter away no other one may go: those left would be no majority.
		c.cutOff(b)
		time.Sleep(2 * time.Second)
		if err := n.ChangeMembers(ctx, Members{Voters: []uint64{b}}); !errors.Is(err, ErrMembers) {
			t.Errorf("a dead voter is left alone: %v", err)
		}
		// A change that cannot be decided does not let a second one begin.
		c.cutOff(lead)
		first := make(chan error, 1)
		brief, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		go func() { first <- n.AddLearner(brief, 6) }()
		synctest.Wait()
		if err := n.AddLearner(ctx, 7); !errors.Is(err, ErrChanging) {
			t.Errorf("two changes at once: %v", err)
		}
		if err := <-first; !errors.Is(err, ErrUnknownOutcome) {
			t.Error(err)
		}
	})
}

// A wiped member, and an old copy of one, are found out and end, and do not vote.
func TestWipedMember(t *testing.T) {
	for name, old := range map[string]bool{"empty": false, "old copy": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				c := newCluster(t)
				c.grow(3)
				n := c.leader()
				id := 1 + n.opt.Member%3
				set(t, n, "a", "1")
				copied := c.disks[id].Kill()
				for i := range 20 {
					set(t, n, "b", fmt.Sprint(i))
				}
				c.same("b", "19")
				c.kill(id, func(*crashdisk.FS) *crashdisk.FS {
					if old {
						return copied
					}
					return crashdisk.New()
				})
				c.change = func(member uint64, o *Options) { o.Joining = o.Joining || member == id }
				wiped := c.start(id)
				c.until("it ends", func() bool { return errors.Is(wiped.Err(), ErrLost) })
				set(t, n, "b", "20")
			})
		})
	}
}

// A member with an empty log gives no vote: what it had acknowledged went with its log.
func TestEmptyLogDoesNotVote(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		voted := false
		c.net.drop = func(from uint64, m *pb.Message) bool {
			voted = voted || m.GetType() == pb.MsgVoteResp || m.GetType() == pb.MsgPreVoteResp
			return false
		}
		n := c.start(2)
		for _, kind := range []pb.MessageType{pb.MsgPreVote, pb.MsgVote} {
			if err := n.Step(&pb.Message{Type: kind.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(7)), Index: new(uint64(9)), LogTerm: new(uint64(6))}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		if voted || n.Leading() || n.Status().Role != RoleJoining {
			t.Errorf("voted %v, %+v", voted, n.Status())
		}
	})
}

// A member whose state is from when it was alone does not lead alone after a restart.
func TestOldStateDoesNotLeadAlone(t *testing.T) {
	for _, mode := range []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn} {
		inBubble(t, func(t *testing.T) {
			c := newCluster(t)
			c.grow(3)
			term := c.leader().Status().Term
			rng := rand.New(rand.NewPCG(7, 7))
			crash := func(d *crashdisk.FS) *crashdisk.FS { return d.Crash(rng, mode) }
			for id := range uint64(3) {
				c.kill(id+1, crash)
			}
			n := c.start(1)
			time.Sleep(10 * time.Second)
			// Whoever wins an election begins a term, even if it loses the lead soon.
			if now := n.Status().Term; n.Leading() || now != term {
				t.Fatalf("member 1 led a group of three alone: it is in term %d, and was in %d", now, term)
			}
			c.start(3)
			set(t, c.leader(), "a", "1")
		})
	}
}

// All members lose power at the same moment, under load, and start again in every order:
// the group is up by itself, and has all that was answered.
func TestPowerCutsInEveryOrder(t *testing.T) {
	orders := [][]uint64{{1, 2, 3}, {1, 3, 2}, {2, 1, 3}, {2, 3, 1}, {3, 1, 2}, {3, 2, 1}}
	modes := []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		rng := rand.New(rand.NewPCG(3, 14))
		var mu sync.Mutex
		answered := map[string]string{}
		for i, order := range orders {
			n := c.leader()
			var clients sync.WaitGroup
			over := false // guarded by mu
			done := make(chan struct{}, 1000)
			for k := range 4 {
				clients.Go(func() {
					for j := 0; ; j++ {
						key, value := fmt.Sprint(k, "/", j%5), fmt.Sprint(i, "/", j)
						_, err := n.Do(t.Context(), new(Sequence).Set([]byte(key), []byte(value)))
						mu.Lock()
						if answered[key] = value; over || err != nil {
							delete(answered, key) // the outcome is not known
						}
						mu.Unlock()
						if err != nil {
							return
						}
						done <- struct{}{}
					}
				})
			}
			for range 20 + rng.IntN(100) {
				<-done
			}
			// Nothing is heard of a member once its image is taken, by clients or others.
			mu.Lock()
			over = true
			mu.Unlock()
			c.net.mu.Lock()
			c.net.drop = func(uint64, *pb.Message) bool { return true }
			c.net.mu.Unlock()
			for _, id := range []uint64{1, 2, 3} {
				c.disks[id] = c.disks[id].Crash(rng, modes[i%len(modes)])
			}
			for _, id := range []uint64{1, 2, 3} {
				c.kill(id, func(d *crashdisk.FS) *crashdisk.FS { return d })
			}
			go func() {
				for range done {
				}
			}()
			clients.Wait()
			close(done)
			c.net.mu.Lock()
			c.net.drop = nil
			c.net.mu.Unlock()
			for _, id := range order {
				c.start(id)
			}
			n = c.leader()
			for key, value := range answered {
				has(t, n, key, value)
			}
			set(t, n, "up", fmt.Sprint(i))
			c.same("up", fmt.Sprint(i))
		}
	})
}

// More than one value is in flight: a leader that waits for acknowledgements takes and
// sends the next writes.
func TestManyValuesInFlight(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		n := c.leader()
		set(t, n, "a", "0")
		synctest.Wait()
		before, _ := n.log.LastIndex()
		c.net.mu.Lock()
		c.net.drop = func(_ uint64, m *pb.Message) bool { return m.GetType() == pb.MsgAppResp }
		c.net.mu.Unlock()
		var clients sync.WaitGroup
		for i := range 5 {
			clients.Go(func() { set(t, n, "a", fmt.Sprint(i)) })
			synctest.Wait()
		}
		for id := range uint64(3) {
			if last, _ := c.node(id + 1).log.LastIndex(); last != before+5 {
				t.Errorf("member %d holds entries up to %d, not %d", id+1, last, before+5)
			}
		}
		c.net.mu.Lock()
		c.net.drop = nil
		c.net.mu.Unlock()
		clients.Wait()
	})
}

// Whether a member joined or was the first is what its log says, also before its state was
// ever flushed, and whatever it is opened with later.
func TestJoinedStaysJoined(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.start(1)
		c.start(2)
		c.change = func(id uint64, o *Options) { o.Joining, o.Existing = id == 1, true }
		for _, id := range []uint64{1, 2} {
			c.kill(id, killed)
			c.start(id)
		}
		time.Sleep(10 * time.Second)
		if !c.node(1).Leading() || c.node(2).Leading() {
			t.Errorf("first leads %v, joined one leads %v", c.node(1).Leading(), c.node(2).Leading())
		}
		c.node(2).Status()
		if got := c.node(2).Members(); got.Voters != nil {
			t.Error(got)
		}
	})
}

// What was removed may be destroyed as soon as the change is answered, and of those that
// stay a minority is lost with it, and all of them lose their power: they lead on.
func TestRemovedMembersMayGoAtOnce(t *testing.T) {
	for from, removed := range map[uint64][][]uint64{3: {{1, 2}, {2, 3}}, 5: {{1, 2}, {4, 5}}} {
		for _, ids := range removed {
			inBubble(t, func(t *testing.T) {
				c := newCluster(t)
				c.grow(from)
				set(t, c.leader(), "a", "1")
				// Nobody hears of a commit but by the next entry.
				c.net.mu.Lock()
				c.net.drop = func(_ uint64, m *pb.Message) bool { return m.GetType() == pb.MsgApp && len(m.GetEntries()) == 0 }
				c.net.mu.Unlock()
				c.remove(ids...)
				rng := rand.New(rand.NewPCG(from, ids[0]))
				gone := ids
				if from == 5 {
					gone = append(gone, c.leader().opt.Member)
				}
				for id := range from {
					c.kill(id+1, func(d *crashdisk.FS) *crashdisk.FS { return d.Crash(rng, crashdisk.LoseAll) })
				}
				c.net.mu.Lock()
				c.net.drop = nil
				c.net.mu.Unlock()
				var stay []uint64
				for id := uint64(1); id <= from; id++ {
					if !slices.Contains(gone, id) {
						stay = append(stay, id)
						c.start(id)
					}
				}
				n := c.leader(stay...)
				has(t, n, "a", "1")
				set(t, n, "a", "2")
			})
		}
	}
}

// A candidate asks for votes when its term is durable, and whatever it says that it has: one
// that forgot both could count late answers to its earlier life.
func TestVoteIsAskedForDurably(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		slow := make(chan struct{})
		var stuck atomic.Bool
		c.change = func(id uint64, o *Options) {
			d := faultdisk.New(o.FS)
			wait := func(faultdisk.Op, string) {
				if stuck.Load() {
					<-slow
				}
			}
			d.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "*.raft", Before: wait})
			d.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "spare", Before: wait})
			o.FS = d
		}
		c.grow(3)
		set(t, c.leader(), "a", "1")
		c.until("all are in step", func() bool {
			at := c.leader().Applied()
			return c.node(1).Applied() == at && c.node(2).Applied() == at && c.node(3).Applied() == at
		})
		stuck.Store(true)
		c.net.mu.Lock()
		clear(c.net.sent)
		c.net.mu.Unlock()
		c.kill(c.leader().opt.Member, killed)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		c.net.mu.Lock()
		asked, asking := c.net.sent[pb.MsgVote], c.net.sent[pb.MsgPreVote]
		c.net.mu.Unlock()
		if asked > 0 || asking == 0 {
			t.Errorf("%d votes were asked for before anything was durable, and %d before that", asked, asking)
		}
		stuck.Store(false)
		close(slow)
		set(t, c.leader(), "a", "2")
	})
}
