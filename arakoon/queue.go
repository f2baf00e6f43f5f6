package arakoon

import (
	"sync"

	"openvstorage/internal/bell"
)

// queue passes items from several goroutines to one, which takes all that there are. It
// has no bound of its own: Options bounds the proposals and reads that are under way.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	wake  bell.Bell
}

func newQueue[T any]() *queue[T] { return &queue[T]{} }

func (q *queue[T]) put(items ...T) {
	if len(items) == 0 {
		return
	}
	q.mu.Lock()
	q.items = append(q.items, items...)
	q.mu.Unlock()
	q.wake.Ring()
}

func (q *queue[T]) take() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = nil
	return items
}

// progress is the applied index, and the waits for it.
type progress struct {
	ages ages // of what is applied

	mu      sync.Mutex
	index   uint64
	term    uint64
	waiters map[chan struct{}]uint64
}

// wait returns a channel that is closed when index is applied, or nil if it is already.
// A caller that stops waiting before that calls forget.
func (p *progress) wait(index uint64) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.index >= index {
		return nil
	}
	c := make(chan struct{})
	p.waiters[c] = index
	return c
}

func (p *progress) forget(c chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiters, c)
}

func (p *progress) advance(index, term uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.index, p.term = index, term
	for c, i := range p.waiters {
		if i <= index {
			close(c)
			delete(p.waiters, c)
		}
	}
}

func (p *progress) now() (index, term uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.index, p.term
}
