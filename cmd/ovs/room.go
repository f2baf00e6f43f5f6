package main

import (
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/writebuffer"
)

// makeRoom has a start find room on a full disk: nothing is in the files that go.
func makeRoom(fsys disk.FS, dir *datadir.Directory, logger *slog.Logger) {
	if n := writebuffer.MakeRoom(fsys, filepath.Join(dir.Path, "buffer"), false); n > 0 {
		logger.Warn("the file system of the data directory is nearly full: free files of the write buffer were removed", "dir", dir.Path, "files", n)
	}
	if dir.GiveReserve(false) {
		logger.Warn("the file system of the data directory is full: the reserve for a start was given up. Make room", "dir", dir.Path)
	}
}

// spare is what a start can do without and nobody has opened yet. It goes at last,
// when a start lacks room.
type spare struct {
	sync.Mutex
	gave time.Time // when something was given up last
	dirs []string  // names in the data directory
}

// sparePace is how often something is given up at most: what that makes is to be used
// first.
const sparePace = time.Second

// needs says that a directory is about to be opened.
func (s *spare) needs(name string) {
	s.Lock()
	defer s.Unlock()
	s.dirs = slices.DeleteFunc(s.dirs, func(n string) bool { return n == name })
}

// lacks makes room for a group that waits for some: the write buffer gives way, or
// before that is open all that a start can do without.
func (e *embedded) lacks(o hostOptions, err error) {
	if h := e.lacked.Load(); h != nil {
		h.Lacks(err)
		return
	}
	e.spare.Lock()
	defer e.spare.Unlock()
	if time.Since(e.spare.gave) < sparePace {
		return
	}
	e.spare.gave = time.Now()
	o.logger.Warn("the start lacks room, and waits for some. Make room, or raise the quota", "dir", o.dir.Path, "err", err)
	gave := writebuffer.MakeRoom(o.fs, filepath.Join(o.dir.Path, "buffer"), true) > 0
	gave = o.dir.GiveReserve(true) || gave
	for len(e.spare.dirs) > 0 && !gave {
		name := filepath.Join(o.dir.Path, e.spare.dirs[0])
		e.spare.dirs = e.spare.dirs[1:]
		if gave = empty(o.fs, name, o.dir.Path); gave {
			o.logger.Warn("a directory was emptied for want of room: the backend has what was in it", "dir", name)
		}
	}
}

// empty removes all that is in a directory, if that has the room of another one's file
// system, and reports whether there was anything.
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
