package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"openvstorage/backend"
	"openvstorage/internal/ctxlock"
	"openvstorage/internal/disk"
	"openvstorage/metadata"
	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/registry"
	"openvstorage/writebuffer"
)

// open brings a vDisk up, in the order of O8: catalog, checkpoint, TLogs, SCOs. An error
// halts the vDisk, and leaves the host and other vDisks alone.
func (o *opener) open(ctx context.Context, v *Volume) error {
	if !v.opening.claimed {
		epoch, err := o.opt.Registry.Claim(ctx, v.id, o.opt.claimant(), 0)
		if err != nil {
			return err
		}
		v.epoch, v.held = epoch, registry.Holder{Host: o.opt.Host, Epoch: epoch}
	}
	if err := v.opening.loadCatalog(ctx); err != nil {
		return err
	}
	if err := v.opening.openMap(ctx); err != nil {
		return err
	}
	opt := v.opening.recoverOptions()
	if err := v.opening.replayStored(ctx, opt); err != nil {
		return err
	}
	found, err := o.buffer.Recover(opt)
	if err != nil {
		return err
	}
	if err := v.opening.replay(found.Entries); err != nil {
		return errors.Join(err, found.Release())
	}
	if found.Damage == nil {
		found.Damage = v.opening.checkReached(max(found.Reached, v.cat.current().StoredSeq), found.Accepted)
		found.Incomplete = found.Damage != nil // nobody can tell what any block held
	}
	if found.Damage != nil {
		if dir := o.buffer.Dir(v.id); !strings.Contains(found.Damage.Error(), dir) {
			found.Damage = fmt.Errorf("%w (local files in %s)", found.Damage, dir)
		}
		return v.opening.inspect(found)
	}
	if found.Cut != "" {
		v.log.Info("log ends with what was not synced", "seq", found.Reached, "why", found.Cut)
	}
	return v.opening.resume(ctx, found)
}

// opening is how a vDisk comes up, and whether it has come up whole. It sets what the core
// of the vDisk has, and fills the other parts.
type opening struct {
	v *Volume

	claimed bool                  // its epoch is that of this opening already
	created *unnamed              // made by this owner just now: its first catalog is of this epoch; else nil
	opened  atomic.Bool           // the log is this epoch's, and takes writes unless halted
	waits   atomic.Pointer[error] // why it does not yet, though it is read; nil if it does
}

// newVolume makes the parts of a vDisk, of which nothing is known yet but its record.
func (o *opener) newVolume(r registry.Record) *Volume {
	v := &Volume{
		core: core{host: o.host, id: r.ID, held: r.Holder(), log: o.opt.Logger.With("vdisk", r.Name)},
	}
	v.setName(r.Name)
	v.admin = ctxlock.New()
	v.living, v.end = context.WithCancel(context.Background())
	v.opening.v = v
	v.users.core = &v.core
	v.tree = &snapshotTree{core: &v.core}
	v.origins = []origin{{r.ID, o.opt.Backend.Namespace(r.ID.String())}}
	v.cat = newOwnedCatalog(&v.core, r.Created, v.tree.follow)
	v.checkpoints = &checkpointer{core: &v.core, cat: v.cat, tree: v.tree}
	v.gc = newGarbageCollector(&v.core, v.cat, v.tree, v.checkpoints)
	v.bounds = &bounds{core: &v.core, tree: v.tree}
	v.store = &storer{core: &v.core, cat: v.cat, tree: v.tree, checkpoints: v.checkpoints, gc: v.gc, bounds: v.bounds}
	v.checkpoints.committed = func() {
		v.gc.again()
		v.store.announce(nil)
	}
	v.diskWaits = &diskWaits{core: &v.core}
	v.reader = &reader{core: &v.core, waits: v.diskWaits}
	v.device = newDevice(v.reader)
	return v
}

