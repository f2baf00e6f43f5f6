package writebuffer

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"openvstorage/internal/bell"
	"openvstorage/internal/disk"
)

// quiet is how long no SCO file may have been asked for before the prewriter
// goes beyond Options.Ready.
const quiet = 500 * time.Millisecond

// prewriter has pre-written files in the pool.
type prewriter struct {
	pool  *pool
	ready int         // files that it makes ahead of need
	fill  bell.Bell   // a file has been taken, or one is to be pre-written
	asked atomic.Bool // a file was asked for since the prewriter looked
}

// run keeps pre-written files in the pool: syncing one costs a half to a
// fifth of syncing a new file. A few it makes ahead of need; the rest of a
// buffer that is in use when it is quiet, never in the way of a write.
func (w *prewriter) run(ctx context.Context) {
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	calm := false
	var failed failures
	for {
		if name, ok := w.pool.nextPrewrite(w.ready, calm); ok {
			if failed.rest(ctx, w.one(name, &failed)) != nil {
				return
			}
			calm = false
			select {
			case <-w.fill.Rung():
				continue
			case <-ctx.Done():
				return
			default:
			}
			calm = !w.asked.Swap(false)
			continue
		}
		select {
		case <-w.fill.Rung():
			calm = false
		case <-tick.C:
			calm = !w.asked.Swap(false)
		case <-ctx.Done():
			return
		}
	}
}

// failures are those of the prewriter, one after the other.
type failures struct {
	n    int
	said time.Time
}

// prewriteRest is how long the prewriter rests at most after a failure.
const prewriteRest = time.Second

// rest waits after a failure, longer each time: else the prewriter would spin on a call
// that fails at once. It returns an error when ctx ends.
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

// one pre-writes a file and puts it into the pool.
func (w *prewriter) one(name string, failed *failures) error {
	p := w.pool
	err := p.prewrite(path.Join(p.dir, name))
	if done, raw := strings.CutSuffix(name, rawSuffix); raw && err == nil {
		if err = p.fs.Rename(path.Join(p.dir, name), path.Join(p.dir, done)); err == nil {
			name = done
		}
	}
	if err != nil {
		if rerr := p.fs.Remove(path.Join(p.dir, name)); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		p.forget()
		if full(err) {
			p.noFile(err)
		} else if time.Since(failed.said) >= sayAgain {
			failed.said = time.Now()
			p.log.Warn("write buffer: no file pre-written", "file", name, "err", err)
		}
		return err
	}
	p.add(name, false)
	return nil
}

func (p *pool) prewrite(name string) error {
	f, err := p.fs.OpenFile(name, disk.Write|disk.Create, 0o600)
	if err != nil {
		return err
	}
	if err = f.Allocate(0, p.scoSize); err == nil {
		err = f.Prewrite(0, p.scoSize)
	}
	return errors.Join(err, f.Close())
}
