package disk

import (
	"errors"
	"fmt"
	"io/fs"
)

// Tightened is what was found open to other users below a directory.
type Tightened struct {
	Names int    // files and directories that were made their owner's alone
	First string // one of them
	Was   fs.FileMode
	// Failed counts those that stay as they are, Err says why of the first.
	Failed int
	Err    error
}

// Add adds what was found elsewhere.
func (t *Tightened) Add(o Tightened) {
	if t.Names == 0 {
		t.First, t.Was = o.First, o.Was
	}
	if t.Err == nil {
		t.Err = o.Err
	}
	t.Names, t.Failed = t.Names+o.Names, t.Failed+o.Failed
}

// note takes up what became of one name.
func (t *Tightened) note(name string, was fs.FileMode, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist): // removed meanwhile
	case err != nil:
		t.Add(Tightened{Failed: 1, Err: err})
	case was.Perm()&0o077 != 0 && (was.IsDir() || was.IsRegular()):
		t.Add(Tightened{Names: 1, First: name, Was: was.Perm()})
	}
}

// TightenTree takes the rights of other users off all that is below a directory, and
// then off the directory. It follows no symbolic link but dir itself. If one name cannot
// be changed, it goes on with the others.
func TightenTree(fsys FS, dir string) Tightened {
	t := tightenBelow(fsys, dir)
	was, err := fsys.Private(self(dir))
	t.note(dir, was, err)
	return t
}

// TightenOnce is TightenTree, unless other users have no rights to the directory
// itself: then all below it has been done before. That check is one call, while a tree
// may have many thousand files.
func TightenOnce(fsys FS, dir string) Tightened {
	switch info, err := fsys.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return Tightened{}
	case err != nil:
		return Tightened{Failed: 1, Err: err}
	case info.Mode().Perm()&0o077 == 0:
		return Tightened{}
	}
	return TightenTree(fsys, dir)
}

// TightenName makes one file or directory its owner's alone.
func TightenName(fsys FS, name string) (t Tightened) {
	was, err := fsys.Private(name)
	t.note(name, was, err)
	return t
}

// self names a directory so that Private follows the link that dir may be.
func self(dir string) string { return dir + "/." }

func tightenBelow(fsys FS, dir string) (t Tightened) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		// lost+found is root's: whether others can enter it was seen by its mode.
		if !errors.Is(err, fs.ErrPermission) {
			t.note(dir, 0, fmt.Errorf("look for what others can read: %w", err))
		}
		return t
	}
	for _, name := range names {
		name = dir + "/" + name
		was, err := fsys.Private(name)
		t.note(name, was, err)
		if err == nil && was.IsDir() {
			t.Add(tightenBelow(fsys, name))
		}
	}
	return t
}
