package raftlog

import (
	"errors"
	"io/fs"
	"path"
	"time"

	"openvstorage/internal/disk"
)

// spare is a file that waits to become a segment.
type spare struct {
	mu    turn // held while the file is prepared
	file  disk.File
	lacks bool // it could not be made the last time
	tried time.Time
}

func (s *spare) take() disk.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.file
	s.file = nil
	return f
}

// prepareSpare begins to write the next segment's file in the background, so that no
// append waits for it. The file is also the log's reserve for a full disk, and is
// therefore made as early as possible.
func (l *Log) prepareSpare() {
	if l.unnamed || !l.spare.mu.TryLock() {
		return
	}
	if l.spare.file != nil {
		l.spare.mu.Unlock()
		return
	}
	if l.spare.lacks && l.pos < l.current.size/2 && time.Since(l.spare.tried) < spareAgain {
		l.spare.mu.Unlock()
		return
	}
	l.spare.tried = time.Now()
	l.preparer.Go(func() {
		defer l.spare.mu.Unlock()
		// An error is no failure: without a spare, the file is made when the segment
		// is begun.
		f, err := l.opt.openSpare()
		if err == nil {
			if err = grow(f, l.opt.SegmentBytes); err != nil {
				_ = f.Close() // it is opened again
			} else {
				l.spare.file = f
			}
		}
		l.spare.lacks = err != nil
	})
}

// spareAgain is the time between two attempts to make a spare that is not needed soon.
const spareAgain = time.Second

// openSpare opens or makes the spare file. A file that is longer than any segment holds
// nothing of value, and is cut.
func (o Options) openSpare() (disk.File, error) {
	f, err := o.FS.OpenFile(path.Join(o.Dir, spareName), disk.Write|disk.Create, 0o600)
	if err != nil {
		return nil, err
	}
	have, err := f.Size()
	if err == nil && have > SegmentMax {
		err = f.Truncate(o.SegmentBytes)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// grow writes a file up to a size. If the disk has no room for that, the file stays as
// long as it was.
func grow(f disk.File, size int64) error {
	have, err := f.Size()
	if err != nil || have >= size {
		return err
	}
	if err = f.Allocate(have, size-have); err == nil {
		err = f.Prewrite(have, size-have)
	}
	if disk.CauseOf(err) == disk.Full {
		err = errors.Join(err, f.Truncate(have))
	}
	return err
}

// recycle takes one of the segments as the spare and removes the others. They are given
// oldest first, and their names change in that order, so that a power cut leaves no gap.
// If a name cannot be changed, that segment and those behind it stay until the next time.
// The spare is written over only when its old name is durably gone: a restart must not
// find other bytes under that name.
func (l *Log) recycle(gone []*segment) error {
	if len(gone) == 0 {
		return nil
	}
	l.spare.mu.Lock()
	defer l.spare.mu.Unlock()
	var kept disk.File
	for i, s := range gone {
		if l.spare.file == nil && kept == nil && s.size == l.opt.SegmentBytes {
			if l.opt.FS.Rename(s.path, path.Join(l.opt.Dir, spareName)) != nil {
				l.takeBack(gone[i:])
				break
			}
			kept = s.file
			continue
		}
		if l.opt.FS.Remove(s.path) != nil {
			l.takeBack(gone[i:])
			break
		}
		_ = s.file.Close() // nobody wants it any more
	}
	err := l.opt.FS.SyncDir(l.opt.Dir)
	if err == nil {
		if kept != nil {
			l.spare.file = kept
		}
		return nil
	}
	free := kept == nil
	if kept != nil {
		_ = kept.Close()
		if disk.CauseOf(err) == disk.Full {
			e := l.opt.FS.Remove(path.Join(l.opt.Dir, spareName))
			free = e == nil || errors.Is(e, fs.ErrNotExist)
		}
	}
	if disk.CauseOf(err) == disk.Full && free {
		// A power cut may bring old names back. That is harmless: no file that such a
		// name leads to is written over.
		return nil
	}
	if disk.SyncBegun(err) {
		return l.fail(err)
	}
	l.unnamed = true
	return nil
}

// takeBack takes segments back that were to go.
func (l *Log) takeBack(list []*segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range list {
		l.segments[s.number] = s
	}
}
