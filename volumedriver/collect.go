package volumedriver

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"openvstorage/backend"
	"openvstorage/internal/ctxlock"
	"openvstorage/metadata"
	"openvstorage/sco"
	"openvstorage/volumedriver/catalog"
)

// visible reports whether a snapshot may see an SCO that died at deadSeq: the snapshot was
// taken before that, and the SCO was open by then.
func visible(snapshots []catalog.Snapshot, n sco.Number, deadSeq uint64) bool {
	return slices.ContainsFunc(snapshots, func(s catalog.Snapshot) bool {
		return n < s.NextSCO && s.Seq < deadSeq
	})
}

// dead is what a look at the counters finds.
type dead struct {
	checkpoint uint64       // its seq
	frozen     uint64       // that of the newest one, committed or pending
	gone       []sco.Number // nobody can reach them: delete
	waiting    int          // nobody can reach them once a checkpoint covers their death
	unfrozen   []sco.Number // those of the waiting whose death no pending checkpoint covers
	known      int
	pending    bool // there is a checkpoint pending
}

// sort decides what becomes of an SCO. It can be deleted (O7) if it died by the
// checkpoint and no snapshot sees it.
func (d *dead) sort(s metadata.SCO, snapshots []catalog.Snapshot) {
	d.known++
	switch {
	case !s.Dead || visible(snapshots, s.Number, s.DeadSeq):
	case s.DeadSeq <= d.checkpoint:
		d.gone = append(d.gone, s.Number)
	default:
		d.waiting++
		if s.DeadSeq > d.frozen {
			d.unfrozen = append(d.unfrozen, s.Number)
		}
	}
}

// garbageCollector deletes what nobody can reach any more of what a vDisk has stored: SCOs,
// objects of earlier owners, map pages. The storer's goroutine runs it; others say what
// there is to look for.
type garbageCollector struct {
	*core
	cat         *ownedCatalog
	tree        *snapshotTree
	checkpoints *checkpointer

	// lock is held while the backend is listed and pages are swept, and while a snapshot
	// goes or a rollback is made: what can be reached stays the same meanwhile.
	lock ctxlock.Lock

	due      atomic.Bool // look for dead SCOs and pages
	freeDue  atomic.Bool // free all that can be, however little it is
	listDue  atomic.Bool // list the backend for SCOs that the counters do not know
	sweepDue atomic.Bool // sweep the map's pages, however few may be garbage

	// Of the storer's goroutine.
	sizes  map[sco.Number]int64 // of the SCOs in the backend, in bytes
	looked uint64               // bytes written when dead SCOs were last looked for
	swept  uint64               // pages in the store after the last sweep
}

func newGarbageCollector(c *core, cat *ownedCatalog, tree *snapshotTree, checkpoints *checkpointer) *garbageCollector {
	return &garbageCollector{core: c, cat: cat, tree: tree, checkpoints: checkpoints, lock: ctxlock.New(), sizes: make(map[sco.Number]int64)}
}

// pause has nothing listed or swept until resume is called, for those who change what can
// be reached. It waits for what is under way, until ctx ends.
func (gc *garbageCollector) pause(ctx context.Context) error { return gc.lock.Take(ctx) }

func (gc *garbageCollector) resume() { gc.lock.Give() }

// again has dead SCOs and pages looked for.
func (gc *garbageCollector) again() { gc.due.Store(true) }

// listAgain has the backend listed for SCOs that the counters do not know. They know
// nothing of what a rollback leaves behind, or an owner that died.
func (gc *garbageCollector) listAgain() {
	gc.listDue.Store(true)
	gc.again()
}

// sweepAgain has the map's pages swept: a snapshot has gone.
func (gc *garbageCollector) sweepAgain() {
	gc.sweepDue.Store(true)
	gc.again()
}

// collect deletes what nothing can reach any more, and makes a checkpoint due when much
// garbage waits for one. It also commits a pending checkpoint.
func (gc *garbageCollector) collect(ctx context.Context) (err error) {
	if err := gc.cat.settle(ctx); err != nil {
		return err
	}
	if gc.checkpoints.due.Load() {
		gc.checkpoints.freezeAtRest()
	}
	// Nobody else tries again to commit one whose commit has failed.
	if err := gc.checkpoints.commit(ctx); err != nil {
		return err
	}
	if !gc.due.Swap(false) {
		return nil
	}
	defer func() {
		if err != nil {
			gc.again()
		}
	}()
	if gc.m.Recounting() {
		gc.again() // when Reap is done
		return nil
	}
	if gc.listDue.Load() {
		if listed, err := gc.list(ctx); !listed {
			gc.again()
			return err
		}
	}
	if err := gc.collectSCOs(ctx); err != nil {
		return err
	}
	if gc.freeDue.Load() && gc.checkpoints.due.Load() {
		if err := gc.freeAtRest(ctx); err != nil {
			return err
		}
	}
	return gc.sweep(ctx)
}

// list has the counters know of all SCOs in the backend, and deletes other orphans. It
// reports whether it has done so: not while a rollback is under way or its effect is being
// counted, because a rollback may bring back what the counters do not know yet.
func (gc *garbageCollector) list(ctx context.Context) (listed bool, err error) {
	if !gc.lock.Try() {
		return false, nil
	}
	defer gc.lock.Give()
	if gc.m.Recounting() { // since a rollback that has ended in between
		return false, nil
	}
	gc.listDue.Store(false)
	if err := gc.markUnknown(ctx); err != nil {
		gc.listDue.Store(true)
		return false, err
	}
	return true, nil
}

