package embedded

import "path"

// giveUpBytes is how much the fragment cache gives up at a time.
const giveUpBytes = 64 << 20

// leave returns what tells an ASD how much it leaves to others, nil for one that has a
// file system of its own.
func (b *Backend) leave(dir string) func() uint64 {
	if b.opt.Leave == 0 || !b.beside(dir) {
		return nil
	}
	return func() uint64 { return b.opt.Leave }
}

// beside reports whether a directory shares its room with the data directory.
func (b *Backend) beside(dir string) bool {
	own, err := b.opt.FS.Statfs(b.opt.Dir)
	if err != nil {
		return false
	}
	there, err := b.opt.FS.Statfs(dir)
	if err != nil {
		return false
	}
	if own.ID != 0 || there.ID != 0 {
		return own.ID == there.ID
	}
	return own == there
}

// GiveUp has the fragment cache give something up, if it shares the file system of
// the data directory, which lacks room. It does not wait.
func (b *Backend) GiveUp() {
	if b.cache != nil && b.beside(path.Join(b.opt.Dir, "cache")) {
		b.cache.GiveUp(giveUpBytes)
	}
}
