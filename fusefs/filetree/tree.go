package filetree

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"openvstorage/internal/format"
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
	// Write makes all changes at once, durable on return, or none. After an
	// error they may or may not be made, unless it is ErrNotWritten.
	Write(ctx context.Context, changes []Change) error
	// Settle returns when every write that was begun before is made or never will
	// be: reads then tell which.
	Settle(ctx context.Context) error
}

// Swap gives a key a new value in place of the old one.
type Swap = keyswap.Swap

// Commit makes all swaps at once, with something of its own that is to happen
// together with them. Its errors are those of Keys.Write.
type Commit func(ctx context.Context, swaps []Swap) error

// ErrNotWritten says that a write has not happened and will not.
var ErrNotWritten = errors.New("nothing was changed")

// ErrMany says that more is below a directory than moves in one step.
var ErrMany = errors.New("too many to be moved in one step; move them in parts")

// Tree is safe for concurrent use. Reads wait for nothing but memory; changes
// are made one after the other. After a change whose outcome is unknown the next
// one, and the next that needs a content, finds out first whether it was made;
// until then the change counts as under way, and memory has not followed it.
type Tree struct {
	keys Keys

	change chan struct{} // full while something changes the tree, over the write to the store
	doubt  *doubt        // the last change, if its outcome is not known

	mu      sync.RWMutex
	entries map[string]*Entry
	below   map[string]map[string]bool // names in a directory that has any
	paths   map[uint64]string          // by node
	dirs    map[string]int             // directories in a directory that has any
	disks   map[[16]byte]DiskAttr
	bytes   int64
	next    uint64 // node
}

