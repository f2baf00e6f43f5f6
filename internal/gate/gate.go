// Package gate is a door for tests: calls that reach it wait until the test opens
// it, and the test can wait for them to come.
package gate

import (
	"context"
	"sync"

	"openvstorage/internal/broadcast"
)

// Gate holds the calls that reach it until it is opened.
type Gate struct {
	mu      sync.Mutex
	arrived int
	changed broadcast.Broadcast // arrived grows
	open    chan struct{}
}

// New returns a closed gate.
func New() *Gate {
	return &Gate{open: make(chan struct{})}
}

// Arrived waits until n calls in all have reached the gate.
func (g *Gate) Arrived(ctx context.Context, n int) error {
	for {
		g.mu.Lock()
		arrived, changed := g.arrived, g.changed.Next()
		g.mu.Unlock()
		if arrived >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Open lets all calls through, those held and those to come. It may be called
// again.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

// Hold waits until the gate is open or ctx ends.
func (g *Gate) Hold(ctx context.Context) error {
	g.mu.Lock()
	g.arrived++
	g.changed.Send()
	g.mu.Unlock()
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
