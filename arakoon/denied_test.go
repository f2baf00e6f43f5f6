package arakoon

import (
	"testing"

	"openvstorage/internal/disk/crashdisk"

	pb "go.etcd.io/raft/v3/raftpb"
)

// A member is set back to a copy of its disk from before it acknowledged an entry that is not
// committed yet. It cannot know. The leader tries again with each heartbeat, not as fast as the
// network goes; the group goes on, and the next leader sends the member all that it lacks.
func TestMemberDeniesWhatItAcknowledged(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		c.grow(5)
		n := c.leader()
		lead := n.opt.Member
		back := lead%5 + 1
		set(t, n, "before", "1")
		c.same("before", "1")
		var old *crashdisk.FS
		c.kill(back, func(d *crashdisk.FS) *crashdisk.FS { old = d.Kill(); return old.Kill() })
		c.start(back)

		// Of the others none is sent an append, so that only the one acknowledges. All are heard.
		tries := 0
		only := func(from uint64, m *pb.Message) bool {
			if m.GetType() != pb.MsgApp {
				return false
			}
			if m.GetTo() == back {
				tries++
			}
			return m.GetTo() != back || tries > 10_000
		}
		c.net.mu.Lock()
		c.net.drop = only
		c.net.mu.Unlock()
		done := make(chan error, 1)
		go func() {
			_, err := n.Do(t.Context(), new(Sequence).Set([]byte("during"), []byte("1")))
			done <- err
		}()
		first, _ := n.log.LastIndex()
		c.until("one member has the entry", func() bool {
			last, _ := c.node(back).log.LastIndex()
			mine, _ := n.log.LastIndex()
			first = mine
			return last == mine && c.node(back).Status().Applied < mine
		})
		c.kill(back, func(*crashdisk.FS) *crashdisk.FS { return old })
		c.start(back)
		n.ReportUnreachable(back)
		c.net.mu.Lock()
		tries = 0
		c.net.mu.Unlock()
		beats := c.beats(lead, back, 50)
		c.net.mu.Lock()
		if tries == 0 || tries > 2*beats {
			t.Errorf("%d appends to the member in %d heartbeats", tries, beats)
		}
		c.net.drop = nil
		c.net.mu.Unlock()
		if last, _ := c.node(back).log.LastIndex(); last >= first {
			t.Errorf("the member has entry %d, which its leader takes for acknowledged", last)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := n.Transfer(t.Context(), back%5+1); err != nil {
			t.Fatal(err)
		}
		c.same("during", "1")
	})
}

// beats waits for so many heartbeats from one member to another.
func (c *cluster) beats(from, to uint64, n int) int {
	c.t.Helper()
	count := 0
	c.net.mu.Lock()
	was := c.net.drop
	c.net.drop = func(f uint64, m *pb.Message) bool {
		if m.GetType() == pb.MsgHeartbeat && f == from && m.GetTo() == to {
			count++
		}
		return was != nil && was(f, m)
	}
	c.net.mu.Unlock()
	c.until("heartbeats", func() bool {
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		return count >= n
	})
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.net.drop = was
	return count
}
