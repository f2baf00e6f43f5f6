package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/backend"
	"openvstorage/internal/broadcast"
	"openvstorage/metadata"
	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
	"openvstorage/writebuffer"

	"github.com/google/uuid"
)

// Volume is one open vDisk. All methods are safe for concurrent use.
//
// Locks, in the order in which they may be taken:
//
//	gc        pages are swept; a snapshot goes; a rollback is made
//	admin     one management operation at a time: entries of the log
//	structure of the host: a vDisk gets its name, another one, or is marked as being deleted
//	put       one catalog put, or delete of objects, at a time
//	log       the append section (in writebuffer)
//	cat, mu   the catalog; snapshots, the checkpoint on its way: for a moment
//
// Nobody waits for the backend with admin or structure held: who needs something
// to be there waits first, with a pin on the snapshot that it needs. Each wait for
// a lock ends with its caller.
type Volume struct {
	core
	born *unnamed // by this owner: its first catalog is of this epoch; else nil

	opened atomic.Bool           // buf is this epoch's, and takes writes unless halted
	waits  atomic.Pointer[error] // why it does not yet, though it is read; nil if it does

	unsure  atomic.Pointer[unsure]  // an operation on it whose outcome is not known
	batches chan *writebuffer.Batch // free ones
	changes changes

	inherited bound         // what a clone has of its ancestors
	heads     atomic.Uint64 // counts rollbacks

	starved starved // who waits for disks of the backend

	rmw   chan struct{} // full while a partial cluster is written, one at a time
	admin lock
	gc    lock // held while pages are swept, and while a snapshot goes or a rollback is made

	cat *ownedCatalog

	mu        sync.Mutex
	parent    uuid.UUID           // the snapshot that the live state grew from
	snapshots []*snapshot         // oldest first
	rolled    uint64              // seq of the newest rollback
	ahead     []*ahead            // checkpoints frozen and not committed, oldest first
	refs      int                 // users of OpenDevice, of the vDisk and its snapshots
	clones    int                 // that are being made of it
	left      broadcast.Broadcast // a user goes
	readers   map[uuid.UUID]int   // of them, those of each snapshot
	deleted   bool
	rolling   chan struct{} // closed at the end of a rollback under way, for which OpenDevice waits; else nil

	store storer
}

// snapshot is one snapshot with the view that reads it. mu of the vDisk guards what
// changes.
type snapshot struct {
	catalog.Snapshot
	view    *metadata.View
	held    bound
	leaving bool // it is being deleted, or may be deleted: nobody opens it
	pins    int  // who is about to clone it or to roll back to it; it cannot go meanwhile
	hidden  bool // made for a clone that is not there, yet or any more: nobody sees it
}

// ahead is a checkpoint that was frozen when a TLog closed, and is committed
// when that TLog is stored. As the write buffer may hold a lot until then,
// there may be several.
type ahead struct {
	frozen *metadata.Frozen
	tlog   tlog.ID
	seq    uint64
	parent uuid.UUID
}

// ApplyWrite implements writebuffer.Applier: the map follows the order of seq.
func (v *Volume) ApplyWrite(seq, addr uint64, run int, loc sco.Location) error {
	return v.m.Set(seq, addr, run, loc)
}

// ApplyEntry implements writebuffer.Applier.
func (v *Volume) ApplyEntry(e tlog.Entry) error {
	switch e.Kind {
	case tlog.KindTrim:
		return v.m.Fill(e.Seq, e.Addr, uint64(e.Run), sco.Hole)
	case tlog.KindZero:
		return v.m.Fill(e.Seq, e.Addr, uint64(e.Run), sco.Zero)
	case tlog.KindResize:
		if err := v.m.Grow(e.Seq, e.Addr/sco.ClusterSize); err != nil {
			return err
		}
		v.size.Store(e.Addr)
		return nil
	case tlog.KindSnapshot:
		return v.applySnapshot(e)
	case tlog.KindRollback:
		return v.applyRollback(e)
	}
	if e.Skipped() {
		v.m.Pass(e.Seq)
		v.changes.pass(e.Seq)
		return nil
	}
	return fmt.Errorf("%w: entry of kind %v at seq %d", tlog.ErrNewer, e.Kind, e.Seq)
}