// loadCatalog reads the catalog, which says what the origins of locations are.
func (o *opening) loadCatalog(ctx context.Context) error {
	v := o.v
	if err := v.cat.load(ctx, o.created); err != nil {
		return err
	}
	c := v.cat.current()
	v.origins = v.origins[:0]
	for _, o := range c.Origins {
		v.origins = append(v.origins, origin{o.Volume, v.host.opt.Backend.Namespace(o.Volume.String())})
	}
	v.self = c.Self()
	return nil
}

// openMap makes the map of the checkpoint, and the snapshots that have roots in it. A clone
// without a checkpoint begins with the snapshot of its parent.
func (o *opening) openMap(ctx context.Context) (err error) {
	v := o.v
	c := v.cat.current()
	opt := metadata.Options{Volume: v.id, Cache: v.host.cache, Store: v.host.pages, Clusters: c.Checkpoint.Root.Clusters}
	for _, o := range v.origins {
		opt.Origins = append(opt.Origins, o.id)
	}
	switch {
	case c.Checkpoint.NextPage == 0 && v.self > 0:
		_, s, perr := v.cat.parentSnapshot()
		if perr != nil {
			return perr
		}
		if err = v.host.pages.DeletePages(ctx, v.id, 0, math.MaxUint64); err != nil {
			return err
		}
		v.m, err = metadata.NewClone(opt, mapRoot(s.Root), s.view)
	default:
		v.m, err = metadata.Open(ctx, opt, stateOf(c.Checkpoint))
	}
	if err != nil {
		return err
	}
	v.head = v.m.View()
	v.size.Store(v.m.Clusters() * sco.ClusterSize)
	var snapshots []*snapshot
	for _, s := range c.Snapshots {
		if s.HasRoot {
			snapshots = append(snapshots, &snapshot{
				Snapshot: s, view: v.m.ViewAt(mapRoot(s.Root)), hidden: s.Auto && len(c.ChildrenOf(s.ID)) == 0,
			})
		}
	}
	v.tree.open(c.Checkpoint.Parent, snapshots)
	return nil
}

// stateOf is the state of a map that a checkpoint has.
func stateOf(c catalog.Checkpoint) metadata.State {
	s := metadata.State{
		Seq: c.Seq, NextPage: c.NextPage, Generation: c.Generation,
		Root: mapRoot(c.Root), Live: mapRoot(c.Live), Recount: c.Recount,
	}
	for _, d := range c.Drops {
		s.Drops = append(s.Drops, metadata.Drop{Page: metadata.PageRef(d.Page), Level: d.Level})
	}
	return s
}

// recoverOptions says what the write buffer has to know about the catalog to recover the
// local files: what is stored, where epochs began, which TLogs a replay needs.
func (o *opening) recoverOptions() writebuffer.RecoverOptions {
	c := o.v.cat.current()
	return writebuffer.RecoverOptions{
		Volume: o.v.id, StoredSeq: c.StoredSeq, Opened: c.Epoch > 0, Newest: c.Epoch,
		Bound: func(epoch uint64) uint64 {
			bound := uint64(math.MaxUint64)
			for _, e := range c.Epochs {
				if e.Epoch > epoch {
					bound = min(bound, e.Base)
				}
			}
			return bound
		},
		Keep: func(id tlog.ID) bool {
			return slices.ContainsFunc(c.TLogs, func(t catalog.TLog) bool { return tlog.ID(t.Number) == id })
		},
	}
}

