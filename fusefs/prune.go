package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/google/uuid"
)

// prune forgets the nodes of what is not there any more. Whoever has such a file open, or
// is in such a directory, has the node itself. infos are all vDisks, as they were a moment
// ago. Ids and nodes of the tree do not come again, but the paths of directories do.
func (t *nodes) prune(ctx context.Context, infos []Info) {
	t.pruneDisks(ctx, infos)
	t.pruneTree()
	t.pruneDirs(ctx)
}

// pruneDisks is prune for vDisks.
func (t *nodes) pruneDisks(ctx context.Context, infos []Info) {
	there := make(map[uuid.UUID]bool, len(infos))
	for _, i := range infos {
		there[i.ID] = true
	}
	t.mu.Lock()
	var gone []uuid.UUID
	for id, n := range t.disks {
		if !there[id] && n.file.id() == id { // or it is being made
			gone = append(gone, id)
		}
	}
	t.mu.Unlock()
	for _, id := range gone {
		if _, err := t.fs.pool.InfoOf(ctx, id); errors.Is(err, fs.ErrNotExist) { // else it has come since
			t.mu.Lock()
			delete(t.disks, id)
			t.mu.Unlock()
		}
	}
}

// pruneTree is prune for small files and files that have no vDisk.
func (t *nodes) pruneTree() {
	t.mu.Lock()
	nodes := make([]uint64, 0, len(t.files)+len(t.empty))
	for node := range t.files {
		nodes = append(nodes, node)
	}
	for node := range t.empty {
		nodes = append(nodes, node)
	}
	t.mu.Unlock()
	for _, node := range nodes {
		if _, _, there := t.fs.tree.Path(node); !there {
			t.mu.Lock()
			delete(t.files, node)
			delete(t.empty, node)
			t.mu.Unlock()
		}
	}
}

// pruneDirs is prune for directories that only names below them implied: those that are
// removed were forgotten then. A directory that the kernel has, or may get by a lookup
// that is under way, stays: its path may lead to a directory again, and be moved.
func (t *nodes) pruneDirs(ctx context.Context) {
	t.mu.Lock()
	t.prunings++
	idle := map[string]*dirNode{}
	for name, d := range t.dirs {
		if name != "" && d.sought < t.prunings-1 {
			idle[name] = d
		}
	}
	t.mu.Unlock()
	for name, d := range idle {
		if !d.Forgotten() {
			continue
		}
		// ENOTDIR: a file has the name, and the directory is as gone as without one.
		if _, err := t.fs.dirs.attr(ctx, name); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		t.mu.Lock()
		if t.dirs[name] == d && d.sought < t.prunings-1 {
			delete(t.dirs, name)
		}
		t.mu.Unlock()
	}
}
