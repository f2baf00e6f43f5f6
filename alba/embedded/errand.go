package embedded

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"openvstorage/alba/asd"
	"openvstorage/alba/fleet"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/stopdisk"
)

// A disk may hang: a call on one of its files enters the kernel and may never come
// back. So all work in a disk's directory, besides what its open ASD does, is an
// errand: a goroutine of its own. The caller leaves the errand behind when the disk
// does not answer. Each directory has one errand at a time, and a second one is
// refused, so that nothing piles up on a disk that hangs.

const (
	// errandStall is how long no call of an errand may come back before its caller
	// leaves it.
	errandStall = 4 * time.Second
	// errandTick is how often a caller counts the calls that have come back.
	errandTick = 100 * time.Millisecond
)

// errands are the work under way in the directories of disks.
type errands struct {
	fs disk.FS

	mu       sync.Mutex
	underWay map[string]*errand // by directory
}

func newErrands(fs disk.FS) *errands {
	return &errands{fs: fs, underWay: make(map[string]*errand)}
}

// errand is work in a disk's directory that is under way.
type errand struct {
	dir   string
	fs    *stopdisk.FS
	since time.Time
	done  chan struct{}
}

// silent is why an errand was left.
func (e *errand) silent() error {
	return fmt.Errorf("%s: %w: no answer since %s", e.dir, fleet.ErrNotAnswering, e.since.UTC().Format(time.RFC3339))
}

// ended reports whether an errand has ended.
func (e *errand) ended() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// begin begins work in a directory, on files that can be given up. Without fsys the
// errand gets such files of its own. It fails if work is under way there.
func (l *errands) begin(dir string, fsys *stopdisk.FS, work func(fsys disk.FS)) (*errand, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := l.underWay[dir]; old != nil {
		return nil, old.silent()
	}
	if fsys == nil {
		fsys = stopdisk.New(l.fs)
	}
	e := &errand{dir: dir, fs: fsys, since: time.Now(), done: make(chan struct{})}
	l.underWay[dir] = e
	go func() {
		work(fsys)
		l.mu.Lock()
		delete(l.underWay, dir)
		l.mu.Unlock()
		close(e.done)
	}()
	return e, nil
}

// busy reports whether there is an errand in a directory.
func (l *errands) busy(dir string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.underWay[dir] != nil
}

// all returns the errands that are under way.
func (l *errands) all() []*errand {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.underWay))
}

// wait waits for an errand for as long as its calls come back. The caller may look at
// what the errand has found only if wait returns nil.
func (e *errand) wait(ctx context.Context) error { return e.waitFor(ctx, errandStall) }

func (e *errand) waitFor(ctx context.Context, stall time.Duration) error {
	tick := time.NewTicker(errandTick)
	defer tick.Stop()
	calls, still := e.fs.Done(), time.Duration(0)
	for {
		select {
		case <-e.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if n := e.fs.Done(); n != calls {
			calls, still = n, 0
		} else if still += errandTick; still >= stall {
			return e.silent()
		}
	}
}

// do is an errand that is waited for.
func (l *errands) do(ctx context.Context, dir string, work func(fsys disk.FS) error) error {
	var err error
	e, refused := l.begin(dir, nil, func(fsys disk.FS) { err = work(fsys) })
	if refused != nil {
		return refused
	}
	if left := e.wait(ctx); left != nil {
		return left
	}
	return err
}

// identity reads the identity of the ASD in a directory.
func (l *errands) identity(ctx context.Context, dir string) (asd.Identity, error) {
	var there asd.Identity
	err := l.do(ctx, dir, func(fsys disk.FS) (err error) {
		there, err = asd.ReadIdentity(fsys, dir)
		return err
	})
	if err != nil { // the errand may still be writing there
		return asd.Identity{}, err
	}
	return there, nil
}
