package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"github.com/google/uuid"

	"openvstorage/fusefs/filetree"
)

// owed is what the tree is to lose still of operations that are done all the same: who
// did them was killed, or the store was away. It is in nobody's way meanwhile, and goes
// soon; what a stop leaves of it goes at the next mount, see FS.settle.
type owed struct {
	mu    sync.Mutex
	disks map[uuid.UUID]bool // vDisks that are not, of which attributes are kept
	empty map[uint64]bool    // nodes of files without a vDisk, in whose place one is
}

// forgetDisk forgets the attributes of a vDisk that is deleted, or was not made.
func (f *FS) forgetDisk(ctx context.Context, id uuid.UUID) {
	if f.tree.ForgetDisk(ctx, id) != nil {
		f.oweDisk(id)
	}
}

// oweDisk notes that the attributes of a vDisk are to be forgotten.
func (f *FS) oweDisk(id uuid.UUID) {
	f.owed.mu.Lock()
	defer f.owed.mu.Unlock()
	if f.owed.disks == nil {
		f.owed.disks = map[uuid.UUID]bool{}
	}
	f.owed.disks[id] = true
}

// oweEmpty notes that a file without a vDisk is to go from the tree.
func (f *FS) oweEmpty(node uint64) {
	f.owed.mu.Lock()
	defer f.owed.mu.Unlock()
	if f.owed.empty == nil {
		f.owed.empty = map[uint64]bool{}
	}
	f.owed.empty[node] = true
}

// payOwed has the tree lose what it is to lose.
func (f *FS) payOwed(ctx context.Context) error {
	f.owed.mu.Lock()
	disks, empty := f.owed.disks, f.owed.empty
	f.owed.disks, f.owed.empty = nil, nil
	f.owed.mu.Unlock()
	var errs []error
	if len(disks) > 0 {
		if err := f.tree.ForgetDisks(ctx, func(id [16]byte) bool { return !disks[id] }); err != nil {
			errs = append(errs, err)
			for id := range disks {
				f.oweDisk(id)
			}
		}
	}
	for node := range empty {
		if err := f.dropEmpty(ctx, node); err != nil {
			errs = append(errs, err)
			f.oweEmpty(node)
		}
	}
	return errors.Join(errs...)
}

// dropEmpty removes a file without a vDisk, unless somebody has found it since: its
// vDisk has got another name, or has gone, and it is a file as any other.
func (f *FS) dropEmpty(ctx context.Context, node uint64) error {
	// Alone: nobody empties the vDisk of that name meanwhile, and needs the entry.
	if err := f.moving.Take(ctx); err != nil {
		return err
	}
	defer f.moving.Give()
	file, e, there := f.tree.Path(node)
	f.mu.Lock()
	found := f.empty[node] != nil
	f.mu.Unlock()
	if !there || found || e.Kind != filetree.EmptyDisk {
		return nil
	}
	if err := f.tree.Remove(ctx, file, 0); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
