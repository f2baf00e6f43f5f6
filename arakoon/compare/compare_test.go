package compare

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/arakoon"
)

// fake is a member.
type fake struct {
	sum [32]byte
	err error

	mu      sync.Mutex
	leading bool
	members []uint64
	hashes  int
	applied uint64
}

func (f *fake) set(leading bool, members ...uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leading, f.members = leading, members
}

func (f *fake) hashed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hashes
}

func (f *fake) Status() arakoon.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return arakoon.Status{ID: 2, Applied: f.applied}
}
func (f *fake) Members() arakoon.Members {
	f.mu.Lock()
	defer f.mu.Unlock()
	return arakoon.Members{Voters: f.members}
}

func (f *fake) Leading() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leading
}

func (f *fake) Hash(context.Context) (uint64, [32]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hashes++
	return 7, f.sum, f.err
}

// TestDifferenceIsToldAndHaltsNothing: a member with another state is an error in the log and
// in the result; one that does not answer is no difference.
func TestDifferenceIsToldAndHaltsNothing(t *testing.T) {
	var log bytes.Buffer
	f := &fake{leading: true, members: []uint64{1, 2, 3}, sum: [32]byte{1}}
	sums := map[uint64][32]byte{1: {1}, 3: {1}}
	away := errors.New("away")
	c := New(Options{Group: "g", Node: f, Logger: slog.New(slog.NewTextHandler(&log, nil)), Ask: func(_ context.Context, member, index uint64) ([32]byte, error) {
		if index != 7 {
			t.Errorf("asked for the hash at %d", index)
		}
		sum, ok := sums[member]
		if !ok {
			return sum, away
		}
		return sum, nil
	}})
	if _, ok := c.Last(); ok {
		t.Error("there is a result before there was a comparison")
	}
	r, err := c.Compare(t.Context())
	if err != nil || !r.Equal() || r.Index != 7 || len(r.Members) != 3 || r.Members[0].Member != 2 || log.Len() > 0 {
		t.Fatalf("%+v, %v, %s", r, err, &log)
	}
	sums[3] = [32]byte{2}
	delete(sums, 1)
	if r, err = c.Compare(t.Context()); err != nil || r.Equal() || !errors.Is(r.Members[1].Err, away) || r.Members[2].Sum != sums[3] {
		t.Errorf("%+v, %v", r, err)
	}
	if wrong := r.Wrong(); len(wrong) != 1 {
		t.Errorf("wrong are %d", wrong)
	}
	if last, ok := c.Last(); !ok || last.Equal() {
		t.Errorf("last: %+v, %v", last, ok)
	}
	if got := log.String(); strings.Count(got, "level=ERROR") != 1 || !strings.Contains(got, "member=3") || strings.Count(got, "level=WARN") != 1 {
		t.Errorf("log:\n%s", got)
	}
	delete(sums, 3)
	if r, err = c.Compare(t.Context()); err != nil || !r.Equal() {
		t.Errorf("members that do not answer are no difference: %+v, %v", r, err)
	}
	f.err = arakoon.ErrBusy
	if _, err = c.Compare(t.Context()); !errors.Is(err, arakoon.ErrBusy) {
		t.Errorf("%v", err)
	}
	if last, _ := c.Last(); last.Index != 7 {
		t.Error("a comparison without a result took the place of one with")
	}
	f.err = nil
	c.opt.Ask = nil
	if r, err = c.Compare(t.Context()); err != nil || r.Members[1].Err == nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestOnlyTheLeaderOfSeveralCompares by itself, once an hour.
func TestOnlyTheLeaderOfSeveralCompares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{members: []uint64{2}, leading: true}
		ctx, cancel := context.WithCancel(t.Context())
		c := New(Options{Group: "g", Node: f, Logger: slog.New(slog.DiscardHandler), Ask: func(ctx context.Context, _, _ uint64) ([32]byte, error) {
			return [32]byte{}, nil
		}})
		done := make(chan struct{})
		go func() { defer close(done); c.Run(ctx) }()
		hours := func(n int) {
			time.Sleep(time.Duration(n)*Every + time.Minute)
			synctest.Wait()
		}
		if hours(3); f.hashed() != 0 {
			t.Errorf("a member that is alone has hashed %d times", f.hashed())
		}
		f.set(false, 1, 2)
		if hours(3); f.hashed() != 0 {
			t.Errorf("a follower has hashed %d times", f.hashed())
		}
		f.set(true, 1, 2)
		if hours(3); f.hashed() != 3 {
			t.Errorf("in 3 hours: %d", f.hashed())
		}
		f.mu.Lock()
		f.applied = 7 // no more than the mark of the comparison itself
		f.mu.Unlock()
		if hours(3); f.hashed() != 3 {
			t.Errorf("a group that has not changed was hashed again: %d", f.hashed())
		}
		f.mu.Lock()
		f.applied = 8
		f.mu.Unlock()
		if hours(2); f.hashed() != 5 {
			t.Errorf("a group that has changed: %d", f.hashed())
		}
		cancel()
		<-done
	})
}

// TestComparisonIsCancelled while a member does not answer, and while another one runs.
func TestComparisonIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{members: []uint64{1, 2}, leading: true}
		c := New(Options{Group: "g", Node: f, Logger: slog.New(slog.DiscardHandler), Ask: func(ctx context.Context, _, _ uint64) ([32]byte, error) {
			<-ctx.Done()
			return [32]byte{}, ctx.Err()
		}})
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() { _, err := c.Compare(ctx); first <- err }()
		synctest.Wait()
		second, stop := context.WithCancel(t.Context())
		waits := make(chan error, 1)
		go func() { _, err := c.Compare(second); waits <- err }()
		synctest.Wait()
		if stop(); !errors.Is(<-waits, context.Canceled) {
			t.Error("a comparison that waits for another one is not cancelled")
		}
		if cancel(); !errors.Is(<-first, context.Canceled) {
			t.Error("it is not cancelled")
		}
		if _, ok := c.Last(); ok {
			t.Error("a comparison that was cancelled has a result")
		}
		r, err := c.Compare(t.Context()) // the patience with a member ends
		if err != nil || r.Members[1].Err == nil || !r.Equal() {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// TestLevelThatForbidsHashesIsNoFault: a group whose level is too low to be compared is no warning
// each hour.
func TestLevelThatForbidsHashesIsNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		f := &fake{leading: true, members: []uint64{1, 2}, err: &arakoon.LevelError{Has: 1, Need: 2}}
		ctx, cancel := context.WithCancel(t.Context())
		c := New(Options{Group: "g", Node: f, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		done := make(chan struct{})
		go func() { defer close(done); c.Run(ctx) }()
		time.Sleep(3*Every + time.Minute)
		cancel()
		<-done
		if f.hashed() != 3 || log.Len() > 0 {
			t.Errorf("%d tries: %s", f.hashed(), &log)
		}
	})
}
