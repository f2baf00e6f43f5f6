package faultdisk

import (
	"path"
	"sync"

	"golang.org/x/sys/unix"
)

// Quota is the room that is left below a directory. Files count by their
// size; holes do too, once they lie below it.
type Quota struct {
	dir string
	fs  *FS
	// Guarded by fs.room.mu.
	left  int64
	named bool // names are counted, too
	names int64
	err   unix.Errno
	total uint64 // as Statfs says, 0: as the disk below says
	quiet bool   // Statfs does not know of it
}

// Limit lets the files below dir grow by n bytes from now on; then growing
// them fails with ENOSPC, after what still fits. Making them shorter or
// removing them gives room back, those made earlier too. Linked files count
// once, until their last name goes.
func (d *FS) Limit(dir string, n int64) *Quota {
	q := &Quota{dir: path.Clean(dir), fs: d, left: n, err: unix.ENOSPC}
	d.room.mu.Lock()
	defer d.room.mu.Unlock()
	d.room.quotas = append(d.room.quotas, q)
	return q
}

// Disk makes the quota a file system's: Statfs says that it has total bytes.
func (q *Quota) Disk(total int64) *Quota {
	q.fs.room.mu.Lock()
	defer q.fs.room.mu.Unlock()
	q.total = uint64(total)
	return q
}

// User makes the quota a user's: what exceeds it fails with EDQUOT, and Statfs
// does not know of it.
func (q *Quota) User() *Quota {
	q.fs.room.mu.Lock()
	defer q.fs.room.mu.Unlock()
	q.err, q.quiet = unix.EDQUOT, true
	return q
}

// Names lets n more files and directories be made below the directory, as a file
// system with so many inodes does. Those that go give theirs back.
func (q *Quota) Names(n int64) *Quota {
	q.fs.room.mu.Lock()
	defer q.fs.room.mu.Unlock()
	q.named, q.names = true, n
	return q
}

// Grow makes the quota n bytes larger, or smaller if n is negative.
func (q *Quota) Grow(n int64) {
	q.fs.room.mu.Lock()
	defer q.fs.room.mu.Unlock()
	q.left += n
}

// Left returns how many bytes may still be added.
func (q *Quota) Left() int64 {
	q.fs.room.mu.Lock()
	defer q.fs.room.mu.Unlock()
	return q.left
}

// Remove takes the quota away.
func (q *Quota) Remove() {
	r := &q.fs.room
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.quotas {
		if r.quotas[i] == q {
			r.quotas = append(r.quotas[:i:i], r.quotas[i+1:]...)
			return
		}
	}
}

// room follows the sizes of files for the quotas.
type room struct {
	mu     sync.Mutex
	quotas []*Quota
	files  map[string]*extent // by path, for names that were opened or linked
}

// extent is one file's size, shared by its names and its open handles.
type extent struct {
	size  int64
	names int // 0: removed, charges nobody
	path  string
}

// file returns the extent of a path. size is what the caller has just found;
// it counts for a path that is new here, and where the file was cut to 0.
func (r *room) file(name string, size int64) *extent {
	r.mu.Lock()
	defer r.mu.Unlock()
	name = path.Clean(name)
	e := r.files[name]
	if e == nil {
		e = &extent{size: size, names: 1, path: name}
		r.files[name] = e
	} else if size == 0 {
		r.set(e, 0)
	}
	return e
}

// set changes a file's size and charges the quotas. mu is held.
func (r *room) set(e *extent, size int64) {
	if e.names > 0 {
		for _, q := range r.quotas {
			if below(q.dir, e.path) {
				q.left -= size - e.size
			}
		}
	}
	e.size = size
}

// claim asks to write up to end and returns how far the quotas let it; the
// room is taken. err is ENOSPC if that is less.
func (r *room) claim(e *extent, end int64) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if end <= e.size {
		return end, nil
	}
	allowed, err := r.allowed(e, end)
	r.set(e, max(e.size, allowed))
	return allowed, err
}

// allowed is how far up to end the quotas let a file grow, and the error of the one
// that does not let it. mu is held.
func (r *room) allowed(e *extent, end int64) (allowed int64, err error) {
	allowed = end
	if e.names > 0 {
		for _, q := range r.quotas {
			if n := e.size + max(0, q.left); below(q.dir, e.path) && n < allowed {
				allowed, err = n, q.err
			}
		}
	}
	return allowed, err
}

// allocate takes the room up to end, or none.
func (r *room) allocate(e *extent, end int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if end <= e.size {
		return nil
	}
	if _, err := r.allowed(e, end); err != nil {
		return err
	}
	r.set(e, end)
	return nil
}

// counts says whether names below a path are counted.
func (r *room) counts(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.quotas {
		if q.named && below(q.dir, path.Clean(name)) {
			return true
		}
	}
	return false
}

// claimNames takes n names, or none; a negative n gives some back.
func (r *room) claimNames(name string, n int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	name = path.Clean(name)
	for _, q := range r.quotas {
		if q.named && below(q.dir, name) && q.names < n {
			return q.err
		}
	}
	for _, q := range r.quotas {
		if q.named && below(q.dir, name) {
			q.names -= n
		}
	}
	return nil
}

// resize notes that a file has a new size.
func (r *room) resize(e *extent, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set(e, size)
}

// drop notes that a name is gone. mu is held.
func (r *room) drop(name string) {
	e := r.files[name]
	if e == nil {
		return
	}
	delete(r.files, name)
	if e.names == 1 {
		size := e.size
		r.set(e, 0)
		e.size = size // open handles go on with it, uncharged
	}
	e.names--
}

// removed notes that name and all below it are gone.
func (r *room) removed(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name = path.Clean(name)
	for n := range r.files {
		if below(name, n) {
			r.drop(n)
		}
	}
}

// renamed notes that a file or directory has another name.
func (r *room) renamed(from, to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	from, to = path.Clean(from), path.Clean(to)
	if from == to || r.files[from] != nil && r.files[from] == r.files[to] {
		return
	}
	r.drop(to)
	moved := map[string]*extent{}
	for n, e := range r.files {
		if below(from, n) {
			moved[n] = e
		}
	}
	for n, e := range moved {
		delete(r.files, n)
		size := e.size
		r.set(e, 0) // out of the quotas above the old name, into those above the new
		e.path = to + n[len(from):]
		r.set(e, size)
		r.files[e.path] = e
	}
}

// linked notes that a file has a second name.
func (r *room) linked(from, to string, size int64) {
	e := r.file(from, size)
	r.mu.Lock()
	defer r.mu.Unlock()
	e.names++
	r.files[path.Clean(to)] = e
}

// manyNames is what Statfs says of how many names a disk with such a bound has.
const manyNames = 1 << 20

// narrowest returns a copy of the quota over a path that leaves least, of those that
// Statfs knows of, if there is one.
func (r *room) narrowest(name string) (least Quota, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name = path.Clean(name)
	for _, q := range r.quotas {
		if below(q.dir, name) && !q.quiet && (!found || q.left < least.left) {
			least, found = *q, true
		}
	}
	return least, found
}
