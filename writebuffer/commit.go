package writebuffer

import (
	"context"
	"fmt"
	"time"
)

// Commit returns when every entry up to seq survives a power cut. Calls that
// arrive while a round runs share the next one (group commit, O2).
//
// A caller that waits for another's round waits until its own ctx ends. The caller
// that runs the round waits for the answer of the disk, once it has asked for a sync.
//
// Commit looks at what is durable before it looks for a failure. That is the right
// order: durable moves only when every sync that it rests on has returned, each by
// the one owner of its file's syncs, and no later failure takes that back. A caller
// that asks for more after a failure gets the failure.
func (l *Log) Commit(ctx context.Context, seq uint64) error {
	if l.durable.Load() >= seq {
		return nil
	}
	l.group.Lock()
	defer l.group.Unlock()
	for try := 0; ; {
		if l.durable.Load() >= seq {
			return nil
		}
		if err := l.fate.err(); err != nil {
			return err
		}
		if l.group.running {
			if err := l.group.waitLocked(ctx); err != nil {
				return fmt.Errorf("%w, while it waited for the commit of others", err)
			}
			continue
		}
		l.group.running = true
		l.group.Unlock()
		err := l.commitRound(ctx)
		l.group.Lock()
		l.group.running = false
		l.group.tellLocked()
		if err == nil {
			continue
		}
		if err == errResuming { // each waits by itself, until its own ctx ends
			l.group.Unlock()
			err = l.waitResumed(ctx)
			l.group.Lock()
			if err != nil {
				return err
			}
			continue
		}
		if !l.lacksRoom(err) {
			return err
		}
		if gone := ctx.Err(); gone != nil {
			return fmt.Errorf("%w, while it waited for room: %v", gone, err)
		}
		// A sync that found no room waits for some, as a write does (P6).
		l.group.Unlock()
		try++
		err = l.fate.waitForRoom(ctx, try, nil, err)
		l.group.Lock()
		if err != nil {
			return err
		}
	}
}

// round is one round of the group commit: what it makes durable.
type round struct {
	seq    uint64 // every entry up to it
	open   *SCO   // whose commit block covers what no sealed one does; or nil
	sealed []*SCO // since the last round, in order
}

// commitRound makes everything written so far durable: a commit block behind
// the data in the open SCO, one datasync of that file, and a mark.
func (l *Log) commitRound(ctx context.Context) error {
	var r round
	defer r.release()
	l.syncer.flushed.Store(time.Now().UnixNano())
	if err := l.whenReady(ctx, func(a *section) error { return a.beginRound(&r) }); err != nil {
		return err
	}
	if err := r.sync(); err != nil {
		return err
	}
	l.advance(r.seq)
	return nil
}

// beginRound writes the commit block of a round, and says what is to be synced. Each
// SCO of the round keeps a reference: it may be sealed, stored and evicted before it
// is synced.
func (a *section) beginRound(r *round) error {
	if a.resuming != nil {
		return errResuming
	}
	if len(a.pending) > 0 {
		a.preferPrewritten()
	}
	if len(a.pending) > 0 {
		if a.open == nil || a.open.broken {
			if err := a.roll(); err != nil {
				return err
			}
		}
		if err := a.commitBlock(a.open); err != nil {
			return err
		}
		r.open = a.open
	} else if a.open != nil && a.open.covers > a.log.durable.Load() {
		// An earlier round has written its commit block, and its sync has failed.
		r.open = a.open
	}
	if r.open != nil {
		r.open.refs.Add(1)
	}
	r.seq = a.nextSeq - 1
	r.sealed = a.backlog.holdUnsynced(r.sealed)
	return nil
}

// sync syncs the SCOs of the round in order, the open one last.
func (r *round) sync() error {
	for _, s := range r.sealed {
		if err := s.sync(true); err != nil {
			return err
		}
	}
	if r.open == nil {
		return nil
	}
	return r.open.sync(false)
}

// release lets go of the SCOs of the round.
func (r *round) release() {
	for _, s := range r.sealed {
		s.release()
	}
	if r.open != nil {
		r.open.release()
	}
}

// advance records that everything up to seq is durable.
func (l *Log) advance(seq uint64) {
	a := l.section.enter()
	defer a.leave()
	a.advance(seq)
}
