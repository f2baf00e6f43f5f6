package fusefs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/filetree"
	"openvstorage/internal/gate"
)

// Since is Change.since.
func Since(c Change, epoch, seq uint64) bool { return c.since(epoch, seq) }

// Bridge is what answers the kernel, without one.
type Bridge struct {
	*FS
	Raw   fuse.RawFileSystem
	After func()     // is called by the next lookup in the root that finds something, before it is answered
	Hold  *gate.Gate // holds what the kernel is told; nil: nothing
	Told  []uint64   // nodes of which the kernel was told that their pages are not right any more
}

// NewBridge returns a Bridge of a pool.
func NewBridge(ctx context.Context, pool Pool, keys filetree.Keys) (*Bridge, error) {
	tree, err := filetree.Open(ctx, keys)
	if err != nil {
		return nil, err
	}
	b := &Bridge{FS: newFS(pool, tree, "", Options{})}
	b.Raw = bridge(&racingRoot{b.nodes.dir(""), b}, &listener{b: b})
	return b, b.settle(ctx)
}

// Prune forgets what is gone, as often as it has to be asked.
func (b *Bridge) Prune(ctx context.Context) error {
	for range 3 {
		if err := b.keeper.storeDisks(ctx, 0); err != nil {
			return err
		}
	}
	return nil
}

// Pay has the tree lose what it is to lose.
func (b *Bridge) Pay(ctx context.Context) error { return b.leftovers.remove(ctx) }

// Root is the root.
func (b *Bridge) Root() *dirNode { return b.nodes.dir("") }

// Nodes is how many nodes there are, but for the root.
func (b *Bridge) Nodes() int {
	b.nodes.mu.Lock()
	defer b.nodes.mu.Unlock()
	return len(b.nodes.disks) + len(b.nodes.empty) + len(b.nodes.files) + len(b.nodes.dirs) - 1
}

// Empty is the file that has no vDisk yet, the only one.
func (b *Bridge) Empty() *diskNode {
	b.nodes.mu.Lock()
	defer b.nodes.mu.Unlock()
	for _, n := range b.nodes.empty {
		return n
	}
	return nil
}

// Disk is the file of a vDisk that was looked up.
func (b *Bridge) Disk(name string) *diskNode {
	b.nodes.mu.Lock()
	defer b.nodes.mu.Unlock()
	for _, n := range b.nodes.disks {
		if *n.file.name.Load() == name {
			return n
		}
	}
	return nil
}

// File is the small file, the only one.
func (b *Bridge) File() *fileNode {
	b.nodes.mu.Lock()
	defer b.nodes.mu.Unlock()
	for _, n := range b.nodes.files {
		return n
	}
	return nil
}

// Beat keeps times as it is done beside requests.
func (b *Bridge) Beat(ctx context.Context) error { return b.keeper.storeDisks(ctx, 1) }

// Become lets its caller alone make the file.
func (n *diskNode) Become(ctx context.Context) (done func(), err error) { return n.become(ctx) }

// Becoming reports whether somebody is about to make the file, or does.
func (n *diskNode) Becoming() bool {
	if n.file.changing.Try() {
		n.file.changing.Give()
		return false
	}
	return true
}

// racingRoot is a root in whose lookups something happens.
type racingRoot struct {
	*dirNode
	b *Bridge
}

func (r *racingRoot) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	n, e := r.dirNode.Lookup(ctx, name, out)
	if after := r.b.After; e == 0 && after != nil {
		r.b.After = nil
		after()
	}
	return n, e
}

func (r *racingRoot) Rename(ctx context.Context, name string, to gofs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if root, ok := to.(*racingRoot); ok {
		to = root.dirNode
	}
	return r.dirNode.Rename(ctx, name, to, newName, flags)
}

// listener notes what the kernel is told.
type listener struct {
	notices
	b *Bridge
}

func (t *listener) InodeNotify(node uint64, _, _ int64) fuse.Status {
	if g := t.b.Hold; g != nil {
		_ = g.Hold(context.Background())
	}
	t.b.Told = append(t.b.Told, node)
	return fuse.OK
}
