package arakoon

import (
	"sync"

	"openvstorage/internal/bell"
)

// queue hands what several goroutines put to one that takes all there is. Its
// length is bounded by what may be under way.
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

// progress is the applied index, and who waits for it.
type progress struct {
	mu      sync.Mutex
	index   uint64
	term    uint64
	waiters map[chan struct{}]uint64
}

// wait returns a channel that is closed when index is applied, nil if it is.
// forget must be called if the wait ends before.
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