// Open reads a tree. Contents that no file has, left by a stop between an
// unlink and the last close, are deleted.
func Open(ctx context.Context, keys Keys) (*Tree, error) {
	t := &Tree{
		keys: keys, next: 1, change: make(chan struct{}, 1),
		entries: map[string]*Entry{}, below: map[string]map[string]bool{}, paths: map[uint64]string{}, dirs: map[string]int{}, disks: map[[16]byte]DiskAttr{},
	}
	err := t.load(ctx, entryPrefix, func(name string, v []byte) error {
		e, err := decode(v)
		if err != nil {
			return err
		}
		if other, twice := t.paths[e.Node]; e.Kind == Disk || twice || !Valid(name) {
			return fmt.Errorf("file %q: an entry of kind %d and node %d, which is that of %q", name, e.Kind, e.Node, other)
		}
		t.enter(name, e)
		t.next = max(t.next, e.Node+1)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = t.load(ctx, diskPrefix, func(id string, v []byte) error {
		if len(id) != 16 {
			return fmt.Errorf("vDisk id %x", id)
		}
		a, err := decodeDisk(v)
		if err == nil {
			t.disks[[16]byte([]byte(id))] = a
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return t, t.sweep(ctx)
}

func (t *Tree) load(ctx context.Context, prefix string, fn func(rest string, v []byte) error) (err error) {
	ranged := t.keys.Range(ctx, []byte(prefix), func(k, v []byte) bool {
		if err = fn(string(k[len(prefix):]), v); err != nil {
			err = fmt.Errorf("file tree, key %q: %w", k, err)
		}
		return err == nil
	})
	return cmp.Or(err, ranged)
}

// sweep deletes contents that no file has. A key that is none of this release's ends
// it before that: whoever wrote it knows better what belongs together.
func (t *Tree) sweep(ctx context.Context) error {
	var gone []Change
	var unknown error
	err := t.keys.Range(ctx, []byte(prefix), func(k, _ []byte) bool {
		if key := string(k); strings.HasPrefix(key, entryPrefix) || strings.HasPrefix(key, diskPrefix) {
			return true
		}
		node, piece, ok := parsePieceKey(k)
		if !ok {
			unknown = fmt.Errorf("file tree: %w: key %q, which this release does not know", format.ErrNewer, k)
			return false
		}
		e := t.entries[t.paths[node]]
		if e == nil || e.Kind != File || int64(piece)*pieceSize >= e.Size {
			gone = append(gone, Change{Key: k})
		}
		t.next = max(t.next, node+1)
		return true
	})
	if err = cmp.Or(unknown, err); err != nil {
		return err
	}
	for part := range slices.Chunk(gone, 1024) {
		err = cmp.Or(err, t.keys.Write(ctx, part))
	}
	return err
}

// Valid reports whether a path can be an entry's.
func Valid(p string) bool {
	return p != "" && len(p) <= MaxPath && path.Clean(p) == p && p[0] != '/' && p != "." && p != ".." && !strings.HasPrefix(p, "../")
}

// enter puts an entry into memory; mu is held, or nobody knows the tree.
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

// leave takes an entry out of memory; mu is held.
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

// Path returns where an entry is now, and the entry.
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

// List returns the entries in a directory, in order; there need be none of the
// directory.
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

// Make makes an entry, whose Node it gives. Its size is 0.
func (t *Tree) Make(ctx context.Context, name string, e Entry) (Entry, error) {
	end, err := t.begin(ctx)
	if err != nil {
		return e, err
	}
	defer end()
	return t.make(ctx, name, e)
}

// MakeIn makes an entry in a directory, wherever that was moved to, and returns
// its path. The directory is modified when the entry is. Node 0 is the root.
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

// make makes an entry, and changes times with it; change is held.
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

// Remove removes an entry, and a file's content. That of a directory goes
// though there be others below it: who calls looks. The directory that it was in is
// modified at a time, in nanoseconds since 1970, or not if that is 0.
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

// Disk returns the attributes of a vDisk that were kept.
func (t *Tree) Disk(id [16]byte) (DiskAttr, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	a, ok := t.disks[id]
	return a, ok
}

// KeepDisk keeps attributes of a vDisk. If empty is not 0, it is the node of the
// EmptyDisk that the vDisk was, which goes.
func (t *Tree) KeepDisk(ctx context.Context, id [16]byte, a DiskAttr, empty uint64) error {
	end, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	a.Mode &= modeBits
	changes := []Change{{diskKey(id), encodeDisk(a)}}
	name, e, there := t.Path(empty)
	if there = there && e.Kind == EmptyDisk; there {
		changes = append(changes, Change{Key: entryKey(name)})
	}
	if was, ok := t.Disk(id); ok && was == a && !there {
		return nil
	}
	return t.write(ctx, changes, func() {
		t.disks[id] = a
		if there {
			t.leave(name)
		}
	})
}

// Keeping is what is to be kept of a vDisk, if what is kept still is what it was
// made from.
type Keeping struct {
	Was  DiskAttr // what was kept
	Kept bool     // something was
	Now  DiskAttr
}

// KeepDisks keeps attributes of many vDisks, but for those of which something else is
// kept, or forgotten, since: who asked for that is not to lose it.
func (t *Tree) KeepDisks(ctx context.Context, list map[[16]byte]Keeping) error {
	end, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	var due [][16]byte
	for id, k := range list {
		if was, kept := t.Disk(id); kept == k.Kept && (!kept || was == k.Was) {
			due = append(due, id)
		}
	}
	for part := range slices.Chunk(due, 1024) {
		changes := make([]Change, len(part))
		for i, id := range part {
			changes[i] = Change{diskKey(id), encodeDisk(list[id].Now)}
		}
		err := t.write(ctx, changes, func() {
			for _, id := range part {
				t.disks[id] = list[id].Now
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ForgetDisk forgets the attributes of a vDisk, if any are kept.
func (t *Tree) ForgetDisk(ctx context.Context, id [16]byte) error {
	return t.ForgetDisks(ctx, func(other [16]byte) bool { return other != id })
}

// ForgetDisks forgets the attributes of vDisks that are no more.
func (t *Tree) ForgetDisks(ctx context.Context, there func(id [16]byte) bool) error {
	end, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	var gone [][16]byte
	t.mu.RLock()
	for id := range t.disks {
		if !there(id) {
			gone = append(gone, id)
		}
	}
	t.mu.RUnlock()
	for part := range slices.Chunk(gone, 1024) {
		var changes []Change
		for _, id := range part {
			changes = append(changes, Change{Key: diskKey(id)})
		}
		err := t.write(ctx, changes, func() {
			for _, id := range part {
				delete(t.disks, id)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

var errShort = errors.New("its content is not whole")
