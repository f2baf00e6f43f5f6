package bell

import (
	"sync"
	"sync/atomic"
	"testing"
)

func heard(b *Bell) bool {
	select {
	case <-b.Rung():
		return true
	default:
		return false
	}
}

// Rings are one until they are heard, and none is lost.
func TestBell(t *testing.T) {
	var b Bell
	if heard(&b) {
		t.Error("heard, and nobody rang")
	}
	for range 3 {
		b.Ring()
	}
	if !heard(&b) || heard(&b) {
		t.Error("three rings are not one")
	}
	b.Ring()
	if !heard(&b) {
		t.Error("a ring after one that was heard is lost")
	}
}

// Whoever hears a ring sees what was put before it, also if all goroutines use the bell
// for the first time at once.
func TestBellIsHeardByAWorker(t *testing.T) {
	var b Bell
	var made atomic.Int64
	var all sync.WaitGroup
	const ringers, each = 8, 200
	done := make(chan struct{})
	go func() {
		defer close(done)
		for made.Load() < ringers*each {
			<-b.Rung()
		}
	}()
	for range ringers {
		all.Go(func() {
			for range each {
				made.Add(1)
				b.Ring()
			}
		})
	}
	all.Wait()
	<-done
}

func TestRingAllocatesOnce(t *testing.T) {
	var b Bell
	b.Ring()
	if n := testing.AllocsPerRun(100, func() { b.Ring(); <-b.Rung() }); n != 0 {
		t.Errorf("%v allocations a ring", n)
	}
}

func BenchmarkRing(b *testing.B) {
	var bell Bell
	for b.Loop() {
		bell.Ring()
	}
}
