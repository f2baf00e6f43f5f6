package filetree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"openvstorage/internal/ctxlock"
	"openvstorage/internal/keyswap"
)

// Bounds of a tree.
const (
	MaxFile    = 8 << 20   // bytes of a file
	MaxBytes   = 256 << 20 // of all files together
	MaxEntries = 100_000
	MaxPath    = 1024 // bytes of a path
)

// Change sets a key, or deletes it if Value is nil.
type Change struct{ Key, Value []byte }

// Keys is the store of a tree.
type Keys interface {
	// Range calls fn with all keys that begin with prefix, in order, until it
	// returns false. fn may keep the slices.
	Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error
	// Write makes all changes at once, durable on return, or none. After an error other
	// than ErrNotWritten the changes may or may not be made.
	Write(ctx context.Context, changes []Change) error
	// Settle returns when every write that was begun before is made or never will be.
	// Reads then tell which.
	Settle(ctx context.Context) error
}

// Swap gives a key a new value in place of the old one.
type Swap = keyswap.Swap

// Commit makes all swaps at once, together with something of its own. Its errors are
// those of Keys.Write.
type Commit func(ctx context.Context, swaps []Swap) error

// ErrNotWritten says that a write has not happened and will not.
var ErrNotWritten = errors.New("nothing was changed")

// ErrMany says that more is below a directory than moves in one step.
var ErrMany = errors.New("too many to be moved in one step; move them in parts")

// Tree is safe for concurrent use. Reads wait for nothing but memory. Changes are made
// one after the other. While the outcome of a change is unknown the change counts as
// under way, and memory has not followed it: the next change, or the next call that
// needs a content, first finds out whether it was made.
type Tree struct {
	keys Keys

	change ctxlock.Lock // held by whoever changes the tree, over the write to the store
	doubt  *doubt       // the last change, if its outcome is not known

	mu      sync.RWMutex
	entries map[string]*Entry
	below   map[string]map[string]bool // names in a directory that has any
	paths   map[uint64]string          // by node
	dirs    map[string]int             // directories in a directory that has any
	disks   map[[16]byte]DiskAttr
	bytes   int64
	next    uint64 // node
}

// Valid reports whether a path can be an entry's.
func Valid(p string) bool {
	return p != "" && len(p) <= MaxPath && path.Clean(p) == p && p[0] != '/' && p != "." && p != ".." && !strings.HasPrefix(p, "../")
}

// enter puts an entry into memory. t.mu is held, or nobody knows the tree yet.
func (t *Tree) enter(name string, e Entry) {
	t.entries[name], t.paths[e.Node] = &e, name
	dir, base := split(name)
	if t.below[dir] == nil {
		t.below[dir] = map[string]bool{}
	}
	t.below[dir][base] = true
	if e.Kind == Directory {
		t.dirs[dir]++
	}
	t.bytes += e.Size
}

// leave takes an entry out of memory. t.mu is held.
func (t *Tree) leave(name string) {
	e := t.entries[name]
	delete(t.entries, name)
	delete(t.paths, e.Node)
	dir, base := split(name)
	if delete(t.below[dir], base); len(t.below[dir]) == 0 {
		delete(t.below, dir)
	}
	if e.Kind == Directory {
		if t.dirs[dir]--; t.dirs[dir] == 0 {
			delete(t.dirs, dir)
		}
	}
	t.bytes -= e.Size
}

// split parts a path into its directory, "" for the root, and its last name.
func split(name string) (dir, base string) {
	dir, base = path.Split(name)
	return strings.TrimSuffix(dir, "/"), base
}

// Get returns the entry of a path.
func (t *Tree) Get(name string) (Entry, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.entries[name]
	if e == nil {
		return Entry{}, false
	}
	return *e, true
}

// Path returns where an entry is now, and the entry itself.
func (t *Tree) Path(node uint64) (string, Entry, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	name, ok := t.paths[node]
	if !ok {
		return "", Entry{}, false
	}
	return name, *t.entries[name], true
}

// Named is an entry with its last name.
type Named struct {
	Name string
	Entry
}

