package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

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
	defer n.become()()
	n.touch()
	if size > 0 {
		return n.resize(ctx, roundUp(size))
	}
	if !n.made() {
		return nil
	}
	n.fs.moving.RLock()
	defer n.fs.moving.RUnlock()
	return n.named(ctx, func(name string) error { return n.empty(ctx, name) })
}

// grow sets the size of a vDisk, which waits for no I/O. It reports whether it
// was for it to do.
func (n *diskNode) grow(ctx context.Context, size int64) (done bool, err error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if size == 0 || !n.made() {
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
	e, err := n.fs.tree.Make(ctx, name+suffix, filetree.Entry{Kind: filetree.EmptyDisk, Attr: n.kept()})
	if have, there := n.fs.tree.Get(name + suffix); errors.Is(err, fs.ErrExist) && there && have.Kind == filetree.EmptyDisk {
		e, err = have, nil // of a deletion that did not come
	}
	if err != nil {
		return err
	}
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
		ctx = context.WithoutCancel(ctx) // all must be as it was
		if !errors.Is(err, ErrUnknownOutcome) {
			err = errors.Join(err, n.fs.tree.Remove(ctx, name+suffix))
		}
		if n.inUse() {
			err = errors.Join(err, n.attach(ctx))
		}
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := n.fs.tree.ForgetDisk(ctx, n.id); err != nil {
		return err
	}
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	delete(n.fs.disks, n.id)
	n.fs.empty[e.Node] = n
	n.id, n.node = uuid.Nil, e.Node
	return nil
}

// resize grows the vDisk, or makes it. n.mu is held; if there is none by become.
func (n *diskNode) resize(ctx context.Context, size int64) error {
	if size > sizeMax {
		return syscall.EFBIG
	}
	if !n.made() {
		return n.make(ctx, func(name string) error { return n.fs.pool.Create(ctx, name, size) })
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

// make makes the vDisk of an empty file. It is there before the file's entry
// goes: a stop in between leaves both, and the vDisk counts. Who calls has called
// become.
func (n *diskNode) make(ctx context.Context, do func(name string) error) error {
	n.fs.moving.RLock()
	defer n.fs.moving.RUnlock()
	file, _, there := n.fs.tree.Path(n.node)
	if !there {
		return fmt.Errorf("file %s was deleted: %w", *n.name.Load(), fs.ErrNotExist)
	}
	name := strings.TrimSuffix(file, suffix)
	if err := do(name); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // the vDisk is there: the file must become it
	i, err := n.fs.pool.Info(ctx, name)
	if err != nil {
		return err
	}
	if err := n.fs.tree.KeepDisk(ctx, i.ID, n.kept(), file); err != nil {
		return err
	}
	n.fs.mu.Lock()
	delete(n.fs.empty, n.node)
	n.fs.disks[i.ID] = n
	n.fs.mu.Unlock()
	n.id, n.node = i.ID, 0
	n.name.Store(&name)
	if n.inUse() {
		return n.attach(ctx)
	}
	return nil
}

// isThat fails if the vDisk is another one that has the name now.
func (n *diskNode) isThat(i Info) error {
	if i.ID != n.id {
		return fmt.Errorf("vDisk %s is another one than before: %w", i.Name, fs.ErrNotExist)
	}
	return nil
}

// remove deletes the file, and the vDisk if there is one and it has that name.
func (n *diskNode) remove(ctx context.Context, name string) error {
	n.waitIdle(ctx)
	n.keep.Lock()
	defer n.keep.Unlock()
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.made() {
		if err := n.fs.pool.Delete(ctx, name, n.isThat); err != nil {
			return err
		}
		n.gone = true
		return n.fs.tree.ForgetDisk(context.WithoutCancel(ctx), n.id)
	}
	n.fs.moving.RLock()
	defer n.fs.moving.RUnlock()
	file, _, _ := n.fs.tree.Path(n.node)
	return n.fs.tree.Remove(ctx, file)
}
