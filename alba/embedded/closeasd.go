package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/internal/disk"
)

// closeLocked closes an ASD. If its disk does not answer, the close goes on without
// its caller, and nothing else is done in the directory until the close has ended.
func (s *asdSet) closeLocked(ctx context.Context, number uint64) {
	a := s.open[number]
	if a.ASD == nil {
		return
	}
	delete(s.open, number)
	s.served.Delete(a.ID())
	var err error
	e, failed := s.errands.begin(a.Dir(), a.fs, func(disk.FS) { err = a.Close() })
	if failed == nil {
		if failed = e.wait(ctx); failed == nil {
			failed = err
		}
	} else { // an errand is under way there: the lock must become free all the same
		a.fs.Stop()
		go func() { _ = a.Close() }()
	}
	if failed != nil {
		s.logger.Warn("close of a disk", "disk", number, "dir", a.Dir(), "err", failed)
	}
}

// dropLocked takes a disk out of the fleet.
func (s *asdSet) dropLocked(ctx context.Context, number uint64, reason error) {
	if d := s.fleet.Disk(number); d != nil {
		d.Detach(reason)
		s.fleet.Remove(number)
	}
	s.others.drop(number)
	files := s.open[number].fs
	if o := s.opening[number]; o != nil {
		files = o.fs
		s.takeEndedLocked(number, o)
		delete(s.opening, number)
	}
	s.closeLocked(ctx, number)
	if files != nil {
		files.Stop() // given up for good: what has not ended is not waited for
	}
}

// takeEndedLocked takes the ASD of an open that has ended and whose result nobody has
// taken, so that it is closed like the others.
func (s *asdSet) takeEndedLocked(number uint64, o *opening) {
	if o.ended() && o.asd != nil {
		s.open[number] = openASD{o.asd, o.fs}
	}
}

// closeStall is how long no call of a disk may come back before its ASD is left
// unclosed.
const closeStall = 2 * time.Second

// faults collects errors of calls that run side by side.
type faults struct {
	mu  sync.Mutex
	all []error
}

func (f *faults) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.all = append(f.all, err)
	}
}

// close closes all ASDs, side by side. What a disk does not do in time is left undone:
// the next start finds it as if the process had been killed. Nothing may be opened any
// more.
func (s *asdSet) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.others.close()
	var failed faults
	s.settleErrandsLocked(&failed)
	var all sync.WaitGroup
	for number, a := range s.open {
		silent := fmt.Errorf("disk %d (%s): %w: it was left as it is, and its lock given back", number, a.Dir(), fleet.ErrNotAnswering)
		stall := closeStall
		if d := s.fleet.Disk(number); d != nil {
			if d.Silent() != nil {
				stall = errandTick // it has had its time
			}
			d.Detach(errors.New("the backend is closed"))
		}
		var err error
		e, refused := s.errands.begin(a.Dir(), a.fs, func(disk.FS) { err = a.Close() })
		if refused != nil {
			a.fs.Stop()
			go func() { _ = a.Close() }() // when what is under way has come back; it can do nothing
			failed.add(silent)
			continue
		}
		all.Go(func() {
			if e.waitFor(context.Background(), stall) != nil {
				e.fs.Stop()
				failed.add(silent)
				return
			}
			failed.add(err)
		})
	}
	all.Wait()
	return errors.Join(failed.all...)
}

// settleErrandsLocked waits for the errands that are under way, while their calls come
// back and not for long, and gives up the locks that the rest hold. It takes the ASDs
// of opens that have ended, so that close closes them.
func (s *asdSet) settleErrandsLocked(failed *faults) {
	ctx, cancel := context.WithTimeout(context.Background(), closeStall+time.Second)
	defer cancel()
	var all sync.WaitGroup
	for _, e := range s.errands.all() {
		all.Go(func() {
			err := e.waitFor(ctx, closeStall)
			if err == nil {
				return
			}
			e.fs.Stop()
			if !s.ownsLocked(e) && ctx.Err() == nil {
				failed.add(err) // for an open ASD, its own close tells
			}
		})
	}
	all.Wait()
	for number, o := range s.opening {
		s.takeEndedLocked(number, o)
	}
}

// ownsLocked reports whether an errand works on the files of an open ASD.
func (s *asdSet) ownsLocked(e *errand) bool {
	for _, a := range s.open {
		if a.fs == e.fs {
			return true
		}
	}
	return false
}
