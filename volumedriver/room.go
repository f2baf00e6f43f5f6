package volumedriver

import (
	"errors"
	"fmt"
	"path"
	"sync/atomic"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/pebblefs"
	"openvstorage/metadata/pebblestore"
)

// openPages opens the local page store. One that is damaged is thrown away, and one
// that cannot be opened for want of room, so that it has the room of the old one: the
// backend has every page that counts.
func (h *Host) openPages() error {
	dir := path.Join(h.opt.Dir, "map")
	err := h.openPagesOnce(dir, true)
	if disk.CauseOf(err) > disk.Answer && !errors.Is(err, pebblefs.ErrAbandoned) {
		return fmt.Errorf("page store: %w", err) // of the disk, and nothing that a new one would mend
	}
	if err != nil {
		h.opt.Logger.Warn("local page store is rebuilt from the backend", "dir", dir, "err", err)
		if err := h.opt.FS.RemoveAll(dir); err != nil {
			return err
		}
		err = h.openPagesOnce(dir, false)
	}
	h.pages = &pageStore{Store: h.store, log: h.opt.Logger, find: h.findPage}
	return err
}

// pagesPatience is how long the page store lacks room while it is opened, until that
// of an older one is taken for a new one: what gives way has done so by then.
const pagesPatience = 2 * time.Second

func lackedFor(since *time.Time, now time.Time) time.Duration {
	if since == nil {
		return 0 // there was room meanwhile
	}
	return now.Sub(*since)
}

// openPagesOnce opens the page store. impatient says that it is given up, with
// pebblefs.ErrAbandoned, if it lacks room for longer than it takes to make some.
func (h *Host) openPagesOnce(dir string, impatient bool) (err error) {
	var lacks atomic.Pointer[time.Time] // since when, nil if it does not
	var opened atomic.Bool
	var files *pebblefs.FS
	files = pebblefs.New(h.opt.FS, pebblefs.Options{OnFailure: h.pagesFailed, OnRoom: func() { lacks.Store(nil) }, OnFull: func(err error) {
		h.Lacks(err)
		now := time.Now()
		if !lacks.CompareAndSwap(nil, &now) && impatient && !opened.Load() && lackedFor(lacks.Load(), now) >= pagesPatience {
			files.Abandon()
		}
	}})
	h.files = files
	h.store, err = pebblestore.Open(files, dir, pebblestore.Options{Logger: h.opt.Logger, Fatal: h.pagesFailed})
	opened.Store(true)
	if given := files.Err(); errors.Is(given, pebblefs.ErrAbandoned) {
		if err == nil {
			_ = h.store.Close() // nothing of it is on the disk
		}
		return fmt.Errorf("page store %s: no room: %w", dir, given)
	}
	return err
}

// Lacks tells the host that something found no room on the file system of its
// directory: the write buffer gives files up, before anybody fails.
func (h *Host) Lacks(err error) {
	if b := h.room.Load(); b != nil {
		b.Lacks(err)
		return
	}
	if h.opt.OnFull != nil {
		h.opt.OnFull(err)
	}
}
