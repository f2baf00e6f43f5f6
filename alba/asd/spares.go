package asd

import (
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"openvstorage/internal/disk"
)

const (
	sparePrefix = "spare-"
	reserveName = "reserve"
)

// spares are files that were segments and wait to be segments again: to write over a
// file needs less metadata than to grow a new one. Their room counts as free, since
// they are removed before anything is refused.
type spares struct {
	dir *directory

	mu    sync.Mutex
	list  []spare
	named int // names that were given to spares
}

type spare struct {
	name string
	size int64
}

// newName returns a name that no spare has.
func (s *spares) newName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.named++
	return sparePrefix + strconv.Itoa(s.named)
}

// add takes a file that has a spare's name.
func (s *spares) add(f spare) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, f)
}

// take returns the name of a spare that holds a header and so many bytes, "" if there
// is none. The spare is the caller's from then on.
func (s *spares) take(bytes int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.list {
		if f.size >= bytes+blockSize {
			s.list = slices.Delete(s.list, i, i+1)
			return f.name
		}
	}
	return ""
}

// count returns how many spares there are, and their length together.
func (s *spares) count() (n int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.list {
		bytes += f.size
	}
	return len(s.list), bytes
}

// drop gives the room of all spares back to the file system.
func (s *spares) drop() {
	s.mu.Lock()
	list := s.list
	s.list = nil
	s.mu.Unlock()
	for _, f := range list {
		s.dir.remove(f.name)
	}
}

// reserve is a file that is kept so that deletes can be written on a disk without
// room: they are what makes room again. The writer makes a segment of it.
type reserve struct {
	dir  *directory
	size int64        // of the file, in bytes
	have atomic.Int64 // size, or 0: there is none
}

// bytes returns the length of the reserve, 0 if there is none.
func (r *reserve) bytes() int64 { return r.have.Load() }

// spent notes that the file has become a segment, or is gone.
func (r *reserve) spent() { r.have.Store(0) }

// make makes the file, or lengthens the one that is there. Without it deletes on a full
// disk are refused, and nothing else suffers: so an error is no more than a warning.
func (r *reserve) make() {
	name := r.dir.join(reserveName)
	f, err := r.dir.openFile(name, disk.Write|disk.Create)
	if err == nil {
		var have int64
		if have, err = f.Size(); err == nil && have < r.size {
			err = f.Prewrite(have, r.size-have)
		}
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = r.dir.sync()
	}
	if err != nil {
		r.dir.fs.Remove(name)
		r.dir.log.Warn("asd: no reserve for deletes on a full disk", "file", name, "err", err)
		return
	}
	r.have.Store(r.size)
}

// restore makes the reserve again, once the file system has room enough that nobody
// misses what it takes.
func (r *reserve) restore() {
	if r.bytes() > 0 {
		return
	}
	if u, err := r.dir.fs.Statfs(r.dir.path); err == nil && u.Free > uint64(4*r.size) {
		r.make()
	}
}