// freeAtRest makes the checkpoint for which garbage waits that is to be freed, if
// everything written is stored, and deletes the garbage.
func (gc *garbageCollector) freeAtRest(ctx context.Context) error {
	gc.checkpoints.freezeAtRest()
	if err := gc.checkpoints.commit(ctx); err != nil {
		return err
	}
	return gc.collectSCOs(ctx)
}

// findDead looks at the counters of all SCOs.
func (gc *garbageCollector) findDead(ctx context.Context) (*dead, error) {
	d := &dead{checkpoint: gc.cat.checkpointSeq()}
	d.frozen, d.pending = gc.checkpoints.frozenSeq()
	// A snapshot counts as long as the catalog or the tree has it. One that is deleted
	// leaves the tree only when it is known to have left the catalog.
	snapshots := gc.tree.entries(slices.Clone(gc.cat.current().Snapshots))
	err := gc.m.SCOs(ctx, func(s metadata.SCO) bool {
		d.sort(s, snapshots)
		return true
	})
	gc.looked = gc.count.writeBytes.Load()
	return d, err
}

// collectSCOs deletes the SCOs that are dead, and makes a checkpoint due if enough others
// wait for one.
func (gc *garbageCollector) collectSCOs(ctx context.Context) error {
	d, err := gc.findDead(ctx)
	if err != nil {
		return err
	}
	if len(d.gone) > 0 {
		names := make([]string, len(d.gone))
		for i, n := range d.gone {
			names[i] = n.Name()
		}
		gc.cat.deleteObjects(ctx, names)
		for _, n := range d.gone {
			gc.noteStored(n, 0)
			gc.buf.Forget(n)
			gc.host.sums.forget(gc.id, n)
			if err := gc.m.Forget(n); err != nil {
				return err
			}
		}
	}
	gc.wantCheckpoint(d)
	if d.waiting == 0 && !gc.m.Reapable() {
		gc.freeDue.Store(false)
	}
	return nil
}

// lookForDead makes a checkpoint due in the midst of a group, if the garbage is worth one.
func (gc *garbageCollector) lookForDead(ctx context.Context) error {
	if !timeToLook(gc.count.writeBytes.Load()-gc.looked, gc.count.stored.Load()) || gc.m.Recounting() {
		return nil
	}
	d, err := gc.findDead(ctx)
	if err == nil {
		gc.wantCheckpoint(d)
	}
	return err
}

// wantCheckpoint makes a checkpoint due if the garbage that waits for one is worth it.
func (gc *garbageCollector) wantCheckpoint(d *dead) {
	g := garbage{waiting: d.waiting, left: d.known - len(d.gone), pending: d.pending, unfrozen: len(d.unfrozen)}
	for _, n := range d.unfrozen {
		size, there := gc.sizes[n]
		if !there {
			g.local += gc.host.buffer.SCOSize()
		}
		g.stored += size
	}
	if worthCheckpoint(g, gc.count.stored.Load(), gc.host.buffer.Bytes(), gc.freeDue.Load()) {
		gc.checkpoints.want()
	}
}

// markUnknown marks as dead the SCOs in the backend that the counters do not know: a
// rollback left them behind, or an owner that died. An SCO that is in use is known: its
// clusters are counted before it is sealed, and it is uploaded after. Whoever calls it
// holds the lock.
func (gc *garbageCollector) markUnknown(ctx context.Context) error {
	pending := make(map[sco.Number]bool)
	for _, s := range gc.buf.Work().SCOs {
		pending[s.Number] = true
	}
	var unknown []sco.Number
	var failed error
	err := gc.namespace().List(ctx, "sco-", func(i backend.Info) bool {
		n, err := sco.ParseName(i.Name)
		if err == nil {
			gc.noteStored(n, i.Size)
		}
		if err != nil || pending[n] {
			return true
		}
		if _, known, err := gc.m.Live(ctx, n); err != nil {
			failed = err
			return false
		} else if !known {
			unknown = append(unknown, n)
		}
		return true
	})
	if err != nil || failed != nil {
		return fmt.Errorf("list SCOs: %w", firstError(err, failed))
	}
	for _, n := range unknown {
		if err := gc.m.MarkDead(n, gc.m.Seq()); err != nil {
			return err
		}
	}
	return gc.cat.deleteOrphans(ctx)
}

// noteStored notes the size in bytes of a stored SCO, 0 if it is deleted, and keeps the sum.
func (gc *garbageCollector) noteStored(n sco.Number, size int64) {
	gc.count.stored.Add(size - gc.sizes[n])
	if gc.sizes[n] = size; size == 0 {
		delete(gc.sizes, n)
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// sweep deletes map pages that no root reaches, and merges page objects in which little
// lives. It does so when a snapshot has gone, and when there are twice as many pages as
// the last sweep left.
func (gc *garbageCollector) sweep(ctx context.Context) error {
	c, pages := gc.cat.current(), uint64(0)
	for _, p := range c.Pages {
		pages += uint64(p.Pages)
	}
	if !gc.sweepDue.Load() && pages < 2*gc.swept+sweepSlack {
		return nil
	}
	if !gc.lock.Try() {
		// A rollback or the deletion of a snapshot holds it, and may wait for this goroutine.
		gc.again()
		return nil
	}
	defer gc.lock.Give()
	gc.sweepDue.Store(false)
	live, _, err := gc.m.Sweep(ctx, gc.tree.roots(), c.Checkpoint.NextPage)
	if err != nil {
		return err
	}
	gc.swept = live.Len()
	return gc.mergePages(ctx, live)
}

// sweepSlack pages of garbage are not worth a sweep: 16 MiB.
const sweepSlack = 4096

// freeAll has all garbage freed that can be, however little it is.
func (gc *garbageCollector) freeAll() {
	gc.freeDue.Store(true)
	gc.again()
}
