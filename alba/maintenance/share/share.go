// Package share gives pieces of work to agents, each piece to one agent at a time, over the
// work queue of the ABM. All agents are equal: any of them offers pieces, takes them, and takes
// over what an agent has that shows no life.
//
// No two clocks are compared. Whoever has a piece says again and again that it lives (Held.Keep).
// Others take the piece once they have seen for the time of a lease that it did not, and it
// itself stops well before that (Held.Err). A piece may still be done twice, for example if
// a call arrives late: what it changes must be fenced too, as updates of objects are by their
// revision.
package share

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm/userfn"
)

// Bounds.
const (
	DefaultLease = 30 * time.Second
	lookMax      = 1000 // items of the queue that are looked at
	sightingsMax = 2000 // items of others that are remembered
)

// Options configure a Share. Queue and Holder must be given.
type Options struct {
	Queue  abm.Queue
	Holder string        // no other process has it, nor had
	Kind   string        // what the names of the pieces begin with: others in the queue are left alone
	Lease  time.Duration // how long others wait for a sign of life; the same for all; default DefaultLease
	Now    func() time.Time
}

// Share is the pieces of one kind. Safe for concurrent use. It remembers at most 2000 pieces of
// other agents.
type Share struct {
	opt Options

	mu   sync.Mutex
	seen map[uint64]sighting
}

// sighting is since when the holder of an item has been seen as it is.
type sighting struct {
	fence, beat uint64
	since       time.Time
}

// New makes a Share.
func New(o Options) *Share {
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Share{opt: o, seen: make(map[uint64]sighting)}
}

// Lease is how long others wait for a sign of life.
func (s *Share) Lease() time.Duration { return s.opt.Lease }

// ErrLost is matched by the error of a piece that is not the agent's any more, or may not be.
var ErrLost = errors.New("the piece of work is not this agent's any more")

// Offer adds a piece. One whose name is in the queue already is not added again.
func (s *Share) Offer(ctx context.Context, name string, data []byte) error {
	_, err := s.opt.Queue.AddWork(ctx, []abm.NewWork{{Name: s.opt.Kind + name, Data: data}})
	return err
}

// Count is how many pieces are in the queue, waiting or taken, of the first 1000 items.
func (s *Share) Count(ctx context.Context) (n int, err error) {
	list, err := s.list(ctx)
	for i := range list {
		if list[i].State != abm.WorkFailed {
			n++
		}
	}
	return n, err
}

// list returns the pieces in the queue, the oldest first.
func (s *Share) list(ctx context.Context) ([]abm.Work, error) {
	list, err := s.opt.Queue.Work(ctx, 0, lookMax, userfn.Consistent)
	if err != nil {
		return nil, err
	}
	mine := list[:0]
	for _, w := range list {
		if strings.HasPrefix(w.Name, s.opt.Kind) {
			mine = append(mine, w)
		}
	}
	return mine, nil
}

// Take takes the oldest piece that is free: it waits, or its agent shows no life. It returns
// nil if there is none.
func (s *Share) Take(ctx context.Context) (*Held, error) {
	list, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	for _, w := range list {
		if h, err := s.take(ctx, w); h != nil || err != nil {
			return h, err
		}
	}
	return nil, nil
}

// Claim takes the piece with a name, which it adds if it is not in the queue. It returns nil
// if another agent has it.
func (s *Share) Claim(ctx context.Context, name string) (*Held, error) {
	numbers, err := s.opt.Queue.AddWork(ctx, []abm.NewWork{{Name: s.opt.Kind + name}})
	if err != nil {
		return nil, err
	}
	list, err := s.opt.Queue.Work(ctx, numbers[0]-1, 1, userfn.Consistent)
	if err != nil || len(list) == 0 || list[0].Number != numbers[0] {
		return nil, err
	}
	return s.take(ctx, list[0])
}

// take takes an item if it is free.
func (s *Share) take(ctx context.Context, w abm.Work) (*Held, error) {
	before := s.opt.Now()
	if !s.free(w, before) {
		return nil, nil
	}
	got, err := s.opt.Queue.TakeOver(ctx, w, s.opt.Holder)
	if errors.Is(err, abm.ErrLease) || errors.Is(err, abm.ErrNotFound) || errors.Is(err, abm.ErrConflict) {
		return nil, nil // another was faster
	}
	if err != nil {
		return nil, err
	}
	return &Held{share: s, work: got, kept: before}, nil
}

