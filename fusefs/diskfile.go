package fusefs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"syscall"

	"github.com/google/uuid"

	"openvstorage/fusefs/filetree"
	"openvstorage/internal/ctxlock"
)

// diskFile says which vDisk a file is, or which empty file of the tree.
type diskFile struct {
	pool  vDisks
	tree  *filetree.Tree
	name  atomic.Pointer[string] // the path without the suffix, as it was last seen
	which atomic.Pointer[which]

	// changing is held, over stores of the tree too, by whoever changes the attributes,
	// makes or empties the file, or deletes it. It is taken before all other locks of a
	// node. Whoever waits for it is in nobody's way, and looking at the file does not
	// need it.
	changing ctxlock.Lock
	deleted  bool // the vDisk is deleted by the mount; guarded by changing
}

// which is the vDisk that a file is, or the node of an empty file in the tree. It
// changes while diskFile.changing and openDevice.mu are held alone.
type which struct {
	id   uuid.UUID // nil while the file is empty and there is no vDisk
	node uint64
}

// diskIno is the inode number of a vDisk's file. Those of the tree are smaller.
func diskIno(id uuid.UUID) uint64 { return binary.BigEndian.Uint64(id[8:]) | 1<<63 }

// id is that of the vDisk, nil if there is none.
func (f *diskFile) id() uuid.UUID { return f.which.Load().id }

// node is that of an empty file in the tree.
func (f *diskFile) node() uint64 { return f.which.Load().node }

// made reports whether there is a vDisk. It stays so while f.changing or the lock of the
// open device is held.
func (f *diskFile) made() bool { return f.id() != uuid.Nil }

// info returns what the pool knows of the vDisk. It waits for no I/O.
func (f *diskFile) info(ctx context.Context) (Info, error) {
	i, err := f.pool.InfoOf(ctx, f.id())
	if err == nil {
		f.name.Store(&i.Name)
	}
	return i, err
}

// named does something with the vDisk by the name that it has now.
func (f *diskFile) named(ctx context.Context, do func(name string) error) error {
	return f.pool.named(ctx, f.id(), do)
}

// path is where an empty file is now, false if it was unlinked.
func (f *diskFile) path() (string, bool) {
	p, _, there := f.tree.Path(f.node())
	return p, there
}

// unlinked is the error of what needs an empty file that was unlinked.
func (f *diskFile) unlinked() error {
	return fmt.Errorf("file %s was deleted: %w", *f.name.Load(), fs.ErrNotExist)
}

// isThat fails if another vDisk has the name now.
func (f *diskFile) isThat(i Info) error {
	if i.ID != f.id() {
		return fmt.Errorf("vDisk %q: another one than before: %w", i.Name, fs.ErrNotExist)
	}
	return nil
}

// mayEmpty is why the vDisk must not be deleted for its file to be empty, nil: it may.
func (f *diskFile) mayEmpty(i Info) error {
	if err := f.isThat(i); err != nil {
		return err
	}
	if i.State == stateHalted {
		return fmt.Errorf("vDisk %q: halted and cannot be emptied; unlink its file to delete it: %w", i.Name, syscall.EIO)
	}
	if len(i.Snapshots) > 0 {
		return fmt.Errorf("vDisk %q: has snapshots and cannot be emptied: %w", i.Name, syscall.EBUSY)
	}
	return nil
}

// errnoAt is the errno of an error of a file that was found by a name a moment ago.
// If the vDisk is gone that is ESTALE: the kernel, which remembers names for a moment,
// looks the name up again then, as another vDisk may have it by now. A vDisk that is
// listed and cannot be found is being deleted by others, who may fail yet: EBUSY.
func (f *diskFile) errnoAt(ctx context.Context, err error) syscall.Errno {
	if !errors.Is(err, fs.ErrNotExist) || !f.made() {
		return errnoOf(err)
	}
	if _, err := f.info(ctx); err == nil {
		return syscall.EBUSY
	}
	return syscall.ESTALE
}
