package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/volumedriver/registry"

	"github.com/google/uuid"
)

// unsure is an operation on a vDisk of which it is not known whether it happened,
// or one that has begun and must be finished. An unknown outcome is neither
// success nor failure: the operation counts as still under way. Until its outcome
// is known nothing is acknowledged that it would undo, nor any other operation
// on the vDisk begun. It is found out in the background, and by who asks for the
// next operation.
type unsure struct {
	state  string // StateUnsure or StateDeleting
	what   string // for people: what is not known
	closed bool   // nobody may use the vDisk
	cause  error
	// settle finds out, and does what is left to do. It may be asked again after
	// an error. One call of it runs at a time, and it holds no lock that others
	// wait for: while the vDisk is unsure nobody else changes it, or its name.
	settle func(ctx context.Context) error

	mu      sync.Mutex
	attempt *attempt              // under way, nil if there is none
	last    atomic.Pointer[error] // of the last attempt
}

// attempt is one to find out, for all who wait for it.
type attempt struct {
	done chan struct{}
	err  error // set when done is closed
}

// try joins the attempt that is under way, or has begin begin one.
func (u *unsure) try(begin func(*attempt)) *attempt {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.attempt == nil {
		u.attempt = &attempt{done: make(chan struct{})}
		begin(u.attempt)
	}
	return u.attempt
}

func (u *unsure) tried(a *attempt, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if a.err = err; err != nil {
		u.last.Store(&err)
	}
	u.attempt = nil
	close(a.done)
}

// Waits for an outcome.
const (
	settleMax   = time.Minute            // for one attempt to find out
	settleFirst = 100 * time.Millisecond // before the first in the background
	settleLast  = 5 * time.Second        // between two, at most
)

func (u *unsure) reason() string {
	cause := u.cause
	if last := u.last.Load(); last != nil {
		cause = *last
	}
	return fmt.Sprintf("%s: %v; it is looked into all the time, wait for it", u.what, cause)
}

// refuse is the error of what must wait for the outcome. Nothing has begun.
func (u *unsure) refuse(name string) error {
	return fmt.Errorf("vDisk %q: %s: %w", name, u.reason(), ErrBusy)
}

// inDoubt notes that an operation on v has no known outcome, and looks into it
// until it has.
func (h *Host) inDoubt(v *Volume, u *unsure) {
	v.unsure.Store(u)
	h.lookInto(v, u)
}

// lookInto settles u in the background.
func (h *Host) lookInto(v *Volume, u *unsure) {
	v.log.Warn("outcome unknown", "what", u.what, "err", u.cause)
	h.persist(func(ctx context.Context) bool {
		if v.unsure.Load() != u {
			return true
		}
		err := h.settle(ctx, v)
		if err != nil && ctx.Err() == nil {
			v.log.Warn("outcome still unknown", "what", u.what, "err", err)
		}
		return err == nil
	})
}

// persist tries something in the background until it reports that it is done.
func (h *Host) persist(done func(ctx context.Context) bool) {
	h.background.Go(func() {
		for pause := settleFirst; ; pause = min(2*pause, settleLast) {
			select {
			case <-time.After(pause):
			case <-h.living.Done():
				return
			}
			if done(h.living) {
				return
			}
		}
	})
}

