package kvclient

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/internal/wire"
)

// follower is a member that says who leads.
type follower struct {
	kv.Node
	leader atomic.Uint64
}

func (f *follower) Status() arakoon.Status { return arakoon.Status{Leader: f.leader.Load(), Term: 7} }
func (f *follower) Stats() arakoon.Stats   { return arakoon.Stats{} }

// A member that hangs does not keep the others from being asked again: whoever is elected
// meanwhile is found at once. What the one that hangs says in the end is taken.
func TestSearchWithAMemberThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var hosts []*host
		var members [3]follower
		asked := [3]atomic.Int64{}
		for i := range members {
			hosts = append(hosts, newPipeHost(t, uint64(i+1), &members[i], kv.Options{Allow: func(*wire.Peer, uint16) error {
				asked[i].Add(1)
				if i == 0 {
					<-gate
				}
				return nil
			}}))
		}
		c := newClient(t, Options{}, hosts...)
		find := func(most time.Duration, want uint64) {
			t.Helper()
			began := time.Now()
			leader, err := c.find(t.Context())
			if took := time.Since(began); err != nil || leader != want || took > most {
				t.Errorf("member %d leads, it is said after %v, %v; member %d should be named within %v", leader, took, err, want, most)
			}
		}
		time.Sleep(50 * time.Millisecond) // connections
		find(slowAnswers, 0)
		find(0, 0)
		if n := asked[0].Load(); n != 1 {
			t.Errorf("the one that hangs was asked %d times", n)
		}
		members[1].leader.Store(3)
		find(lateAnswers, 3)

		c.master.Store(0)
		members[0].leader.Store(2)
		close(gate)
		synctest.Wait()
		if got := c.master.Load(); got != 2 {
			t.Errorf("a late answer was lost: member %d leads", got)
		}
	})
}

// A single member that is slow, and the only one that is there, is heard.
func TestSearchWaitsForTheOnlyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow follower
		slow.leader.Store(1)
		h := newPipeHost(t, 1, &slow, kv.Options{Allow: func(*wire.Peer, uint16) error { time.Sleep(600 * time.Millisecond); return nil }})
		dead := newPipeHost(t, 2, &follower{}, kv.Options{})
		dead.down()
		c := newClient(t, Options{}, h, dead)
		time.Sleep(50 * time.Millisecond)
		if leader, err := c.find(t.Context()); err != nil || leader != 1 {
			t.Errorf("member %d leads, %v", leader, err)
		}
	})
}
