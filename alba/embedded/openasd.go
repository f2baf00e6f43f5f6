package embedded

import (
	"context"
	"errors"
	"fmt"
	"path"
	"syscall"
	"time"

	"openvstorage/alba/asd"
	"openvstorage/alba/fleet"
	"openvstorage/alba/osd"
	"openvstorage/internal/disk"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// openOne opens the ASD in a directory if it has the identity that is wanted.
func (s *asdSet) openOne(ctx context.Context, fsys disk.FS, dir string, id uuid.UUID) (*asd.ASD, error) {
	there, err := asd.ReadIdentity(fsys, dir)
	if err != nil {
		return nil, err
	}
	switch {
	case there.ID != id:
		return nil, fmt.Errorf("%s holds another ASD, %s: put back the one that was here, or take that directory for `ovs alba osd replace`", dir, there.ID)
	case there.Owner != uuid.Nil && there.Owner != s.id:
		return nil, fmt.Errorf("the ASD in %s belongs to backend %s", dir, there.Owner)
	}
	if err := s.generations.mayAttach(fsys, dir, id); err != nil {
		return nil, err
	}
	s.tighten(fsys, dir)
	a, err := asd.Open(asd.Options{
		FS: fsys, Dir: dir, Leave: s.room.leaveFor(fsys, dir), SegmentBytes: s.segmentBytes, Descriptors: s.files, Logger: s.logger.With("asd", dir),
	})
	if err != nil {
		return nil, err
	}
	// The ASD remembers this start before anything is taken from it. A full ASD can
	// still be read and deleted from, and one that takes no writes can be read: either
	// is used, and told with the next beat that it takes.
	m := s.generations.mark()
	if err := a.Raise(ctx, m); errors.Is(err, syscall.ENOSPC) || errors.Is(err, osd.ErrReadOnly) {
		s.logger.Warn("a disk has not remembered this start yet", "dir", dir, "err", err)
	} else if err != nil {
		return nil, errors.Join(err, a.Close())
	} else {
		s.generations.remembered(a, m)
	}
	return a, nil
}

// tighten takes other users' access to an ASD away: the mount point of a disk may be
// open to all. An ASD whose mode cannot be changed, on a read-only disk say, is logged
// and used: others could read what is on it before.
func (s *asdSet) tighten(fsys disk.FS, dir string) {
	t := disk.TightenOnce(fsys, dir)
	if t.Names > 0 {
		s.logger.Warn("an ASD was open to other users of this machine; it is its owner's alone now", "dir", dir, "names", t.Names, "mode", fmt.Sprintf("%04o", t.Was))
	}
	if t.Failed > 0 {
		s.logger.Warn("other users of this machine may read what is on an ASD: chmod -R go= it", "dir", dir, "err", t.Err)
	}
}

// reopenPause is the shortest time between two opens of a disk that takes no writes,
// or that is there and could not be opened: an open may read much.
const reopenPause = 5 * time.Second

// reopenAll calls reopen for each disk of the fleet. tried says when each was opened last.
func (s *asdSet) reopenAll(ctx context.Context, tried map[uint64]time.Time) {
	for _, d := range s.fleet.All() {
		if s.own(d.Node) {
			s.reopen(ctx, d, tried)
		}
	}
}

// reopen opens a disk that was missing and is back. It also opens a disk again that
// takes no writes, or answers with errors only: what made it so may be over, and if
// its directory was taken away or cannot be read, the disk is missing. A disk that
// does not answer is left alone: it is there again when it answers.
func (s *asdSet) reopen(ctx context.Context, d *fleet.Disk, tried map[uint64]time.Time) {
	reason := d.Refresh(ctx) // before the lock: a dying disk takes its time
	if d.Attached() == nil && (errors.Is(reason, fleet.ErrNotAnswering) || errors.Is(reason, fleet.ErrLate)) {
		return
	}
	if reason == nil {
		reason = d.Known().ReadOnly
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := s.path(d.Place)
	if s.fleet.Disk(d.Number) != d {
		return // it was replaced or moved meanwhile
	}
	if s.errands.busy(dir) {
		if o := s.opening[d.Number]; o != nil {
			s.watchOpeningLocked(d, o)
		}
		return
	}
	again := time.Since(tried[d.Number]) >= reopenPause
	if d.Attached() != nil {
		// An open that has ended is taken at once, and looking for an ASD that is not
		// there costs little. Any other open waits its turn.
		if s.opening[d.Number] == nil && !errors.Is(d.Reason(), asd.ErrNoASD) {
			if !again {
				return
			}
			tried[d.Number] = time.Now()
		}
		s.attachLocked(ctx, d)
		return
	}
	if reason == nil || errors.Is(reason, fleet.ErrMissing) || ctx.Err() != nil || !again {
		return
	}
	tried[d.Number] = time.Now()
	if s.readOnly(ctx, dir) || s.errands.busy(dir) || ctx.Err() != nil {
		return // it can be read, and an open would make it no better; or it is not known
	}
	s.logger.Warn("a disk takes no writes, or does not answer; it is opened anew", "disk", d.Number, "err", reason)
	d.Detach(reason)
	s.closeLocked(ctx, d.Number)
	s.attachLocked(ctx, d)
}

// watchOpeningLocked looks at an open that goes on without its caller. When the calls of the
// open no longer come back, the disk does not answer, like any other that hangs.
func (s *asdSet) watchOpeningLocked(d *fleet.Disk, o *opening) {
	n, now := int64(o.fs.Done()), time.Now()
	switch {
	case n != o.calls || o.moved.IsZero():
		o.calls, o.moved = n, now
		d.Unopened(o.underWay())
	case now.Sub(o.moved) >= errandStall:
		s.cannotOpen(d, o.silent())
	}
}

// readOnly reports whether the file system of an ASD is mounted read-only: opening the
// ASD again would not help.
func (s *asdSet) readOnly(ctx context.Context, dir string) bool {
	err := s.errands.do(ctx, dir, func(fsys disk.FS) error {
		f, err := fsys.OpenFile(path.Join(dir, asd.IdentityName), disk.Write, 0)
		if err == nil {
			err = f.Close()
		}
		return err
	})
	return errors.Is(err, unix.EROFS)
}
