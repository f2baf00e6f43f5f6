package volumedriver

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"openvstorage/backend"
	"openvstorage/internal/disk/crashdisk"
)

// narrowStore accepts every SCO below full width until it is told otherwise.
type narrowStore struct {
	backend.Store
	mu   sync.Mutex
	wide bool
}

func (s *narrowStore) widen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wide = true
}

func (s *narrowStore) Namespace(name string) backend.Namespace {
	return &narrowSpace{s.Store.Namespace(name), s}
}

type narrowSpace struct {
	backend.Namespace
	s *narrowStore
}

func (n *narrowSpace) Narrow(_ context.Context, names []string) ([]string, error) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	if n.s.wide {
		return nil, nil
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !strings.HasPrefix(name, "sco-") }), nil
}

// What the backend holds below full width stays in the buffer until it has it
// (O5), over a restart too.
func TestNarrowStays(t *testing.T) {
	var store *narrowStore
	change := func(o *Options) {
		store = &narrowStore{Store: o.Backend}
		o.Backend, o.WidthCheck = store, time.Millisecond
	}
	fs := crashdisk.New()
	r, d := newRig(t, fs, 64<<20, change)
	write(t, d, 0, 16, 1)
	must(t, r.host.Sync(context.Background(), "v", nil))
	kept := func(want bool) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for {
			u := r.host.buffer.Usage()
			if (u.Narrow > 0) == want && (u.Evictable > 0) != want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("buffer %+v", u)
			}
			time.Sleep(time.Millisecond)
		}
	}
	kept(true)
	must(t, r.close())
	r = reopen(t, fs, change)
	kept(true)
	holdsPattern(t, open(t, r.host, "v"), 0, 16, 1)
	store.widen()
	kept(false)
}
