package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"openvstorage/fusefs/filetree"
)

// truncate sets the size, rounded up. To nothing it deletes the vDisk, and
// with it the file is empty; it fails if the vDisk is in use elsewhere or has
// snapshots or clones. To less than it is it fails otherwise.
func (n *diskNode) truncate(ctx context.Context, size int64) error {
	if done, err := n.grow(ctx, size); done {
		return err
	}
	done, err := n.become(ctx)
	if err != nil {
		return err
	}
	defer done()
	n.touch()
	if size > 0 {
		return n.resize(ctx, roundUp(size))
	}
	if !n.made() {
		n.mtime.Store(time.Now().UnixNano())
		return nil
	}
	if err := n.fs.moving.Share(ctx); err != nil {
		return err
	}
	defer n.fs.moving.Unshare()
	return n.named(ctx, func(name string) error { return n.empty(ctx, name) })
}

// grow sets the size of a vDisk, which waits for no I/O. It reports whether it
// was for it to do.
func (n *diskNode) grow(ctx context.Context, size int64) (done bool, err error) {
	if size == 0 || !n.made() {
		return false, nil
	}
	if err := n.share(ctx); err != nil {
		return true, err
	}
	defer n.mu.RUnlock()
	if !n.made() {
		return false, nil
	}
	n.touch()
	return true, n.resize(ctx, roundUp(size))
}

// States of a vDisk.
const (
	stateHalted   = "halted"   // it takes no writes
	stateDeleting = "deleting" // it will be gone
	stateUnsure   = "unsure"   // nobody knows yet
)

// empty deletes the vDisk, which has that name, and makes an empty file of the
// node. It is a write to the file, which a halted vDisk refuses: what can still be
// read of it is there to be copied, and its snapshots may not all be known.
//
// That file is there first: a stop in between leaves the vDisk, and so does a
// deletion that may come yet; the vDisk hides the file as long as it is there.
// Who calls has called become, and holds moving for reading.
func (n *diskNode) empty(ctx context.Context, name string) error {
	a := n.fs.owned(n.kept().Attr)
	a.Modified = time.Now().UnixNano()
	a.Changed = a.Modified
	e, err := n.fs.tree.Make(ctx, name+suffix, filetree.Entry{Kind: filetree.EmptyDisk, Attr: a})
	if have, there := n.fs.tree.Get(name + suffix); errors.Is(err, fs.ErrExist) && there && have.Kind == filetree.EmptyDisk {
		e, err = have, nil // of a deletion that did not come
	}
	if err != nil {
		return err
	}
	// Who looks the name up when the vDisk is gone finds this file, and no other.
	was, id := n.fs.setEmpty(e.Node, n), n.which.Load().id
	n.detach()
	gone := n.fs.stays(id)
	err = n.fs.pool.Delete(ctx, name, n.mayEmpty)
	// Of an unknown outcome nobody knows yet.
	gone(err == nil || errors.Is(err, ErrUnknownOutcome))
	if err != nil {
		n.fs.setEmpty(e.Node, was)
		// All must be as it was, or will be: whoever is killed gives up.
		if !errors.Is(err, ErrUnknownOutcome) && n.fs.tree.Remove(ctx, name+suffix, 0) != nil {
			n.fs.oweEmpty(e.Node)
		}
		if n.inUse() {
			err = errors.Join(err, n.attach(ctx))
		}
		return err
	}
	// It is done, whatever becomes of what is kept of the vDisk.
	n.setKept(filetree.DiskAttr{Attr: e.Attr})
	n.mtime.Store(0)
	n.fs.mu.Lock()
	delete(n.fs.disks, id)
	n.which.Store(&which{node: e.Node})
	n.fs.mu.Unlock()
	n.fs.forgetDisk(ctx, id)
	return nil
}