// replayStored applies the entries behind the checkpoint that are stored: those of the
// TLogs that the catalog names, from the local copy, else from the backend.
func (o *opening) replayStored(ctx context.Context, opt writebuffer.RecoverOptions) error {
	v := o.v
	for _, t := range v.cat.current().TLogs {
		id := tlog.ID(t.Number)
		entries, err := v.host.buffer.LocalTLog(opt, id, t.LastSeq)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				v.log.Warn("local TLog not usable, taking the backend's", "tlog", id.Name(), "err", err)
			}
			var end int64
			if _, entries, end, err = tlog.Ordered(objectReader{ctx, v.namespace(), id.Name()}, t.Size); err != nil {
				return fmt.Errorf("object %s at offset %d: %w", id.Name(), end, unanswered(err))
			}
		}
		if len(entries) == 0 || entries[0].Seq != t.FirstSeq || entries[len(entries)-1].Seq != t.LastSeq {
			return fmt.Errorf("object %s: %w: it does not hold seq %d to %d", id.Name(), tlog.ErrCorrupt, t.FirstSeq, t.LastSeq)
		}
		if err := o.replay(entries); err != nil {
			return err
		}
	}
	return nil
}

// objectReader reads an object in pieces.
type objectReader struct {
	ctx  context.Context
	ns   backend.Namespace
	name string
}

func (r objectReader) ReadAt(p []byte, off int64) (int, error) {
	return r.ns.Get(r.ctx, r.name, p, off)
}

// replay applies entries without writing them. A stored snapshot that the catalog does not
// list was deleted since, and is passed over.
func (o *opening) replay(entries []tlog.Entry) error {
	v := o.v
	c := v.cat.current()
	for _, e := range entries {
		var err error
		switch {
		case e.Kind == tlog.KindWrite:
			err = v.ApplyWrite(e.Seq, e.Addr, int(e.Run), e.Location)
		case e.Kind == tlog.KindSnapshot && e.Seq <= c.StoredSeq && !lists(c, e):
			continue
		default:
			err = v.ApplyEntry(e)
		}
		if err != nil {
			return fmt.Errorf("replay of seq %d: %w", e.Seq, err)
		}
	}
	return nil
}

// lists reports whether c lists the snapshot that an entry takes.
func lists(c *catalog.Catalog, e tlog.Entry) bool {
	s, err := e.Snapshot()
	return err == nil && c.Snapshot(s.ID) != nil
}

// resume makes the vDisk writable. First the catalog says where this epoch begins, then
// what was recovered goes to files of this epoch (O11).
func (o *opening) resume(ctx context.Context, found *writebuffer.Recovered) error {
	v := o.v
	c := v.cat.current()
	scos, tlogs := max(found.NextSCO, c.NextSCO, 1), max(found.NextTLog, tlog.ID(c.NextTLog), 1)
	oldest := found.OldestEpoch()
	if o.created != nil { // its first catalog says all this
		return o.start(found, 1, 1)
	}
	ctx, cancel := context.WithTimeout(ctx, settleMax) // a start does not wait for one vDisk
	defer cancel()
	err := v.cat.update(ctx, func(c *catalog.Catalog) error {
		// The start of an epoch matters while files of older ones exist.
		c.Epochs = slices.DeleteFunc(c.Epochs, func(e catalog.EpochStart) bool { return e.Epoch <= oldest })
		c.Epochs = append(c.Epochs, catalog.EpochStart{Epoch: v.epoch, Base: found.Reached})
		reserveNumbers(c, scos, tlogs)
		v.cat.reserveObjects(c, reserveAhead)
		return nil
	})
	if err != nil {
		return errors.Join(err, found.Release())
	}
	return o.start(found, scos, tlogs)
}

// start opens the log of this epoch and begins to store.
func (o *opening) start(found *writebuffer.Recovered, scos sco.Number, tlogs tlog.ID) (err error) {
	v := o.v
	v.changes.begin(v.epoch, found.Reached)
	opt := o.logOptions(found.Reached+1, scos, tlogs)
	opt.SCOLimit, opt.TLogLimit = v.cat.reserved()
	if v.buf, err = v.host.buffer.OpenLog(opt); err != nil {
		return errors.Join(err, found.Release())
	}
	v.gc.listAgain()
	err = v.buf.Resume(found)
	switch {
	case err == nil:
		o.took()
		v.store.start(nil)
	case disk.CauseOf(err).Passes() && v.buf.Err() != nil:
		// The older files have all of it still: it is opened anew.
		err = errors.Join(err, v.buf.Close(nil))
		v.buf = nil
		return err
	case v.buf.Err() == nil && disk.CauseOf(err) > disk.Answer:
		// What was recovered can be read, and the older files have all of it still: a
		// new one that was refused, or whose name was, is nobody's loss.
		v.log.Warn("vDisk is open for reading; writes and flushes wait until what was recovered can be written", "err", err)
		cause := err
		o.waits.Store(&cause)
		v.store.start(o.takeUp)
	default:
		return err
	}
	return nil
}

