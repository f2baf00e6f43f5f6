package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"openvstorage/fusefs/filetree"
)

// diskAttrs are owner, mode and times of a vDisk's file, or of an empty one.
type diskAttrs struct {
	file    *diskFile
	tree    *filetree.Tree
	owner   owner
	copiers *copiers

	// emptied is when an empty file was truncated, in nanoseconds since 1970; 0: since
	// the attributes were stored, it was not.
	emptied atomic.Int64

	mu   sync.Mutex // taken last, and held for a moment
	attr filetree.DiskAttr
}

// kept is the attributes as they were stored last.
func (a *diskAttrs) kept() filetree.DiskAttr {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.attr
}

// remember notes what is stored now.
func (a *diskAttrs) remember(attr filetree.DiskAttr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.attr = attr
}

// truncated notes that an empty file was truncated.
func (a *diskAttrs) truncated() { a.emptied.Store(time.Now().UnixNano()) }

// becomesEmpty notes what is stored of the file whose vDisk was deleted.
func (a *diskAttrs) becomesEmpty(attr filetree.Attr) {
	a.remember(filetree.DiskAttr{Attr: attr})
	a.emptied.Store(0)
}

// becomesDisk notes what counts for the file of a vDisk that was made for it. It gets a
// size, which is a change.
func (a *diskAttrs) becomesDisk(i Info) {
	attr := settled(a.kept(), i.Change)
	attr.Modified = max(attr.Modified, time.Now().UnixNano())
	attr.Changed = max(attr.Changed, attr.Modified)
	a.remember(attr)
}

// ofEmpty is what an empty file has that was truncated since attr was stored.
func ofEmpty(attr filetree.DiskAttr, emptied int64) filetree.DiskAttr {
	attr.Modified, attr.Changed = max(attr.Modified, emptied), max(attr.Changed, emptied)
	return attr
}

// show fills in attributes of a vDisk's file, or of an empty one. It waits for
// nobody.
func (a *diskAttrs) show(ctx context.Context, out *fuse.Attr, i Info) {
	kept := a.kept()
	if a.file.made() {
		used := i.Allocated
		if a.copiers.copies(ctx) {
			used = i.Size
		}
		attrs(out, syscall.S_IFREG, a.owner.filled(settled(kept, i.Change).Attr), i.Size, used)
		return
	}
	attrs(out, syscall.S_IFREG, ofEmpty(kept, a.emptied.Load()).Attr, 0, 0)
	if _, there := a.file.path(); !there {
		out.Nlink = 0
	}
}

// set changes the attributes and stores them, with the time of the last write. Whoever
// looks meanwhile sees those that were there before.
func (a *diskAttrs) set(ctx context.Context, change func(*filetree.Attr)) error {
	if err := a.file.changing.Take(ctx); err != nil {
		return err
	}
	defer a.file.changing.Give()
	return a.setLocked(ctx, change)
}

// setFound is set for a file that was found by a name a moment ago: if its vDisk is
// gone, another one may have the name, and is looked for.
func (a *diskAttrs) setFound(ctx context.Context, change func(*filetree.Attr)) syscall.Errno {
	// While the file is emptied or made somebody has this lock: its vDisk is not there
	// then, and the file is.
	if err := a.file.changing.Take(ctx); err != nil {
		return errnoOf(err)
	}
	defer a.file.changing.Give()
	if !a.file.deleted && a.file.made() {
		if _, err := a.file.info(ctx); err != nil {
			return a.file.errnoAt(ctx, err)
		}
	}
	return errnoOf(a.setLocked(ctx, change))
}

// store stores the time of the last write.
func (a *diskAttrs) store(ctx context.Context) error {
	return a.set(ctx, func(*filetree.Attr) {})
}

// tryStore is store, unless somebody is changing the file.
func (a *diskAttrs) tryStore(ctx context.Context) error {
	if !a.file.changing.Try() {
		return nil
	}
	defer a.file.changing.Give()
	return a.setLocked(ctx, func(*filetree.Attr) {})
}

// setLocked is set; file.changing is held.
func (a *diskAttrs) setLocked(ctx context.Context, change func(*filetree.Attr)) error {
	switch {
	case a.file.deleted:
		return nil
	case a.file.made():
		return a.setDisk(ctx, change)
	}
	return a.setEmpty(ctx, change)
}

// setEmpty is set for an empty file; file.changing is held.
func (a *diskAttrs) setEmpty(ctx context.Context, change func(*filetree.Attr)) error {
	kept, emptied := a.kept(), a.emptied.Load()
	now := ofEmpty(kept, emptied)
	if change(&now.Attr); now == kept {
		return nil
	}
	_, err := a.tree.Set(ctx, a.file.node(), func(kept *filetree.Attr) { *kept = now.Attr })
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it was unlinked
		return err
	}
	a.emptied.CompareAndSwap(emptied, 0)
	a.remember(now)
	return nil
}

// setDisk is set for the file of a vDisk; file.changing is held.
func (a *diskAttrs) setDisk(ctx context.Context, change func(*filetree.Attr)) error {
	i, err := a.file.info(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // others have deleted it
	}
	if err != nil {
		return err
	}
	kept := a.kept()
	now := settled(kept, i.Change)
	shown := a.owner.filled(now.Attr)
	asked := shown
	if change(&asked); asked != shown {
		now.Attr = asked
	}
	if !stale(kept, now) {
		return nil
	}
	if err := a.tree.KeepDisk(ctx, i.ID, now, 0); err != nil {
		return err
	}
	a.remember(now)
	return nil
}
