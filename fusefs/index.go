package fusefs

import (
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"openvstorage/fusefs/filetree"
)

// index is the names of vDisks and snapshots as directories. It is made anew when
// one has come, gone or got another name: Pool.Listed tells. Then the directories
// that differ get a time. No method waits for I/O.
type index struct {
	pool  Pool
	tree  *filetree.Tree
	times *dirTimes

	mu     sync.Mutex // taken before that of times
	listed uint64     // Pool.Listed when shape was made
	made   bool
	shape  shape

	// ofFile are the vDisks that come to a file which is there already, or go from a
	// file that stays: their coming or going does not change the directory. true: it
	// has happened.
	ofFile map[uuid.UUID]bool
}

// refresh has the index, and the times of directories, follow the pool.
func (x *index) refresh(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.refreshLocked(ctx)
}

// refreshLocked is refresh; x.mu is held.
func (x *index) refreshLocked(ctx context.Context) error {
	listed := x.pool.Listed()
	if x.made && listed == x.listed {
		return nil
	}
	infos, err := x.pool.List(ctx)
	if err != nil {
		return err
	}
	now := shapeOf(infos)
	if x.made {
		x.compare(now)
	}
	x.listed, x.made, x.shape = listed, true, now
	return nil
}

// compare gives the directories that have changed the time of now. x.mu is held.
func (x *index) compare(now shape) {
	at := time.Now().UnixNano()
	x.discount(now.names)
	x.times.touch(at, changedDirs(x.shape.disks, now.disks, func(dir string) bool {
		_, kept := x.tree.Get(dir)
		return kept
	})...)
	for _, dir := range changedDirs(x.shape.snaps, now.snaps, func(string) bool { return false }) {
		x.times.touch(at, join(snapshotsDir, dir))
	}
}

// discount takes the vDisks of ofFile out of the comparison: those that have come count
// as having been there before, and those that have gone as not. x.mu is held.
func (x *index) discount(names map[uuid.UUID]string) {
	for id, happened := range x.ofFile {
		was, had := x.shape.names[id]
		is, has := names[id]
		if had != has {
			dir, base := splitPath(was + is) // one of them is ""
			sum := digest(base+suffix, id.String())
			if had {
				sum = -sum
			}
			branchOf(x.shape.disks, dir).digest += sum
		}
		if had != has || happened {
			delete(x.ofFile, id)
		}
	}
}

// keepsFile notes that a vDisk will come to a file that is there, or go from a file that
// stays. The caller calls done when that has happened, or has not.
func (x *index) keepsFile(id uuid.UUID) (done func(happened bool)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ofFile[id] = false
	return func(happened bool) {
		x.mu.Lock()
		defer x.mu.Unlock()
		if _, due := x.ofFile[id]; !due {
			return
		}
		if delete(x.ofFile, id); happened {
			x.ofFile[id] = true
		}
	}
}

// disksIn returns what the names of vDisks are in a directory: nothing, if there are
// none below it.
func (x *index) disksIn(ctx context.Context, dir string) (*branch, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.refreshLocked(ctx); err != nil {
		return nil, err
	}
	if b := x.shape.disks[dir]; b != nil {
		return b, nil
	}
	return &branch{}, nil
}

// leads reports whether vDisks are below a directory.
func (x *index) leads(ctx context.Context, dir string) (bool, error) {
	b, err := x.disksIn(ctx, dir)
	return err == nil && len(b.list) > 0, err
}

// snapshotsIn returns what is in .snapshots/DIR, ENOENT if there is no such directory.
func (x *index) snapshotsIn(ctx context.Context, dir string) (*branch, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.refreshLocked(ctx); err != nil {
		return nil, err
	}
	if b := x.shape.snaps[dir]; b != nil {
		return b, nil
	}
	return nil, syscall.ENOENT
}
