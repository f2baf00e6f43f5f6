package arakoon

import (
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/arakoon/raftlog"
)

// DurationBounds are the upper ends of the first buckets of a Durations; the last one has
// all that takes longer.
var DurationBounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, time.Second, 5 * time.Second,
}

// Durations counts how long something took, by DurationBounds.
type Durations struct {
	Buckets [len(DurationBounds) + 1]uint64 // not summed up
	Total   time.Duration
}

// Count is how often it was done.
func (d Durations) Count() (n uint64) {
	for _, b := range d.Buckets {
		n += b
	}
	return n
}

// durations are Durations that any goroutine adds to. It allocates nothing.
type durations struct {
	buckets [len(DurationBounds) + 1]atomic.Uint64
	total   atomic.Int64
}

func (d *durations) add(took time.Duration) {
	i := 0
	for i < len(DurationBounds) && took > DurationBounds[i] {
		i++
	}
	d.buckets[i].Add(1)
	d.total.Add(int64(took))
}

func (d *durations) now() (out Durations) {
	for i := range d.buckets {
		out.Buckets[i] = d.buckets[i].Load()
	}
	out.Total = time.Duration(d.total.Load())
	return out
}

// figures are what a node counts for whoever looks at it. Nothing is decided by them.
type figures struct {
	proposals, stores, applies    durations
	snapshotsSent, snapshotsTaken atomic.Uint64

	mu   sync.Mutex
	lead LeadFigures
}

// LeadFigures are about who leads, as this member saw it since it was opened. Times are of
// this member's clock, and for people.
type LeadFigures struct {
	Elections    uint64    // that this member stood in
	Changes      uint64    // of who leads, to another member than before
	Since        time.Time // whoever leads does so, as far as is known; zero: nobody does
	LastElection time.Time // that this member stood in; zero: none

	leader uint64 // the last one that was known
}

// noted notes who leads, and whether this member stands for election.
func (f *figures) noted(leader uint64, before uint64, stands bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if stands {
		f.lead.Elections++
		f.lead.LastElection = now
	}
	switch {
	case leader == before:
		return
	case leader == 0:
		f.lead.Since = time.Time{}
		return
	case leader != f.lead.leader:
		f.lead.Changes++
		f.lead.leader = leader
	}
	f.lead.Since = now
}

// Figures are what a node has counted since it was opened, and what it holds. They are for
// people and monitoring: nothing is decided by them.
type Figures struct {
	Proposals Durations // from their admission to their answer
	Stores    Durations // in the log, each with one write and one sync
	Applies   Durations // to the state, of what is committed

	Lead LeadFigures

	LogBytes   int64  // of segment files
	StateBytes uint64 // of the state's files
	Watchers   int    // those that wait for a lease among them
	Sessions   int
	Leases     int

	SnapshotsSent  uint64 // to other members, as often as one was told of one
	SnapshotsTaken uint64 // of other members, that took the place of this one's state
}

// Figures returns the figures as they are now. Those of a node that has ended lack what the
// state holds.
func (i ImageCalls) Figures() Figures {
	n := i.node
	f := &n.figures
	out := Figures{
		Proposals: f.proposals.now(), Stores: f.stores.now(), Applies: f.applies.now(), LogBytes: raftlog.Size(n.log), Watchers: n.history.Watchers(),
		SnapshotsSent: f.snapshotsSent.Load(), SnapshotsTaken: f.snapshotsTaken.Load(),
	}
	f.mu.Lock()
	out.Lead = f.lead
	f.mu.Unlock()
	release, err := n.end.hold()
	if err != nil {
		return out
	}
	defer release()
	v := n.state.use()
	defer n.state.leave(v)
	out.StateBytes, out.Sessions, out.Leases = v.Size(), v.Sessions(), len(v.Leases())
	return out
}
