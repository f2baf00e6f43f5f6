package writebuffer

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"openvstorage/internal/disk"
)

// adopt counts the files that are there and fills the pool's list.
func (b *Buffer) adopt() error {
	names, err := b.opt.FS.ReadDir(b.poolDir())
	if err != nil {
		return err
	}
	for _, name := range names {
		p := path.Join(b.poolDir(), name)
		number, raw := strings.CutSuffix(name, rawSuffix)
		n, err := strconv.Atoi(number)
		if err == nil {
			b.mu.nextFree = max(b.mu.nextFree, n+1)
		}
		info, serr := b.opt.FS.Stat(p)
		if serr == nil && (err != nil || info.Size() != b.scoSize || b.mu.files >= b.max) {
			if serr = b.opt.FS.Remove(p); serr == nil {
				continue
			}
		}
		if serr != nil {
			// Nothing is in it that anybody misses. It takes its room all the same.
			b.opt.Logger.Warn("write buffer: file of the pool is left as it is", "file", p, "err", serr)
			b.mu.files++
			continue
		}
		if raw {
			b.mu.raw = append(b.mu.raw, name)
		} else {
			b.mu.free = append(b.mu.free, name)
		}
		b.mu.files++
	}
	return b.countVolumes()
}

// instead reports whether a new file may be made in the place of one of the pool
// that cannot be taken. If not, the next attempt takes what is evicted.
func (b *Buffer) instead(from string, err error) bool {
	b.opt.Logger.Warn("write buffer: file of the pool not taken", "file", path.Join(b.poolDir(), from), "err", err)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.files >= int(b.limit.Load()) {
		b.evictLocked()
		return false
	}
	b.mu.files++
	return true
}

// noFile notes that there cannot be more files than there are.
func (b *Buffer) noFile(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lacksLocked(err, b.mu.files)
}

// pop takes the last of a list.
func pop(list *[]string) (string, bool) {
	n := len(*list)
	if n == 0 {
		return "", false
	}
	last := (*list)[n-1]
	*list = (*list)[:n-1]
	return last, true
}

// swap takes a pre-written file for name if there is one at once.
func (b *Buffer) swap(name string) (bool, error) {
	b.mu.Lock()
	from, ok := pop(&b.mu.free)
	b.mu.Unlock()
	if !ok {
		b.fill.Ring()
		return false, nil
	}
	_, err := b.take(from, name, &b.mu.free)
	return err == nil, err
}

// take moves a file of the pool to name. If that fails it goes back to list,
// behind all others: the next attempt takes another one. One that was moved to a
// name that cannot be made durable is given up.
func (b *Buffer) take(from, name string, list *[]string) (moved bool, err error) {
	err = b.named(path.Dir(name), func() error {
		err := b.opt.FS.Rename(path.Join(b.poolDir(), from), name)
		moved = err == nil
		return err
	})
	switch {
	case err == nil:
	case moved:
		b.discardFile(name)
	case errors.Is(err, fs.ErrNotExist):
		b.forget()
	default:
		b.mu.Lock()
		*list = slices.Insert(*list, 0, from)
		b.mu.Unlock()
	}
	return moved, err
}

// create makes a file that is not pre-written: a writer is waiting. Its first
// syncs are slower; from its second life on it is like the others. It has its room
// all the same, so that no write to it lacks any.
func (b *Buffer) create(name string) error {
	err := b.named(path.Dir(name), func() error {
		f, err := b.opt.FS.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o600)
		if err != nil {
			return err
		}
		if err = f.Allocate(0, b.scoSize); err == nil {
			err = f.Truncate(b.scoSize)
		}
		return errors.Join(err, f.Close())
	})
	if err != nil {
		b.discardFile(name)
	}
	return err
}

// forget gives up the place of a file that no longer exists.
func (b *Buffer) forget() {
	b.mu.Lock()
	b.mu.files--
	b.mu.changed.Send()
	b.mu.Unlock()
}

// discardFile removes a file that cannot be reused.
func (b *Buffer) discardFile(name string) {
	if err := b.opt.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.opt.Logger.Warn("write buffer: file not removed", "file", name, "err", err)
	}
	b.forget()
}

