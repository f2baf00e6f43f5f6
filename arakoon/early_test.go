package arakoon

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

// drops has the network of a cluster lose some messages; nil: none.
func (c *cluster) drops(which func(m *pb.Message) bool) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.net.drop = nil
	if which != nil {
		c.net.drop = func(_ uint64, m *pb.Message) bool { return which(m) }
	}
}

// ofCommits are the messages that tell of a commit and of nothing else.
func ofCommits(m *pb.Message) bool {
	return m.GetType() == pb.MsgHeartbeat || m.GetType() == pb.MsgApp && len(m.GetEntries()) == 0
}

func isAck(m *pb.Message) bool { return m.GetType() == pb.MsgAppResp }

// A new leader serves no read before an entry of its own term is committed: it does not know
// what its predecessor has answered.
func TestNewLeaderReadsLate(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		n := c.leader()
		set(t, n, "a", "1")
		c.same("a", "1")
		c.drops(ofCommits)
		set(t, n, "a", "2")
		c.kill(n.opt.Member, killed)
		c.drops(isAck)
		n = c.leader()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if v, err := n.Get(ctx, Consistent, []byte("a")); err == nil {
			t.Errorf("it has read %q, and cannot know", v)
		}
		c.drops(nil)
		has(t, c.leader(), "a", "2")
	})
}

// A proposal is answered with what became of it, though an entry of another leader is applied
// before it whose batch has the same number.
func TestBatchesOfTwoLeaders(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		first := c.leader().opt.Member
		set(t, c.leader(), "a", "1")
		c.same("a", "1")
		c.kill(first, killed)
		c.start(first)
		n := c.leader()
		c.until("it follows", func() bool { return n.Transfer(t.Context(), first) == nil })
		n = c.leader(first)
		// Its first batch since its start reaches the others, and is not committed.
		c.until("a leader's first entry", func() bool { return n.Applied() == n.Status().Commit })
		c.drops(isAck)
		done := make(chan error, 1)
		go func() {
			_, err := n.Do(t.Context(), new(Sequence).Set([]byte("a"), []byte("2")))
			done <- err
		}()
		synctest.Wait()
		c.kill(first, killed)
		<-done
		n = c.leader()
		go func() {
			_, err := n.Do(t.Context(), new(Sequence).Assert([]byte("a"), []byte("1")))
			done <- err
		}()
		synctest.Wait()
		c.drops(nil)
		var failed *ErrAssert
		if err := <-done; !errors.As(err, &failed) {
			t.Errorf("the assertion that a is 1 came out as %v, and a is 2", err)
		}
		has(t, n, "a", "2")
	})
}

// While a change of the members runs another one is refused, and the first is answered when
// it is done.
func TestSecondChangeIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(5)
		n := c.leader()
		stay := 1 + n.opt.Member%5
		var gone []uint64
		for id := uint64(1); id <= 5 && len(gone) < 2; id++ {
			if id != n.opt.Member && id != stay {
				gone = append(gone, id)
			}
		}
		c.drops(isAck)
		done := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		go func() { done <- n.Remove(ctx, gone...) }()
		synctest.Wait()
		if err := n.AddLearner(ctx, 9); !errors.Is(err, ErrChanging) {
			t.Errorf("a second change: %v", err)
		}
		c.drops(nil)
		if err := <-done; err != nil {
			t.Errorf("the first change: %v", err)
		}
	})
}

// What a leader had proposed when it lost the lead may be done or not: it says neither.
func TestLostLeadIsUnknown(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		n := c.leader()
		set(t, n, "a", "1")
		c.cutOff(n.opt.Member)
		if _, err := n.Do(t.Context(), new(Sequence).Set([]byte("a"), []byte("2"))); !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("a write of a leader that was cut off: %v", err)
		}
		c.cutOff()
	})
}
