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
	if err := n.fs.moving.share(ctx); err != nil {
		return err
	}
	defer n.fs.moving.unshare()
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
	was := n.fs.setEmpty(e.Node, n)
	n.detach()
	err = n.fs.pool.Delete(ctx, name, func(i Info) error {
		if err := n.isThat(i); err != nil {
			return err
		}
		if i.State == stateHalted {
			return fmt.Errorf("vDisk %s is halted and cannot be emptied; unlink its file to delete it: %w", name, syscall.EIO)
		}
		if len(i.Snapshots) > 0 {
			return fmt.Errorf("vDisk %s has snapshots and cannot be emptied: %w", name, syscall.EBUSY)
		}
		return nil
	})
	if err != nil {
		n.fs.setEmpty(e.Node, was)
		// All must be as it was. After an unknown outcome opening it waits for that,
		// which may take long: whoever is killed gives up.
		if !errors.Is(err, ErrUnknownOutcome) {
			ctx = context.WithoutCancel(ctx)
			err = errors.Join(err, n.fs.tree.Remove(ctx, name+suffix))
		}
		if n.inUse() {
			err = errors.Join(err, n.attach(ctx))
		}
		return err
	}
	ctx = context.WithoutCancel(ctx)
	id := n.which.Load().id
	if err := n.fs.tree.ForgetDisk(ctx, id); err != nil {
		n.fs.setEmpty(e.Node, was)
		return err
	}
	n.setKept(filetree.DiskAttr{Attr: e.Attr})
	n.mtime.Store(0)
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	delete(n.fs.disks, id)
	n.which.Store(&which{node: e.Node})
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
		return fmt.Errorf("vDisk %s cannot shrink: %w", *n.name.Load(), fs.ErrInvalid)
	}
	return n.named(ctx, func(name string) error { return n.fs.pool.Resize(ctx, name, size) })
}

// make makes the vDisk of an empty file. What that waits for it waits for before the
// vDisk has its name: a directory may be moved meanwhile. The vDisk is there before
// the file's entry goes: a stop in between leaves both, and the vDisk counts. Who
// calls has called become.
func (n *diskNode) make(ctx context.Context, do func(Naming) error) error {
	if _, _, there := n.fs.tree.Path(n.which.Load().node); !there {
		return n.deleted()
	}
	return do(func(id uuid.UUID, commit func(name string) error) error {
		if err := n.fs.moving.share(ctx); err != nil {
			return err
		}
		defer n.fs.moving.unshare()
		file, _, there := n.fs.tree.Path(n.which.Load().node)
		if !there {
			return n.deleted()
		}
		// Who looks it up as soon as it has its name finds this file, and no other.
		n.fs.mu.Lock()
		n.fs.disks[id] = n
		n.fs.mu.Unlock()
		err := commit(strings.TrimSuffix(file, suffix))
		if err == nil {
			err = n.becomes(context.WithoutCancel(ctx), file) // the vDisk is there
		}
		if n.which.Load().id != id {
			n.fs.mu.Lock()
			delete(n.fs.disks, id)
			n.fs.mu.Unlock()
		}
		return err
	})
}

func (n *diskNode) deleted() error {
	return fmt.Errorf("file %s was deleted: %w", *n.name.Load(), fs.ErrNotExist)
}

// becomes makes an empty file that of the vDisk that was made for it.
func (n *diskNode) becomes(ctx context.Context, file string) error {
	name, node := strings.TrimSuffix(file, suffix), n.which.Load().node
	i, err := n.fs.pool.Info(ctx, name)
	if err != nil {
		return err
	}
	kept := settled(n.kept(), i.Change) // it gets a size, which is a change
	kept.Modified = max(kept.Modified, time.Now().UnixNano())
	kept.Changed = max(kept.Changed, kept.Modified)
	if err := n.fs.tree.KeepDisk(ctx, i.ID, kept, file); err != nil {
		return err
	}
	n.setKept(kept)
	n.fs.mu.Lock()
	delete(n.fs.empty, node)
	n.fs.disks[i.ID] = n
	n.which.Store(&which{id: i.ID})
	n.fs.mu.Unlock()
	n.name.Store(&name)
	if n.inUse() {
		return n.attach(ctx)
	}
	return nil
}

// isThat fails if the vDisk is another one that has the name now.
func (n *diskNode) isThat(i Info) error {
	if i.ID != n.which.Load().id {
		return fmt.Errorf("vDisk %s is another one than before: %w", i.Name, fs.ErrNotExist)
	}
	return nil
}

// remove deletes the file, and the vDisk if there is one and it has that name.
func (n *diskNode) remove(ctx context.Context, name string) error {
	n.waitIdle(ctx)
	if err := n.keep.take(ctx); err != nil {
		return err
	}
	defer n.keep.give()
	if n.made() {
		if err := n.fs.pool.Delete(ctx, name, n.isThat); err != nil {
			return err
		}
		n.gone = true
		return n.fs.tree.ForgetDisk(context.WithoutCancel(ctx), n.which.Load().id)
	}
	if err := n.fs.moving.share(ctx); err != nil {
		return err
	}
	defer n.fs.moving.unshare()
	file, _, _ := n.fs.tree.Path(n.which.Load().node)
	return n.fs.tree.Remove(ctx, file)
}