// List returns the entries in a directory, in order of name. The directory itself need
// not have an entry.
func (t *Tree) List(dir string) []Named {
	t.mu.RLock()
	defer t.mu.RUnlock()
	list := make([]Named, 0, len(t.below[dir]))
	for base := range t.below[dir] {
		list = append(list, Named{base, *t.entries[path.Join(dir, base)]})
	}
	slices.SortFunc(list, func(a, b Named) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Bytes returns the bytes of all files.
func (t *Tree) Bytes() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.bytes
}

func taken(name string) error { return fmt.Errorf("file %q: %w", name, fs.ErrExist) }

func absent(name string) error { return fmt.Errorf("file %q: %w", name, fs.ErrNotExist) }

// Make makes an entry, and gives it a Node. Its size is 0.
func (t *Tree) Make(ctx context.Context, name string, e Entry) (Entry, error) {
	end, err := t.begin(ctx)
	if err != nil {
		return e, err
	}
	defer end()
	return t.make(ctx, name, e)
}

// MakeIn makes an entry in a directory, wherever the directory was moved to, and returns
// the entry's path. The directory gets the entry's time of modification. Node 0 is the
// root.
func (t *Tree) MakeIn(ctx context.Context, dir uint64, base string, e Entry) (string, Entry, error) {
	end, err := t.begin(ctx)
	if err != nil {
		return "", e, err
	}
	defer end()
	name := base
	if dir != 0 {
		parent, d, ok := t.Path(dir)
		if !ok || d.Kind != Directory {
			return "", e, absent(fmt.Sprint("node ", dir))
		}
		name = parent + "/" + base
	}
	e, err = t.make(ctx, name, e, t.touched(e.Modified, name)...)
	return name, e, err
}

// make makes an entry, and changes times of directories with it. t.change is held.
func (t *Tree) make(ctx context.Context, name string, e Entry, times ...timed) (Entry, error) {
	switch _, there := t.Get(name); {
	case there:
		return e, taken(name)
	case !Valid(name) || e.Kind == Disk:
		return e, fmt.Errorf("file %q: not a path of up to %d bytes: %w", name, MaxPath, fs.ErrInvalid)
	case len(t.entries) >= MaxEntries:
		return e, fmt.Errorf("file %q: there are %d already, the most that may be: %w", name, MaxEntries, syscall.ENOSPC)
	}
	e.Node, e.Size, e.Mode = t.next, 0, e.Mode&modeBits
	node := e.Node
	return e, t.write(ctx, append(changesOf(times), Change{entryKey(name), encode(e)}), func() {
		t.next = max(t.next, node+1)
		t.enter(name, e)
		t.retime(times)
	})
}

// Set changes the attributes of an entry.
func (t *Tree) Set(ctx context.Context, node uint64, change func(*Attr)) (Entry, error) {
	end, err := t.begin(ctx)
	if err != nil {
		return Entry{}, err
	}
	defer end()
	name, e, ok := t.Path(node)
	if !ok {
		return e, absent(fmt.Sprint("node ", node))
	}
	was := e.Attr
	if change(&e.Attr); e.Attr == was {
		return e, nil
	}
	e.Mode &= modeBits
	return e, t.write(ctx, []Change{{entryKey(name), encode(e)}}, func() { t.entries[name].Attr = e.Attr })
}

// Remove removes an entry, and a file's content. The entry of a directory is removed
// even if others are below it: the caller checks that. The directory that the entry was
// in is modified at a time, in nanoseconds since 1970; at 0 it is not.
func (t *Tree) Remove(ctx context.Context, name string, at int64) error {
	end, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	e, ok := t.Get(name)
	if !ok {
		return absent(name)
	}
	times := t.touched(at, name)
	return t.write(ctx, append(append(drop(e), changesOf(times)...), Change{Key: entryKey(name)}), func() {
		t.leave(name)
		t.retime(times)
	})
}

// drop deletes the content of a file.
func drop(e Entry) (list []Change) {
	for piece := range pieces(e.Size) {
		list = append(list, Change{Key: pieceKey(e.Node, uint32(piece))})
	}
	return list
}

// Directories returns how many directories that have an entry are in a directory.
func (t *Tree) Directories(dir string) int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.dirs[dir]
}

var errShort = errors.New("its content is not whole")
