package fusefs

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"strings"

	"github.com/google/uuid"

	"openvstorage/fusefs/filetree"
	"openvstorage/internal/ctxlock"
)

// The kernel tells when it does not need a node any more, but a lookup that is under
// way may have found the node just before that, and be answered with it after: then the
// kernel knows it again, and nobody is told. A second node of the same thing would get
// what is meant for the one that the kernel has. So nodes stay as long as what they are
// nodes of is there: see FS.prune.

// diskOf returns the node of a vDisk, under the name that it has now.
func (f *FS) diskOf(i Info) *diskNode {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.disks[i.ID]
	if n == nil {
		n = &diskNode{fs: f, ino: binary.BigEndian.Uint64(i.ID[8:]) | 1<<63, keep: ctxlock.New(), attr: f.keptOf(i)}
		n.which.Store(&which{id: i.ID})
		f.disks[i.ID] = n
	}
	n.name.Store(&i.Name)
	return n
}

// dirOf returns the node of a directory, which is there: who is in a directory stays
// there.
func (f *FS) dirOf(name string) *dirNode {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.dirs[name]
	if d == nil {
		d = f.newDirLocked(name)
	}
	d.sought = f.prunings
	return d
}

// newDir returns a node for a directory that is made just now; the one of that
// name that was there before is dead to the kernel.
func (f *FS) newDir(name string) *dirNode {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.newDirLocked(name)
}

func (f *FS) newDirLocked(name string) *dirNode {
	d := &dirNode{fs: f, sought: f.prunings}
	d.path.Store(&name)
	f.dirs[name] = d
	return d
}

// forgetDir forgets the node of a directory that is removed: to the kernel it
// is dead, whatever gets its name.
func (f *FS) forgetDir(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgetDirLocked(name)
}

func (f *FS) forgetDirLocked(name string) {
	if d := f.dirs[name]; d != nil {
		d.removed.Store(true)
		delete(f.dirs, name)
	}
}

// moved gives the nodes of all that was below a directory, and it itself, the
// paths that they have now.
func (f *FS) moved(from, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, nodes := range []func(yield func(*diskNode) bool){maps.Values(f.disks), maps.Values(f.empty)} {
		for n := range nodes {
			if rest, ok := strings.CutPrefix(*n.name.Load(), from+"/"); ok {
				name := to + "/" + rest
				n.name.Store(&name)
			}
		}
	}
	f.timesMoved(from, to)
	f.forgetDirLocked(to) // it was replaced
	for name, d := range maps.Clone(f.dirs) {
		if rest, ok := strings.CutPrefix(name, from); ok && (rest == "" || rest[0] == '/') {
			now := to + rest
			d.path.Store(&now)
			delete(f.dirs, name)
			f.dirs[now] = d
		}
	}
}

// emptyOf returns the node of a file that has no vDisk yet.
func (f *FS) emptyOf(name string, e filetree.Entry) *diskNode {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.empty[e.Node]
	if n == nil {
		n = &diskNode{fs: f, ino: treeIno(e.Node), keep: ctxlock.New(), attr: filetree.DiskAttr{Attr: e.Attr}}
		n.which.Store(&which{node: e.Node})
		f.empty[e.Node] = n
	}
	n.name.Store(&name)
	return n
}

// setEmpty makes n the node of a file that has no vDisk, nil: it has none. It returns
// the one that it had.
func (f *FS) setEmpty(node uint64, n *diskNode) (was *diskNode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was = f.empty[node]
	if f.empty[node] = n; n == nil {
		delete(f.empty, node)
	}
	return was
}

// treeIno is the inode number of an entry of the tree: 1 is the root.
func treeIno(node uint64) uint64 { return node + 1 }

// find returns the file of vDisk name, made or not, and what is known of the
// vDisk.
func (f *FS) find(ctx context.Context, name string) (*diskNode, Info, error) {
	i, err := f.pool.Info(ctx, name)
	if err == nil {
		return f.diskOf(i), i, nil
	}
	if e, ok := f.tree.Get(name + suffix); ok && errors.Is(err, fs.ErrNotExist) && e.Kind == filetree.EmptyDisk {
		return f.emptyOf(name, e), i, nil
	}
	return nil, i, err
}

// named does something with a vDisk by the name that it has now: others may rename
// it, and give its name to another.
func (f *FS) named(ctx context.Context, id uuid.UUID, do func(name string) error) error {
	for tries := 1; ; tries++ {
		i, err := f.pool.InfoOf(ctx, id)
		if err != nil {
			return err
		}
		if err = do(i.Name); !errors.Is(err, fs.ErrNotExist) || tries == renamedMax {
			return err
		}
	}
}

// renamedMax bounds how often a vDisk is looked for that others rename.
const renamedMax = 3
