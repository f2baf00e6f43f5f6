package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/google/uuid"
)

// prune forgets the nodes of what is not there any more; who has such a file open, or is
// in such a directory, has the node itself. infos are all vDisks, as they were a moment
// ago. Ids and nodes of the tree do not come again, but the paths of directories do.
func (f *FS) prune(ctx context.Context, infos []Info) {
	f.pruneDisks(ctx, infos)
	f.pruneTree()
	f.pruneDirs(ctx)
}

func (f *FS) pruneDisks(ctx context.Context, infos []Info) {
	there := make(map[uuid.UUID]bool, len(infos))
	for _, i := range infos {
		there[i.ID] = true
	}
	f.mu.Lock()
	var gone []uuid.UUID
	for id, n := range f.disks {
		if !there[id] && n.which.Load().id == id { // or it is being made
			gone = append(gone, id)
		}
	}
	f.mu.Unlock()
	for _, id := range gone {
		if _, err := f.pool.InfoOf(ctx, id); errors.Is(err, fs.ErrNotExist) { // else it has come since
			f.mu.Lock()
			delete(f.disks, id)
			f.mu.Unlock()
		}
	}
}

// pruneTree is prune for small files and files that have no vDisk.
func (f *FS) pruneTree() {
	f.mu.Lock()
	nodes := make([]uint64, 0, len(f.files)+len(f.empty))
	for node := range f.files {
		nodes = append(nodes, node)
	}
	for node := range f.empty {
		nodes = append(nodes, node)
	}
	f.mu.Unlock()
	for _, node := range nodes {
		if _, _, there := f.tree.Path(node); !there {
			f.mu.Lock()
			delete(f.files, node)
			delete(f.empty, node)
			f.mu.Unlock()
		}
	}
}

// pruneDirs is prune for directories that only names below them implied: one that was
// removed is forgotten then. One that the kernel has, or may get by a lookup that is
// under way, stays: its path may lead to a directory again, and be moved.
func (f *FS) pruneDirs(ctx context.Context) {
	f.mu.Lock()
	f.prunings++
	idle := map[string]*dirNode{}
	for name, d := range f.dirs {
		if name != "" && d.sought < f.prunings-1 {
			idle[name] = d
		}
	}
	f.mu.Unlock()
	for name, d := range idle {
		if !d.Forgotten() {
			continue
		}
		// ENOTDIR: a file has the name, and the directory is as gone as without one.
		if _, err := f.directory(ctx, name); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		f.mu.Lock()
		if f.dirs[name] == d && d.sought < f.prunings-1 {
			delete(f.dirs, name)
		}
		f.mu.Unlock()
	}
}
