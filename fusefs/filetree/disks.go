package filetree

import (
	"context"
	"slices"
)

// Disk returns the attributes that are kept of a vDisk.
func (t *Tree) Disk(id [16]byte) (DiskAttr, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	a, ok := t.disks[id]
	return a, ok
}

// KeepDisk keeps attributes of a vDisk. If empty is not 0, it is the node of the
// EmptyDisk that the vDisk was, and that entry is removed.
func (t *Tree) KeepDisk(ctx context.Context, id [16]byte, a DiskAttr, empty uint64) error {
	end, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	a.Mode &= modeBits
	changes := []Change{{diskKey(id), encodeDisk(a)}}
	name, e, there := t.Path(empty)
	if there = there && e.Kind == EmptyDisk; there {
		changes = append(changes, Change{Key: entryKey(name)})
	}
	if was, ok := t.Disk(id); ok && was == a && !there {
		return nil
	}
	return t.write(ctx, changes, func() {
		t.disks[id] = a
		if there {
			t.leave(name)
		}
	})
}

// Keeping is what is to be kept of a vDisk. It counts only while what is kept is what
// Now was made from.
type Keeping struct {
	Was  DiskAttr // what was kept
	Kept bool     // something was
	Now  DiskAttr
}

// KeepDisks keeps attributes of many vDisks. It leaves out those of which something else
// was kept, or forgotten, since: whoever asked for that must not lose it.
func (t *Tree) KeepDisks(ctx context.Context, list map[[16]byte]Keeping) error {
	end, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	var due [][16]byte
	for id, k := range list {
		if was, kept := t.Disk(id); kept == k.Kept && (!kept || was == k.Was) {
			due = append(due, id)
		}
	}
	for part := range slices.Chunk(due, 1024) {
		changes := make([]Change, len(part))
		for i, id := range part {
			changes[i] = Change{diskKey(id), encodeDisk(list[id].Now)}
		}
		err := t.write(ctx, changes, func() {
			for _, id := range part {
				t.disks[id] = list[id].Now
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ForgetDisk forgets the attributes of a vDisk, if any are kept.
func (t *Tree) ForgetDisk(ctx context.Context, id [16]byte) error {
	return t.ForgetDisks(ctx, func(other [16]byte) bool { return other != id })
}

// ForgetDisks forgets the attributes of the vDisks that are not there any more.
func (t *Tree) ForgetDisks(ctx context.Context, there func(id [16]byte) bool) error {
	end, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	var gone [][16]byte
	t.mu.RLock()
	for id := range t.disks {
		if !there(id) {
			gone = append(gone, id)
		}
	}
	t.mu.RUnlock()
	for part := range slices.Chunk(gone, 1024) {
		var changes []Change
		for _, id := range part {
			changes = append(changes, Change{Key: diskKey(id)})
		}
		err := t.write(ctx, changes, func() {
			for _, id := range part {
				delete(t.disks, id)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}
