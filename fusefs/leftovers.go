package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"github.com/google/uuid"

	"openvstorage/fusefs/filetree"
	"openvstorage/internal/ctxlock"
)

// leftovers are what operations that are done have left in the tree: their caller was
// killed, or the store was away. They harm nobody, and are removed soon. Those that are
// there when the process ends are removed at the next mount: see FS.settle.
type leftovers struct {
	tree   *filetree.Tree
	nodes  *nodes
	moving *ctxlock.Shared // of directories

	mu    sync.Mutex         // taken last
	disks map[uuid.UUID]bool // vDisks that do not exist, of which attributes are kept
	empty map[uint64]bool    // nodes of files without a vDisk, in whose place a vDisk is
}

// forgetDisk forgets the attributes of a vDisk that is deleted, now or later.
func (l *leftovers) forgetDisk(ctx context.Context, id uuid.UUID) {
	if l.tree.ForgetDisk(ctx, id) != nil {
		l.addDisk(id)
	}
}

// addDisk notes that the attributes of a vDisk are to be forgotten.
func (l *leftovers) addDisk(id uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.disks == nil {
		l.disks = map[uuid.UUID]bool{}
	}
	l.disks[id] = true
}

// addEmpty notes that a file without a vDisk is to be removed from the tree.
func (l *leftovers) addEmpty(node uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.empty == nil {
		l.empty = map[uint64]bool{}
	}
	l.empty[node] = true
}

// remove removes them from the tree. Those that it cannot remove it notes again.
func (l *leftovers) remove(ctx context.Context) error {
	l.mu.Lock()
	disks, empty := l.disks, l.empty
	l.disks, l.empty = nil, nil
	l.mu.Unlock()
	var errs []error
	if len(disks) > 0 {
		if err := l.tree.ForgetDisks(ctx, func(id [16]byte) bool { return !disks[id] }); err != nil {
			errs = append(errs, err)
			for id := range disks {
				l.addDisk(id)
			}
		}
	}
	for node := range empty {
		if err := l.removeEmpty(ctx, node); err != nil {
			errs = append(errs, err)
			l.addEmpty(node)
		}
	}
	return errors.Join(errs...)
}

// removeEmpty removes a file without a vDisk, unless somebody has found it since: then
// the vDisk in its place has got another name, or has gone, and the file is one as any
// other.
func (l *leftovers) removeEmpty(ctx context.Context, node uint64) error {
	// Alone: nobody empties the vDisk of that name meanwhile, which would need the entry.
	if err := l.moving.Take(ctx); err != nil {
		return err
	}
	defer l.moving.Give()
	file, e, there := l.tree.Path(node)
	if !there || l.nodes.hasEmpty(node) || e.Kind != filetree.EmptyDisk {
		return nil
	}
	if err := l.tree.Remove(ctx, file, 0); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
