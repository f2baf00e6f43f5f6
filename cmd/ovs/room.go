package main

import (
	"log/slog"
	"path/filepath"

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

// lacks makes room for a group that waits for some: the write buffer gives way, or
// before that is open all that a start can do without.
func (e *embedded) lacks(o hostOptions, err error) {
	if h := e.lacked.Load(); h != nil {
		h.Lacks(err)
		return
	}
	o.logger.Warn("the start lacks room, and waits for some. Make room, or raise the quota", "dir", o.dir.Path, "err", err)
	writebuffer.MakeRoom(o.fs, filepath.Join(o.dir.Path, "buffer"), true)
	o.dir.GiveReserve(true)
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
