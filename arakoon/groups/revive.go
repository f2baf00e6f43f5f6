package groups

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/disk"
)

// How a member that has failed is opened anew: after againFirst, then twice as long each time,
// up to againMost. One that has run for againMost begins with againFirst again.
const (
	againFirst = 200 * time.Millisecond
	againMost  = time.Minute
)

const (
	// userPatience is how long after a failure users of a group wait for the member's next
	// opening. Later they are told at once that it has failed.
	userPatience = 5 * time.Second
	// recheck is how long after one that did not answer a group of several is asked again
	// which generation it has seen, and checkTime how long it may take.
	recheck   = time.Second
	checkTime = 10 * time.Second
)

// Fate is what became of a member that has failed. Its zero value is that of a member that
// runs.
type Fate struct {
	Failed error // why it has failed; nil: it runs
	// Again is why it was not opened anew the last time; nil: that was not tried yet.
	Again error
	Next  time.Time // when that is tried again, for people; zero: it is being tried
	Room  bool      // it waits for room
	Final bool      // it is opened by nobody: a person has to replace it
}

// String says in one line, for people, how it goes on.
func (f Fate) String() string {
	switch {
	case f.Failed == nil:
		return ""
	case f.Final:
		return fmt.Sprintf("%v; it is not opened anew: replace it", f.Failed)
	case f.Room:
		return fmt.Sprintf("%v; waits for room: make some", f.Failed)
	case f.Next.IsZero():
		return fmt.Sprintf("%v; it is being opened anew", f.Failed)
	case f.Again != nil:
		return fmt.Sprintf("%v; opened anew at %s, and the last time that failed: %v", f.Failed, f.Next.UTC().Format(time.RFC3339), f.Again)
	}
	return fmt.Sprintf("%v; opened anew at %s", f.Failed, f.Next.UTC().Format(time.RFC3339))
}

// lot is the fate of a member, and how often it has failed.
type lot struct {
	mu       sync.Mutex
	fate     Fate
	failures uint64
	since    time.Time // of the failure; zero: it runs
}

func (l *lot) set(change func(*Fate)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.fate)
}

// Fate is what became of a group's member here, and how often it has failed since the start.
func (g *Groups) Fate(name string) (f Fate, failures uint64) {
	m := g.members.get(name)
	if m == nil {
		return Fate{}, 0
	}
	m.lot.mu.Lock()
	defer m.lot.mu.Unlock()
	return m.lot.fate, m.lot.failures
}

// await waits until another opening of the member has taken the place of one that has failed.
// It reports whether one has.
func (m *member) await(ctx context.Context, failed *arakoon.Node) bool {
	m.lot.mu.Lock()
	left := userPatience
	if !m.lot.since.IsZero() {
		left -= time.Since(m.lot.since)
	}
	if m.lot.fate.Final {
		left = 0
	}
	m.lot.mu.Unlock()
	timer := time.NewTimer(left)
	defer timer.Stop()
	for {
		changed := m.changed.Next()
		if m.node() != failed {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		case <-m.ctx.Done():
			return false
		}
	}
}

// tender opens members anew that have failed.
type tender struct{ *Groups }

// tend opens the member anew whenever it has failed, until it is dropped or all are closed.
//
// Nothing of what has failed is tried again as if it had worked (rule P6). The member is
// closed, and its files are read again, as after a power cut: log and state take from them what
// is known to be durable, write again what may not be, and begin new files for what follows. So
// what was answered is there, and what was under way is there or not, which nobody was told
// yet. What is missing then is refused by name, as at a start (P8). It takes part only from
// there on: others hear nothing of it, and it hears nothing, between Link.Detach and
// Link.Attach.
func (g tender) tend(m *member) {
	defer close(m.tended)
	wait := againFirst
	for {
		began, n := time.Now(), m.node()
		select {
		case <-n.Failed():
		case <-m.ctx.Done():
			return
		}
		if time.Since(began) >= againMost {
			wait = againFirst
		}
		if !g.revive(m, n, &wait) {
			return
		}
	}
}