// mayEmpty is why the vDisk must not be deleted for its file to be empty, nil: it may.
func (n *diskNode) mayEmpty(i Info) error {
	if err := n.isThat(i); err != nil {
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

// resize grows the vDisk, or makes it. n.mu is held; if there is none by become.
func (n *diskNode) resize(ctx context.Context, size int64) error {
	if size > sizeMax {
		return syscall.EFBIG
	}
	if !n.made() {
		return n.make(ctx, func(naming Naming) error { return n.fs.pool.CreateAs(ctx, size, naming) })
	}
	have, err := n.size(ctx)
	switch {
	case err != nil || size == have:
		return err
	case size < have:
		return fmt.Errorf("vDisk %q: cannot shrink: %w", *n.name.Load(), fs.ErrInvalid)
	}
	return n.named(ctx, func(name string) error { return n.fs.pool.Resize(ctx, name, size) })
}

// make makes the vDisk of an empty file. What that waits for it waits for before the
// vDisk has its name: a directory may be moved meanwhile. Owner and mode are kept before
// that, too: no stop loses them. Then the vDisk is there, and whoever is killed while
// the file's entry goes leaves both, where the vDisk counts. Who calls has called
// become.
func (n *diskNode) make(ctx context.Context, do func(Naming) error) error {
	node := n.which.Load().node
	if _, _, there := n.fs.tree.Path(node); !there {
		return n.deleted()
	}
	err := do(func(id uuid.UUID, commit func(name string) error) error {
		err := n.fs.tree.KeepDisk(ctx, id, n.kept(), 0)
		if err == nil {
			err = n.give(ctx, id, commit)
		}
		if err != nil && !errors.Is(err, ErrUnknownOutcome) {
			n.fs.oweDisk(id)
		}
		return err
	})
	if !n.made() {
		return err
	}
	if n.fs.tree.KeepDisk(ctx, n.which.Load().id, n.kept(), node) != nil {
		n.fs.oweEmpty(node)
	}
	if err == nil && n.inUse() {
		err = n.attach(ctx)
	}
	return err
}

// give gives a new vDisk the name of the file, which it is then.
func (n *diskNode) give(ctx context.Context, id uuid.UUID, commit func(name string) error) error {
	if err := n.fs.moving.Share(ctx); err != nil {
		return err
	}
	defer n.fs.moving.Unshare()
	file, _, there := n.fs.tree.Path(n.which.Load().node)
	if !there {
		return n.deleted()
	}
	// Who looks it up as soon as it has its name finds this file, and no other.
	n.fs.mu.Lock()
	n.fs.disks[id] = n
	n.fs.mu.Unlock()
	came := n.fs.stays(id)
	err := commit(strings.TrimSuffix(file, suffix))
	came(err == nil || errors.Is(err, ErrUnknownOutcome))
	if err == nil {
		n.becomes(context.WithoutCancel(ctx), id, strings.TrimSuffix(file, suffix)) // it is there, whoever is killed
		return nil
	}
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	delete(n.fs.disks, id)
	return err
}

func (n *diskNode) deleted() error {
	return fmt.Errorf("file %s was deleted: %w", *n.name.Load(), fs.ErrNotExist)
}

// becomes makes an empty file that of the vDisk that was made for it. It waits for
// nothing.
func (n *diskNode) becomes(ctx context.Context, id uuid.UUID, name string) {
	kept := n.kept()
	if i, err := n.fs.pool.InfoOf(ctx, id); err == nil { // others may have deleted it
		kept = settled(kept, i.Change)
	}
	kept.Modified = max(kept.Modified, time.Now().UnixNano()) // it gets a size, which is a change
	kept.Changed = max(kept.Changed, kept.Modified)
	n.setKept(kept)
	n.fs.mu.Lock()
	delete(n.fs.empty, n.which.Load().node)
	n.which.Store(&which{id: id})
	n.fs.mu.Unlock()
	n.name.Store(&name)
}

// isThat fails if the vDisk is another one that has the name now.
func (n *diskNode) isThat(i Info) error {
	if i.ID != n.which.Load().id {
		return fmt.Errorf("vDisk %q: another one than before: %w", i.Name, fs.ErrNotExist)
	}
	return nil
}

// remove deletes the file at a time, and the vDisk if there is one and it has that name.
func (n *diskNode) remove(ctx context.Context, name string, at int64) error {
	n.waitIdle(ctx)
	if err := n.keep.Take(ctx); err != nil {
		return err
	}
	defer n.keep.Give()
	if n.made() {
		if err := n.fs.pool.Delete(ctx, name, n.isThat); err != nil {
			return err
		}
		n.gone = true
		n.fs.forgetDisk(ctx, n.which.Load().id)
		return nil
	}
	if err := n.fs.moving.Share(ctx); err != nil {
		return err
	}
	defer n.fs.moving.Unshare()
	file, _, _ := n.fs.tree.Path(n.which.Load().node)
	return n.fs.tree.Remove(ctx, file, at)
}
