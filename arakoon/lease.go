package arakoon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"openvstorage/arakoon/state"
	"openvstorage/internal/bell"

	"github.com/google/uuid"
)

// Errors of leases, for errors.Is. What is returned is an *Error whose Key is the name.
var (
	// ErrLeaseHeld: another owner holds the lease.
	ErrLeaseHeld = &Error{Code: state.CodeLeaseHeld, Message: "lease is held"}
	// ErrLeaseLost: the lease is not held under this fence: it has expired, or was released.
	ErrLeaseLost = &Error{Code: state.CodeLeaseLost, Message: "lease is lost"}
)

// LeaseCalls are the calls of a Node about leases: names that one owner holds at a time. A
// lease ends when it is released, or when it was not renewed for its time to live. That is
// counted by whoever leads, from when it has applied the grant or the renewal, and anew by
// a new leader: so it is never less than the time to live, but may be more.
//
// An owner cannot know by its own clock that it still holds a lease. So each grant has a
// fence, a number that rises. What an owner writes in the group asserts its fence
// (Sequence.AssertLease), and what it does elsewhere carries the fence, so that whoever has
// seen a higher one refuses it.
type LeaseCalls struct{ node *Node }

// Acquire grants a lease, or fails with ErrLeaseHeld. An owner is one holder, with a random
// UUID of its own: if it holds the lease already, that is renewed, and the fence stays, so
// that a call with an unknown outcome can be repeated. There are up to state.LeasesMax leases,
// with names of up to state.LeaseNameMax bytes; ttl is from state.LeaseTTLMin to
// state.LeaseTTLMax.
func (l LeaseCalls) Acquire(ctx context.Context, name string, owner uuid.UUID, ttl time.Duration) (Lease, error) {
	one, _, err := l.acquire(ctx, name, owner, ttl)
	return one, err
}

// acquire also returns the revision at which the lease was found to be held by another.
func (l LeaseCalls) acquire(ctx context.Context, name string, owner uuid.UUID, ttl time.Duration) (Lease, uint64, error) {
	index, results, err := l.node.Write(ctx, new(Sequence).Acquire(name, owner, ttl))
	if err != nil {
		return Lease{}, index, err
	}
	return Lease{Name: name, Owner: owner, Fence: results[0].Count, Renewed: index, TTL: ttl}, index, nil
}

// Renew begins the time to live of a lease anew, or fails with ErrLeaseLost. It returns the
// lease as it is then.
func (l LeaseCalls) Renew(ctx context.Context, held Lease) (Lease, error) {
	index, _, err := l.node.Write(ctx, new(Sequence).Renew(held.Name, held.Fence, held.TTL))
	if err != nil {
		return Lease{}, err
	}
	held.Renewed = index
	return held, nil
}

// Release ends a lease. It is no error if the lease has ended before.
func (l LeaseCalls) Release(ctx context.Context, held Lease) error {
	_, err := l.node.Do(ctx, new(Sequence).Release(held.Name, held.Fence))
	return err
}

// Lock is Acquire that waits while another owner holds the lease. Whoever waits is a
// watcher (Options.History). Of several that wait any may be the next.
func (l LeaseCalls) Lock(ctx context.Context, name string, owner uuid.UUID, ttl time.Duration) (Lease, error) {
	for {
		one, at, err := l.acquire(ctx, name, owner, ttl)
		if !errors.Is(err, ErrLeaseHeld) {
			return one, err
		}
		if err := l.released(ctx, name, at+1); err != nil {
			return Lease{}, fmt.Errorf("arakoon: lock %q: %w", name, err)
		}
	}
}

// released waits until a lease has ended, at a revision or later, or may have.
func (l LeaseCalls) released(ctx context.Context, name string, from uint64) error {
	w, err := l.node.history.WatchLease(ctx, name, from)
	var gone *ErrCompacted
	if errors.As(err, &gone) {
		return nil
	}
	if err != nil {
		return l.node.watchError(err)
	}
	defer w.Close()
	for {
		told, err := w.Next(ctx, l.node.end.stop, l.node.end.failed)
		if errors.As(err, &gone) {
			return nil
		}
		if err != nil {
			return l.node.watchError(err)
		}
		for _, t := range told {
			for _, e := range t.List {
				if e.Deleted && string(e.Key) == name {
					return nil
				}
			}
		}
	}
}

