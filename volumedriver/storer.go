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
)

// storer moves one vDisk's SCOs and TLogs to the backend, in the order of O3, and has
// done what follows from it: checkpoints, collection of garbage, and the map's background
// work. One goroutine for each vDisk runs it.
type storer struct {
	*core
	cat         *ownedCatalog
	tree        *snapshotTree
	checkpoints *checkpointer
	gc          *garbageCollector
	bounds      *bounds

	wake    bell.Bell
	urgent  atomic.Int32 // how many wait for the upload
	failing atomic.Bool  // the last attempt failed

	// Of the goroutine that stores.
	group  *group    // on its way to the backend
	active uint64    // the log's activity when last seen
	since  time.Time // when it was first seen so
	freed  uint64    // the log's activity when all was last freed for being idle
	widths time.Time // when widths of objects were last asked for

	mu     sync.Mutex
	stored broadcast.Broadcast // the catalog's stored seq or the checkpoint moves, or an attempt to move them fails
	failed error               // of the last attempt, for those who wait

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// storerTick is how often an idle vDisk looks around.
const storerTick = time.Second

// start begins to store. If first is not nil, it runs before, and nothing is stored unless
// it reports true.
func (st *storer) start(first func(ctx context.Context) bool) {
	ctx, cancel := context.WithCancel(context.Background())
	st.cancel = cancel
	st.done.Go(func() {
		if first == nil || first(ctx) {
			st.run(ctx)
		}
	})
}

// stop ends it, and waits for uploads that are under way.
func (st *storer) stop() {
	if st.cancel != nil {
		st.cancel()
		st.done.Wait()
	}
}

// ring has the storer look now for what there is to do.
func (st *storer) ring() { st.wake.Ring() }

func (st *storer) run(ctx context.Context) {
	tick := time.NewTicker(storerTick)
	defer tick.Stop()
	defer func() { _ = st.landAll(st.group) }() // ctx has ended: so will they
	st.bounds.countHeld(ctx)
	failures := 0
	for {
		select {
		case <-st.wake.Rung():
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil && st.Err() == nil {
			more, err := st.step(ctx)
			if err != nil && ctx.Err() == nil {
				failures++
				st.failing.Store(true)
				st.log.Warn("store to the backend failed", "err", err, "failures", failures)
				st.announce(err)
				if errors.Is(err, backend.ErrNoSpace) {
					st.buf.Refuse(fmt.Errorf("%w: %w", syscall.ENOSPC, err))
				}
				select {
				case <-time.After(min(time.Duration(failures)*50*time.Millisecond, 5*time.Second)):
				case <-ctx.Done():
				}
				break
			}
			if failures > 0 {
				failures = 0
				st.failing.Store(false)
				st.buf.Refuse(nil)
			}
			if !more {
				break
			}
		}
	}
}

// step does one bounded piece of work; more says that there may be more to do at once.
func (st *storer) step(ctx context.Context) (more bool, err error) {
	if err := st.cat.settle(ctx); err != nil {
		return false, err
	}
	st.noteActivity()
	idle := time.Since(st.since)
	urgent := st.urgent.Load() > 0 || st.host.buffer.Waiting()
	if st.host.buffer.Waiting() {
		st.host.uploads.pressure(st.core)
	}
	if idle >= st.host.opt.IdleSeal {
		st.buf.CloseTLog()
		if st.freed != st.active {
			st.freed = st.active
			st.gc.freeAll()
		}
	}
	fill := st.host.buffer.Fill()
	parallel, rest := pace(fill, idle, st.host.opt.IdleSeal, urgent, st.host.opt.UploadSlots)
	if parallel > 0 && st.group == nil {
		if err := st.agree(ctx); err != nil {
			return false, err
		}
		patient := !urgent && idle < st.host.opt.IdleSeal && !st.failing.Load()
		if st.group, err = st.chooseGroup(ctx, st.buf.Work().TLogs, patient); err != nil {
			return false, err
		}
	}
	if err := st.gc.lookForDead(ctx); err != nil {
		return false, err
	}
	if st.group != nil && parallel > 0 {
		if more, err = st.storeSome(ctx, parallel, rest); err != nil {
			return false, errors.Join(err, st.gc.collect(ctx)) // what is deleted may be the room that is missing
		} else if more {
			return true, nil
		}
	}
	if err := st.gc.collect(ctx); err != nil {
		return false, err
	}
	if err := st.checkWidths(ctx); err != nil {
		return false, err
	}
	uncounted := st.bounds.countHeld(ctx)
	if more, err = st.reap(ctx); more || uncounted || err != nil {
		return true, err
	}
	return st.bounds.count(ctx), nil
}

// reap does a step of the map's background work. When all of that is done, the counters
// may know of more garbage.
func (st *storer) reap(ctx context.Context) (more bool, err error) {
	if !st.m.Reapable() {
		return false, nil
	}
	if more, err = st.m.Reap(ctx, reapPages); err == nil && !more {
		st.gc.again()
		more = true
	}
	return more, err
}

// reapPages bounds one step of the map's background work.
const reapPages = 256

// noteActivity notes since when nothing was written.
func (st *storer) noteActivity() {
	if a := st.buf.Activity(); a != st.active || st.since.IsZero() {
		st.active, st.since = a, time.Now()
	}
}

// storeSome goes on with the group under way: it keeps up to parallel uploads going and
// waits for one of them to end, or stores the group when none is left.
func (st *storer) storeSome(ctx context.Context, parallel int, rest time.Duration) (more bool, err error) {
	g := st.group
	for len(g.scos) > 0 && g.flying < parallel {
		st.launch(ctx, g, g.scos[0])
		g.scos = g.scos[1:]
	}
	if g.flying == 0 {
		st.group = nil // whatever comes of it, the next attempt looks anew
		return true, st.storeGroup(ctx, g)
	}
	if err := st.land(g); err != nil {
		st.group = nil
		return false, errors.Join(err, st.landAll(g))
	}
	if rest > 0 && len(g.scos) > 0 {
		select {
		case <-time.After(rest / time.Duration(parallel)):
		case <-ctx.Done():
		}
	}
	return true, nil
}