// took ends the opening: all that was recovered is in files of this epoch.
func (o *opening) took() {
	o.opened.Store(true)
	o.waits.Store(nil)
}

const (
	// takeUpAgain is the pause between tries to write what cannot be written at the end
	// of an opening.
	takeUpAgain = time.Second
	// takeUpBad is how long that goes on, at most, while each try says that the disk is
	// bad. A path to a disk that fails over takes seconds; writes to a disk that stays
	// bad are to fail, not to hang.
	takeUpBad = time.Minute
)

// takeUp tries to end the opening again and again, and reports whether it has ended: it has
// not if ctx ends or the vDisk halts. It waits for room and descriptors without end, and
// for a bad disk for takeUpBad.
func (o *opening) takeUp(ctx context.Context) bool {
	v := o.v
	bad := time.Now() // since when each try has said that the disk is bad
	for v.Err() == nil {
		select {
		case <-time.After(takeUpAgain):
		case <-ctx.Done():
			return false
		}
		err := v.buf.GoOn(ctx)
		switch {
		case err == nil:
			o.took()
			v.log.Info("what was recovered is written, and writes go on")
			return true
		case ctx.Err() != nil:
			return false
		case v.buf.Err() != nil:
			v.halt(err)
			return false
		case disk.CauseOf(err) <= disk.Answer || disk.CauseOf(err).Passes():
			bad = time.Now()
		case time.Since(bad) >= takeUpBad:
			v.halt(err)
			return false
		}
		o.waits.Store(&err)
	}
	return false
}

// inspect opens a damaged vDisk, halted, so that what is whole of it can be read. If nobody
// can tell what is whole, it stays closed.
func (o *opening) inspect(found *writebuffer.Recovered) error {
	v := o.v
	if found.Incomplete {
		return errors.Join(found.Damage, found.Release())
	}
	v.changes.begin(v.epoch, found.Reached)
	buf, err := v.host.buffer.OpenLog(o.logOptions(found.Reached+1, found.NextSCO, found.NextTLog))
	if err != nil {
		return errors.Join(found.Damage, err, found.Release())
	}
	v.buf = buf
	buf.Inspect(found)
	return found.Damage
}

func (o *opening) logOptions(next uint64, scos sco.Number, tlogs tlog.ID) writebuffer.LogOptions {
	v := o.v
	return writebuffer.LogOptions{
		Volume: v.id, Origin: v.self, Epoch: v.epoch, Owner: logOwner{v},
		NextSeq: next, NextSCO: scos, NextTLog: tlogs,
		HoldStored: v.widths() != nil,
	}
}

// roomPatience is how long a vDisk that is being closed waits for room. What was written
// and not flushed is in the kernel by then, and what was flushed is safe.
const roomPatience = 10 * time.Second

// close ends the vDisk cleanly: what is written is made durable.
func (v *Volume) close(ctx context.Context) error {
	v.store.stop()
	v.cat.close()
	ctx, cancel := context.WithTimeout(ctx, roomPatience)
	defer cancel()
	var err error
	if v.buf != nil {
		err = v.buf.Close(func() error {
			if err := v.buf.GoOn(ctx); err != nil {
				return fmt.Errorf("vDisk %q: what was recovered is where it was found, and not written again: %w", v.Name(), err)
			}
			return v.buf.Commit(ctx, v.buf.Written())
		})
	}
	if v.m != nil {
		v.m.Close()
	}
	return err
}
