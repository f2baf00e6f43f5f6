package volumedriver

import (
	"fmt"
	"slices"
	"sync"

	"openvstorage/metadata"
	"openvstorage/volumedriver/catalog"
	"openvstorage/writebuffer"

	"github.com/google/uuid"
)

// snapshotTree is the snapshots of a vDisk, each with the one that it grew from, and the
// one that the live state grew from. It follows the log when a snapshot is taken or
// rolled back to, and the catalog when one is deleted. Its lock is held for a moment only.
type snapshotTree struct {
	*core

	mu        sync.Mutex
	parent    uuid.UUID   // of the live state
	snapshots []*snapshot // oldest first; replaced, not changed, when one goes
	rolled    uint64      // seq of the newest rollback
}

// snapshot is one snapshot with the view that reads it. The lock of the tree guards what
// changes: the fields from leaving on, and of the catalog's entry Parent and HasRoot.
type snapshot struct {
	catalog.Snapshot
	view    *metadata.View
	held    bound
	leaving bool // it is being deleted, or may be deleted: nobody opens it
	pins    int  // clones being made of it and rollbacks to it: it cannot go meanwhile
	readers int  // users of OpenDevice
	hidden  bool // made for a clone that is not there yet, or not any more: nobody sees it
}

// find finds a snapshot by id, nil if there is none.
func (t *snapshotTree) find(id uuid.UUID) *snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.firstLocked(func(s *snapshot) bool { return s.ID == id })
}

// first is the oldest snapshot that matches, nil if none does.
func (t *snapshotTree) first(match func(s *snapshot) bool) *snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.firstLocked(match)
}

func (t *snapshotTree) firstLocked(match func(s *snapshot) bool) *snapshot {
	if i := slices.IndexFunc(t.snapshots, match); i >= 0 {
		return t.snapshots[i]
	}
	return nil
}

// named finds a snapshot by name. Hidden ones are not there.
func (t *snapshotTree) named(name string) (*snapshot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.namedLocked(name); s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("snapshot %q of vDisk %q: %w", name, t.Name(), ErrNotFound)
}

func (t *snapshotTree) namedLocked(name string) *snapshot {
	return t.firstLocked(func(s *snapshot) bool { return s.Name == name && !s.hidden })
}

// taken reports whether a snapshot has the name, a hidden one too.
func (t *snapshotTree) taken(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.firstLocked(func(s *snapshot) bool { return s.Name == name }) != nil
}

// pinNamed finds a snapshot by name and pins it: it cannot be deleted until unpin is called.
func (t *snapshotTree) pinNamed(name string) (*snapshot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.usableLocked(name)
	if err == nil {
		s.pins++
	}
	return s, err
}

// usableLocked finds a snapshot that may be used: it is not hidden, nor about to go.
func (t *snapshotTree) usableLocked(name string) (*snapshot, error) {
	s := t.namedLocked(name)
	switch {
	case s == nil:
		return nil, fmt.Errorf("snapshot %q of vDisk %q: %w", name, t.Name(), ErrNotFound)
	case s.leaving:
		return nil, fmt.Errorf("snapshot %q of vDisk %q: being deleted, or may be: %w", name, t.Name(), ErrBusy)
	}
	return s, nil
}

// pin keeps a snapshot from being deleted, and its vDisk.
func (t *snapshotTree) pin(s *snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.pins++
}

// unpin takes a pin back. It reports whether that makes the snapshot unused.
func (t *snapshotTree) unpin(s *snapshot) (unused bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.pins--
	return s.unused()
}

// pinned reports whether any snapshot has a pin.
func (t *snapshotTree) pinned() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.firstLocked(func(s *snapshot) bool { return s.pins > 0 }) != nil
}

// read finds a snapshot by name for a reader, and keeps it from going until unread is
// called.
func (t *snapshotTree) read(name string) (*snapshot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.usableLocked(name)
	if err == nil {
		s.readers++
	}
	return s, err
}

// unread ends what read began. It reports whether that makes the snapshot unused.
func (t *snapshotTree) unread(s *snapshot) (unused bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.readers--
	return s.unused()
}

// unused reports whether nobody needs a snapshot: it is hidden, and has neither pin nor
// reader. It was passed over while it had one, so whoever takes away the last has it deleted.
func (s *snapshot) unused() bool { return s.hidden && s.pins == 0 && s.readers == 0 }

// used returns an error that says who uses a snapshot, or nil if nobody does.
func (t *snapshotTree) used(s *snapshot) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.usedLocked(s)
}

func (t *snapshotTree) usedLocked(s *snapshot) error {
	switch {
	case s.readers > 0:
		return fmt.Errorf("snapshot %q of vDisk %q: in use; disconnect its readers first: %w", s.Name, t.Name(), ErrBusy)
	case s.pins > 0:
		return fmt.Errorf("snapshot %q of vDisk %q: being cloned, or rolled back to; wait for it: %w", s.Name, t.Name(), ErrBusy)
	}
	return nil
}

// After close nobody can open the snapshot, as it is about to be deleted. It refuses if
// somebody uses the snapshot, and with errRolledBack if the last rollback, which may
// have gone to it, is not under the checkpoint yet: a replay would need the snapshot.
func (t *snapshotTree) close(s *snapshot, checkpoint uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.snapshots, s) {
		return fmt.Errorf("snapshot %q of vDisk %q: %w any more", s.Name, t.Name(), ErrNotFound)
	}
	if err := t.usedLocked(s); err != nil {
		return err
	}
	if t.rolled > checkpoint {
		return errRolledBack
	}
	s.leaving = true
	return nil
}

