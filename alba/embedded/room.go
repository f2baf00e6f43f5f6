package embedded

import (
	"path"

	"openvstorage/internal/disk"
)

// giveUpBytes is how much the fragment cache gives up at a time.
const giveUpBytes = 64 << 20

// sharedRoom is the free space of the data directory's file system, which ASDs on the
// same file system share with the groups, the cache and the write buffer.
type sharedRoom struct {
	fs    disk.FS
	dir   string // data directory
	leave uint64 // bytes that ASDs leave to the others
}

// leaveFor returns what tells the ASD of a directory how many bytes it leaves to
// others. It is nil for an ASD with a file system of its own.
func (r sharedRoom) leaveFor(fsys disk.FS, dir string) func() uint64 {
	if r.leave == 0 || !r.with(fsys, dir) {
		return nil
	}
	return func() uint64 { return r.leave }
}

// with reports whether a directory is on the file system of the data directory.
func (r sharedRoom) with(fsys disk.FS, dir string) bool {
	own, err := r.fs.Statfs(r.dir)
	if err != nil {
		return false
	}
	there, err := fsys.Statfs(dir)
	if err != nil {
		return false
	}
	if own.ID != 0 || there.ID != 0 {
		return own.ID == there.ID
	}
	return own == there // without identities, equal figures are the best guess
}

// GiveUp makes the fragment cache give up some of its space, if the cache is on the
// file system of the data directory, which lacks room. It does not wait.
func (b *Backend) GiveUp() {
	if b.cache != nil && b.room.with(b.opt.FS, path.Join(b.opt.Dir, "cache")) {
		b.cache.GiveUp(giveUpBytes)
	}
}
