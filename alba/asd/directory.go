package asd

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"

	"github.com/google/uuid"
)

// directory is where an ASD lives: its place in a file system, and the descriptors with
// which its files are opened. Once Open has set id nothing in it changes.
type directory struct {
	fs       disk.FS
	path     string
	id       uuid.UUID // of the ASD
	log      *slog.Logger
	files    *Descriptors
	patience time.Duration
	ctx      context.Context // ended by Close: nobody waits for a descriptor any longer
}

// join returns the path of a file in the directory.
func (d *directory) join(name string) string { return path.Join(d.path, name) }

// holdsASD reports whether the directory still leads to an ASD. If its disk has gone from
// under it, a file that is missing says nothing about the ASD.
func (d *directory) holdsASD() bool {
	_, err := d.fs.Stat(d.join(identityName))
	return err == nil
}

// remove removes a file that is not needed. One that stays costs only room, so an error
// is no more than a warning.
func (d *directory) remove(name string) {
	if err := d.fs.Remove(d.join(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("asd: cannot remove a file", "dir", d.path, "file", name, "err", err)
	}
}

// list returns the numbers of the segments, in order, and whether the directory holds
// accept-unreadable. It removes files that never got their name.
func (d *directory) list() (numbers []uint32, accepting bool, err error) {
	names, err := d.fs.ReadDir(d.path)
	if err != nil {
		return nil, false, err
	}
	for _, name := range names { // sorted, and so are the numbers
		if n, ok := parseName(name); ok {
			numbers = append(numbers, n)
			continue
		}
		if name == newName || name == indexNew || name == identityNew || name == claimNew || strings.HasPrefix(name, sparePrefix) {
			d.remove(name)
		}
	}
	return numbers, slices.Contains(names, acceptName), nil
}

// patienceFor is how long a call waits for a descriptor when the process or the
// machine has none left.
const patienceFor = 2 * time.Second

// openFile opens a file, given by its path. Too many open files are no fault of the
// disk: then openFile closes some of the ASD's own that nobody reads, and waits a while
// until others close theirs.
func (d *directory) openFile(name string, flag disk.Flag) (f disk.File, err error) {
	err = d.withDescriptor(func() error {
		f, err = d.fs.OpenFile(name, flag, 0o600)
		return err
	})
	return f, err
}

// sync makes the names in the directory durable.
func (d *directory) sync() error {
	return d.withDescriptor(func() error { return d.fs.SyncDir(d.path) })
}

func (d *directory) withDescriptor(call func() error) error {
	waited := time.Duration(0)
	for rest := time.Millisecond; ; rest *= 2 {
		err := call()
		if err == nil || !noDescriptor(err) && !interrupted(err) || waited >= d.patience {
			return err
		}
		if d.files.shed(1+d.files.max/8) > 0 {
			waited += time.Millisecond // others may take what is given up here, again and again
			continue
		}
		rest = min(rest, d.patience-waited)
		if waited += rest; pause(d.ctx, rest) != nil {
			return err
		}
	}
}

// acquire returns the open file of a segment, for reading, until the handle is released.
func (d *directory) acquire(s *segment) (*handle, error) {
	if h := s.handle.Load(); h != nil && h.acquire() {
		return h, nil
	}
	if s.opening.Take(d.ctx) != nil {
		return nil, osd.ErrClosed
	}
	defer s.opening.Give()
	if h := s.handle.Load(); h != nil && h.acquire() {
		return h, nil
	}
	f, err := d.openFile(s.path, 0)
	if err != nil {
		return nil, err
	}
	h := &handle{segment: s, file: f}
	h.users.Store(1)
	s.handle.Store(h)
	if s.gone.Load() {
		h.doomed.Store(true)
	}
	d.files.add(h)
	return h, nil
}

// giveUp gives a segment up. Its file is closed with its last read.
func (d *directory) giveUp(s *segment) {
	s.gone.Store(true)
	if h := s.handle.Load(); h != nil {
		h.doom(d.files)
	}
}

// segmentReader reads the file of a segment, which it has open only meanwhile.
type segmentReader struct {
	dir     *directory
	segment *segment
}

func (r segmentReader) ReadAt(p []byte, off int64) (int, error) {
	h, err := r.dir.acquire(r.segment)
	if err != nil {
		return 0, err
	}
	defer h.release(r.dir.files)
	return h.file.ReadAt(p, off)
}

// scanner returns a scanner of a segment. size is its length.
func (d *directory) scanner(s *segment, size int64, bad *int) *scanner {
	return newScanner(segmentReader{d, s}, s.path, s.incarnation, size, bad)
}
