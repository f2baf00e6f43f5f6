package volumedriver

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// flight is work under a vDisk's put that goes on when who asked for it gives up.
type flight struct {
	mu    sync.Mutex
	begun bool // what cannot be taken back
	left  bool // who asked for it has gone
	ended bool
}

// begin reports whether the work may take its last step: not if nobody wants it
// any more.
func (f *flight) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun = !f.left
	return f.begun
}

// holding runs work, alone in putting catalogs and deleting objects, and waits for
// it until ctx ends. Then the work goes on without its caller, if it has begun what
// cannot be taken back: a put that is under way is not given up, its outcome
// would be unknown for longer. The error matches ErrUnknownOutcome then, and
// settle waits for the end. ctx is passed to work, for what can be given up.
func (o *ownedCatalog) holding(ctx context.Context, work func(ctx context.Context, f *flight) error) error {
	if err := o.put.take(ctx); err != nil {
		return err
	}
	f, done := &flight{}, make(chan error, 1)
	go func() {
		err := work(ctx, f)
		f.mu.Lock()
		f.ended = true
		if f.left && f.begun {
			o.doubt.flying.Store(false)
		}
		f.mu.Unlock()
		o.put.give()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.ended:
		return <-done
	case !f.begun:
		f.left = true
		return ctx.Err()
	}
	f.left = true
	o.doubt.flying.Store(true)
	return fmt.Errorf("catalog of %s: %w: it is being put: %w", o.Name(), ErrUnknownOutcome, ctx.Err())
}

// putContext is for what is not given up with ctx: it ends in putMax, or with the
// vDisk.
func (o *ownedCatalog) putContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putMax)
	stop := context.AfterFunc(o.living, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// landingPatience is how long the end of a vDisk waits for a put of its catalog
// that is under way, and then for it to give up. What became of it the next start
// finds in the backend.
const landingPatience = time.Second

// endFlights ends what goes on under put.
func (o *ownedCatalog) close() {
	defer o.end()
	for range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), landingPatience)
		err := o.put.take(ctx)
		cancel()
		if err == nil {
			o.put.give()
			return
		}
		o.end()
	}
}
