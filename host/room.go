package host

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/writebuffer"
)

// makeRoom makes room on a full disk for a start. The files that it removes hold
// nothing.
func makeRoom(fsys disk.FS, dir *datadir.Directory, logger *slog.Logger) {
	if n := writebuffer.MakeRoom(fsys, filepath.Join(dir.Path, "buffer"), false); n > 0 {
		logger.Warn("the file system of the data directory is nearly full: free files of the write buffer were removed", "dir", dir.Path, "files", n)
	}
	if dir.GiveReserve(false) {
		logger.Warn("the file system of the data directory is full: the reserve for a start was given up. Make room", "dir", dir.Path)
	}
}

// spare is what a start can do without. A step of it is given up whenever something
// lacks room before the write buffer is open. Once it is open the write buffer gives way
// instead.
type spare struct {
	fs     disk.FS
	dir    *datadir.Directory
	logger *slog.Logger

	mu   sync.Mutex
	gave time.Time // when something was given up last
	dirs []string  // names in the data directory of what nobody has opened yet
}

func newSpare(fsys disk.FS, dir *datadir.Directory, logger *slog.Logger) *spare {
	return &spare{fs: fsys, dir: dir, logger: logger, dirs: []string{"cache", "map"}}
}

// sparePace is the least time between two steps: the room that one makes is to be used
// before the next.
const sparePace = time.Second

// needs says that a directory is about to be opened, and is not spare any more.
func (s *spare) needs(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirs = slices.DeleteFunc(s.dirs, func(n string) bool { return n == name })
}

// give makes some room for somebody who waits for it, and logs that.
func (s *spare) give(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.gave) < sparePace {
		return
	}
	s.gave = time.Now()
	s.logger.Warn("the start lacks room, and waits for some. Make room, or raise the quota", "dir", s.dir.Path, "err", err)
	gave := writebuffer.MakeRoom(s.fs, filepath.Join(s.dir.Path, "buffer"), true) > 0
	gave = s.dir.GiveReserve(true) || gave
	for len(s.dirs) > 0 && !gave {
		name := filepath.Join(s.dir.Path, s.dirs[0])
		s.dirs = s.dirs[1:]
		if gave = empty(s.fs, name, s.dir.Path); gave {
			s.logger.Warn("a directory was emptied for want of room: the backend has what was in it", "dir", name)
		}
	}
}

// await does something again and again while it fails for want of room, until ctx ends.
func (s *spare) await(ctx context.Context, do func() error) error {
	for {
		err := do()
		if disk.CauseOf(err) != disk.Full {
			return err
		}
		s.give(err)
		select {
		case <-time.After(sparePace):
		case <-ctx.Done():
			return fmt.Errorf("%w, while it waited for room: %w", ctx.Err(), err)
		}
	}
}

// lacks makes room for a group that waits for some. The write buffer gives way, or
// before it is open what a start can do without.
func (e *embedded) lacks(err error) {
	if h := e.lacked.Load(); h != nil {
		h.Lacks(err)
		return
	}
	e.spare.give(err)
}

// empty removes all that is in a directory, if that makes room for another one: both
// must be on the same file system. It reports whether it removed anything.
func empty(fsys disk.FS, name, of string) (some bool) {
	mine, err := fsys.Statfs(name)
	its, e := fsys.Statfs(of)
	if err != nil || e != nil || mine.ID != its.ID {
		return false
	}
	names, _ := fsys.ReadDir(name) // what cannot be read stays
	for _, n := range names {
		some = fsys.RemoveAll(filepath.Join(name, n)) == nil || some
	}
	return some
}

// giveUp has the fragment cache give way, too.
func (e *embedded) giveUp() {
	if e.alba != nil {
		e.alba.GiveUp()
	}
}

// keepReserve makes room now that a later start may need.
func keepReserve(dir *datadir.Directory, logger *slog.Logger) {
	if err := dir.KeepReserve(); err != nil {
		logger.Debug("no reserve was made for a start on a full disk", "dir", dir.Path, "err", err)
	}
}
