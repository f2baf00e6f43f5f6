package writebuffer

import (
	"errors"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"openvstorage/internal/bell"
	"openvstorage/internal/broadcast"
	"openvstorage/internal/disk"
)

// pool has the SCO-sized files of a buffer that no vDisk uses, and counts all that
// there are. How many there may be is decided with how many there are: so room
// shares its lock.
type pool struct {
	fs        disk.FS
	dir       string
	scoSize   int64
	names     *names
	logs      *logs
	evictable *evictable
	log       *slog.Logger
	prewriter prewriter
	remeasure bell.Bell // something lacked room

	// mu comes after the append section of every log, and before the locks of logs
	// and evictable.
	mu       sync.Mutex
	raw      []string            // names in the pool, to be pre-written
	free     []string            // names in the pool
	files    int                 // SCO-sized files in existence, in whatever state
	nextFree int                 // next name in the pool
	changed  broadcast.Broadcast // a waiter should look again
	waiting  int                 // writers that wait for a file, and preparers that wait for places
	wanted   int                 // calls of acquire
	closed   bool
	room     room
}

// adopt counts the files that are there and fills the pool's list.
func (p *pool) adopt() error {
	names, err := p.fs.ReadDir(p.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		at := path.Join(p.dir, name)
		number, raw := strings.CutSuffix(name, rawSuffix)
		n, err := strconv.Atoi(number)
		if err == nil {
			p.nextFree = max(p.nextFree, n+1)
		}
		info, serr := p.fs.Stat(at)
		if serr == nil && (err != nil || info.Size() != p.scoSize || p.files >= p.room.max) {
			if serr = p.fs.Remove(at); serr == nil {
				continue
			}
		}
		if serr != nil {
			// A file of the pool holds no data. It takes its room, so it counts.
			p.log.Warn("write buffer: file of the pool is left as it is", "file", at, "err", serr)
			p.files++
			continue
		}
		if raw {
			p.raw = append(p.raw, name)
		} else {
			p.free = append(p.free, name)
		}
		p.files++
	}
	return nil
}

// close refuses files from now on.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.changed.Send()
}

// wake makes all that wait look again.
func (p *pool) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed.Send()
}

// evict drops the first SCO that may go, and reports whether there was one. With narrow
// it may be a narrow one, if there is no other. Its file reaches the pool when its last
// reader lets go. The caller does not hold p.mu: dropping an SCO takes the append section
// of its log, which comes before p.mu.
func (p *pool) evict(narrow bool) bool {
	s := p.evictable.first(narrow)
	if s == nil {
		return false
	}
	s.log.drop(s)
	return true
}

// instead reports whether a new file may be made in the place of one of the pool
// that could not be taken. If not, it evicts an SCO, for the next attempt to take.
func (p *pool) instead(from string, err error) bool {
	p.log.Warn("write buffer: file of the pool not taken", "file", path.Join(p.dir, from), "err", err)
	p.mu.Lock()
	may := p.files < int(p.room.limit.Load())
	if may {
		p.files++
	}
	p.mu.Unlock()
	if !may {
		p.evict(true)
	}
	return may
}

// pop takes the last of a list.
func pop(list *[]string) (string, bool) {
	n := len(*list)
	if n == 0 {
		return "", false
	}
	last := (*list)[n-1]
	*list = (*list)[:n-1]
	return last, true
}

// swap takes a pre-written file for name if there is one at once.
func (p *pool) swap(name string) (bool, error) {
	p.mu.Lock()
	from, ok := pop(&p.free)
	p.mu.Unlock()
	if !ok {
		p.prewriter.fill.Ring()
		return false, nil
	}
	_, err := p.take(from, name, &p.free)
	return err == nil, err
}

// take moves a file of the pool to name. If that fails it goes back to list,
// behind all others: the next attempt takes another one. One that was moved to a
// name that cannot be made durable is given up.
func (p *pool) take(from, name string, list *[]string) (moved bool, err error) {
	err = p.names.add(path.Dir(name), func() error {
		err := p.fs.Rename(path.Join(p.dir, from), name)
		moved = err == nil
		return err
	})
	switch {
	case err == nil:
	case moved:
		p.discard(name)
	case errors.Is(err, fs.ErrNotExist):
		p.forget()
	default:
		p.mu.Lock()
		*list = slices.Insert(*list, 0, from)
		p.mu.Unlock()
	}
	return moved, err
}

// create makes a file that is not pre-written, for a writer that waits. Its first
// syncs are slower; when it has been recycled it is like the others. It is allocated,
// so that no write to it lacks room.
func (p *pool) create(name string) error {
	err := p.names.add(path.Dir(name), func() error {
		f, err := p.fs.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o600)
		if err != nil {
			return err
		}
		if err = f.Allocate(0, p.scoSize); err == nil {
			err = f.Truncate(p.scoSize)
		}
		return errors.Join(err, f.Close())
	})
	if err != nil {
		p.discard(name)
	}
	return err
}

// forget gives up the place of a file that no longer exists.
func (p *pool) forget() {
	p.mu.Lock()
	p.files--
	p.changed.Send()
	p.mu.Unlock()
}

// discard removes a file that cannot be reused.
func (p *pool) discard(name string) {
	if err := p.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.log.Warn("write buffer: file not removed", "file", name, "err", err)
	}
	p.forget()
}

// recycle moves a file into the pool, raw if it must be pre-written first.
// Nothing reads or writes it any more.
func (p *pool) recycle(name string, raw bool) {
	p.mu.Lock()
	if info, err := p.fs.Stat(name); !p.keepsLocked() || err != nil || info.Size() != p.scoSize {
		p.mu.Unlock()
		p.discard(name) // the buffer was larger, or its SCOs of another size, or there is no room
		return
	}
	to := strconv.Itoa(p.nextFree)
	p.nextFree++
	p.mu.Unlock()
	if raw {
		to += rawSuffix
	}
	if err := p.fs.Rename(name, path.Join(p.dir, to)); err != nil {
		p.log.Warn("write buffer: file not recycled", "file", name, "err", err)
		p.discard(name)
		return
	}
	p.add(to, raw)
}

// add puts a file, which has its name in the pool already, on its list.
func (p *pool) add(name string, raw bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if raw {
		p.raw = append(p.raw, name)
		p.prewriter.fill.Ring()
	} else {
		p.free = append(p.free, name)
	}
	p.changed.Send()
}

// nextPrewrite picks a file to pre-write: one that lies raw in the pool, or a
// new one, which is counted. ready is how many are kept ahead of need, calm says that
// nobody has asked for a file of late.
func (p *pool) nextPrewrite(ready int, calm bool) (name string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.waiting > 0 {
		return "", false
	}
	free := len(p.free)
	inUse := p.files - free - len(p.raw)
	if free >= ready && (!calm || inUse == 0) {
		return "", false
	}
	if name, ok = pop(&p.raw); ok {
		return name, true
	}
	if p.files >= int(p.room.limit.Load()) {
		return "", false
	}
	p.files++
	name = strconv.Itoa(p.nextFree)
	p.nextFree++
	return name, true
}

// count notes files that were there before the pool was.
func (p *pool) count(files int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files += files
}

// short reports whether a writer waits for a file, or the file system lacks room.
func (p *pool) short() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting > 0 || p.room.lacking()
}

// narrowed is what the file system has room for, in bytes; not less: for all that is
// wanted.
func (p *pool) narrowed() (bytes int64, less bool) {
	n := p.room.limit.Load()
	return n * p.scoSize, n < int64(p.room.max)
}
