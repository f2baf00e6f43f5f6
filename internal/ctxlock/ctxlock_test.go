package ctxlock

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

var background = context.Background()

func TestOneHasALock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		if err := l.Take(background); err != nil {
			t.Fatal(err)
		}
		if l.Try() {
			t.Fatal("two have it")
		}
		got := false
		go func() {
			if err := l.Take(background); err == nil {
				got = true
			}
		}()
		if synctest.Wait(); got {
			t.Fatal("two have it")
		}
		l.Give()
		if synctest.Wait(); !got {
			t.Fatal("it is given back, and whoever waits does not get it")
		}
		if l.Try() {
			t.Fatal("two have it")
		}
		l.Give()
		if !l.Try() {
			t.Fatal("it is free, and cannot be had")
		}
	})
}

// Whoever stops waiting does not have the lock, and is not in the way of others.
func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(background)
		l := New()
		var shared, alone Shared
		l.Try()
		_ = shared.Share(background)
		_ = alone.Take(background)
		waits := []func(context.Context) error{l.Take, shared.Take, alone.Take, alone.Share}
		errs := make([]error, len(waits))
		for i, wait := range waits {
			go func() { errs[i] = wait(ctx) }()
		}
		synctest.Wait()
		for i, err := range errs {
			if err != nil {
				t.Errorf("wait %d does not wait: %v", i, err)
			}
		}
		cancel(nil)
		synctest.Wait()
		for i, err := range errs {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("wait %d: %v", i, err)
			}
		}
		l.Give()
		shared.Unshare()
		alone.Give()
		if err := errors.Join(l.Take(background), shared.Take(background), alone.Take(background)); err != nil {
			t.Error(err)
		}
	})
}

func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Shared
		for range 2 {
			if err := l.Share(background); err != nil {
				t.Fatal(err)
			}
		}
		alone, shared := false, false
		go func() { alone = l.Take(background) == nil }()
		synctest.Wait()
		if alone {
			t.Fatal("one has alone what two share")
		}
		if err := l.Share(background); err != nil { // whoever waits to have it alone is not in the way
			t.Fatal(err)
		}
		l.Unshare()
		l.Unshare()
		if synctest.Wait(); alone {
			t.Fatal("one has alone what another shares")
		}
		l.Unshare()
		if synctest.Wait(); !alone {
			t.Fatal("nobody shares it, and whoever waits does not get it")
		}
		go func() { shared = l.Share(background) == nil }()
		if synctest.Wait(); shared {
			t.Fatal("one shares what another has alone")
		}
		l.Give()
		if synctest.Wait(); !shared {
			t.Fatal("nobody has it, and whoever waits does not get it")
		}
	})
}

// A lock that nobody has cannot be given back: otherwise two would have it next.
func TestGivenBackTwice(t *testing.T) {
	l := New()
	var s Shared
	for what, give := range map[string]func(){"Lock.Give": l.Give, "Shared.Give": s.Give, "Shared.Unshare": s.Unshare} {
		t.Run(what, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			give()
		})
	}
}

func TestLocksExclude(t *testing.T) {
	l := New()
	var s Shared
	var all sync.WaitGroup
	byLock, byShared := 0, 0
	const workers, rounds = 4, 200
	for range workers {
		all.Go(func() {
			for range rounds {
				_ = l.Take(background)
				byLock++
				l.Give()
				_ = s.Take(background)
				byShared++
				s.Give()
				_ = s.Share(background)
				_ = byShared // under -race: nobody changes it meanwhile
				s.Unshare()
			}
		})
	}
	all.Wait()
	if byLock != workers*rounds || byShared != workers*rounds {
		t.Errorf("%d and %d of %d", byLock, byShared, workers*rounds)
	}
}

func TestFreeLocksAllocateNothing(t *testing.T) {
	l := New()
	var s Shared
	if n := testing.AllocsPerRun(100, func() {
		_ = l.Take(background)
		l.Give()
		_ = s.Take(background)
		s.Give()
		_ = s.Share(background)
		s.Unshare()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
