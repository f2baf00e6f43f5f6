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

// truncate sets the size, rounded up. Truncation to nothing deletes the vDisk and leaves
// an empty file; it fails if the vDisk is in use elsewhere or has snapshots or clones.
// A vDisk cannot be truncated to any other smaller size.
func (n *diskNode) truncate(ctx context.Context, size int64) error {
	if done, err := n.grow(ctx, size); done {
		return err
	}
	done, err := n.become(ctx)
	if err != nil {
		return err
	}
	defer done()
	n.copied.touch()
	if size > 0 {
		return n.resize(ctx, roundUp(size))
	}
	if !n.file.made() {
		n.attrs.truncated()
		return nil
	}
	if err := n.fs.dirs.moving.Share(ctx); err != nil {
		return err
	}
	defer n.fs.dirs.moving.Unshare()
	return n.file.named(ctx, func(name string) error { return n.empty(ctx, name) })
}

// become lets its caller alone make or empty the file, until done is called.
func (n *diskNode) become(ctx context.Context) (done func(), err error) {
	if err := n.file.changing.Take(ctx); err != nil {
		return nil, err
	}
	if err := n.open.take(ctx); err != nil {
		n.file.changing.Give()
		return nil, err
	}
	return func() {
		n.open.give()
		n.file.changing.Give()
	}, nil
}

