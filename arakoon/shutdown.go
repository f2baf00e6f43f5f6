package arakoon

import (
	"context"
	"fmt"
	"sync"
)

// shutdown is how a node ends: it fails by itself, or it is closed. It also counts
// the goroutines and the reads that use log and state, so that these are closed only
// when nothing uses them.
type shutdown struct {
	dir       string
	onEnd     func(error) // called once, with why, before anybody sees the end; under mu
	onFailure func(error) // called once, with ErrFailed and the reason

	stop    chan struct{} // closed when Close begins
	failed  chan struct{} // closed when the node has failed
	running sync.WaitGroup

	mu  sync.Mutex
	why error // ErrFailed or ErrClosed, whichever came first
}

func newShutdown(dir string) *shutdown {
	return &shutdown{dir: dir, stop: make(chan struct{}), failed: make(chan struct{})}
}

// err is why the node ends, nil while it runs.
func (d *shutdown) err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.why
}

// fail ends the node's work. Its files stay open, and it stays as it is, until it is
// closed: whoever runs it decides when it is opened again.
func (d *shutdown) fail(err error) {
	d.mu.Lock()
	if d.why != nil {
		d.mu.Unlock()
		return
	}
	d.why = fmt.Errorf("%w: %s: %w", ErrFailed, d.dir, err)
	err = d.why
	d.onEnd(err)
	close(d.failed)
	d.mu.Unlock()
	d.onFailure(err)
}

// begin tells all that runs to stop. It returns why the node had failed before,
// nil if it had not. It is called once.
func (d *shutdown) begin() (failed error) {
	d.mu.Lock()
	if d.why == nil {
		d.why = fmt.Errorf("%w: %s", ErrClosed, d.dir)
		d.onEnd(d.why)
	} else {
		failed = d.why
	}
	d.mu.Unlock()
	close(d.stop)
	return failed
}

// hold keeps log and state open until release is called. It is refused once the
// node ends: begin() is followed by a wait for all holders, and none may come later.
func (d *shutdown) hold() (release func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.why != nil {
		return nil, d.why
	}
	d.running.Add(1)
	return d.running.Done, nil
}

// context ends when the node does, or when cancel is called, as it must be.
func (d *shutdown) context() (ctx context.Context, cancel context.CancelFunc) {
	ctx, cancel = context.WithCancel(context.Background())
	go func() {
		select {
		case <-d.stop:
		case <-d.failed:
		case <-ctx.Done():
		}
		cancel()
	}()
	return ctx, cancel
}

// run starts one of the node's goroutines. A panic in it fails the node and nothing
// else: raft gives up that way, and one member must not end the process.
func (d *shutdown) run(loop func()) {
	d.running.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				d.fail(fmt.Errorf("%v", p))
			}
		}()
		loop()
	})
}
