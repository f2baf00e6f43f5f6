package registrytest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"openvstorage/volumedriver/registry"
)

// Fate is what becomes of a swap, and what its caller hears of it.
type Fate int

// The fates. Only of the first the caller gets an answer.
const (
	Answered Fate = iota
	Made          // it was made
	Lost          // it is never made
	Late          // it is made before the next swap, or when somebody settles
)

// errNoAnswer is the error of a call that is not answered.
var errNoAnswer = errors.New("no answer")

// Doubt is a store of keys that need not answer swaps, whether it makes them or not. It
// makes swaps in the order in which they were begun, as a log does.
type Doubt struct {
	keys registry.Keys

	mu   sync.Mutex
	fate func() Fate
	deaf bool
	mute func() bool           // says whether a Settle fails
	late func(context.Context) // a swap that is under way
}

// NewDoubt returns a Doubt over keys that answers all swaps until it is told otherwise.
func NewDoubt(keys registry.Keys) *Doubt { return &Doubt{keys: keys} }

// Draw lets fate decide on each swap from now on. With nil all are answered.
func (d *Doubt) Draw(fate func() Fate) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fate = fate
}

// Next decides the fate of the next swap. After that swap nothing is answered until Heal.
func (d *Doubt) Next(fate Fate) { d.After(0, fate) }

// After is Next of the swap that comes after the next n, which are answered. What makes a
// vDisk begins with the swap of its intent.
func (d *Doubt) After(n int, fate Fate) {
	d.Draw(func() Fate {
		if n--; n >= 0 {
			return Answered
		}
		d.fate, d.deaf = nil, true
		return fate
	})
}

// Silence makes Settle fail whenever mute returns true.
func (d *Doubt) Silence(mute func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mute = mute
}

// Heal makes everything be answered again.
func (d *Doubt) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fate, d.deaf, d.mute = nil, false, nil
}

// land makes the swap that is under way. d.mu is held.
func (d *Doubt) land(ctx context.Context) {
	if late := d.late; late != nil {
		d.late = nil
		late(ctx)
	}
}

// Get implements registry.Keys.
func (d *Doubt) Get(ctx context.Context, key []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaf {
		return nil, errNoAnswer
	}
	return d.keys.Get(ctx, key)
}

// Range implements registry.Keys.
func (d *Doubt) Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	d.mu.Lock()
	deaf := d.deaf
	d.mu.Unlock()
	if deaf {
		return errNoAnswer
	}
	return d.keys.Range(ctx, prefix, fn)
}

// Settle implements registry.Keys.
func (d *Doubt) Settle(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaf || d.mute != nil && d.mute() {
		return errNoAnswer
	}
	d.land(ctx)
	return d.keys.Settle(ctx)
}

// Swap implements registry.Keys.
func (d *Doubt) Swap(ctx context.Context, swaps []registry.Swap) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaf {
		return false, fmt.Errorf("%w: %w", registry.ErrNotSwapped, errNoAnswer)
	}
	d.land(ctx)
	fate := Answered
	if d.fate != nil {
		fate = d.fate()
	}
	switch fate {
	case Made:
		_, err := d.keys.Swap(ctx, swaps)
		return false, errors.Join(errNoAnswer, err)
	case Lost:
		return false, errNoAnswer
	case Late:
		d.late = func(ctx context.Context) { _, _ = d.keys.Swap(context.WithoutCancel(ctx), swaps) }
		return false, errNoAnswer
	}
	return d.keys.Swap(ctx, swaps)
}
