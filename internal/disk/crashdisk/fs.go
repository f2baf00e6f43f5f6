package crashdisk

import (
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
)

// FS is a disk in memory. It implements disk.FS. Names are taken from the
// root: "a/b" and "/a/b" are the same. The root directory exists; all others
// are to be made.
type FS struct {
	mu       sync.RWMutex
	root     *node
	own      *owner
	last     uint64 // number of the last node or change
	locks    map[*node]bool
	capacity int64

	blockMu sync.Mutex
	block   float64
	seed    uint64
	rng     *rand.Rand
}

// defaultCapacity is what Statfs reports; nothing enforces it. Package
// faultdisk makes disks run full.
const defaultCapacity = 1 << 40

// New returns an empty disk.
func New() *FS {
	return &FS{
		root:     &node{mode: fs.ModeDir | 0o755, changed: time.Now(), dir: newDirectory(0)},
		own:      new(owner),
		locks:    map[*node]bool{},
		capacity: defaultCapacity,
	}
}

// SetWouldBlock makes TryReadAt return disk.ErrWouldBlock with probability p,
// on this disk and on images taken from now on.
func (d *FS) SetWouldBlock(p float64, seed uint64) {
	d.blockMu.Lock()
	defer d.blockMu.Unlock()
	d.block, d.seed, d.rng = p, seed, rand.New(rand.NewPCG(seed, 0))
}

func (d *FS) wouldBlock() bool {
	d.blockMu.Lock()
	defer d.blockMu.Unlock()
	return d.block > 0 && d.rng.Float64() < d.block
}

func fail(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// find returns the node that name leads to. d.mu is held.
func (d *FS) find(name string) (*node, error) {
	n := d.root
	for part := range strings.SplitSeq(path.Clean("/" + name)[1:], "/") {
		if part == "" {
			continue
		}
		if n.dir == nil {
			return nil, unix.ENOTDIR
		}
		if n = n.dir.names[part]; n == nil {
			return nil, unix.ENOENT
		}
	}
	return n, nil
}

// parent returns the directory that holds name, and name's last part.
func (d *FS) parent(name string) (*directory, string, error) {
	dir, base := path.Split(path.Clean("/" + name))
	if base == "" {
		return nil, "", unix.EINVAL // the root has no name
	}
	n, err := d.find(dir)
	if err == nil && n.dir == nil {
		err = unix.ENOTDIR
	}
	if err != nil {
		return nil, "", err
	}
	return n.dir, base, nil
}

func (d *FS) number() uint64 {
	d.last++
	return d.last
}

// put gives n a name, pending until the directory is synced.
func (d *FS) put(dir *directory, name string, n *node) {
	dir.apply(change{number: d.number(), set: []entry{{name, n}}})
}

// OpenFile opens or makes a file.
func (d *FS) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	if flag&disk.Truncate != 0 && flag&disk.Write == 0 {
		return nil, fail("open", name, unix.EINVAL)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.open(name, flag, perm)
	if err != nil {
		return nil, fail("open", name, err)
	}
	return &File{fs: d, node: n, name: name, writable: flag&disk.Write != 0}, nil
}

func (d *FS) open(name string, flag disk.Flag, perm fs.FileMode) (*node, error) {
	dir, base, err := d.parent(name)
	if err != nil {
		return nil, err
	}
	n := dir.names[base]
	switch {
	case n == nil && flag&disk.Create == 0:
		return nil, unix.ENOENT
	case n == nil:
		n = &node{id: d.number(), mode: perm & 0o700, changed: time.Now(), file: newContent()}
		d.put(dir, base, n)
	case flag&(disk.Create|disk.Exclusive) == disk.Create|disk.Exclusive:
		return nil, unix.EEXIST
	case n.dir != nil:
		return nil, unix.EISDIR
	case flag&disk.Truncate != 0:
		n.file.truncate(d.own, 0)
		n.changed = time.Now()
	}
	return n, nil
}

// Rename gives oldName's file or directory the name newName, in place of what
// had it.
func (d *FS) Rename(oldName, newName string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.rename(oldName, newName); err != nil {
		return fail("rename", oldName+" to "+newName, err)
	}
	return nil
}

func (d *FS) rename(oldName, newName string) error {
	from, oldBase, err := d.parent(oldName)
	if err != nil {
		return err
	}
	to, newBase, err := d.parent(newName)
	if err != nil {
		return err
	}
	n := from.names[oldBase]
	if n == nil {
		return unix.ENOENT
	}
	if err := mayReplace(n, to.names[newBase]); err != nil {
		return err
	}
	if n == to.names[newBase] {
		return nil
	}
	if n.dir != nil && strings.HasPrefix(path.Clean("/"+newName)+"/", path.Clean("/"+oldName)+"/") {
		return unix.EINVAL
	}
	number := d.number()
	if from == to {
		from.apply(change{number: number, set: []entry{{oldBase, nil}, {newBase, n}}})
		return nil
	}
	to.apply(change{number: number, set: []entry{{newBase, n}}, peer: from})
	from.apply(change{number: number, set: []entry{{oldBase, nil}}, peer: to})
	return nil
}

// mayReplace says whether n may take old's name.
func mayReplace(n, old *node) error {
	switch {
	case old == nil || old == n:
		return nil
	case old.dir != nil:
		return unix.EEXIST // as os.Rename has it
	case n.dir != nil:
		return unix.ENOTDIR
	}
	return nil
}

// Link gives oldName's file a second name.
func (d *FS) Link(oldName, newName string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(oldName)
	if err == nil && n.dir != nil {
		err = unix.EPERM
	}
	var dir *directory
	var base string
	if err == nil {
		dir, base, err = d.parent(newName)
	}
	if err == nil && dir.names[base] != nil {
		err = unix.EEXIST
	}
	if err != nil {
		return fail("link", oldName+" to "+newName, err)
	}
	d.put(dir, base, n)
	return nil
}

// Remove removes a file or an empty directory.
func (d *FS) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, base, err := d.parent(name)
	if err == nil {
		switch n := dir.names[base]; {
		case n == nil:
			err = unix.ENOENT
		case n.dir != nil && len(n.dir.names) > 0:
			err = unix.ENOTEMPTY
		}
	}
	if err != nil {
		return fail("remove", name, err)
	}
	d.put(dir, base, nil)
	return nil
}

