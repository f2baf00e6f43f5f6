package volumedriver

import (
	"context"
	"sync"
	"time"
)

// background runs what a host does on its own, outside of any call. All of it ends
// with the host.
type background struct {
	alive context.Context
	end   context.CancelFunc
	group sync.WaitGroup
}

func newBackground() *background {
	b := &background{}
	b.alive, b.end = context.WithCancel(context.Background())
	return b
}

// living ends when the host is closed.
func (b *background) living() context.Context { return b.alive }

// Go runs f in a goroutine that stop waits for.
func (b *background) Go(f func()) { b.group.Go(f) }

// stop ends the context of all that runs, and waits for it.
func (b *background) stop() {
	b.end()
	b.group.Wait()
}

// persist tries something again and again until it reports that it is done. The
// first attempt comes after settleFirst.
func (b *background) persist(done func(ctx context.Context) bool) {
	b.Go(func() {
		for pause := settleFirst; ; pause = min(2*pause, settleLast) {
			select {
			case <-time.After(pause):
			case <-b.alive.Done():
				return
			}
			if done(b.alive) {
				return
			}
		}
	})
}