func (v *Volume) applySnapshot(e tlog.Entry) error {
	s, err := e.Snapshot()
	if err != nil {
		return err
	}
	root, view := v.m.Snapshot(e.Seq)
	hidden := s.Auto && len(v.cat.now().ChildrenOf(s.ID)) == 0
	v.mu.Lock()
	defer v.mu.Unlock()
	held, known := v.m.Held()
	taken := &snapshot{view: view, hidden: hidden, Snapshot: catalog.Snapshot{
		ID: s.ID, Name: s.Name, Parent: v.parent, Seq: e.Seq, Created: time.Unix(0, s.Created).UTC(),
		Size: v.size.Load(), NextSCO: sco.Number(e.Addr), Auto: s.Auto, Root: catalogRoot(root),
	}}
	if known && v.self == 0 {
		taken.held.set(held)
	}
	v.snapshots = append(v.snapshots, taken)
	v.parent = s.ID
	v.changes.pass(e.Seq)
	v.host.listed.Add(1)
	return nil
}

func (v *Volume) applyRollback(e tlog.Entry) error {
	s := v.snapshot(e.Rollback())
	if s == nil {
		return fmt.Errorf("%w: rollback at seq %d to snapshot %s, which is not there", tlog.ErrCorrupt, e.Seq, e.Rollback())
	}
	v.mu.Lock()
	v.parent, v.rolled = s.ID, e.Seq // before the map: mark relies on it
	v.mu.Unlock()
	v.inherited.forget()
	v.m.Rollback(e.Seq, mapRoot(s.Root), s.view)
	// The counters know nothing of what it leaves behind, and may be whole again
	// before anybody looks.
	v.store.listDue.Store(true)
	v.store.collectDue.Store(true)
	v.heads.Add(1)
	v.inherited.forget()
	// The size stays: a disk never shrinks under its user.
	return v.m.Grow(e.Seq, v.size.Load()/sco.ClusterSize)
}

// ClosedTLog implements writebuffer.Applier: a checkpoint that is due freezes
// the map exactly where a TLog ends.
func (v *Volume) ClosedTLog(id tlog.ID, lastSeq uint64) {
	if !v.store.checkpointDue.Load() {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.ahead) == aheadMax {
		return
	}
	v.store.checkpointDue.Store(false)
	// Roots that the last checkpoint did not cover come along.
	var roots []metadata.Root
	for _, s := range v.snapshots {
		if !s.HasRoot {
			roots = append(roots, mapRoot(s.Root))
		}
	}
	v.ahead = append(v.ahead, &ahead{tlog: id, seq: lastSeq, parent: v.parent, frozen: v.m.Freeze(lastSeq, roots)})
}

// snapshot finds a snapshot by id, nil if there is none.
func (v *Volume) snapshot(id uuid.UUID) *snapshot {
	v.mu.Lock()
	defer v.mu.Unlock()
	if i := slices.IndexFunc(v.snapshots, func(s *snapshot) bool { return s.ID == id }); i >= 0 {
		return v.snapshots[i]
	}
	return nil
}

// snapshotNamed finds a snapshot by name. Hidden ones are not there.
func (v *Volume) snapshotNamed(name string) (*snapshot, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.namedLocked(name); s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("snapshot %q of vDisk %q: %w", name, v.Name(), ErrNotFound)
}

func (v *Volume) namedLocked(name string) *snapshot {
	if i := slices.IndexFunc(v.snapshots, func(s *snapshot) bool { return s.Name == name && !s.hidden }); i >= 0 {
		return v.snapshots[i]
	}
	return nil
}

func catalogRoot(r metadata.Root) catalog.Root {
	return catalog.Root{Page: uint64(r.Page), Levels: r.Levels, Clusters: r.Clusters}
}

func mapRoot(r catalog.Root) metadata.Root {
	return metadata.Root{Page: metadata.PageRef(r.Page), Levels: r.Levels, Clusters: r.Clusters}
}

// final reports whether retrying cannot help.
func final(err error) bool {
	return errors.Is(err, backend.ErrConflict) || errors.Is(err, backend.ErrExists) ||
		errors.Is(err, backend.ErrNotFound) || errors.Is(err, backend.ErrNamespaceNotFound) ||
		errors.Is(err, backend.ErrCorrupt) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// retry repeats fn with growing pauses until it succeeds, fails for good, or
// ctx ends.
func retry(ctx context.Context, fn func() error) error {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := fn()
		if err == nil || final(err) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}
