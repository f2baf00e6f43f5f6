package volumedriver

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/volumedriver/registry"
)

// doubts finds out what became of operations whose outcome is not known: in the
// background, and for whoever asks for the next operation. The doubt itself is the
// vDisk's, and so is its lock (unsure).
type doubts struct {
	registry   Registry
	table      *table
	elsewhere  *elsewhere
	background *background
}

// note notes that an operation on v has no known outcome, and pursues it.
func (d *doubts) note(v *Volume, u *unsure) {
	v.unsure.Store(u)
	d.pursue(v, u)
}

// pursue settles u in the background, however often that has to be tried.
func (d *doubts) pursue(v *Volume, u *unsure) {
	v.log.Warn("outcome unknown", "what", u.what, "err", u.cause)
	d.background.persist(func(ctx context.Context) bool {
		if v.unsure.Load() != u {
			return true
		}
		err := d.settle(ctx, v)
		if err != nil && ctx.Err() == nil {
			v.log.Warn("outcome still unknown", "what", u.what, "err", err)
		}
		return err == nil
	})
}

// settle finds out what became of an operation on v, if that is not known. It waits
// for one attempt, which takes settleMax at most. When ctx ends settle returns, and the
// attempt goes on for others.
func (d *doubts) settle(ctx context.Context, v *Volume) error {
	u := v.unsure.Load()
	if u == nil {
		return nil
	}
	a := u.try(func(a *attempt) {
		d.background.Go(func() { u.tried(a, d.settleNow(v, u)) })
	})
	select {
	case <-a.done:
		if a.err != nil {
			return fmt.Errorf("%w: %w", u.refuse(v.Name()), earlier{a.err})
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", u.refuse(v.Name()), ctx.Err())
	}
}

// settleNow is one attempt to find out.
func (d *doubts) settleNow(v *Volume, u *unsure) error {
	if v.unsure.Load() != u {
		return nil
	}
	ctx, cancel := context.WithTimeout(d.background.living(), settleMax)
	defer cancel()
	// The registry finds out first.
	_, err := d.registry.Get(ctx, v.id)
	if err == nil || errors.Is(err, registry.ErrNotFound) {
		err = u.settle(ctx)
	}
	if err != nil {
		return err
	}
	v.unsure.CompareAndSwap(u, nil)
	return nil
}

// find returns the vDisk that has the name, when the outcome of all that was done to it
// is known.
func (d *doubts) find(ctx context.Context, name string) (*Volume, error) {
	v, err := d.elsewhere.named(ctx, name)
	if err != nil || v.unsure.Load() == nil {
		return v, err
	}
	if err := d.settle(ctx, v); err != nil {
		return nil, err
	}
	return d.table.named(name) // it may have another name by now, or be no more
}

// settleName finds out what became of an operation that may have taken the name.
func (d *doubts) settleName(ctx context.Context, name string) error {
	if v, err := d.table.named(name); err == nil {
		return d.settle(ctx, v)
	}
	return nil
}