// Lease returns a lease, and false if nobody holds it.
func (l LeaseCalls) Lease(ctx context.Context, c Consistency, name string) (Lease, bool, error) {
	end, err := l.node.readers.begin(ctx, c)
	if err != nil {
		return Lease{}, false, err
	}
	defer end()
	one, ok := l.node.state.Lease(name)
	return one, ok, nil
}

// ListLeases returns all leases that are held, by name.
func (l LeaseCalls) ListLeases(ctx context.Context, c Consistency) ([]Lease, error) {
	end, err := l.node.readers.begin(ctx, c)
	if err != nil {
		return nil, err
	}
	defer end()
	list := l.node.state.Leases()
	slices.SortFunc(list, func(a, b Lease) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// leaser ends the leases that are not renewed, while this member leads. One goroutine runs
// it. Without leases it sleeps, and no clock wakes it.
//
// The order that keeps a lease alive for its time to live: the grant or renewal is applied
// here; then its time begins; when that is over, and not before this member has heard from
// a majority that it leads and has applied all that was answered, the expiry is proposed.
// It names the renewal that was counted from, so if another renewal comes before it in the
// log it changes nothing.
type leaser struct {
	node  *Node
	wake  bell.Bell
	clock leaseClock

	term, version uint64 // as the applier has seen them last
}

// How long the leaser gathers changes before it looks at all leases, which makes a life
// longer, and how long it waits when an expiry was refused.
const (
	leaseGather = 50 * time.Millisecond
	leaseAgain  = 200 * time.Millisecond
	expireMost  = 256 // leases in one proposal
)

// applied wakes the leaser if there may be something for it: the applier calls it.
func (l *leaser) applied(term, version uint64) {
	if term != l.term || version != l.version {
		l.term, l.version = term, version
		l.wake.Ring()
	}
}

func (l *leaser) loop() {
	start := time.Now() // its monotonic part alone is used
	for {
		due, next := l.look(time.Since(start))
		if len(due) > 0 {
			if next = leaseAgain; l.expire(start) == nil {
				continue
			}
		}
		var later <-chan time.Time
		if next >= 0 {
			later = time.After(next)
		}
		select {
		case <-l.wake.Rung():
			if !l.pause(leaseGather) {
				return
			}
		case <-later:
		case <-l.node.end.stop:
			return
		case <-l.node.end.failed:
			return
		}
	}
}

// pause waits, if there are leases, and returns false when the node ends.
func (l *leaser) pause(d time.Duration) bool {
	if len(l.node.state.Leases()) == 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-l.node.end.stop:
	case <-l.node.end.failed:
	}
	return false
}

// look returns the leases whose time is over, and how long it is until there may be
// another; below 0: until something changes.
func (l *leaser) look(now time.Duration) (due []Lease, next time.Duration) {
	_, term := l.node.progress.now()
	return l.clock.look(now, term, l.node.leading.Load(), l.node.state.Leases())
}

// expire ends the leases whose time is over.
func (l *leaser) expire(start time.Time) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*l.node.opt.Tick+time.Second)
	defer cancel()
	if err := l.node.readers.settle(ctx, Consistent); err != nil {
		return err
	}
	// A term may have begun: then all of them are counted anew.
	due, _ := l.look(time.Since(start))
	for part := range slices.Chunk(due, expireMost) {
		if _, err := l.node.Do(ctx, state.Expire(part...)); err != nil {
			return err
		}
	}
	return nil
}

// leaseClock counts the time to live of leases on a clock that is passed in.
type leaseClock struct {
	term uint64
	ends map[string]leaseEnd
}

type leaseEnd struct {
	fence, renewed uint64
	at             time.Duration
}

// look takes the leases as they are now, in a term, and returns those that are over. The
// time of those that it sees for the first time, or renewed, begins now; and that of all in
// another term, and after this member did not lead.
func (c *leaseClock) look(now time.Duration, term uint64, leading bool, list []Lease) (due []Lease, next time.Duration) {
	if !leading {
		c.ends = nil
		return nil, -1
	}
	before := c.ends
	if term != c.term {
		before = nil
	}
	c.term, c.ends = term, make(map[string]leaseEnd, len(list))
	next = -1
	for _, l := range list {
		e, ok := before[l.Name]
		if !ok || e.fence != l.Fence || e.renewed != l.Renewed {
			e = leaseEnd{l.Fence, l.Renewed, now + l.TTL}
		}
		c.ends[l.Name] = e
		if e.at <= now {
			due = append(due, l)
		} else if left := e.at - now; next < 0 || left < next {
			next = left
		}
	}
	return due, next
}
