package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"openvstorage/backend"
	"openvstorage/internal/ctxlock"
	"openvstorage/metadata"
	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
)

// Volume is one vDisk. It ties the parts together, each of which has its own state and
// lock, applies the entries of the log to them, and manages them: it opens, snapshots,
// rolls back, grows and closes the vDisk. All methods are safe for concurrent use.
//
// Locks, in the order in which they may be taken:
//
//	gc.lock    pages are swept; a snapshot goes; a rollback is made
//	admin      one management operation that appends to the log at a time
//	structure  of the host: a vDisk gets its name, another one, or is marked as being deleted
//	cat.put    one catalog put, or delete of objects, at a time
//	log        the append section (in writebuffer)
//	cat.mu, users.mu, tree.mu, checkpoints.mu   for a moment, never during I/O
//
// Nobody waits for the backend with admin or structure held: an operation that needs
// something in the backend waits first, with a pin on the snapshot that it needs. Each
// wait for a lock ends with its caller.
type Volume struct {
	core
	unsure  atomic.Pointer[unsure] // an operation on it whose outcome is not known
	changes changes
	admin   ctxlock.Lock

	opening     opening
	users       users
	cat         *ownedCatalog
	tree        *snapshotTree
	checkpoints *checkpointer
	gc          *garbageCollector
	bounds      *bounds
	store       *storer
	diskWaits   *diskWaits
	reader      *reader
	device      *Device
}

// ApplyWrite implements writebuffer.Owner (see logOwner): the map follows the log, in the order of seq.
func (v *Volume) ApplyWrite(seq, addr uint64, run int, loc sco.Location) error {
	return v.m.Set(seq, addr, run, loc)
}

// ApplyEntry implements writebuffer.Owner (see logOwner) for entries that are no writes. An error halts
// the vDisk: the map would not be what the log says.
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

// applySnapshot adds the snapshot that an entry takes to the tree.
func (v *Volume) applySnapshot(e tlog.Entry) error {
	s, err := e.Snapshot()
	if err != nil {
		return err
	}
	root, view := v.m.Snapshot(e.Seq)
	hidden := s.Auto && len(v.cat.current().ChildrenOf(s.ID)) == 0
	held, known := v.m.Held()
	taken := &snapshot{view: view, hidden: hidden, Snapshot: catalog.Snapshot{
		ID: s.ID, Name: s.Name, Seq: e.Seq, Created: time.Unix(0, s.Created).UTC(),
		Size: v.size.Load(), NextSCO: sco.Number(e.Addr), Auto: s.Auto, Root: catalogRoot(root),
	}}
	if known && v.self == 0 {
		taken.held.set(held)
	}
	// One that is made for a clone has its pin from the first moment on: a clone that goes
	// at the same time takes automatic snapshots along that nobody needs. A replay has no
	// clone that waits for it.
	if s.Auto && v.buf != nil {
		taken.pins++
	}
	v.tree.add(taken)
	v.changes.pass(e.Seq)
	return nil
}

// applyRollback makes the live state what the snapshot of an entry holds.
func (v *Volume) applyRollback(e tlog.Entry) error {
	s := v.tree.find(e.Rollback())
	if s == nil {
		return fmt.Errorf("%w: rollback at seq %d to snapshot %s, which is not there", tlog.ErrCorrupt, e.Seq, e.Rollback())
	}
	v.tree.rollBack(s, e.Seq) // before the map
	v.bounds.rollingBack()
	v.m.Rollback(e.Seq, mapRoot(s.Root), s.view)
	v.gc.listAgain() // the counters may be whole again before anybody looks
	v.bounds.rolledBack()
	// The size stays: a disk never shrinks under its user.
	return v.m.Grow(e.Seq, v.size.Load()/sco.ClusterSize)
}

// ClosedTLog implements writebuffer.Owner (see logOwner): a checkpoint that is due freezes the map
// exactly where a TLog ends.
func (v *Volume) ClosedTLog(id tlog.ID, lastSeq uint64) { v.checkpoints.freeze(id, lastSeq) }

// catalogRoot and mapRoot turn the root of a map into what the catalog has of it, and back.
func catalogRoot(r metadata.Root) catalog.Root {
	return catalog.Root{Page: uint64(r.Page), Levels: r.Levels, Clusters: r.Clusters}
}

func mapRoot(r catalog.Root) metadata.Root {
	return metadata.Root{Page: metadata.PageRef(r.Page), Levels: r.Levels, Clusters: r.Clusters}
}

// final reports whether it cannot help to try again.
func final(err error) bool {
	return errors.Is(err, backend.ErrConflict) || errors.Is(err, backend.ErrFailed) || errors.Is(err, backend.ErrExists) ||
		errors.Is(err, backend.ErrNotFound) || errors.Is(err, backend.ErrNamespaceNotFound) ||
		errors.Is(err, backend.ErrCorrupt) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// retry repeats fn with growing pauses, up to 2 s, until it succeeds, fails for good, or ctx
// ends.
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

// Sync returns when everything written so far is in the backend and named by the catalog.
// The garbage that this makes is deleted soon after. progress, if not nil, hears of bytes
// done and in total.
func (v *Volume) Sync(ctx context.Context, progress func(done, total int64)) error {
	if err := v.Err(); err != nil {
		return err
	}
	err := v.store.syncTo(ctx, v.buf.Written(), progress)
	if err == nil {
		v.gc.freeAll()
		v.store.ring()
	}
	return err
}
