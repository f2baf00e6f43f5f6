package asd

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"openvstorage/internal/disk"
)

const (
	suffix      = ".seg"
	sparePrefix = "spare-"
	reserveName = "reserve"
)

// segment is an open segment file. What ASD.mu guards is marked so.
type segment struct {
	file        disk.File // the writer's, while it is the current segment
	path        string
	number      uint32
	incarnation uint64
	// temp is the name that the file has until its first batch is synced.
	temp string

	end  int64 // behind the last batch; ASD.mu, changed by the writer only
	done int64 // behind the last batch that is in the index; ASD.mu
	size int64 // of the file; ASD.mu, changed by the writer only
	live int64 // bytes that live values take; ASD.mu
	tomb int64 // bytes that deletes take; ASD.mu
	// since is the highest entry.Since of the deletes; ASD.mu.
	since uint64
	// lastSeq is that of the newest batch with a delete; ASD.mu.
	lastDelete uint64
	// stuck: values in it could not be read, so it is not compacted as long as
	// any of them lives; ASD.mu.
	stuck bool

	// handle is the open file, nil: it is closed, and opened when it is read.
	handle  atomic.Pointer[handle]
	opening sync.Mutex
	// waiting counts those who are about to open it; ASD.mu is held when one is
	// added.
	waiting atomic.Int32
	// gone: the segment is retired, or the ASD closed.
	gone atomic.Bool
}

// idle reports whether nobody reads the file, or is about to.
func (s *segment) idle() bool {
	h := s.handle.Load()
	return s.waiting.Load() == 0 && (h == nil || h.users.Load() == 0)
}

// leave closes the file, with its last read.
func (a *ASD) leave(s *segment) {
	s.gone.Store(true)
	if h := s.handle.Load(); h != nil {
		h.doom(a.files)
	}
}

// place is where a value lies that an entry of the segment put. Of two puts of a
// key the place differs if what they put does; an empty value takes no room, so
// that its offset alone does not tell.
func (s *segment) place(e *Entry) place {
	return place{segment: s.number, data: uint32(e.Offset), table: uint32(e.Table), size: e.Size, seed: e.Seed, epoch: e.Epoch}
}

// corrupt is the error for a value in the segment.
func (s *segment) corrupt(key []byte, off int64, what string) error {
	return &CorruptError{Key: append([]byte(nil), key...), File: s.path, Offset: off, What: what}
}

func segmentName(number uint32) string { return fmt.Sprintf("%016x%s", uint64(number), suffix) }

func parseName(name string) (number uint32, ok bool) {
	hex, ok := strings.CutSuffix(name, suffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(hex, 16, 32)
	return uint32(n), err == nil && n > 0 && segmentName(uint32(n)) == name
}

// begin returns a new segment for a first batch of so many bytes. It has no name
// yet. Only the writer calls it.
func (a *ASD) begin(bytes int64, useReserve bool) (*segment, error) {
	if a.lastNumber == 1<<32-1 {
		return nil, errors.New("all segment numbers are used up; move the values to another ASD")
	}
	s := &segment{number: a.lastNumber + 1, incarnation: rand.Uint64(), end: blockSize, done: blockSize}
	s.path = path.Join(a.opt.Dir, segmentName(s.number))
	flag := disk.Write | disk.Direct
	if useReserve {
		s.temp = reserveName
	} else if s.temp = a.takeSpare(bytes); s.temp == "" {
		s.temp = newName
		flag |= disk.Create | disk.Truncate
	}
	s.temp = path.Join(a.opt.Dir, s.temp)
	f, err := a.openFile(s.temp, flag)
	if err != nil {
		return nil, err
	}
	s.file = f
	s.handle.Store(&handle{segment: s, file: f, own: true})
	if s.size, err = f.Size(); err == nil {
		header := appendHeader(a.scratch[:0], headerOf{a.identity.ID, uint64(s.number), s.incarnation})
		_, err = f.WritevAt([][]byte{header[:64], header[64:]}, 0)
		s.size = max(s.size, blockSize)
	}
	if err != nil {
		a.abandon(s)
		return nil, err
	}
	a.stats.headBytes.Add(blockSize)
	return s, nil
}

// abandon closes and removes a segment that has no name yet.
func (a *ASD) abandon(s *segment) {
	a.leave(s)
	if err := a.opt.FS.Remove(s.temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.opt.Logger.Warn("asd: cannot remove a file", "file", s.temp, "err", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if path.Base(s.temp) == reserveName {
		a.reserve = 0
	}
}

// takeSpare returns the name of a spare that holds so many bytes, "" if there
// is none.
func (a *ASD) takeSpare(bytes int64) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, s := range a.spares {
		if s.size >= bytes+blockSize {
			a.spares = append(a.spares[:i], a.spares[i+1:]...)
			return s.name
		}
	}
	return ""
}

// spare is a file that waits to be a segment again.
type spare struct {
	name string
	size int64
}

func (a *ASD) spareBytes() (n int64) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, s := range a.spares {
		n += s.size
	}
	return n
}

// dropSpares gives the spares' room back.
func (a *ASD) dropSpares() {
	a.mu.Lock()
	spares := a.spares
	a.spares = nil
	a.mu.Unlock()
	for _, s := range spares {
		if err := a.opt.FS.Remove(path.Join(a.opt.Dir, s.name)); err != nil {
			a.opt.Logger.Warn("asd: cannot remove a file", "dir", a.opt.Dir, "file", s.name, "err", err)
		}
	}
}

// name gives a segment its name, durably.
func (a *ASD) name(s *segment) error {
	if err := a.opt.FS.Rename(s.temp, s.path); err != nil {
		return err
	}
	if err := a.syncDir(); err != nil {
		return err
	}
	if path.Base(s.temp) == reserveName {
		a.mu.Lock()
		a.reserve = 0
		a.mu.Unlock()
	}
	s.temp = ""
	return nil
}

// seal ends the current segment: nothing more is appended to it. Whoever reads it
// from now on opens it anew: the writer's file may take two descriptors.
func (a *ASD) seal() {
	s := a.current
	a.current = nil
	switch {
	case s == nil:
	case s.temp != "":
		a.abandon(s) // nothing in it was ever acknowledged
	default:
		s.handle.Load().doom(a.files)
	}
}

// makeReserve makes the file that deletes may use when the disk has no room.
func (a *ASD) makeReserve() {
	size := roundUp(a.opt.reserveSize())
	name := path.Join(a.opt.Dir, reserveName)
	f, err := a.openFile(name, disk.Write|disk.Create)
	if err == nil {
		var have int64
		if have, err = f.Size(); err == nil && have < size {
			err = f.Prewrite(have, size-have)
		}
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = a.syncDir()
	}
	if err != nil {
		a.opt.FS.Remove(name)
		a.opt.Logger.Warn("asd: no reserve for deletes on a full disk", "file", name, "err", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserve = size
}
