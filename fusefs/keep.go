package fusefs

import (
	"context"
	"errors"
	"time"

	"openvstorage/fusefs/filetree"
)

// When times are kept that nobody has asked to be.
const (
	beatEvery = time.Second      // directories are looked at, and their times kept
	idleKept  = 10 * time.Second // the time of a vDisk is kept when it was not changed for so long
	keepEvery = 30 * time.Second // such vDisks are looked for
)

// beats keeps times until ctx ends. Those that nobody could keep, as the process
// was killed, are told from the seqs of vDisks at the next mount.
func (f *FS) beats(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := errors.Join(f.keepDirs(ctx), f.payOwed(ctx))
		if time.Since(last) >= keepEvery {
			last = time.Now()
			err = errors.Join(err, f.keepDisks(ctx, idleKept))
		}
		if err != nil && ctx.Err() == nil {
			f.opt.Logger.Warn("times of files are not kept yet", "mount", f.dir, "err", err)
		}
	}
}

// Keep keeps the times of all files. It is called when nobody writes any more, by
// whatever door, before the vDisks are closed; the mount may be gone.
func (f *FS) Keep(ctx context.Context) error {
	return errors.Join(f.keepDirs(ctx), f.payOwed(ctx), f.keepDisks(ctx, 0))
}

// keepDirsSoon keeps the times of directories now, after a change of vDisks that was
// made here: no store of that has them. If it cannot be, or who asked is killed, it is
// done when it is the time for it.
func (f *FS) keepDirsSoon(ctx context.Context) { _ = f.keepDirs(ctx) }

// keepDirs keeps the times of directories.
func (f *FS) keepDirs(ctx context.Context) error {
	if _, err := f.look(ctx); err != nil {
		return err
	}
	due := f.dirsToKeep()
	if len(due) == 0 {
		return nil
	}
	err := f.tree.Touch(ctx, due)
	if err == nil {
		f.dirsKept(due)
	}
	return err
}

// keepDisks keeps the times of vDisks that were not changed for some time.
func (f *FS) keepDisks(ctx context.Context, idle time.Duration) error {
	infos, err := f.pool.List(ctx)
	if err != nil {
		return err
	}
	f.prune(ctx, infos)
	before := time.Now().Add(-idle).UnixNano()
	due := map[[16]byte]filetree.Keeping{}
	var errs []error
	for _, i := range infos {
		if i.Change.At > before {
			continue
		}
		if n := f.known(i); n != nil {
			// Somebody may have its lock for as long as he waits for the backend. There
			// is a next time, but not when it is the last.
			if idle == 0 || n.keep.Try() {
				errs = append(errs, n.keepTime(ctx, idle > 0))
			}
			continue
		}
		was, kept := f.tree.Disk(i.ID)
		counts := was
		if !kept {
			counts = unkept(i)
		}
		if now := settled(counts, i.Change); stale(counts, now) {
			due[i.ID] = filetree.Keeping{Was: was, Kept: kept, Now: now}
		}
	}
	if len(due) > 0 {
		errs = append(errs, f.tree.KeepDisks(ctx, due))
	}
	return errors.Join(errs...)
}

// keepTime keeps the time of a vDisk. taken says that n.keep is held; it is given back.
func (n *diskNode) keepTime(ctx context.Context, taken bool) error {
	if !taken {
		if err := n.keep.Take(ctx); err != nil {
			return err
		}
	}
	defer n.keep.Give()
	return n.setAttrKept(ctx, func(*filetree.Attr) {})
}

// keptOf is what is kept of a vDisk, or what counts as such.
func (f *FS) keptOf(i Info) filetree.DiskAttr {
	if kept, ok := f.tree.Disk(i.ID); ok {
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

// owned is attributes with the owner that a file has which has none of its own.
func (f *FS) owned(a filetree.Attr) filetree.Attr {
	if a.UID == filetree.NoOwner && a.GID == filetree.NoOwner {
		a.Mode, a.UID, a.GID = fileMode, f.opt.UID, f.opt.GID
	}
	return a
}

// known returns the node of a vDisk that was looked up, else nil.
func (f *FS) known(i Info) *diskNode {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.disks[i.ID]
}