// revive opens a member anew that has failed. It returns false if nobody wants that any more,
// or only a person can help.
func (g tender) revive(m *member, old *arakoon.Node, wait *time.Duration) bool {
	why := old.Err()
	m.lot.mu.Lock()
	m.lot.failures++
	m.lot.since = time.Now()
	m.lot.fate = Fate{Failed: why, Final: errors.Is(why, arakoon.ErrLost)}
	final := m.lot.fate.Final
	m.lot.mu.Unlock()
	logger := g.opt.Logger.With("group", m.spec.Name, "member", m.number())
	if m.spec.Link.Detach != nil {
		m.spec.Link.Detach()
	}
	_ = old.Close() // it says once more why it has failed
	if final {
		m.changed.Send()
		logger.Error("a member has lost what it had acknowledged, and is opened by nobody: replace it", "err", why)
		return false
	}
	for {
		m.lot.set(func(f *Fate) { f.Next = time.Now().Add(*wait) })
		logger.Warn("a member has failed, and is opened anew", "in", *wait, "err", why)
		select {
		case <-time.After(*wait):
		case <-m.ctx.Done():
			return false
		}
		*wait = min(2**wait, againMost)
		m.lot.set(func(f *Fate) { f.Next = time.Time{} })
		err := g.reopen(m)
		if err == nil {
			logger.Info("a member that had failed is open again")
			return true
		}
		if m.ctx.Err() != nil {
			return false
		}
		final = errors.Is(err, ErrOlder) || errors.Is(err, ErrForeign)
		m.lot.set(func(f *Fate) { f.Again, f.Room, f.Final = err, disk.CauseOf(err) == disk.Full, final })
		if why = err; final {
			m.changed.Send()
			logger.Error("a member that has failed is opened by nobody: its files are others than before", "err", err)
			return false
		}
	}
}

// reopen opens a member that is closed, once. A group of one is asked for its generation before
// anybody uses it, as at a start. One that has other members answers when they do, so it is
// asked by settle.
func (g tender) reopen(m *member) error {
	n, err := g.openMember(m.ctx, m.spec, true, func(error) { m.lot.set(func(f *Fate) { f.Room = f.Failed != nil }) })
	if err != nil {
		return err
	}
	alone := sole(n)
	if alone {
		if err := g.checkOne(m.ctx, m.spec, n); err != nil {
			return errors.Join(err, n.Close())
		}
		g.mayCompact(n)
	}
	m.now.Store(n)
	m.attach()
	m.lot.mu.Lock()
	m.lot.fate, m.lot.since = Fate{}, time.Time{}
	m.lot.mu.Unlock()
	m.changed.Send()
	if !alone {
		return g.settle(m, n)
	}
	return nil
}

// settle asks a group of several which generation it has seen, as a start does, until it
// answers or the member fails. A member of an older copy would have been found by the group
// itself (arakoon.ErrLost); this finds one whose whole group was put back.
func (g tender) settle(m *member, n *arakoon.Node) error {
	for {
		ctx, cancel := context.WithTimeout(m.ctx, checkTime)
		err := g.checkOne(ctx, m.spec, m.store())
		cancel()
		switch {
		case err == nil:
			g.mayCompact(n)
			return nil
		case errors.Is(err, ErrOlder) || errors.Is(err, ErrForeign):
			m.lot.set(func(f *Fate) { *f = Fate{Failed: err} })
			if m.spec.Link.Detach != nil {
				m.spec.Link.Detach()
			}
			return errors.Join(err, n.Close())
		}
		select {
		case <-time.After(recheck):
		case <-n.Failed():
			return nil // and so tend sees it
		case <-m.ctx.Done():
			return nil
		}
	}
}

// mayCompact ends the hold of a member's log once this start has claimed a generation. Before,
// the claim does it.
func (g tender) mayCompact(n *arakoon.Node) {
	if g.Mark().Number != 0 {
		n.MayCompact()
	}
}

// sole reports whether a member is its group's only one.
func sole(n *arakoon.Node) bool {
	m := n.Members()
	return len(m.All()) == 1 && len(m.Voters) == 1
}

// leave has nobody tend the member any more, and returns when nobody does.
func (m *member) leave() {
	m.cancel()
	if m.tended != nil {
		<-m.tended
	}
}