// settle finds out what became of an operation on v, if that is not known. It
// waits for one attempt, which has a bound, until ctx ends; the attempt goes on.
func (h *Host) settle(ctx context.Context, v *Volume) error {
	u := v.unsure.Load()
	if u == nil {
		return nil
	}
	a := u.try(func(a *attempt) {
		h.background.Go(func() { u.tried(a, h.settleNow(v, u)) })
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
func (h *Host) settleNow(v *Volume, u *unsure) error {
	if v.unsure.Load() != u {
		return nil
	}
	ctx, cancel := context.WithTimeout(h.living, settleMax)
	defer cancel()
	// The registry finds out first.
	_, err := h.opt.Registry.Get(ctx, v.id)
	if err == nil || errors.Is(err, registry.ErrNotFound) {
		err = u.settle(ctx)
	}
	if err != nil {
		return err
	}
	v.unsure.CompareAndSwap(u, nil)
	return nil
}

// find is the vDisk that has the name, with all that was done to it known.
func (h *Host) find(ctx context.Context, name string) (*Volume, error) {
	v, err := h.volume(name)
	if err != nil || v.unsure.Load() == nil {
		return v, err
	}
	if err := h.settle(ctx, v); err != nil {
		return nil, err
	}
	return h.volume(name) // it may have another name by now, or be no more
}

// free finds out what became of an operation that may have taken the name.
func (h *Host) free(ctx context.Context, name string) error {
	if v, err := h.volume(name); err == nil {
		return h.settle(ctx, v)
	}
	return nil
}

// sure refuses an operation on a vDisk that is in doubt. Who calls it keeps others
// from putting it in doubt.
func (v *Volume) sure() error {
	if u := v.unsure.Load(); u != nil {
		return u.refuse(v.Name())
	}
	return nil
}

// closedBy is the operation for which nobody may use the vDisk, nil if there is
// none.
func (v *Volume) closedBy() *unsure {
	if u := v.unsure.Load(); u != nil && u.closed {
		return u
	}
	return nil
}

// list puts v into the lists, in the place of who has its id.
func (h *Host) list(v *Volume) {
	if watch := h.watchList.Load(); watch != nil {
		defer (*watch)(v)
	}
	defer h.listed.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.volumes[v.id] = v
	h.byName[v.Name()] = v
}

// unlist takes a vDisk out of the lists, under whatever names it is there.
func (h *Host) unlist(id uuid.UUID) {
	defer h.listed.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.volumes, id)
	for name, v := range h.byName {
		if v.id == id {
			delete(h.byName, name)
		}
	}
}

// relist has a vDisk answer to a name, and to no other.
func (h *Host) relist(v *Volume, name string) {
	defer h.listed.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	v.setName(name)
	for old, o := range h.byName {
		if o.id == v.id {
			delete(h.byName, old)
		}
	}
	h.byName[name] = v
}

// standIn lists a vDisk that is not open, and says why: u, which is looked into.
func (h *Host) standIn(r registry.Record, u *unsure) *Volume {
	v := h.listStandIn(r, u)
	h.lookInto(v, u)
	return v
}

// listStandIn is standIn for who looks into it himself.
func (h *Host) listStandIn(r registry.Record, u *unsure) *Volume {
	v := h.newVolume(r)
	v.halted.Store(&haltError{name: r.Name, cause: errors.New(u.reason()), shut: u.state})
	v.users.setDeleted(u.state == StateDeleting)
	v.unsure.Store(u)
	h.list(v)
	return v
}

// deletionUnknown closes a vDisk that may be marked as being deleted.
func (h *Host) deletionUnknown(v *Volume, cause error) error {
	h.inDoubt(v, &unsure{
		state: StateUnsure, what: "whether its deletion has begun is not known", closed: true, cause: cause,
		settle: func(ctx context.Context) error {
			r, err := h.opt.Registry.Get(ctx, v.id)
			if err != nil {
				return err // P8: that the registry does not know it is no reason to delete it
			}
			if r.Deleting {
				_ = h.finishDeletion(ctx, h.deleting(r, v, errOngoing)) // what is left of it is listed
				return nil
			}
			v.users.setDeleted(false)
			return nil
		},
	})
	return fmt.Errorf("vDisk %q: deletion: %w: %w", v.Name(), ErrUnknownOutcome, cause)
}

// deleting lists a vDisk that is marked as being deleted, in the place of open,
// which is nil if it is not open.
func (h *Host) deleting(r registry.Record, open *Volume, cause error) *Volume {
	return h.listStandIn(r, &unsure{
		state: StateDeleting, what: "its deletion has begun and did not finish", closed: true, cause: cause,
		settle: func(ctx context.Context) error {
			if open != nil {
				open.closeDeleted(ctx)
				open = nil
			}
			if err := h.remove(ctx, r.ID, r.Parent); err != nil {
				return err
			}
			h.unlist(r.ID)
			return nil
		},
	})
}

// closeDeleted closes a vDisk of which nothing is to stay.
func (v *Volume) closeDeleted(ctx context.Context) {
	v.store.stop()
	v.revoke()
	if err := v.close(ctx); err != nil {
		v.log.Warn("deleted vDisk not closed cleanly", "err", err)
	}
}

// finishDeletion deletes a vDisk that deleting has listed. What cannot be deleted
// now, or before ctx ends, is deleted later; it stays listed until then.
func (h *Host) finishDeletion(ctx context.Context, v *Volume) error {
	err := h.settle(ctx, v)
	if err == nil {
		return nil
	}
	if u := v.unsure.Load(); u != nil {
		h.lookInto(v, u)
	}
	return fmt.Errorf("vDisk %q: its deletion has begun and goes on by itself: %w: %w", v.Name(), ErrUnknownOutcome, err)
}

// deleteLater lists a vDisk that is marked as being deleted until it is deleted.
func (h *Host) deleteLater(r registry.Record, cause error) {
	v := h.deleting(r, nil, cause)
	h.lookInto(v, v.unsure.Load())
}

// errOngoing is the cause of a doubt of which nothing has failed yet.
var errOngoing = errors.New("it is under way")

// birthUnknown lists a vDisk that the registry may know: it is opened, or what
// there is of it is removed.
func (h *Host) birthUnknown(r registry.Record, cause error) (Info, error) {
	v := h.standIn(r, &unsure{
		state: StateUnsure, what: "whether it was made is not known", closed: true, cause: cause,
		settle: func(ctx context.Context) error {
			switch _, err := h.opt.Registry.Get(ctx, r.ID); {
			case errors.Is(err, registry.ErrNotFound):
				// Only the first catalog is there, which nobody has opened (P8).
				if err := h.remove(ctx, r.ID, r.Parent); err != nil {
					return err
				}
				h.unlist(r.ID)
				return nil
			case err != nil:
				return err
			}
			h.openOne(h.living, r, &unnamed{})
			return nil
		},
	})
	return v.info(), fmt.Errorf("vDisk %q: %w: %w", r.Name, ErrUnknownOutcome, cause)
}

// namesUnknown has vDisks answer to both names until it is known which they have.
// Their users go on: whatever the name, it is the same vDisk.
func (h *Host) namesUnknown(list []renaming, cause error) {
	for _, r := range list {
		h.mu.Lock()
		h.byName[r.new] = r.v
		h.mu.Unlock()
		h.inDoubt(r.v, &unsure{
			state: StateUnsure, what: fmt.Sprintf("whether it is named %q or %q is not known", r.old, r.new), cause: cause,
			settle: func(ctx context.Context) error {
				rec, err := h.opt.Registry.Get(ctx, r.v.id)
				if err != nil {
					return err
				}
				h.relist(r.v, rec.Name)
				return nil
			},
		})
	}
}

// openUnknown is for a vDisk whose opening ended without an answer: it opens it
// again.
func (h *Host) openUnknown(v *Volume, r registry.Record, cause error) *unsure {
	return &unsure{
		state: StateUnsure, what: "it could not be opened yet", closed: true, cause: cause,
		settle: func(ctx context.Context) error {
			if h.parentLater(r) {
				return errParentClosed
			}
			// What the earlier attempt put must not come behind this one.
			if err := v.cat.settle(ctx); err != nil {
				return err
			}
			if v.m != nil {
				v.m.Close()
			}
			h.openOne(h.living, r, nil) // whoever asks may give up, and it opens
			return nil
		},
	}
}

// dropLater drops a clone that never was from its parent's catalog, and the
// snapshot that was made for it.
func (h *Host) dropLater(v *Volume, child uuid.UUID) {
	drop := func(ctx context.Context) bool {
		ctx, cancel := context.WithTimeout(ctx, settleMax)
		defer cancel()
		if h.byID(v.id) != v || v.Err() != nil {
			return true // the next start does it
		}
		err := h.dropChild(ctx, v, child)
		if err != nil && h.living.Err() == nil {
			v.log.Warn("reference to a lost clone not removed", "clone", child, "err", err)
		}
		return err == nil
	}
	h.background.Go(func() {
		if !drop(h.living) {
			h.persist(drop)
		}
	})
}
