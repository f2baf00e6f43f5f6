package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"openvstorage/backend"
	"openvstorage/internal/bell"
	"openvstorage/internal/broadcast"
	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
	"openvstorage/writebuffer"
)

// storer moves one vDisk's SCOs and TLogs to the backend, in the order of O3,
// and does what follows from it: checkpoints, collection of dead SCOs, and the
// map's background work. One goroutine a vDisk runs it.
type storer struct {
	wake          bell.Bell
	urgent        atomic.Int32 // how many wait for the upload
	failing       atomic.Bool  // the last attempt failed
	checkpointDue atomic.Bool  // freeze the map when the next TLog closes
	collectDue    atomic.Bool  // look for dead SCOs and pages
	freeDue       atomic.Bool  // free all that can be, though it be little
	listDue       atomic.Bool  // list the backend for SCOs that the counters do not know
	sweepDue      atomic.Bool

	group    *group               // on its way to the backend
	sizes    map[sco.Number]int64 // of the SCOs in the backend, in bytes
	active   uint64               // the log's activity when last seen
	since    time.Time            // when it was first seen so
	covered  int64                // TLog bytes stored since the checkpoint
	looked   uint64               // bytes written when dead SCOs were last looked for
	freed    uint64               // the log's activity when freeDue was last set for being idle
	swept    uint64               // pages in the store after the last sweep
	firstSCO sco.Number           // of this owner's
	widths   time.Time            // when widths of objects were last asked for

	mu     sync.Mutex
	stored broadcast.Broadcast // StoredSeq or the checkpoint moves, or an attempt to move them fails
	failed error               // of the last attempt, for who waits

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// storerTick is how often an idle vDisk looks around.
const storerTick = time.Second

// checkpointBytes of TLogs are replayed at a restart at most, or so.
const checkpointBytes = 64 << 20

// startStorer begins to store, after first, unless that is nil, has reported true.
func (v *Volume) startStorer(first func(ctx context.Context) bool) {
	ctx, cancel := context.WithCancel(context.Background())
	v.store.cancel = cancel
	v.store.done.Go(func() {
		if first == nil || first(ctx) {
			v.runStorer(ctx)
		}
	})
}

func (v *Volume) stopStorer() {
	if v.store.cancel != nil {
		v.store.cancel()
		v.store.done.Wait()
	}
}

func (v *Volume) wakeStorer() { v.store.wake.Ring() }

// announce lets those that wait for the upload look again.
func (v *Volume) announce(err error) {
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	v.store.failed = err
	v.store.stored.Send()
}

func (v *Volume) runStorer(ctx context.Context) {
	tick := time.NewTicker(storerTick)
	defer tick.Stop()
	defer func() { _ = v.landAll(v.store.group) }() // ctx has ended: so will they
	v.countHeld(ctx)
	failures := 0
	for {
		select {
		case <-v.store.wake.Rung():
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil && v.Err() == nil {
			more, err := v.storeStep(ctx)
			if err != nil && ctx.Err() == nil {
				failures++
				v.store.failing.Store(true)
				v.log.Warn("store to the backend failed", "err", err, "failures", failures)
				v.announce(err)
				if errors.Is(err, backend.ErrNoSpace) {
					v.buf.Refuse(fmt.Errorf("%w: %w", syscall.ENOSPC, err))
				}
				select {
				case <-time.After(min(time.Duration(failures)*50*time.Millisecond, 5*time.Second)):
				case <-ctx.Done():
				}
				break
			}
			if failures > 0 {
				failures = 0
				v.store.failing.Store(false)
				v.buf.Refuse(nil)
			}
			if !more {
				break
			}
		}
	}
}

// storeStep does one bounded piece of work; more says that there may be more
// to do at once.
func (v *Volume) storeStep(ctx context.Context) (more bool, err error) {
	if err := v.cat.settle(ctx); err != nil {
		return false, err
	}
	v.noteActivity()
	idle := time.Since(v.store.since)
	urgent := v.store.urgent.Load() > 0 || v.host.buffer.Waiting()
	if v.host.buffer.Waiting() {
		v.host.pressure(v)
	}
	if idle >= v.host.opt.IdleSeal {
		v.buf.CloseTLog()
		if v.store.freed != v.store.active {
			v.store.freed = v.store.active
			v.freeAll()
		}
	}
	fill := v.host.buffer.Fill()
	parallel, rest := pace(fill, idle, v.host.opt.IdleSeal, urgent, v.host.opt.UploadSlots)
	if parallel > 0 && v.store.group == nil {
		if err := v.agree(ctx); err != nil {
			return false, err
		}
		patient := !urgent && idle < v.host.opt.IdleSeal && !v.store.failing.Load()
		if v.store.group, err = v.chooseGroup(ctx, v.buf.Work().TLogs, patient); err != nil {
			return false, err
		}
	}
	if err := v.lookForDead(ctx); err != nil {
		return false, err
	}
	if v.store.group != nil && parallel > 0 {
		if more, err = v.storeSome(ctx, parallel, rest); err != nil {
			return false, errors.Join(err, v.collect(ctx)) // what goes may be the room that lacks
		} else if more {
			return true, nil
		}
	}
	if err := v.collect(ctx); err != nil {
		return false, err
	}
	if err := v.checkWidths(ctx); err != nil {
		return false, err
	}
	uncounted := v.countHeld(ctx)
	if more, err = v.reap(ctx); more || uncounted || err != nil {
		return true, err
	}
	return v.countBounds(ctx), nil
}

// reap does a step of the map's background work. When it is done the counters may
// tell of more that nobody can reach.
func (v *Volume) reap(ctx context.Context) (more bool, err error) {
	if !v.m.Reapable() {
		return false, nil
	}
	if more, err = v.m.Reap(ctx, reapPages); err == nil && !more {
		v.store.collectDue.Store(true)
		more = true
	}
	return more, err
}

// reapPages bounds one step of the map's background work.
const reapPages = 256

func (v *Volume) noteActivity() {
	if a := v.buf.Activity(); a != v.store.active || v.store.since.IsZero() {
		v.store.active, v.store.since = a, time.Now()
	}
}

// agree makes the log hold as stored what the catalog has, before a group is
// chosen. A put of the catalog that was not answered may have taken effect: its
// TLogs are stored then, and who stored them again, in a group with others, would
// replace their SCOs by what that group needs of them, under a catalog that names
// them without it. Nothing is in doubt any more.
func (v *Volume) agree(ctx context.Context) error {
	g, seq := &group{}, v.cat.storedSeq()
	for _, t := range v.buf.Work().TLogs {
		if t.LastSeq > seq {
			break
		}
		g.tlogs = append(g.tlogs, t)
		v.store.covered += t.Size
	}
	if len(g.tlogs) == 0 {
		return nil
	}
	return v.groupStored(ctx, g)
}

// storeSome goes on with the group under way: it keeps up to parallel uploads in
// the air and waits for one of them, or stores the group when none is left.
func (v *Volume) storeSome(ctx context.Context, parallel int, rest time.Duration) (more bool, err error) {
	g := v.store.group
	for len(g.scos) > 0 && g.flying < parallel {
		v.launch(ctx, g, g.scos[0])
		g.scos = g.scos[1:]
	}
	if g.flying == 0 {
		v.store.group = nil // whatever comes of it, the next attempt looks anew
		return true, v.storeGroup(ctx, g)
	}
	if err := v.land(g); err != nil {
		v.store.group = nil
		return false, errors.Join(err, v.landAll(g))
	}
	if rest > 0 && len(g.scos) > 0 {
		select {
		case <-time.After(rest / time.Duration(parallel)):
		case <-ctx.Done():
		}
	}
	return true, nil
}

// landing is how the upload of an SCO ended.
type landing struct {
	number sco.Number
	size   int64 // of the object; 0 if there is none
	err    error
}

// launch begins to upload what the group needs of an SCO, if it needs anything.
func (v *Volume) launch(ctx context.Context, g *group, s *writebuffer.SCO) {
	if marks, ok := g.marks[s.Number]; ok && !s.Empty() && marks.Count() == 0 {
		return
	}
	g.flying++
	go func() {
		l := landing{number: s.Number}
		if s.Empty() {
			l.err = s.Sync() // before it may be evicted
		} else {
			l.size, l.err = v.uploadSCO(ctx, g, s)
		}
		g.landed <- l
	}()
}

// land waits for an upload to end.
func (v *Volume) land(g *group) error {
	l := <-g.landed
	g.flying--
	if l.size > 0 {
		v.noteStored(l.number, l.size)
	}
	return l.err
}

// landAll waits for all uploads of a group, which may be nil, to end.
func (v *Volume) landAll(g *group) (err error) {
	for g != nil && g.flying > 0 {
		err = errors.Join(err, v.land(g))
	}
	return err
}

// uploadSCO puts what the group needs of an SCO.
func (v *Volume) uploadSCO(ctx context.Context, g *group, s *writebuffer.SCO) (size int64, err error) {
	buf, err := v.host.takeSlot(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { v.host.giveSlot(buf) }()
	data, err := s.Object(buf, g.marks[s.Number])
	if err != nil {
		if errors.Is(err, sco.ErrCorrupt) {
			v.halt(err) // P2: nothing bad is ever stored under a new checksum
		}
		return 0, err
	}
	buf = data[:0]
	if len(data) == 0 {
		return 0, nil
	}
	err = v.namespace().Put(ctx, s.Number.Name(), data)
	if errors.Is(err, backend.ErrExists) {
		err = v.putAgain(ctx, s, data)
	}
	if err != nil {
		return 0, err
	}
	v.count.uploaded.Add(uint64(len(data)))
	return int64(len(data)), nil
}

// putAgain replaces what an earlier attempt left of an SCO that the catalog
// does not name yet: another choice of live clusters gives other bytes. An
// object that is not this SCO's halts the vDisk (O6).
func (v *Volume) putAgain(ctx context.Context, s *writebuffer.SCO, data []byte) error {
	name := s.Number.Name()
	head := make([]byte, sco.HeaderSize)
	if err := get(ctx, v.namespace(), name, head, 0); err != nil {
		return err
	}
	if s.SameFile(head) {
		err := v.cat.holding(ctx, func(ctx context.Context, _ *flight) error { return v.cat.deleteLocked(ctx, []string{name}) })
		if err != nil {
			return err
		}
		v.host.sums.Invalidate(sumsKey{v.id, s.Number})
	}
	return v.putObject(ctx, name, data)
}

// storeGroup puts the TLogs of a group whose SCOs are in the backend, then the
// catalog that names them all at once (O3); only then may the SCOs leave the
// buffer (O5).
func (v *Volume) storeGroup(ctx context.Context, g *group) error {
	var stored []catalog.TLog
	for _, t := range g.tlogs {
		if t.FirstSeq == 0 {
			continue
		}
		data, err := t.Object(v.buf)
		if err != nil {
			if errors.Is(err, tlog.ErrCorrupt) {
				v.halt(err)
			}
			return err
		}
		if err := v.putObject(ctx, t.ID.Name(), data); err != nil {
			return err
		}
		v.count.uploaded.Add(uint64(len(data)))
		stored = append(stored, catalog.TLog{Number: uint64(t.ID), FirstSeq: t.FirstSeq, LastSeq: t.LastSeq, Size: int64(len(data))})
	}
	scos, tlogs := v.buf.Numbers()
	err := v.cat.update(ctx, func(c *catalog.Catalog) error {
		for _, t := range stored {
			if t.FirstSeq != c.StoredSeq+1 {
				return &gapError{tlog.ID(t.Number), t.FirstSeq, c.StoredSeq}
			}
			c.TLogs = append(c.TLogs, t)
			c.StoredSeq = t.LastSeq
		}
		c.Size = v.size.Load()
		v.fillSnapshots(c)
		reserveNumbers(c, scos, tlogs)
		return nil
	})
	if gap := (*gapError)(nil); errors.As(err, &gap) {
		v.halt(err)
	}
	if err != nil {
		return err
	}
	for _, t := range stored {
		v.store.covered += t.Size
	}
	return v.groupStored(ctx, g)
}

// groupStored lets go of what the catalog names now, and does what follows.
func (v *Volume) groupStored(ctx context.Context, g *group) error {
	v.buf.SetLimits(v.cat.reserved())
	v.buf.Stored(g.last(), v.narrowOf(ctx, g))
	if _, ahead := v.frozenSeq(); !ahead && v.store.covered >= checkpointBytes {
		v.store.checkpointDue.Store(true)
	}
	if err := v.commitCheckpoint(ctx); err != nil {
		return err
	}
	v.store.collectDue.Store(true)
	v.announce(nil)
	return v.collect(ctx) // under load there is always more to upload
}

// gapError says that a TLog does not begin where the catalog ends. The catalog must
// not say of what lies between that it is stored: a restart would believe it
// (O10).
type gapError struct {
	tlog          tlog.ID
	first, stored uint64
}

func (e *gapError) Error() string {
	return fmt.Sprintf("%s begins with seq %d, and the catalog has all up to %d: a restart makes TLogs of all that the local files hold", e.tlog.Name(), e.first, e.stored)
}

// fillSnapshots lists in c the snapshots that its TLogs and checkpoint cover. In
// memory they get their roots when c is in the backend: adopt.
func (v *Volume) fillSnapshots(c *catalog.Catalog) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c.Snapshots = c.Snapshots[:0]
	for _, s := range v.snapshots {
		if s.Seq > c.StoredSeq {
			continue
		}
		listed := s.Snapshot
		listed.HasRoot = s.Seq <= c.Checkpoint.Seq
		c.Snapshots = append(c.Snapshots, listed)
	}
}

// waitStored waits until reached says so, pushing the upload of what is
// written up to seq meanwhile.
func (v *Volume) waitStored(ctx context.Context, seq uint64, reached func() bool, each func()) error {
	v.store.urgent.Add(1)
	defer v.store.urgent.Add(-1)
	for {
		stored := v.store.stored.Next()
		if reached() {
			return nil
		}
		if err := v.Err(); err != nil {
			return err
		}
		if each != nil {
			each()
		}
		v.buf.CloseTLogOf(seq)
		v.wakeStorer()
		select {
		case <-stored:
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			v.store.mu.Lock()
			defer v.store.mu.Unlock()
			if v.store.failed != nil {
				return fmt.Errorf("%w: storing fails: %w", ctx.Err(), earlier{v.store.failed})
			}
			return ctx.Err()
		}
	}
}

// Sync returns when everything written so far is in the backend and named by
// the catalog, and what it lets go is about to be deleted. progress, if not nil,
// hears of bytes done and in total.
func (v *Volume) Sync(ctx context.Context, progress func(done, total int64)) error {
	if err := v.Err(); err != nil {
		return err
	}
	err := v.syncTo(ctx, v.buf.Written(), progress)
	if err == nil {
		v.freeAll()
		v.wakeStorer()
	}
	return err
}

// freeAll has all be freed that can be, though it be little.
func (v *Volume) freeAll() {
	v.store.freeDue.Store(true)
	v.store.collectDue.Store(true)
}

func (v *Volume) syncTo(ctx context.Context, seq uint64, progress func(done, total int64)) error {
	total, _ := v.buf.Backlog()
	err := v.waitStored(ctx, seq, func() bool { return v.cat.storedSeq() >= seq }, func() {
		if progress != nil {
			left, _ := v.buf.Backlog()
			progress(max(total-left, 0), total)
		}
	})
	if err == nil && progress != nil {
		progress(total, total)
	}
	return err
}

// checkpointTo returns when a checkpoint covers seq.
func (v *Volume) checkpointTo(ctx context.Context, seq uint64) error {
	if v.cat.checkpointSeq() >= seq {
		return nil
	}
	v.store.checkpointDue.Store(true)
	v.buf.CloseTLog() // so that the checkpoint has where to be
	return v.waitStored(ctx, seq, func() bool {
		if v.cat.checkpointSeq() >= seq {
			return true
		}
		if at, _ := v.frozenSeq(); at < seq {
			v.store.checkpointDue.Store(true)
		}
		return false
	}, nil)
}
