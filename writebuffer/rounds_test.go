package writebuffer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/gate"

	"golang.org/x/sys/unix"
)

// untilWaiting waits until so many wait for the commit round of another.
func (r *rig) untilWaiting(n int) {
	r.t.Helper()
	for {
		r.log.group.Lock()
		now := len(r.log.group.waiting)
		r.log.group.Unlock()
		if now == n {
			return
		}
		if r.ctx.Err() != nil {
			r.t.Fatalf("never: %d wait for a round", n)
		}
		runtime.Gosched()
	}
}

// Whoever waits for another's commit round leaves when his own ctx ends, whatever that
// round waits for. The round goes on, and those that stay get its end.
func TestFollowerLeaves(t *testing.T) {
	for _, what := range []string{"a sync", "room"} {
		t.Run(what, func(t *testing.T) {
			r := newFastRig(t)
			r.write(0, 3, 1)
			var open func()
			if what == "a sync" {
				door := gate.New()
				r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "sco-*", Times: 1, Before: func(faultdisk.Op, string) {
					_ = door.Hold(r.ctx)
				}})
				open = door.Open
			} else {
				r.untilReady()
				// The commit block finds no room, and no other SCO can be made.
				rule := r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Write | faultdisk.Open | faultdisk.Rename, Path: "sco-*", Err: unix.ENOSPC})
				open = rule.Remove
			}
			seq := r.log.Written()
			leader, stays := make(chan error, 1), make(chan error, 1)
			go func() { leader <- r.log.Commit(r.ctx, seq) }()
			for running := false; !running; runtime.Gosched() {
				r.log.group.Lock()
				running = r.log.group.running
				r.log.group.Unlock()
			}
			if what == "a sync" {
				go func() { stays <- r.log.Commit(r.ctx, seq) }()
				r.untilWaiting(1)
			}
			const leave = 5
			ctx, cancel := context.WithCancelCause(r.ctx)
			left := make(chan error, leave)
			for range leave {
				go func() { left <- r.log.Commit(ctx, seq) }()
			}
			if what == "a sync" {
				r.untilWaiting(1 + leave)
			}
			cancel(nil)
			for range leave {
				mustBe(t, r.wait(left), context.Canceled)
			}
			if what != "a sync" {
				go func() { stays <- r.log.Commit(r.ctx, seq) }()
			}
			open()
			if err := errors.Join(r.wait(leader), r.wait(stays)); err != nil {
				t.Fatal(err)
			}
			if r.log.Durable() < seq {
				t.Error("it is not durable")
			}
		})
	}
}

// The end of the log is told to all who wait for a round.
func TestFollowersHearOfTheEnd(t *testing.T) {
	r := newFastRig(t)
	r.write(0, 3, 1)
	door := gate.New()
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "sco-*", Before: func(faultdisk.Op, string) { _ = door.Hold(r.ctx) }})
	leader, others := make(chan error, 1), make(chan error, 3)
	go func() { leader <- r.log.Commit(r.ctx, 1) }()
	if err := door.Arrived(r.ctx, 1); err != nil {
		t.Fatal(err)
	}
	for range cap(others) {
		go func() { others <- r.log.Commit(r.ctx, 1) }()
	}
	r.untilWaiting(cap(others))
	broken := errors.New("broken")
	r.log.Fail(broken)
	door.Open()
	r.wait(leader)
	for range cap(others) {
		if err := r.wait(others); err != nil && !errors.Is(err, broken) {
			t.Error(err)
		}
	}
}

// Of many that commit, leave and come again none waits for ever, and what a commit
// says is so.
func TestRoundsAtRandom(t *testing.T) {
	r := newFastRig(t)
	var all sync.WaitGroup
	failed := make(chan error, 8)
	for who := range uint64(8) {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(who, 1))
			for i := range uint64(60) {
				if err := r.log.Append(r.ctx, batch(100*who, 1, i)); err != nil {
					failed <- err
					return
				}
				ctx, cancel := context.WithCancel(r.ctx)
				if rng.IntN(2) == 0 {
					go cancel()
				}
				seq := r.log.Written()
				err := r.log.Commit(ctx, seq)
				cancel()
				if err == nil && r.log.Durable() < seq {
					err = fmt.Errorf("durable to %d after a commit of %d", r.log.Durable(), seq)
				}
				if err != nil && !errors.Is(err, context.Canceled) {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	r.commit()
	if n := len(r.log.group.waiting); n > 0 {
		t.Errorf("%d wait", n)
	}
}

// Waiting for the round of another allocates nothing.
func TestWaitingAllocatesNothing(t *testing.T) {
	var r rounds
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_ = ctx.Done()
	tell, told := make(chan struct{}), make(chan struct{})
	go func() {
		for range tell {
			for waits := 0; waits == 0; runtime.Gosched() {
				r.Lock()
				waits = len(r.waiting)
				r.tellLocked()
				r.Unlock()
			}
			told <- struct{}{}
		}
	}()
	defer close(tell)
	once := func() {
		tell <- struct{}{}
		r.Lock()
		if err := r.waitLocked(ctx); err != nil {
			t.Error(err)
		}
		r.Unlock()
		<-told
	}
	once()
	if n := testing.AllocsPerRun(50, once); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