// RemoveAll removes name and what is below it, each in a step of its own that
// a power cut may keep without the rest.
func (d *FS) RemoveAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, base, err := d.parent(name)
	switch {
	case err == unix.ENOENT:
		return nil
	case err != nil:
		return fail("removeall", name, err)
	case dir.names[base] != nil:
		d.removeAll(dir, base)
	}
	return nil
}

func (d *FS) removeAll(dir *directory, name string) {
	if below := dir.names[name].dir; below != nil {
		for _, b := range slices.Sorted(maps.Keys(below.names)) {
			d.removeAll(below, b)
		}
	}
	d.put(dir, name, nil)
}

// MkdirAll makes name and what is missing above it. Each new name is pending
// in the directory that holds it.
func (d *FS) MkdirAll(name string, perm fs.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.root
	for part := range strings.SplitSeq(path.Clean("/" + name)[1:], "/") {
		if part == "" {
			continue
		}
		if n.dir == nil {
			return fail("mkdir", name, unix.ENOTDIR)
		}
		next := n.dir.names[part]
		if next == nil {
			id := d.number()
			next = &node{id: id, mode: fs.ModeDir | perm&0o700, changed: time.Now(), dir: newDirectory(id)}
			d.put(n.dir, part, next)
		}
		n = next
	}
	if n.dir == nil {
		return fail("mkdir", name, unix.ENOTDIR)
	}
	return nil
}

// ReadDir returns the names in a directory, sorted.
func (d *FS) ReadDir(name string) ([]string, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n, err := d.findDir(name)
	if err != nil {
		return nil, fail("readdir", name, err)
	}
	return slices.Sorted(maps.Keys(n.names)), nil
}

func (d *FS) findDir(name string) (*directory, error) {
	n, err := d.find(name)
	if err == nil && n.dir == nil {
		err = unix.ENOTDIR
	}
	if err != nil {
		return nil, err
	}
	return n.dir, nil
}

// Stat describes what name leads to.
func (d *FS) Stat(name string) (fs.FileInfo, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n, err := d.find(name)
	if err != nil {
		return nil, fail("stat", name, err)
	}
	i := info{name: path.Base(path.Clean("/" + name)), mode: n.mode, changed: n.changed, node: n}
	if n.file != nil {
		i.size = n.file.size
	}
	return i, nil
}

// Private takes the rights of others off a name. Modes are durable at once.
func (d *FS) Private(name string) (fs.FileMode, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.find(name)
	if err != nil {
		return 0, fail("stat", name, err)
	}
	was := n.mode
	n.mode &^= 0o077
	return was, nil
}

// SyncDir makes the names in a directory durable.
func (d *FS) SyncDir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.findDir(name)
	if err != nil {
		return fail("syncdir", name, err)
	}
	n.commit(len(n.pending))
	return nil
}

// Statfs reports a capacity of 1 TiB, less the sizes of all files.
func (d *FS) Statfs(name string) (disk.Usage, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if _, err := d.find(name); err != nil {
		return disk.Usage{}, fail("statfs", name, err)
	}
	var used int64
	seen := map[*node]bool{}
	for _, dir := range directories(d.root) {
		for _, n := range dir.names {
			if n.file != nil && !seen[n] {
				seen[n] = true
				used += n.file.size
			}
		}
	}
	return disk.Usage{Total: uint64(d.capacity), Free: uint64(max(0, d.capacity-used))}, nil
}

// Lock locks the file name, which it makes if it is absent, until Close.
func (d *FS) Lock(name string) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.open(name, disk.Write|disk.Create, 0o600)
	if err == nil && d.locks[n] {
		err = disk.ErrLocked
	}
	if err != nil {
		return nil, fail("lock", name, err)
	}
	d.locks[n] = true
	return &lock{fs: d, node: n, name: name}, nil
}

type lock struct {
	fs   *FS
	node *node
	name string
}

func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.node == nil {
		return fail("unlock", l.name, fs.ErrClosed)
	}
	delete(l.fs.locks, l.node)
	l.node = nil
	return nil
}

type info struct {
	name    string
	size    int64
	mode    fs.FileMode
	changed time.Time
	node    *node
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return i.changed }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return i.node } // the same one of the same file
