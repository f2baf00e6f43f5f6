package asd

import (
	"context"
	"fmt"
	"time"

	"openvstorage/internal/bell"
)

// upkeep is what an ASD does by itself: it compacts segments, writes checkpoints, and
// makes the reserve again. One goroutine does it.
type upkeep struct {
	opt         *Options
	dir         *directory
	health      *health
	contents    *contents
	spares      *spares
	reserve     *reserve
	checkpoints *checkpoints
	compactor   *compactor
	writer      *writer

	work bell.Bell // there may be something to do
}

// run does what there is to do whenever the bell is rung, and gives room back when
// nothing has been written for a while, until ctx ends.
func (u *upkeep) run(ctx context.Context) {
	var rest <-chan time.Time
	if u.opt.Rest > 0 {
		t := time.NewTicker(u.opt.Rest)
		defer t.Stop()
		rest = t.C
	}
	var seen, rested uint64 // seqs
	for {
		select {
		case <-ctx.Done():
			return
		case <-rest:
			seq := u.contents.newest()
			quiet := seq == seen
			if seen = seq; !quiet || seq == rested {
				continue
			}
			u.warn(ctx, u.rest(ctx))
			// Resting writes too, and that is no reason to rest again.
			seen = u.contents.newest()
			rested = seen
		case <-u.work.Rung():
			u.warn(ctx, u.pass(ctx))
		}
	}
}

// warn tells of an error, unless it is that the ASD is being closed.
func (u *upkeep) warn(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		u.dir.log.Warn("asd: maintenance", "asd", u.dir.id, "dir", u.dir.path, "err", err)
	}
}

// rest gives room back while nothing is written.
func (u *upkeep) rest(ctx context.Context) error {
	if u.health.writable() != nil {
		return nil
	}
	u.spares.drop() // or one of them becomes the new segment
	if u.contents.survey().newestIsDead() {
		// The segment can be compacted once another one is the newest.
		r := &request{roll: true, done: make(chan error, 1)}
		if err := u.writer.submit(ctx, r, 0); err != nil {
			return err
		}
	}
	if u.contents.unsaved() > 0 { // deletes in a segment count until a checkpoint holds them
		if err := u.checkpoints.write(); err != nil {
			return err
		}
	}
	err := u.pass(ctx)
	u.spares.drop()
	return err
}

// pass writes a checkpoint if one is due, compacts until no segment is worth it, and makes
// the reserve again.
func (u *upkeep) pass(ctx context.Context) error {
	for ctx.Err() == nil && u.health.writable() == nil {
		if u.checkpoints.due(u.opt.SegmentBytes) {
			if err := u.checkpoints.write(); err != nil {
				return err
			}
		}
		s, hurry, err := u.compactor.victim()
		if err != nil {
			return err
		}
		if s == nil {
			break
		}
		if err := u.compactor.compact(ctx, s, hurry); err != nil {
			return fmt.Errorf("compact %s: %w", s.path, err)
		}
	}
	if u.health.writable() == nil {
		u.reserve.restore()
	}
	return nil
}
