package volumedriver

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"openvstorage/metadata"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/pageobject"
	"openvstorage/writebuffer"

	"github.com/google/uuid"
)

// checkpointer makes the checkpoints of a vDisk, by which a restart has less to replay
// and garbage may go: the map is frozen in the order of the log, and committed when all
// that it covers is stored. Its lock, which is held for a moment, comes after that of
// the snapshot tree.
type checkpointer struct {
	*core
	cat       *ownedCatalog
	tree      *snapshotTree
	committed func() // hears of each checkpoint that the catalog has

	due       atomic.Bool // freeze the map when the next TLog closes
	uncovered int64       // bytes of TLogs stored since the last checkpoint; the storer's

	mu      sync.Mutex
	pending []*pendingCheckpoint // oldest first
}

// pendingCheckpoint is a checkpoint that was frozen when a TLog closed, and is committed
// when that TLog is stored. As the write buffer may hold a lot until then, there may be
// several.
type pendingCheckpoint struct {
	frozen *metadata.Frozen
	tlog   tlog.ID
	seq    uint64
	parent uuid.UUID // of the live state
}

// checkpointBytes of TLogs that no checkpoint covers make one due. A restart replays that
// much and what the write buffer holds: a second or so.
const checkpointBytes = 64 << 20

// freeze freezes the map for a checkpoint, if one is due. It is called where the TLog
// ends, in the append section: nothing is between seq and what is frozen.
func (k *checkpointer) freeze(id tlog.ID, seq uint64) {
	if !k.due.Load() {
		return
	}
	k.tree.freeze(func(parent uuid.UUID, roots []metadata.Root) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if len(k.pending) == pendingMax {
			return
		}
		k.due.Store(false)
		k.pending = append(k.pending, &pendingCheckpoint{tlog: id, seq: seq, parent: parent, frozen: k.m.Freeze(seq, roots)})
	})
}

// bequeath makes the parent of a snapshot that has gone the parent of pending
// checkpoints. The tree calls it, under its lock.
func (k *checkpointer) bequeath(s *snapshot) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pending {
		bequeath(&p.parent, s)
	}
}

// freezeAtRest freezes the map for a checkpoint that is due, if everything written is
// stored: no TLog is going to close then at whose end it could be frozen.
func (k *checkpointer) freezeAtRest() {
	c := k.cat.current() // only the storer moves its StoredSeq
	stored, id := c.StoredSeq, tlog.ID(c.Checkpoint.TLog)
	if n := len(c.TLogs); n > 0 {
		id = tlog.ID(c.TLogs[n-1].Number)
	}
	k.buf.AtRest(func(lastSeq uint64) {
		if lastSeq == stored {
			k.freeze(id, lastSeq)
		}
	})
}

// commit puts the newest pending checkpoint that covers only what is stored (O3): its
// pages go to the local store and to page objects, then the catalog that names these is
// put, then the local TLogs may go (O4). It does nothing if there is no such checkpoint.
func (k *checkpointer) commit(ctx context.Context) error {
	if err := k.cat.settle(ctx); err != nil {
		return err
	}
	p := k.covered()
	if p == nil {
		return nil
	}
	if err := k.parentCovers(ctx); err != nil {
		return err
	}
	objects, err := k.putPages(ctx, p.frozen)
	if err != nil {
		return err
	}
	state := p.frozen.State()
	var gone []string
	err = k.cat.update(ctx, func(c *catalog.Catalog) error {
		c.Checkpoint = catalog.Checkpoint{
			Seq: p.seq, TLog: uint64(p.tlog), NextPage: state.NextPage, Generation: state.Generation,
			Parent: p.parent, Root: catalogRoot(state.Root), Live: catalogRoot(state.Live), Recount: state.Recount,
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
			if t.LastSeq <= p.seq {
				gone = append(gone, tlog.ID(t.Number).Name())
				return true
			}
			return false
		})
		k.tree.fill(c)
		return nil
	})
	if err != nil {
		return err
	}
	k.m.Committed(p.frozen)
	k.mu.Lock()
	k.pending = slices.DeleteFunc(k.pending, func(o *pendingCheckpoint) bool { return o.seq <= p.seq })
	k.mu.Unlock()
	k.uncovered = 0
	if err := k.buf.Free(p.tlog); err != nil {
		k.log.Warn("local TLogs not removed", "err", err)
	}
	k.cat.deleteObjects(ctx, gone)
	k.committed()
	return nil
}

// covered is the newest pending checkpoint that can be committed, or nil.
func (k *checkpointer) covered() (newest *pendingCheckpoint) {
	stored := k.cat.storedSeq()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pending {
		if p.seq <= stored {
			newest = p
		}
	}
	return newest
}

// frozenSeq is where the newest checkpoint is, committed or pending, and whether one is
// pending.
func (k *checkpointer) frozenSeq() (seq uint64, pending bool) {
	k.mu.Lock()
	n := len(k.pending)
	if n > 0 {
		seq = k.pending[n-1].seq
	}
	k.mu.Unlock()
	if n > 0 {
		return seq, true
	}
	return k.cat.checkpointSeq(), false
}

// want makes a checkpoint due: the next TLog that closes freezes one.
func (k *checkpointer) want() { k.due.Store(true) }

// addStored counts bytes of TLogs that were stored, and wantIfMany makes a checkpoint due
// if there are many that neither a checkpoint nor a pending one covers.
func (k *checkpointer) addStored(bytes int64) { k.uncovered += bytes }

func (k *checkpointer) wantIfMany() {
	if _, pending := k.frozenSeq(); !pending && k.uncovered >= checkpointBytes {
		k.want()
	}
}

// parentCovers has a clone's first checkpoint wait until a checkpoint of its parent covers
// the snapshot: the clone's pages refer to pages of the parent.
func (k *checkpointer) parentCovers(ctx context.Context) error {
	if k.cat.current().Checkpoint.NextPage != 0 || k.self == 0 {
		return nil
	}
	parent, s, err := k.cat.parentSnapshot()
	if err != nil {
		return err
	}
	return parent.store.checkpointTo(ctx, s.Seq)
}

// putPages saves the new pages of a checkpoint locally, and puts them as page objects. If
// it fails, it deletes the objects that it has put: no catalog names them.
func (k *checkpointer) putPages(ctx context.Context, f *metadata.Frozen) ([]catalog.PageObject, error) {
	from := k.cat.current().Checkpoint.NextPage
	w := &pageWriter{cat: k.cat, first: max(from, 1)}
	var local []metadata.EncodedPage
	bytes := 0
	save := func() error {
		err := k.host.pages.SavePages(ctx, k.id, local)
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
		err = k.host.pages.Flush(ctx)
	}
	if err != nil {
		var names []string
		for _, o := range w.objects {
			names = append(names, pageobject.Name(o.Number))
		}
		k.cat.deleteObjects(ctx, names)
		return nil, fmt.Errorf("checkpoint of %s: %w", k.Name(), err)
	}
	return w.objects, nil
}

// waitAt are the indexes of the closed TLogs at whose ends the next checkpoint waits to
// be committed, and the last one; len(closed) where there is none.
func (k *checkpointer) waitAt(closed []*writebuffer.TLog) (next, last int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := func(id tlog.ID) int {
		if i := slices.IndexFunc(closed, func(t *writebuffer.TLog) bool { return t.ID == id }); i >= 0 {
			return i
		}
		return len(closed)
	}
	if len(k.pending) == 0 {
		return len(closed), len(closed)
	}
	return at(k.pending[0].tlog), at(k.pending[len(k.pending)-1].tlog)
}