// free reports whether an item may be taken: it waits, or its holder has been seen without a
// sign of life for the time of a lease.
func (s *Share) free(w abm.Work, now time.Time) bool {
	if w.State != abm.WorkTaken {
		return w.State == abm.WorkWaiting
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at, known := s.seen[w.Number]
	if !known || at.fence != w.Fence || at.beat != w.Beat {
		if !known && len(s.seen) >= sightingsMax {
			clear(s.seen) // a takeover comes later by that
		}
		s.seen[w.Number] = sighting{w.Fence, w.Beat, now}
		return false
	}
	return now.Sub(at.since) >= s.opt.Lease
}

// Held is a piece that this agent has. Safe for concurrent use.
type Held struct {
	share *Share
	work  abm.Work

	mu   sync.Mutex
	kept time.Time // before the last sign of life that was taken
	lost error
}

// Data is what the piece says.
func (h *Held) Data() []byte { return h.work.Data }

// Name is the name of the piece, without the kind.
func (h *Held) Name() string { return strings.TrimPrefix(h.work.Name, h.share.opt.Kind) }

// Attempts is how often the piece was taken.
func (h *Held) Attempts() int { return int(h.work.Attempts) }

// Keep says that the agent lives. It is called every quarter of a lease.
func (h *Held) Keep(ctx context.Context) error {
	before := h.share.opt.Now()
	err := h.share.opt.Queue.KeepWork(ctx, h.work)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case errors.Is(err, abm.ErrLease) || errors.Is(err, abm.ErrNotFound):
		h.lost = errors.Join(ErrLost, err)
		return h.lost
	case err == nil:
		h.kept = before
	}
	return err
}

// Err is why nothing may be changed any more on behalf of the piece, nil if it may. No sign
// of life was taken for three quarters of a lease: others may take the piece soon.
func (h *Held) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost == nil && h.share.opt.Now().Sub(h.kept) >= h.share.opt.Lease*3/4 {
		h.lost = ErrLost
	}
	return h.lost
}

// Finish takes the piece out of the queue: it is done. That another agent has it by now is
// no error: that one does it again.
func (h *Held) Finish(ctx context.Context) error {
	return ignoreLost(h.share.opt.Queue.FinishWork(ctx, h.work))
}

// Return has the piece wait for another agent.
func (h *Held) Return(ctx context.Context) error {
	return ignoreLost(h.share.opt.Queue.ReturnWork(ctx, h.work))
}

// Fail has the piece wait for a person, with a reason.
func (h *Held) Fail(ctx context.Context, reason string) error {
	return ignoreLost(h.share.opt.Queue.FailWork(ctx, h.work, reason))
}

func ignoreLost(err error) error {
	if errors.Is(err, abm.ErrLease) || errors.Is(err, abm.ErrNotFound) {
		return nil
	}
	return err
}

// Do runs fn, and says meanwhile that the agent lives. The context of fn ends with the lease.
// A piece that fn has done is finished, whether it succeeded or not; one that was cut off by
// ctx waits again. The error is that of fn.
func (h *Held) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	work, stop := context.WithCancelCause(ctx)
	var beats sync.WaitGroup
	beats.Go(func() { h.beat(work, stop) })
	err := fn(work)
	stop(nil)
	beats.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.share.opt.Lease/4)
	defer cancel()
	if h.Err() != nil {
		return errors.Join(err, h.Err())
	}
	if ctx.Err() != nil {
		return errors.Join(err, h.Return(last))
	}
	return errors.Join(err, h.Finish(last))
}

// beat says that the agent lives until ctx ends, and ends ctx with the lease.
func (h *Held) beat(ctx context.Context, stop context.CancelCauseFunc) {
	tick := time.NewTicker(max(h.share.opt.Lease/8, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		call, cancel := context.WithTimeout(ctx, h.share.opt.Lease/4)
		_ = h.Keep(call) // what matters of an error is in Err
		cancel()
		if err := h.Err(); err != nil {
			stop(err)
			return
		}
	}
}
