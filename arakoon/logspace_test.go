package arakoon

import (
	"errors"
	"path"
	"testing"
	"testing/synctest"
	"time"
)

// A log takes no more room than what is compacted from, what is held for members that catch
// up, and a few segments: however much is written while a member is away, while it
// fetches a snapshot and does not get it, and while a watcher takes nothing.
func TestLogSpaceIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const segment, compact, hold, value = 64 << 10, 128 << 10, 256 << 10, 16 << 10
		a := &absent{cluster: newCluster(t)}
		slow := make(chan struct{})
		a.change = func(id uint64, o *Options) {
			o.SegmentBytes, o.MemTableBytes, o.CompactBytes, o.HoldBytes = segment, 256<<10, compact, hold
			c := &carrier{c: a.cluster, fs: o.FS}
			c.passes = func(string, []byte) error {
				select {
				case <-slow:
					return nil
				case <-time.After(time.Second): // ever so slow
					return errors.New("and it breaks")
				}
			}
			o.Fetcher = c
		}
		a.grow(3)
		a.leader()
		defer idleWatcher(t, a.leader())()
		most, written := map[string]int64{}, int64(0)
		write := func(what string, writes int) {
			t.Helper()
			for i := range writes {
				a.fill(i, i+1)
				synctest.Wait() // whoever compacts has done so, or waits for a clock
				written += value
				for id, d := range a.disks {
					if a.node(id) != nil {
						most[what] = max(most[what], sizeOf(d, path.Join("/node", "log")))
					}
				}
			}
			a.until("a log that is compacted", func() bool { return a.leader().log.Behind(a.leader().Applied()) < compact+hold+segment })
		}
		write("all are there", 30)
		a.kill(3, killed)
		a.leader(1, 2)
		write("one is away", 40)
		a.start(3)
		write("one fetches a snapshot slowly", 100)
		if bound := int64(compact + hold + 4*segment); max(most["all are there"], most["one is away"]) > bound-hold || most["one fetches a snapshot slowly"] > bound || written < 4*bound {
			t.Errorf("of %d bytes the logs kept %v, and may keep %d, %d of it for members that catch up", written, most, bound, hold)
		}
		t.Logf("of %d bytes the logs kept %v", written, most)
		close(slow)
		a.until("all in step", func() bool {
			return a.node(3).Applied() == a.leader().Applied()
		})
	})
}

// idleWatcher watches all keys of a member, and takes nothing after the first events.
func idleWatcher(t *testing.T, n *Node) (end func()) {
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.Watch(t.Context(), nil, 0, func(Events) error { <-stop; return errors.New("enough") })
	}()
	return func() { close(stop); <-done }
}
