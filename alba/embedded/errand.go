package embedded

import (
	"context"
	"fmt"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/stopdisk"
)

// A disk may hang: a call on a file of it is in the kernel and does not come back,
// perhaps for ever. So whatever is done in a disk's directory, besides what its open
// ASD does, is an errand: a goroutine of its own, which its caller leaves when the
// disk does not answer, and of which each directory has one at a time. Who comes
// meanwhile is refused, so that nothing piles up.

const (
	// errandStall is how long no call of an errand may come back before its caller
	// leaves it.
	errandStall = 4 * time.Second
	errandLook  = 100 * time.Millisecond
)

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

// errand begins work in a directory, on files that can be given up. It fails if some
// is under way there.
func (b *Backend) errand(dir string, fsys *stopdisk.FS, do func(fsys disk.FS)) (*errand, error) {
	b.errandMu.Lock()
	defer b.errandMu.Unlock()
	if old := b.errands[dir]; old != nil {
		return nil, old.silent()
	}
	if fsys == nil {
		fsys = stopdisk.New(b.opt.FS)
	}
	e := &errand{dir: dir, fs: fsys, since: time.Now(), done: make(chan struct{})}
	b.errands[dir] = e
	go func() {
		do(fsys)
		b.errandMu.Lock()
		delete(b.errands, dir)
		b.errandMu.Unlock()
		close(e.done)
	}()
	return e, nil
}

// busy reports whether there is an errand in a directory.
func (b *Backend) busy(dir string) bool {
	b.errandMu.Lock()
	defer b.errandMu.Unlock()
	return b.errands[dir] != nil
}

// wait waits for an errand for as long as its calls come back. What it has found out
// may be looked at only if wait returns nil.
func (e *errand) wait(ctx context.Context) error { return e.waitFor(ctx, errandStall) }

func (e *errand) waitFor(ctx context.Context, stall time.Duration) error {
	look := time.NewTicker(errandLook)
	defer look.Stop()
	calls, moved := e.fs.Done(), time.Duration(0)
	for {
		select {
		case <-e.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
		if n := e.fs.Done(); n != calls {
			calls, moved = n, 0
		} else if moved += errandLook; moved >= stall {
			return e.silent()
		}
	}
}

// aside is an errand that is waited for.
func (b *Backend) aside(ctx context.Context, dir string, do func(fsys disk.FS) error) error {
	var err error
	e, begun := b.errand(dir, nil, func(fsys disk.FS) { err = do(fsys) })
	if begun != nil {
		return begun
	}
	if left := e.wait(ctx); left != nil {
		return left
	}
	return err
}
