package volumedriver

import (
	"context"
	"fmt"
	"slices"

	"openvstorage/metadata"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/pageobject"
)

// freezeAtRest freezes the map for a checkpoint that is due when there is no
// TLog to close, because everything written is stored.
func (v *Volume) freezeAtRest() {
	c := v.cat.now() // only the storer moves its StoredSeq
	stored, id := c.StoredSeq, tlog.ID(c.Checkpoint.TLog)
	if n := len(c.TLogs); n > 0 {
		id = tlog.ID(c.TLogs[n-1].Number)
	}
	v.buf.AtRest(func(lastSeq uint64) {
		if lastSeq == stored {
			v.ClosedTLog(id, lastSeq)
		}
	})
}

// commitCheckpoint puts the newest checkpoint of which everything that it covers
// is stored (O3): pages to the local store and to page objects, then
// the catalog that names them, then the local TLogs may go (O4).
func (v *Volume) commitCheckpoint(ctx context.Context) error {
	if err := v.cat.settle(ctx); err != nil {
		return err
	}
	a := v.coveredAhead()
	if a == nil {
		return nil
	}
	if err := v.parentCovers(ctx); err != nil {
		return err
	}
	objects, err := v.putPages(ctx, a.frozen)
	if err != nil {
		return err
	}
	state := a.frozen.State()
	var gone []string
	err = v.cat.update(ctx, func(c *catalog.Catalog) error {
		c.Checkpoint = catalog.Checkpoint{
			Seq: a.seq, TLog: uint64(a.tlog), NextPage: state.NextPage, Generation: state.Generation,
			Parent: a.parent, Root: catalogRoot(state.Root), Live: catalogRoot(state.Live), Recount: state.Recount,
		}
		for _, d := range state.Drops {
			c.Checkpoint.Drops = append(c.Checkpoint.Drops, catalog.Drop{Page: uint64(d.Page), Level: d.Level})
		}
		c.Pages = append(c.Pages, objects...)
		for len(objects) > 0 && c.NextObject < objects[len(objects)-1].Number+reserveAhead {
			c.NextObject += reserveAhead
		}
		gone = gone[:0]
		c.TLogs = slices.DeleteFunc(c.TLogs, func(t catalog.TLog) bool {
			if t.LastSeq <= a.seq {
				gone = append(gone, tlog.ID(t.Number).Name())
				return true
			}
			return false
		})
		v.fillSnapshots(c)
		return nil
	})
	if err != nil {
		return err
	}
	v.m.Committed(a.frozen)
	v.mu.Lock()
	v.ahead = slices.DeleteFunc(v.ahead, func(b *ahead) bool { return b.seq <= a.seq })
	v.mu.Unlock()
	v.store.covered = 0
	if err := v.buf.Free(a.tlog); err != nil {
		v.log.Warn("local TLogs not removed", "err", err)
	}
	v.cat.deleteObjects(ctx, gone)
	v.store.collectDue.Store(true)
	v.announce(nil)
	return nil
}

// coveredAhead returns the newest checkpoint ahead that can be committed, or nil.
func (v *Volume) coveredAhead() (a *ahead) {
	stored := v.cat.storedSeq()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, b := range v.ahead {
		if b.seq <= stored {
			a = b
		}
	}
	return a
}

// frozenSeq is where the newest checkpoint is, committed or ahead, and whether
// there is one ahead.
func (v *Volume) frozenSeq() (seq uint64, ahead bool) {
	v.mu.Lock()
	n := len(v.ahead)
	if n > 0 {
		seq = v.ahead[n-1].seq
	}
	v.mu.Unlock()
	if n > 0 {
		return seq, true
	}
	return v.cat.checkpointSeq(), false
}

// parentCovers makes a clone's first checkpoint wait for one of its parent
// that covers the snapshot: the clone's pages refer to the parent's.
func (v *Volume) parentCovers(ctx context.Context) error {
	if v.cat.now().Checkpoint.NextPage != 0 || v.self == 0 {
		return nil
	}
	parent, s, err := v.parentSnapshot()
	if err != nil {
		return err
	}
	return parent.checkpointTo(ctx, s.Seq)
}

// putPages saves the checkpoint's new pages locally and in page objects.
func (v *Volume) putPages(ctx context.Context, f *metadata.Frozen) ([]catalog.PageObject, error) {
	from := v.cat.now().Checkpoint.NextPage
	w := &pageWriter{v: v, first: max(from, 1)}
	var local []metadata.EncodedPage
	bytes := 0
	save := func() error {
		err := v.host.pages.SavePages(ctx, v.id, local)
		local, bytes = local[:0], 0
		return err
	}
	err := f.NewPages(ctx, from, func(number uint64, encoded []byte) error {
		local = append(local, metadata.EncodedPage{Number: number, Bytes: slices.Clone(encoded)})
		if bytes += len(encoded); bytes >= 1<<20 {
			if err := save(); err != nil {
				return err
			}
		}
		return w.add(ctx, number, encoded)
	})
	if err == nil {
		err = save()
	}
	if err == nil {
		err = w.put(ctx, f.State().NextPage)
	}
	if err == nil {
		err = v.host.pages.Flush(ctx)
	}
	if err != nil {
		var names []string
		for _, o := range w.objects {
			names = append(names, pageobject.Name(o.Number))
		}
		v.cat.deleteObjects(ctx, names)
		return nil, fmt.Errorf("checkpoint of %s: %w", v.Name(), err)
	}
	return w.objects, nil
}

// pageWriter cuts a row of pages into objects that together cover every page
// number from first on.
type pageWriter struct {
	v       *Volume
	first   uint64
	b       pageobject.Builder
	objects []catalog.PageObject
}

func (w *pageWriter) add(ctx context.Context, number uint64, page []byte) error {
	if w.b.Size()+len(page) > pageobject.SizeMax && w.b.Len() > 0 {
		if err := w.put(ctx, number); err != nil {
			return err
		}
	}
	w.b.Add(number, page)
	return nil
}

// put puts what is gathered as the object of the pages up to end.
func (w *pageWriter) put(ctx context.Context, end uint64) error {
	if w.b.Len() == 0 {
		return nil
	}
	n, err := w.v.cat.objectNumber(ctx)
	if err != nil {
		return err
	}
	data := w.b.Object(w.v.id, n, w.v.host.opt.Random())
	if err := w.v.putObject(ctx, pageobject.Name(n), data); err != nil {
		return err
	}
	w.v.count.uploaded.Add(uint64(len(data)))
	w.objects = append(w.objects, catalog.PageObject{Number: n, First: w.first, End: end, Pages: uint32(w.b.Len()), Size: int64(len(data))})
	w.first, w.b = end, pageobject.Builder{}
	return nil
}
