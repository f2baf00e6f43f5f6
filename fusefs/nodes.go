package fusefs

import (
	"context"
	"maps"
	"strings"
	"sync"

	"github.com/google/uuid"
	gofs "github.com/hanwen/go-fuse/v2/fs"

	"openvstorage/fusefs/filetree"
	"openvstorage/internal/ctxlock"
)

// nodes are the nodes that were looked up, one for each thing.
//
// The kernel tells when it does not need a node any more. But a lookup that is under way
// may have found the node just before that, and be answered with it after: then the
// kernel knows the node again, and nobody is told. A second node of the same thing would
// get what is meant for the one that the kernel has. So a node stays as long as its
// thing does: see prune.
type nodes struct {
	fs *FS // of the nodes that are made

	linking sync.Mutex // held while a node gets the library's part; taken first

	mu       sync.Mutex
	disks    map[uuid.UUID]*diskNode // vDisks
	empty    map[uint64]*diskNode    // by node of the tree, files that have no vDisk yet
	files    map[uint64]*fileNode    // by node of the tree, small files
	dirs     map[string]*dirNode     // by path
	prunings int                     // counts calls of prune
}

func newNodes(f *FS) *nodes {
	return &nodes{
		fs: f, disks: map[uuid.UUID]*diskNode{}, empty: map[uint64]*diskNode{}, files: map[uint64]*fileNode{}, dirs: map[string]*dirNode{},
	}
}

// treeIno is the inode number of an entry of the tree: 1 is the root.
func treeIno(node uint64) uint64 { return node + 1 }

// disk returns the node of a vDisk, under the name that it has now.
func (t *nodes) disk(i Info) *diskNode {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.disks[i.ID]
	if n == nil {
		n = newDiskNode(t.fs, diskIno(i.ID), which{id: i.ID}, keptOf(t.fs.tree, i))
		t.disks[i.ID] = n
	}
	n.file.name.Store(&i.Name)
	return n
}

// emptyDisk returns the node of a file that has no vDisk yet.
func (t *nodes) emptyDisk(name string, e filetree.Entry) *diskNode {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.empty[e.Node]
	if n == nil {
		n = newDiskNode(t.fs, treeIno(e.Node), which{node: e.Node}, filetree.DiskAttr{Attr: e.Attr})
		t.empty[e.Node] = n
	}
	n.file.name.Store(&name)
	return n
}

// file returns the node of a small file.
func (t *nodes) file(e filetree.Entry) *fileNode {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.files[e.Node]
	if n == nil {
		n = &fileNode{fs: t.fs, node: e.Node, last: e, storing: ctxlock.New()}
		t.files[e.Node] = n
	}
	return n
}

// dir returns the node of a directory, which is there: whoever is in a directory stays
// there.
func (t *nodes) dir(name string) *dirNode {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.dirs[name]
	if d == nil {
		d = t.newDirLocked(name)
	}
	d.sought = t.prunings
	return d
}

// newDir returns a node for a directory that is made just now: to the kernel, a node
// that had the name before is dead.
func (t *nodes) newDir(name string) *dirNode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.newDirLocked(name)
}

// newDirLocked is newDir; t.mu is held.
func (t *nodes) newDirLocked(name string) *dirNode {
	d := &dirNode{fs: t.fs, sought: t.prunings}
	d.path.Store(&name)
	t.dirs[name] = d
	return d
}

// forgetDir forgets the node of a directory that is removed: to the kernel it
// is dead, whatever gets its name.
func (t *nodes) forgetDir(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetDirLocked(name)
}

// forgetDirLocked is forgetDir; t.mu is held.
func (t *nodes) forgetDirLocked(name string) {
	if d := t.dirs[name]; d != nil {
		d.removed.Store(true)
		delete(t.dirs, name)
	}
}

// move gives the node of a directory that was moved, and the nodes of all that is below
// it, the paths that they have now.
func (t *nodes) move(from, to string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, nodes := range []func(yield func(*diskNode) bool){maps.Values(t.disks), maps.Values(t.empty)} {
		for n := range nodes {
			if rest, ok := strings.CutPrefix(*n.file.name.Load(), from+"/"); ok {
				name := to + "/" + rest
				n.file.name.Store(&name)
			}
		}
	}
	t.forgetDirLocked(to) // it was replaced
	for name, d := range maps.Clone(t.dirs) {
		if rest, ok := strings.CutPrefix(name, from); ok && (rest == "" || rest[0] == '/') {
			now := to + rest
			d.path.Store(&now)
			delete(t.dirs, name)
			t.dirs[now] = d
		}
	}
}

// known returns the node of a vDisk that was looked up, else nil.
func (t *nodes) known(id uuid.UUID) *diskNode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.disks[id]
}

// hasEmpty reports whether a file that has no vDisk was looked up.
func (t *nodes) hasEmpty(node uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.empty[node] != nil
}

// setEmpty makes n the node of a file that has no vDisk, nil: it has none. It returns
// the one that it had.
func (t *nodes) setEmpty(node uint64, n *diskNode) (was *diskNode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was = t.empty[node]
	if t.empty[node] = n; n == nil {
		delete(t.empty, node)
	}
	return was
}

// claim makes n the node of a vDisk that is about to get its name: whoever looks it up
// as soon as it has that finds this node, and no other.
func (t *nodes) claim(id uuid.UUID, n *diskNode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.disks[id] = n
}

// unclaim takes claim back: the vDisk did not get its name.
func (t *nodes) unclaim(id uuid.UUID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.disks, id)
}

// hasBecome notes that an empty file is that of a vDisk now, which it has claimed.
func (t *nodes) hasBecome(n *diskNode, id uuid.UUID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.empty, n.file.node())
	n.file.which.Store(&which{id: id})
}

// hasEmptied notes that the vDisk of a file is deleted, and that the file is an empty
// one of the tree now, as which setEmpty made it known.
func (t *nodes) hasEmptied(n *diskNode, node uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.disks, n.file.id())
	n.file.which.Store(&which{node: node})
}

// link gives a node that has a name in a directory the library's part, once: several
// may look it up at the same time.
func (t *nodes) link(ctx context.Context, dir *gofs.Inode, name string, node gofs.InodeEmbedder, id gofs.StableAttr) *gofs.Inode {
	t.linking.Lock()
	defer t.linking.Unlock()
	// The library would leave the name with the node that had it, too: that would never
	// be forgotten.
	if was := dir.GetChild(name); was != nil && was.Operations() != node {
		dir.RmChild(name)
	}
	i := dir.NewInode(ctx, node, id)
	if n, ok := node.(*diskNode); ok {
		n.pages.linked.Store(true)
	}
	return i
}