// bequeath makes the parent of a snapshot that goes the parent of what has it as parent.
func bequeath(parent *uuid.UUID, s *snapshot) {
	if *parent == s.ID {
		*parent = s.Parent
	}
}

// reopen ends close: the snapshot stays.
func (t *snapshotTree) reopen(s *snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.leaving = false
}

// remove takes a snapshot out of the tree, once the catalog in the backend is known to
// be without it: what grew from it grew from its parent. with is called before anybody
// sees the tree without the snapshot, and must not wait.
func (t *snapshotTree) remove(s *snapshot, with func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.snapshots = slices.DeleteFunc(slices.Clone(t.snapshots), func(o *snapshot) bool { return o == s })
	for _, o := range t.snapshots {
		bequeath(&o.Parent, s)
	}
	bequeath(&t.parent, s)
	with()
	t.host.table.changed()
}

// follow notes which snapshots have roots in the catalog.
func (t *snapshotTree) follow(c *catalog.Catalog) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.snapshots {
		listed := c.Snapshot(s.ID)
		s.HasRoot = listed != nil && listed.HasRoot
	}
}

// sees reports whether a snapshot may see some of the SCO's
// clusters: it was taken when the SCO was open already.
func (t *snapshotTree) sees(s *writebuffer.SCO) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.firstLocked(func(snap *snapshot) bool { return s.Number < snap.NextSCO && snap.Seq >= s.FirstSeq() }) != nil
}

// rolledSeq is the seq of the newest rollback, 0 if there was none since the opening.
func (t *snapshotTree) rolledSeq() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rolled
}

// fill lists in c the snapshots that its TLogs and checkpoint cover. In memory they get
// their roots when c is in the backend: follow.
func (t *snapshotTree) fill(c *catalog.Catalog) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.Snapshots = c.Snapshots[:0]
	for _, s := range t.snapshots {
		if s.Seq > c.StoredSeq {
			continue
		}
		listed := s.Snapshot
		listed.HasRoot = s.Seq <= c.Checkpoint.Seq
		c.Snapshots = append(c.Snapshots, listed)
	}
}

// hideLocked hides a snapshot, or shows it again.
func (t *snapshotTree) hideLocked(s *snapshot, hidden bool) {
	if s.hidden != hidden {
		s.hidden = hidden
		t.host.table.changed()
	}
}

// setHidden is hideLocked for those who do not hold the lock.
func (t *snapshotTree) setHidden(s *snapshot, hidden bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hideLocked(s, hidden)
}

// hideChildless hides the snapshots that were made for clones and have none in c: they
// are to go.
func (t *snapshotTree) hideChildless(c *catalog.Catalog) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.snapshots {
		if s.Auto && len(c.ChildrenOf(s.ID)) == 0 {
			t.hideLocked(s, true)
		}
	}
}

// lost is a hidden snapshot that nobody uses, nil if there is none. Those that have
// children in c are still held by a clone whose end is not known.
func (t *snapshotTree) lost(c *catalog.Catalog) *snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.firstLocked(func(s *snapshot) bool { return s.unused() && !s.leaving && len(c.ChildrenOf(s.ID)) == 0 })
}

// list is the snapshots that are not hidden, oldest first, and which of them are leaving.
func (t *snapshotTree) list() (list []*snapshot, leaving []bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.snapshots {
		if !s.hidden {
			list, leaving = append(list, s), append(leaving, s.leaving)
		}
	}
	return list, leaving
}

// names are those of the snapshots that may be opened, oldest first.
func (t *snapshotTree) names() (names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.snapshots {
		if !s.hidden && !s.leaving {
			names = append(names, s.Name)
		}
	}
	return names
}

// stats is Stat.Snapshots.
func (t *snapshotTree) stats() (stats []SnapshotStat) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.snapshots {
		if !s.hidden {
			stats = append(stats, SnapshotStat{Name: s.Name, Size: s.Size, Created: s.Created, Allocated: s.held.bytes(s.Size, 0)})
		}
	}
	return stats
}

// entries adds to list what the catalog knows, or is to know, of each snapshot.
func (t *snapshotTree) entries(list []catalog.Snapshot) []catalog.Snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.snapshots {
		list = append(list, s.Snapshot)
	}
	return list
}

// roots are the roots of all snapshots.
func (t *snapshotTree) roots() []metadata.Root {
	t.mu.Lock()
	defer t.mu.Unlock()
	roots := make([]metadata.Root, len(t.snapshots))
	for i, s := range t.snapshots {
		roots[i] = mapRoot(s.Root)
	}
	return roots
}

// freeze calls fn with the parent of the live state, and the roots of the snapshots that
// the last checkpoint did not cover. The tree stays as it is until fn returns, which
// must not wait.
func (t *snapshotTree) freeze(fn func(parent uuid.UUID, roots []metadata.Root)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var roots []metadata.Root
	for _, s := range t.snapshots {
		if !s.HasRoot {
			roots = append(roots, mapRoot(s.Root))
		}
	}
	fn(t.parent, roots)
}

// add puts a snapshot into the tree that was taken of the live state.
func (t *snapshotTree) add(s *snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Parent = t.parent
	t.snapshots = append(t.snapshots, s)
	t.parent = s.ID
	t.host.table.changed()
}

// rollBack notes that the live state is what the snapshot holds, from seq on. The map
// follows after: marks of a group rely on that order.
func (t *snapshotTree) rollBack(s *snapshot, seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.parent, t.rolled = s.ID, seq
}

// open begins with what a checkpoint has.
func (t *snapshotTree) open(parent uuid.UUID, snapshots []*snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.parent, t.snapshots = parent, snapshots
}
