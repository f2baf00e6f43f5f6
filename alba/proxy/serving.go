package proxy

import (
	"context"
	"sync"
)

// serving is the requests that are under way.
type serving struct {
	ctx  context.Context // ends when they are cancelled
	stop context.CancelFunc

	mu     *sync.Mutex
	n      int
	ending bool
	over   chan struct{} // closed when it is ending and none is under way
}

func newServing() serving {
	s := serving{mu: new(sync.Mutex), over: make(chan struct{})}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// begin returns the context of a request, and what is called at its end: nil if none is taken any
// more.
func (s *serving) begin(ctx context.Context) (context.Context, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return ctx, nil
	}
	s.n++
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(s.ctx, cancel)
	return ctx, func() {
		unhook()
		cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.n--; s.n == 0 && s.ending {
			close(s.over)
		}
	}
}

// end takes no more requests, and returns when none is under way. They are cancelled when ctx ends.
func (s *serving) end(ctx context.Context) {
	s.mu.Lock()
	if !s.ending {
		if s.ending = true; s.n == 0 {
			close(s.over)
		}
	}
	s.mu.Unlock()
	select {
	case <-s.over:
	case <-ctx.Done():
	}
	s.stop()
	<-s.over
}
