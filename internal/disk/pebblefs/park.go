package pebblefs

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/internal/disk"
)

// ErrAbandoned is what Err returns after Abandon of a store that had not failed. Reads
// of files that were never written, since the store was abandoned, return it too.
var ErrAbandoned = errors.New("pebblefs: store abandoned")

// Options says how a store waits and whom it tells. All may be left out.
type Options struct {
	// OnFull is called when a change or a sync finds the disk full, before it waits,
	// and once a second while any waits, however many do. It must not block.
	OnFull func(err error)
	// OnRoom is called when a change that has waited went through.
	OnRoom func()
	// OnFailure is called once, with what made the store fail. It must not
	// block and must not call Pebble.
	OnFailure func(err error)
	// Retry delivers a value each time a change that waits is to be tried again. By default that is after 100 ms.
	Retry func() <-chan time.Time
}

const (
	retryAfter = 100 * time.Millisecond
	// fullAgain is how often it is said that a change waits for room.
	fullAgain = time.Second
	// passingTries is how often a change is tried if the process lacks the right, a
	// descriptor or memory for it. With Retry's default that is 10 s. There is no end
	// to a wait for room, since OnFull tells of that; nobody is told of this one.
	passingTries = 100
)

// store is the state that all files of an FS share.
type store struct {
	opt       Options
	gone      atomic.Bool // abandoned is closed
	bad       atomic.Bool // failed is closed
	failed    chan struct{}
	abandoned chan struct{}

	mu   sync.Mutex
	err  error
	told time.Time // when OnFull was called last
}

func newStore(opt Options) *store {
	if opt.Retry == nil {
		opt.Retry = func() <-chan time.Time { return time.After(retryAfter) }
	}
	return &store{opt: opt, failed: make(chan struct{}), abandoned: make(chan struct{})}
}

func (s *store) fail(err error) {
	s.mu.Lock()
	first := s.err == nil
	if first {
		s.err = fmt.Errorf("pebblefs: the store has stopped and must be opened again: %w", err)
		s.bad.Store(true)
		close(s.failed)
	}
	s.mu.Unlock()
	if first && s.opt.OnFailure != nil {
		s.opt.OnFailure(s.error())
	}
}

func (s *store) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone.Load() {
		return
	}
	if s.err == nil {
		s.err = ErrAbandoned
		s.bad.Store(true)
		close(s.failed)
	}
	s.gone.Store(true)
	close(s.abandoned)
}

func (s *store) error() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// change makes a change of the disk, however long that takes: it calls try until there
// is room. ok is false if the store is abandoned: the change was not made, and the
// caller reports success. err is an error that Pebble is to see (see answer).
func (s *store) change(try func() error) (ok bool, err error) {
	waited := false
	for passing := 0; !s.bad.Load(); {
		err := try()
		if err == nil || answer(err) {
			if waited && s.opt.OnRoom != nil {
				s.opt.OnRoom()
			}
			return true, err
		}
		switch disk.CauseOf(err) {
		case disk.Full:
			s.tellFull(err)
			waited = true
		case disk.Scarce, disk.Denied:
			if passing++; passing > passingTries && !errors.Is(err, disk.ErrAside) {
				s.fail(err)
				continue
			}
		default:
			s.fail(err)
			continue
		}
		select {
		case <-s.opt.Retry():
		case <-s.failed:
		}
	}
	<-s.abandoned
	return false, nil
}

// tellFull calls OnFull, unless that was done within the last second. Each time
// somebody gives room up for it, and that room is to be used before more is given up.
func (s *store) tellFull(err error) {
	if s.opt.OnFull == nil {
		return
	}
	s.mu.Lock()
	now := time.Now()
	due := s.told.IsZero() || now.Sub(s.told) >= fullAgain
	if due {
		s.told = now
	}
	s.mu.Unlock()
	if due {
		s.opt.OnFull(err)
	}
}

// closed handles the result of closing a file. If the file has bytes that are not
// synced, an error says that they may be lost; otherwise it means nothing.
func (s *store) closed(err error, dirty bool) error {
	if err == nil || !dirty {
		return nil
	}
	s.fail(err)
	<-s.abandoned
	return nil
}

// sync makes a sync. A failed sync may have dropped what it was to write, and a second
// one would succeed without writing it. After an error for want of room, again writes
// all that is not durable once more, verified, until there is room. The store fails
// after any other error, if again is nil, and if again finds that the bytes are gone.
func (s *store) sync(sync, again func() error) error {
	waited := false
	for !s.bad.Load() {
		err := sync()
		for disk.CauseOf(err) == disk.Full && again != nil && !s.bad.Load() {
			s.tellFull(err)
			waited = true
			select {
			case <-s.opt.Retry():
			case <-s.failed:
				continue
			}
			if e := again(); disk.CauseOf(e) == disk.Full {
				continue
			} else if e != nil {
				s.fail(fmt.Errorf("%w, after %w", e, err))
				break
			}
			err = sync()
		}
		if err == nil {
			if waited && s.opt.OnRoom != nil {
				s.opt.OnRoom()
			}
			return nil
		}
		s.fail(err)
	}
	<-s.abandoned
	return nil
}

// answer reports whether an error says how things stand, and not that a disk is in
// trouble.
func answer(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)
}
