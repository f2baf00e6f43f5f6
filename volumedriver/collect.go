package volumedriver

import (
	"context"
	"fmt"
	"slices"

	"openvstorage/backend"
	"openvstorage/metadata"
	"openvstorage/sco"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/pageobject"
)

// visible reports whether a snapshot may see an SCO that died at deadSeq: it
// was taken before, and the SCO was open by then.
func visible(snapshots []catalog.Snapshot, n sco.Number, deadSeq uint64) bool {
	return slices.ContainsFunc(snapshots, func(s catalog.Snapshot) bool {
		return n < s.NextSCO && s.Seq < deadSeq
	})
}

// dead is what a look at the counters finds.
type dead struct {
	checkpoint uint64       // its seq
	frozen     uint64       // that of the newest one, committed or ahead
	gone       []sco.Number // nobody can reach them: delete
	waiting    int          // nobody could, once a checkpoint covers their death
	unfrozen   []sco.Number // of these, those whose death none ahead covers
	known      int
	ahead      bool // there is a checkpoint ahead
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

// collect deletes what nothing can reach any more, and has a checkpoint made
// when much waits for one.
func (v *Volume) collect(ctx context.Context) (err error) {
	if err := v.cat.settle(ctx); err != nil {
		return err
	}
	if v.store.checkpointDue.Load() {
		v.freezeAtRest()
	}
	// One whose commit failed is due to nobody else.
	if err := v.commitCheckpoint(ctx); err != nil {
		return err
	}
	if !v.store.collectDue.Swap(false) {
		return nil
	}
	defer func() {
		if err != nil {
			v.store.collectDue.Store(true)
		}
	}()
	if v.m.Recounting() {
		v.store.collectDue.Store(true) // when Reap is done
		return nil
	}
	if v.store.listDue.Load() {
		if !v.gc.try() {
			// A rollback may bring back what the counters do not know yet.
			v.store.collectDue.Store(true)
			return nil
		}
		if v.m.Recounting() { // since a rollback that has ended in between
			v.gc.give()
			v.store.collectDue.Store(true)
			return nil
		}
		v.store.listDue.Store(false)
		err := v.markUnknown(ctx)
		v.gc.give()
		if err != nil {
			v.store.listDue.Store(true)
			return err
		}
	}
	if err := v.collectSCOs(ctx); err != nil {
		return err
	}
	if v.store.freeDue.Load() && v.store.checkpointDue.Load() {
		if err := v.freeAtRest(ctx); err != nil {
			return err
		}
	}
	return v.sweep(ctx)
}

// freeAtRest makes the checkpoint that what is to be freed waits for, if everything
// written is stored, and frees it.
func (v *Volume) freeAtRest(ctx context.Context) error {
	v.freezeAtRest()
	if err := v.commitCheckpoint(ctx); err != nil {
		return err
	}
	return v.collectSCOs(ctx)
}

// findDead looks at the counters of all SCOs.
func (v *Volume) findDead(ctx context.Context) (*dead, error) {
	d := &dead{checkpoint: v.cat.checkpointSeq()}
	d.frozen, d.ahead = v.frozenSeq()
	// A snapshot counts until it is in neither list: one that goes leaves
	// memory when it is known to have left the catalog.
	snapshots := slices.Clone(v.cat.now().Snapshots)
	v.mu.Lock()
	for _, s := range v.snapshots {
		snapshots = append(snapshots, s.Snapshot)
	}
	v.mu.Unlock()
	err := v.m.SCOs(ctx, func(s metadata.SCO) bool {
		d.sort(s, snapshots)
		return true
	})
	v.store.looked = v.count.writeBytes.Load()
	return d, err
}

func (v *Volume) collectSCOs(ctx context.Context) error {
	d, err := v.findDead(ctx)
	if err != nil {
		return err
	}
	if len(d.gone) > 0 {
		names := make([]string, len(d.gone))
		for i, n := range d.gone {
			names[i] = n.Name()
		}
		v.cat.deleteObjects(ctx, names)
		for _, n := range d.gone {
			v.noteStored(n, 0)
			v.buf.Forget(n)
			v.host.sums.Invalidate(sumsKey{v.id, n})
			if err := v.m.Forget(n); err != nil {
				return err
			}
		}
	}
	v.wantCheckpoint(d)
	if d.waiting == 0 && !v.m.Reapable() {
		v.store.freeDue.Store(false)
	}
	return nil
}

// lookForDead has a checkpoint made in the midst of a group if it is worth one.
func (v *Volume) lookForDead(ctx context.Context) error {
	if !timeToLook(v.count.writeBytes.Load()-v.store.looked, v.count.stored.Load()) || v.m.Recounting() {
		return nil
	}
	d, err := v.findDead(ctx)
	if err == nil {
		v.wantCheckpoint(d)
	}
	return err
}

// wantCheckpoint has a checkpoint made if the garbage that waits for one is worth it.
func (v *Volume) wantCheckpoint(d *dead) {
	g := garbage{waiting: d.waiting, left: d.known - len(d.gone), ahead: d.ahead, unfrozen: len(d.unfrozen)}
	for _, n := range d.unfrozen {
		size, there := v.store.sizes[n]
		if !there {
			g.local += v.host.buffer.SCOSize()
		}
		g.stored += size
	}
	if worthCheckpoint(g, v.count.stored.Load(), v.host.buffer.Bytes(), v.store.freeDue.Load()) {
		v.store.checkpointDue.Store(true)
	}
}

// markUnknown tells the counters of SCOs in the backend that they do not know:
// those that a rollback left behind, and orphans of an owner that died. What is in
// one is counted before it is sealed, and it is there only after. v.gc is held.
func (v *Volume) markUnknown(ctx context.Context) error {
	pending := make(map[sco.Number]bool)
	for _, s := range v.buf.Work().SCOs {
		pending[s.Number] = true
	}
	var unknown []sco.Number
	var failed error
	err := v.namespace().List(ctx, "sco-", func(i backend.Info) bool {
		n, err := sco.ParseName(i.Name)
		if err == nil {
			v.noteStored(n, i.Size)
		}
		if err != nil || pending[n] {
			return true
		}
		if _, known, err := v.m.Live(ctx, n); err != nil {
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
		if err := v.m.MarkDead(n, v.m.Seq()); err != nil {
			return err
		}
	}
	return v.cat.deleteOrphans(ctx)
}

// noteStored keeps the sum of the sizes of stored SCOs.
func (v *Volume) noteStored(n sco.Number, size int64) {
	v.count.stored.Add(size - v.store.sizes[n])
	if v.store.sizes[n] = size; size == 0 {
		delete(v.store.sizes, n)
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

// sweep deletes map pages that no root reaches, and page objects in which
// little lives, when there may be much of it.
func (v *Volume) sweep(ctx context.Context) error {
	c, pages := v.cat.now(), uint64(0)
	for _, p := range c.Pages {
		pages += uint64(p.Pages)
	}
	if !v.store.sweepDue.Load() && pages < 2*v.store.swept+sweepSlack {
		return nil
	}
	if !v.gc.try() {
		// A rollback or the end of a snapshot, which may wait for the storer.
		v.store.collectDue.Store(true)
		return nil
	}
	defer v.gc.give()
	v.store.sweepDue.Store(false)
	v.mu.Lock()
	var roots []metadata.Root
	for _, s := range v.snapshots {
		roots = append(roots, mapRoot(s.Root))
	}
	v.mu.Unlock()
	live, _, err := v.m.Sweep(ctx, roots, c.Checkpoint.NextPage)
	if err != nil {
		return err
	}
	v.store.swept = live.Len()
	return v.mergePages(ctx, live)
}

// sweepSlack pages of garbage are not worth a sweep: 16 MiB.
const sweepSlack = 4096

// mergePages replaces rows of page objects of which less than half lives by
// fewer ones. Page numbers stay: an object is found by its range.
func (v *Volume) mergePages(ctx context.Context, live *metadata.PageSet) error {
	old := v.cat.now().Pages
	var kept []catalog.PageObject
	var gone []string
	for i := 0; i < len(old); {
		p := old[i]
		if n := live.Count(p.First, p.End); n > 0 && 2*n >= uint64(p.Pages) {
			kept = append(kept, p)
			i++
			continue
		}
		w := &pageWriter{v: v, first: p.First}
		end := p.End
		for ; i < len(old); i++ {
			q := old[i]
			if n := live.Count(q.First, q.End); n > 0 && 2*n >= uint64(q.Pages) {
				break
			}
			if err := v.copyPages(ctx, w, q, live); err != nil {
				return err
			}
			end = q.End
			gone = append(gone, pageobject.Name(q.Number))
		}
		if err := w.put(ctx, end); err != nil {
			return err
		}
		kept = append(kept, w.objects...)
	}
	if len(gone) == 0 {
		return nil
	}
	err := v.cat.update(ctx, func(c *catalog.Catalog) error {
		c.Pages = append(slices.Clone(kept), c.Pages[len(old):]...)
		v.cat.reserveObjects(c, 1)
		return nil
	})
	if err != nil {
		return err
	}
	v.cat.deleteObjects(ctx, gone)
	return nil
}

// copyPages adds the live pages of an object to w.
func (v *Volume) copyPages(ctx context.Context, w *pageWriter, q catalog.PageObject, live *metadata.PageSet) error {
	if live.Count(q.First, q.End) == 0 {
		return nil
	}
	entries, err := readIndex(ctx, v.namespace(), v.id, q.Number)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !live.Has(e.Page) {
			continue
		}
		b, err := v.host.pages.LoadPage(ctx, v.id, e.Page, nil)
		if err != nil {
			return err
		}
		if err := w.add(ctx, e.Page, b); err != nil {
			return err
		}
	}
	return nil
}