// recycle moves a file into the pool, raw if it must be pre-written first.
// Nothing reads or writes it any more.
func (b *Buffer) recycle(name string, raw bool) {
	b.mu.Lock()
	if info, err := b.opt.FS.Stat(name); !b.keepsLocked() || err != nil || info.Size() != b.scoSize {
		b.mu.Unlock()
		b.discardFile(name) // the buffer was larger, or its SCOs of another size, or there is no room
		return
	}
	to := strconv.Itoa(b.mu.nextFree)
	b.mu.nextFree++
	b.mu.Unlock()
	if raw {
		to += rawSuffix
	}
	if err := b.opt.FS.Rename(name, path.Join(b.poolDir(), to)); err != nil {
		b.opt.Logger.Warn("write buffer: file not recycled", "file", name, "err", err)
		b.discardFile(name)
		return
	}
	b.mu.Lock()
	if raw {
		b.mu.raw = append(b.mu.raw, to)
		defer b.fill.Ring()
	} else {
		b.mu.free = append(b.mu.free, to)
	}
	b.mu.changed.Send()
	b.mu.Unlock()
}

// quiet is how long no SCO file may have been asked for before the prewriter
// goes beyond Options.Ready.
const quiet = 500 * time.Millisecond

// prewriter keeps pre-written files in the pool: syncing one costs a half to a
// fifth of syncing a new file. A few it makes ahead of need; the rest of a
// buffer that is in use when it is quiet, never in the way of a write.
func (b *Buffer) prewriter(ctx context.Context) {
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	calm := false
	var failed failures
	for {
		if name, ok := b.nextPrewrite(calm); ok {
			if failed.rest(ctx, b.prewriteOne(name, &failed)) != nil {
				return
			}
			calm = false
			select {
			case <-b.fill.Rung():
				continue
			case <-ctx.Done():
				return
			default:
			}
			calm = !b.asked.Swap(false)
			continue
		}
		select {
		case <-b.fill.Rung():
			calm = false
		case <-tick.C:
			calm = !b.asked.Swap(false)
		case <-ctx.Done():
			return
		}
	}
}

// nextPrewrite picks a file to pre-write: one that lies raw in the pool, or a
// new one.
func (b *Buffer) nextPrewrite(calm bool) (name string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed || b.mu.waiting > 0 {
		return "", false
	}
	free := len(b.mu.free)
	inUse := b.mu.files - free - len(b.mu.raw)
	if free >= b.opt.Ready && (!calm || inUse == 0) {
		return "", false
	}
	if name, ok = pop(&b.mu.raw); ok {
		return name, true
	}
	if b.mu.files >= int(b.limit.Load()) {
		return "", false
	}
	b.mu.files++
	name = strconv.Itoa(b.mu.nextFree)
	b.mu.nextFree++
	return name, true
}

// failures are those of the prewriter, one after the other.
type failures struct {
	n    int
	said time.Time
}

// prewriteRest is how long the prewriter rests at most after a failure.
const prewriteRest = time.Second

// rest rests after a failure, longer each time: what fails at once would be tried
// without end. It returns an error when ctx ends.
func (f *failures) rest(ctx context.Context, err error) error {
	if err == nil {
		f.n = 0
		return nil
	}
	f.n++
	select {
	case <-time.After(min(time.Millisecond<<min(f.n, 20), prewriteRest)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prewriteOne pre-writes a file and puts it into the pool.
func (b *Buffer) prewriteOne(name string, failed *failures) error {
	err := b.prewrite(path.Join(b.poolDir(), name))
	if done, raw := strings.CutSuffix(name, rawSuffix); raw && err == nil {
		if err = b.opt.FS.Rename(path.Join(b.poolDir(), name), path.Join(b.poolDir(), done)); err == nil {
			name = done
		}
	}
	if err != nil {
		if rerr := b.opt.FS.Remove(path.Join(b.poolDir(), name)); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		b.forget()
		if full(err) {
			b.noFile(err)
		} else if time.Since(failed.said) >= sayAgain {
			failed.said = time.Now()
			b.opt.Logger.Warn("write buffer: no file pre-written", "file", name, "err", err)
		}
		return err
	}
	b.mu.Lock()
	b.mu.free = append(b.mu.free, name)
	b.mu.changed.Send()
	b.mu.Unlock()
	return nil
}

func (b *Buffer) prewrite(name string) error {
	f, err := b.opt.FS.OpenFile(name, disk.Write|disk.Create, 0o600)
	if err != nil {
		return err
	}
	if err = f.Allocate(0, b.scoSize); err == nil {
		err = f.Prewrite(0, b.scoSize)
	}
	return errors.Join(err, f.Close())
}
