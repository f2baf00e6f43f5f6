package systemd

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// systemd is told while all parts answer. It is not told while one does not, and is
// told again when that one does. The gaps between are shorter than the limit, whenever
// a part comes back.
func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = time.Minute
		var log bytes.Buffer
		var told []time.Time
		var asked atomic.Int32
		var hold atomic.Pointer[chan struct{}]
		w := watch(slog.New(slog.NewTextHandler(&log, nil)), limit, func(state string) error {
			if state != "WATCHDOG=1" {
				t.Error(state)
			}
			told = append(told, time.Now())
			return nil
		}, []Check{
			{"quick", func() {}},
			{"stuck", func() {
				asked.Add(1)
				if door := hold.Load(); door != nil {
					<-*door
				}
			}},
			{"last", func() {}},
		})
		time.Sleep(10 * limit)
		synctest.Wait()
		last := time.Now()
		for i := len(told) - 1; i >= 0; i-- {
			if gap := last.Sub(told[i]); gap > limit/2 {
				t.Errorf("not told for %v", gap)
			}
			last = told[i]
		}
		door := make(chan struct{})
		hold.Store(&door)
		time.Sleep(limit) // it is asked
		synctest.Wait()
		before, many := len(told), asked.Load()
		time.Sleep(10 * limit)
		synctest.Wait()
		if len(told) != before {
			t.Errorf("told %d times of a process in which a part is stuck", len(told)-before)
		}
		if n := asked.Load(); n != many {
			t.Errorf("the part that does not answer was asked %d times again", n-many)
		}
		if n := strings.Count(log.String(), `part=stuck`); n != 1 {
			t.Errorf("said %d times:\n%s", n, &log)
		}
		hold.Store(nil)
		close(door)
		time.Sleep(limit)
		synctest.Wait()
		if len(told) == before {
			t.Error("not told that it lives again")
		}
		if !strings.Contains(log.String(), "answer again") {
			t.Errorf("not said:\n%s", &log)
		}
		w.Close()
		n := len(told)
		time.Sleep(10 * limit)
		if len(told) != n {
			t.Error("told after it was closed")
		}
	})
}

// A process with a part that is stuck can be stopped.
func TestCloseWhileStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		door := make(chan struct{})
		w := watch(slog.New(slog.DiscardHandler), time.Minute, func(string) error { return errors.New("no") }, []Check{{"stuck", func() { <-door }}})
		synctest.Wait()
		w.Close()
		close(door)
	})
}
