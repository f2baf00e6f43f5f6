package volumedriver

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/pebblefs"
	"openvstorage/metadata/pebblestore"
)

// openPages opens the local page store. One that is damaged is thrown away, and so is
// one that cannot be opened for want of room: a new one begins with the room of the
// old one. The backend has every page that counts.
func openPages(opt pageOptions) (*pageStore, error) {
	s := &pageStore{opt: opt}
	err := s.openOnce(true)
	if disk.CauseOf(err) > disk.Answer && !errors.Is(err, pebblefs.ErrAbandoned) {
		return nil, fmt.Errorf("page store: %w", err) // of the disk, and nothing that a new one would mend
	}
	if err != nil {
		opt.log.Warn("local page store is rebuilt from the backend", "dir", opt.dir, "err", err)
		if err := opt.fs.RemoveAll(opt.dir); err != nil {
			return nil, err
		}
		if err := s.openOnce(false); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// pagesPatience is how long the page store may lack room while it is opened. After
// that its directory is thrown away to make room for a new one: whatever else could
// give room has done so by then.
const pagesPatience = 2 * time.Second

func lackedFor(since *time.Time, now time.Time) time.Duration {
	if since == nil {
		return 0 // there was room meanwhile
	}
	return now.Sub(*since)
}

// openOnce opens the local store. impatient says that it is given up, with
// pebblefs.ErrAbandoned, if it lacks room for longer than pagesPatience.
func (s *pageStore) openOnce(impatient bool) error {
	var lacks atomic.Pointer[time.Time] // since when, nil if it does not
	var opened atomic.Bool
	var files *pebblefs.FS
	files = pebblefs.New(s.opt.fs, pebblefs.Options{OnFailure: s.failed, OnRoom: func() { lacks.Store(nil) }, OnFull: func(err error) {
		s.opt.lacks(err)
		now := time.Now()
		if !lacks.CompareAndSwap(nil, &now) && impatient && !opened.Load() && lackedFor(lacks.Load(), now) >= pagesPatience {
			files.Abandon()
		}
	}})
	s.files = files
	local, err := pebblestore.Open(files, s.opt.dir, pebblestore.Options{Logger: s.opt.log, Fatal: s.failed})
	opened.Store(true)
	if given := files.Err(); errors.Is(given, pebblefs.ErrAbandoned) {
		if err == nil {
			_ = local.Close() // nothing of it is on the disk
		}
		return fmt.Errorf("page store %s: no room: %w", s.opt.dir, given)
	}
	if err != nil {
		return err
	}
	s.local, s.Store = local, local
	return nil
}

// failed gives the local store up rather than wait for it: it holds nothing that the
// backend and the TLogs do not.
func (s *pageStore) failed(err error) {
	s.opt.failed(fmt.Errorf("page store %s: %w", s.opt.dir, err))
	s.files.Abandon()
}

// close closes the local store. On a full disk Pebble would wait for room: after
// closePatience the store is given up.
func (s *pageStore) close() error {
	patience := time.AfterFunc(closePatience, s.files.Abandon)
	defer patience.Stop()
	return s.local.Close()
}

// closePatience is how long close waits for the page store.
const closePatience = 5 * time.Second
