package kvclient

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
)

// moving is a member that applies one more write after each look at how far it has come, before
// it looks at the keys.
type moving struct {
	*arakoon.Node

	mu    sync.Mutex
	wrote uint64
	asked []arakoon.Consistency
}

func (m *moving) write(ctx context.Context) error {
	revision, _, err := m.Node.Write(ctx, seq().Set(b("k/0"), b("w")))
	m.mu.Lock()
	m.wrote = revision
	m.mu.Unlock()
	return err
}

func (m *moving) Range(ctx context.Context, c arakoon.Consistency, first, last []byte, limit int, fn func(k, v []byte) bool) error {
	if err := m.write(ctx); err != nil {
		return err
	}
	return m.Node.Range(ctx, c, first, last, limit, fn)
}

func (m *moving) MultiGet(ctx context.Context, c arakoon.Consistency, keys ...[]byte) ([][]byte, error) {
	if c != arakoon.Consistent {
		m.mu.Lock()
		m.asked = append(m.asked, c)
		m.mu.Unlock()
	}
	return m.Node.MultiGet(ctx, c, keys...)
}

// The member that answers the next page sees all that the one before has seen, also what was
// applied while that one was on its way.
func TestPagesNeverGoBack(t *testing.T) {
	n := &moving{Node: openNode(t)}
	h := newHost(t, 3, n, kv.Options{})
	client := newClient(t, Options{PageSize: 1}, h)
	for i := range 3 {
		if _, err := client.Set(t.Context(), fmt.Appendf(nil, "k/%d", i), b("v")); err != nil {
			t.Fatal(err)
		}
	}
	for _, how := range []arakoon.Consistency{arakoon.Consistent, arakoon.Local} {
		pages := 0
		err := client.Range(t.Context(), how, b("k/"), nil, 0, func(_, _ []byte) bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			if got := len(n.asked); got > 0 && n.asked[got-1].Index() < n.wrote-1 {
				t.Errorf("page %d sees revision %d at least, and the one before has seen %d", pages+1, n.asked[got-1].Index(), n.wrote-1)
			}
			pages++
			return true
		})
		if err != nil || pages != 3 || len(n.asked) != 2 {
			t.Errorf("%d pages, %d of them after another, %v", pages, len(n.asked), err)
		}
		n.asked = nil
	}
}
