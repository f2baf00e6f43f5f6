package fusefs

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"openvstorage/fusefs/filetree"
)

// When times are stored that nobody has asked to be.
const (
	beatEvery  = time.Second      // directories are looked at, and their times stored
	idleStored = 10 * time.Second // the time of a vDisk is stored when it was not changed for so long
	disksEvery = 30 * time.Second // such vDisks are looked for
)

// timeKeeper stores the times of directories and vDisks in the tree, beside requests.
// The times of vDisks that it could not store, as the process was killed, are told
// from their seqs at the next mount.
type timeKeeper struct {
	pool      Pool
	tree      *filetree.Tree
	index     *index
	times     *dirTimes
	nodes     *nodes
	leftovers *leftovers
	logger    *slog.Logger

	end   context.CancelFunc // nil: it was never started
	ended chan struct{}      // closed when the last beat has ended
}

// start begins to store times, until stop.
func (k *timeKeeper) start() {
	var ctx context.Context
	ctx, k.end = context.WithCancel(context.Background())
	k.ended = make(chan struct{})
	go func() {
		defer close(k.ended)
		k.beats(ctx)
	}()
}

// stop ends what start began, and waits for that until ctx ends: a beat may be storing
// something, on a disk that does not answer.
func (k *timeKeeper) stop(ctx context.Context) {
	k.end()
	select {
	case <-k.ended:
	case <-ctx.Done():
	}
}

// beats stores times again and again until ctx ends.
func (k *timeKeeper) beats(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := errors.Join(k.storeDirs(ctx), k.leftovers.remove(ctx))
		if time.Since(last) >= disksEvery {
			last = time.Now()
			err = errors.Join(err, k.storeDisks(ctx, idleStored))
		}
		k.warn(ctx, err)
	}
}

// warn logs an error of something that is tried again, unless ctx has ended.
func (k *timeKeeper) warn(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		k.logger.Warn("times of files are not kept yet", "err", err)
	}
}

// storeAll stores all times.
func (k *timeKeeper) storeAll(ctx context.Context) error {
	return errors.Join(k.storeDirs(ctx), k.leftovers.remove(ctx), k.storeDisks(ctx, 0))
}

// storeDirs stores the times of directories.
func (k *timeKeeper) storeDirs(ctx context.Context) error {
	if err := k.index.refresh(ctx); err != nil {
		return err
	}
	due := k.times.due()
	if len(due) == 0 {
		return nil
	}
	err := k.tree.Touch(ctx, due)
	if err == nil {
		k.times.storedAll(due)
	}
	return err
}

// storeDirsSoon stores the times of directories now, after a change of vDisks that was
// made here: the store of that change does not have them. If that fails, or the caller
// is killed, the next beat does it.
func (k *timeKeeper) storeDirsSoon(ctx context.Context) { _ = k.storeDirs(ctx) }

// storeDisks stores the times of vDisks that were not changed for some time, and forgets
// the nodes of what is gone.
func (k *timeKeeper) storeDisks(ctx context.Context, idle time.Duration) error {
	infos, err := k.pool.List(ctx)
	if err != nil {
		return err
	}
	k.nodes.prune(ctx, infos)
	before := time.Now().Add(-idle).UnixNano()
	due := map[[16]byte]filetree.Keeping{}
	var errs []error
	for _, i := range infos {
		if i.Change.At > before {
			continue
		}
		if n := k.nodes.known(i.ID); n != nil {
			// Its lock may be held for as long as somebody waits for the backend. A vDisk
			// that is passed over has a next time, but not at the end of the process.
			if idle > 0 {
				errs = append(errs, n.attrs.tryStore(ctx))
			} else {
				errs = append(errs, n.attrs.store(ctx))
			}
			continue
		}
		was, kept := k.tree.Disk(i.ID)
		counts := was
		if !kept {
			counts = unkept(i)
		}
		if now := settled(counts, i.Change); stale(counts, now) {
			due[i.ID] = filetree.Keeping{Was: was, Kept: kept, Now: now}
		}
	}
	if len(due) > 0 {
		errs = append(errs, k.tree.KeepDisks(ctx, due))
	}
	return errors.Join(errs...)
}

// keptOf is what the tree keeps of a vDisk, or what counts as such.
func keptOf(tree *filetree.Tree, i Info) filetree.DiskAttr {
	if kept, ok := tree.Disk(i.ID); ok {
		return kept
	}
	return unkept(i)
}

// unkept is what counts as kept of a vDisk of which nothing is.
func unkept(i Info) filetree.DiskAttr {
	return filetree.DiskAttr{Attr: filetree.Attr{
		Mode: fileMode, UID: filetree.NoOwner, GID: filetree.NoOwner, Modified: i.Created, Changed: i.Created,
	}}
}
