package arakoon

import (
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/disk/crashdisk"

	pb "go.etcd.io/raft/v3/raftpb"
)

// knows asks a member since when it has everything until it knows of a time after min.
func (c *cluster) knows(n *Node, min time.Time) (asOf time.Time) {
	c.t.Helper()
	c.until("a member that knows how old its state is", func() (known bool) {
		asOf, known = n.AsOf()
		return known && asOf.After(min)
	})
	return asOf
}

// holds fails the test unless a member's own state has a value.
func holds(t *testing.T, n *Node, key, want string) {
	t.Helper()
	if v, err := n.Get(t.Context(), Local, []byte(key)); err != nil || string(v) != want {
		t.Errorf("%s is %q here, not %q: %v", key, v, want, err)
	}
}

// Every member finds out since when it has everything, while somebody asks, and a member that
// is cut off knows that it grows old. Nobody asks the leader while nobody asks the member.
func TestAsOf(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		c.leader()
		set(t, c.leader(), "k", "1")
		written := time.Now()
		time.Sleep(time.Second)
		for id := range uint64(3) {
			n := c.node(id + 1)
			if _, known := n.AsOf(); known {
				t.Errorf("member %d knows before it has asked", id+1)
			}
			c.knows(n, written)
			holds(t, n, "k", "1")
		}
		lead := c.leader()
		follower := c.node(lead.opt.Member%3 + 1)
		c.cutOff(follower.opt.Member)
		cut := time.Now()
		time.Sleep(10 * time.Second)
		set(t, c.leader(), "k", "2")
		if asOf, known := follower.AsOf(); !known || asOf.After(cut) {
			t.Errorf("a member that is cut off has everything as of %v after that", asOf.Sub(cut))
		}
		c.cutOff()
		written = time.Now()
		c.knows(follower, written)
		holds(t, follower, "k", "2")
		time.Sleep(10 * time.Second) // and questions that are under way are answered
		c.net.mu.Lock()
		asked := c.net.sent[pb.MsgReadIndex]
		c.net.mu.Unlock()
		time.Sleep(time.Minute)
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		if asked == 0 || c.net.sent[pb.MsgReadIndex] != asked {
			t.Errorf("%d questions, and %d when nobody asks any more", asked, c.net.sent[pb.MsgReadIndex])
		}
	})
}

// An answer speaks of when it was asked for, however late it comes.
func TestAsOfIsWhenItWasAsked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(3)
		lead := c.leader()
		set(t, lead, "k", "1")
		c.same("k", "1")
		follower := c.node(lead.opt.Member%3 + 1)
		var late *pb.Message
		c.net.mu.Lock()
		c.net.drop = func(from uint64, m *pb.Message) bool {
			if m.GetTo() == follower.opt.Member && m.GetType() == pb.MsgReadIndexResp && late == nil {
				late = m
			}
			return m.GetTo() == follower.opt.Member && (m.GetType() == pb.MsgReadIndexResp || m.GetType() == pb.MsgApp)
		}
		c.net.mu.Unlock()
		follower.AsOf()
		synctest.Wait()
		time.Sleep(50 * time.Millisecond)
		set(t, lead, "k", "2")
		written := time.Now()
		time.Sleep(50 * time.Millisecond)
		if err := follower.Step(late); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if asOf, known := follower.AsOf(); !known || !asOf.Before(written) {
			t.Errorf("known %v, %v after a write that is not there", known, asOf.Sub(written))
		}
		holds(t, follower, "k", "1")
	})
}

// A group of one has everything.
func TestAsOfAlone(t *testing.T) {
	n := open(t, testOptions(crashdisk.New()))
	began := time.Now()
	if asOf, known := n.AsOf(); !known || asOf.Before(began) {
		t.Error(asOf, known)
	}
}