// grow sets the size of a vDisk, which waits for no I/O. If the file is to be emptied,
// or has no vDisk, it does nothing and done is false.
func (n *diskNode) grow(ctx context.Context, size int64) (done bool, err error) {
	if size == 0 || !n.file.made() {
		return false, nil
	}
	if err := n.open.share(ctx); err != nil {
		return true, err
	}
	defer n.open.unshare()
	if !n.file.made() {
		return false, nil
	}
	n.copied.touch()
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
// read of a halted vDisk is there to be copied, and its snapshots may not all be known.
//
// The empty file gets its entry first. A stop in between leaves the vDisk, and so does a
// deletion whose outcome is not known yet; the vDisk hides the entry as long as it is
// there. The caller has called become, and shares directories.moving.
func (n *diskNode) empty(ctx context.Context, name string) error {
	a := n.fs.owner.filled(n.attrs.kept().Attr)
	a.Modified = time.Now().UnixNano()
	a.Changed = a.Modified
	e, err := n.fs.tree.Make(ctx, name+suffix, filetree.Entry{Kind: filetree.EmptyDisk, Attr: a})
	if have, there := n.fs.tree.Get(name + suffix); errors.Is(err, fs.ErrExist) && there && have.Kind == filetree.EmptyDisk {
		e, err = have, nil // of a deletion that did not come
	}
	if err != nil {
		return err
	}
	// Whoever looks the name up when the vDisk is gone finds this file, and no other.
	was, id := n.fs.nodes.setEmpty(e.Node, n), n.file.id()
	n.open.detach()
	gone := n.fs.index.keepsFile(id)
	err = n.fs.pool.Delete(ctx, name, n.file.mayEmpty)
	// A deletion of unknown outcome counts as having happened: nobody knows yet.
	gone(err == nil || errors.Is(err, ErrUnknownOutcome))
	if err != nil {
		n.fs.nodes.setEmpty(e.Node, was)
		// The entry goes, now or later. It stays if the vDisk may be deleted yet.
		if !errors.Is(err, ErrUnknownOutcome) && n.fs.tree.Remove(ctx, name+suffix, 0) != nil {
			n.fs.leftovers.addEmpty(e.Node)
		}
		if again := n.open.attachUsed(ctx); again != nil {
			err = errors.Join(err, again)
		}
		return err
	}
	// It is done, whatever becomes of what is kept of the vDisk.
	n.attrs.becomesEmpty(e.Attr)
	n.fs.nodes.hasEmptied(n, e.Node)
	n.fs.leftovers.forgetDisk(ctx, id)
	return nil
}

// resize grows the vDisk, or makes it. The lock of the open device is held. If there is
// no vDisk, the caller has called become.
func (n *diskNode) resize(ctx context.Context, size int64) error {
	if size > sizeMax {
		return syscall.EFBIG
	}
	if !n.file.made() {
		return n.make(ctx, func(naming Naming) error { return n.fs.pool.CreateAs(ctx, size, naming) })
	}
	have, err := n.open.size(ctx)
	switch {
	case err != nil || size == have:
		return err
	case size < have:
		return fmt.Errorf("vDisk %q: cannot shrink: %w", *n.file.name.Load(), fs.ErrInvalid)
	}
	return n.file.named(ctx, func(name string) error { return n.fs.pool.Resize(ctx, name, size) })
}

// make makes the vDisk of an empty file. All that is waited for comes before the vDisk
// has its name: a directory may be moved meanwhile. Owner and mode are stored before
// that, too, so that no stop loses them. Once the vDisk has its name the file's entry is
// removed. A kill in between leaves both, and then the vDisk counts. The caller has
// called become.
func (n *diskNode) make(ctx context.Context, do func(Naming) error) error {
	node := n.file.node()
	if _, there := n.file.path(); !there {
		return n.file.unlinked()
	}
	err := do(func(id uuid.UUID, commit func(name string) error) error {
		err := n.fs.tree.KeepDisk(ctx, id, n.attrs.kept(), 0)
		if err == nil {
			err = n.give(ctx, id, commit)
		}
		if err != nil && !errors.Is(err, ErrUnknownOutcome) {
			n.fs.leftovers.addDisk(id)
		}
		return err
	})
	if !n.file.made() {
		return err
	}
	if n.fs.tree.KeepDisk(ctx, n.file.id(), n.attrs.kept(), node) != nil {
		n.fs.leftovers.addEmpty(node)
	}
	if err == nil {
		err = n.open.attachUsed(ctx)
	}
	return err
}

// give gives a new vDisk the name of the file, and makes the file that of the vDisk.
func (n *diskNode) give(ctx context.Context, id uuid.UUID, commit func(name string) error) error {
	if err := n.fs.dirs.moving.Share(ctx); err != nil {
		return err
	}
	defer n.fs.dirs.moving.Unshare()
	file, there := n.file.path()
	if !there {
		return n.file.unlinked()
	}
	n.fs.nodes.claim(id, n)
	came := n.fs.index.keepsFile(id)
	err := commit(strings.TrimSuffix(file, suffix))
	came(err == nil || errors.Is(err, ErrUnknownOutcome))
	if err == nil {
		n.becomes(context.WithoutCancel(ctx), id, strings.TrimSuffix(file, suffix)) // it is there, whoever is killed
		return nil
	}
	n.fs.nodes.unclaim(id)
	return err
}

// becomes turns an empty file into that of the vDisk that was made for it. It waits for
// nothing.
func (n *diskNode) becomes(ctx context.Context, id uuid.UUID, name string) {
	i, _ := n.fs.pool.InfoOf(ctx, id) // nothing, if others have deleted it
	n.attrs.becomesDisk(i)
	n.fs.nodes.hasBecome(n, id)
	n.file.name.Store(&name)
}

// remove deletes the file at a time, and the vDisk if there is one and it has that name.
func (n *diskNode) remove(ctx context.Context, name string, at int64) error {
	n.open.opens.waitIdle(ctx)
	if err := n.file.changing.Take(ctx); err != nil {
		return err
	}
	defer n.file.changing.Give()
	if n.file.made() {
		if err := n.fs.pool.Delete(ctx, name, n.file.isThat); err != nil {
			return err
		}
		n.file.deleted = true
		n.fs.leftovers.forgetDisk(ctx, n.file.id())
		return nil
	}
	if err := n.fs.dirs.moving.Share(ctx); err != nil {
		return err
	}
	defer n.fs.dirs.moving.Unshare()
	file, _ := n.file.path()
	return n.fs.tree.Remove(ctx, file, at)
}
