package kvclient

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/arakoon"

	"github.com/google/uuid"
)

// A watch has every event once and in order, while members that answer it die and the lead
// changes.
func TestAWatchHasNoGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		client := newClient(t, Options{}, c.hosts...)
		const last = 120
		var mu sync.Mutex
		var seen []string
		began, done := make(chan struct{}), make(chan error, 1)
		enough := errors.New("enough")
		go func() {
			revision := uint64(0)
			done <- client.Watch(t.Context(), b("w/"), 0, func(e arakoon.Events) error {
				mu.Lock()
				defer mu.Unlock()
				if revision == 0 {
					close(began)
				}
				if len(e.List) > 0 && e.Revision <= revision {
					t.Errorf("revision %d after %d", e.Revision, revision)
				}
				revision = max(revision, e.Revision)
				for _, one := range e.List {
					seen = append(seen, fmt.Sprintf("%s=%s", one.Key, one.Value))
				}
				if len(seen) == last {
					return enough
				}
				return nil
			})
		}()
		<-began
		for i := range last {
			if _, err := client.Set(t.Context(), fmt.Appendf(nil, "w/%d", i), b("v")); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Set(t.Context(), b("other"), b("v")); err != nil {
				t.Fatal(err)
			}
			switch i {
			case 30:
				_ = client.DropMaster(t.Context(), 0)
			case 60: // connections of the watch's member end, and it comes back elsewhere
				c.hosts[0].down()
				time.Sleep(time.Second)
				c.hosts[0].listen(t)
			case 90:
				c.kill(c.leader())
			}
		}
		if err := <-done; err != enough {
			t.Fatal(err)
		}
		for i, got := range seen {
			if got != fmt.Sprintf("w/%d=v", i) {
				t.Fatalf("event %d is %s", i, got)
			}
		}
		var gone *arakoon.ErrCompacted
		if err := client.Watch(t.Context(), nil, 1, func(arakoon.Events) error { return nil }); !errors.As(err, &gone) || gone.First < 2 {
			t.Errorf("a watch from long ago: %v", err)
		}
	})
}

// Leases have fences that rise, whichever member granted them.
func TestLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		client := newClient(t, Options{}, c.hosts...)
		one, other := uuid.New(), uuid.New()
		var level *arakoon.LevelError
		if _, err := client.Acquire(t.Context(), "name", one, 10*time.Second); !errors.As(err, &level) || level.Need != 2 || level.Has != 1 {
			t.Errorf("before the group knows leases: %v", err)
		}
		if err := c.nodes[c.leader()].RaiseLevel(t.Context(), 2, true); err != nil {
			t.Fatal(err)
		}
		held, err := client.Acquire(t.Context(), "name", one, 10*time.Second)
		if err != nil || held.Fence == 0 {
			t.Fatalf("%+v, %v", held, err)
		}
		if _, err := client.Acquire(t.Context(), "name", other, 10*time.Second); !errors.Is(err, arakoon.ErrLeaseHeld) {
			t.Errorf("held by another: %v", err)
		}
		c.kill(c.leader())
		renewed, err := client.Renew(t.Context(), held)
		if err != nil || renewed.Renewed <= held.Renewed {
			t.Errorf("%+v, %v", renewed, err)
		}
		if err := client.Release(t.Context(), held); err != nil {
			t.Error(err)
		}
		next, err := client.Acquire(t.Context(), "name", other, 10*time.Second)
		if err != nil || next.Fence <= held.Fence {
			t.Errorf("%+v after %+v, %v", next, held, err)
		}
		if _, err := client.Do(t.Context(), seq().AssertLease("name", held.Fence).Set(b("k"), b("v"))); !errors.Is(err, arakoon.ErrLeaseLost) {
			t.Errorf("an old fence: %v", err)
		}
	})
}
