package volumedriver

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// flight is work under put that goes on when its caller gives up.
type flight struct {
	mu    sync.Mutex
	begun bool // the step that cannot be taken back
	left  bool // the caller has given up
	ended bool
}

// begin reports whether the work may take the step that cannot be taken back. It may not
// if the caller has given up.
func (f *flight) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun = !f.left
	return f.begun
}

// holding runs work with put held, so that nobody else puts a catalog or deletes objects,
// and waits for it until ctx ends. If work has begun by then what cannot be taken back,
// it goes on without its caller: giving up a put that is under way would only make its
// outcome unknown for longer. The error then matches ErrUnknownOutcome, and settle waits
// for the end of work. work gets ctx for those of its steps that can be given up.
func (o *ownedCatalog) holding(ctx context.Context, work func(ctx context.Context, f *flight) error) error {
	if err := o.put.Take(ctx); err != nil {
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
		o.put.Give()
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

// putContext is a context for what is not given up with ctx: it ends after putMax, or when
// the vDisk is closed.
func (o *ownedCatalog) putContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putMax)
	stop := context.AfterFunc(o.living, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// landingPatience is how long the closing of a vDisk waits for a put of its catalog that
// is under way, and then once more after it has cancelled the put. The next start finds in
// the backend what became of it.
const landingPatience = time.Second

// close waits for what goes on under put, and cancels it if that takes too long.
func (o *ownedCatalog) close() {
	defer o.end()
	for range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), landingPatience)
		err := o.put.Take(ctx)
		cancel()
		if err == nil {
			o.put.Give()
			return
		}
		o.end()
	}
}
