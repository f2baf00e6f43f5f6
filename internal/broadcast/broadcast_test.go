package broadcast

import (
	"sync"
	"sync/atomic"
	"testing"
)

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestBroadcast(t *testing.T) {
	var b Broadcast
	b.Send() // to nobody
	one, other := b.Next(), b.Next()
	if closed(one) {
		t.Error("woken by what was before it waited")
	}
	b.Send()
	if !closed(one) || !closed(other) {
		t.Error("not all are woken")
	}
	if closed(b.Next()) {
		t.Error("whoever waits anew is woken by what was before")
	}
}

// Whoever takes Next before it looks misses no change.
func TestNoChangeIsMissed(t *testing.T) {
	var b Broadcast
	var value atomic.Int64
	var all sync.WaitGroup
	const waiters, changes = 8, 500
	for range waiters {
		all.Go(func() {
			for {
				next := b.Next()
				if value.Load() == changes {
					return
				}
				<-next
			}
		})
	}
	for range changes {
		value.Add(1)
		b.Send()
	}
	all.Wait()
}

func TestSendToNobodyAllocatesNothing(t *testing.T) {
	var b Broadcast
	if n := testing.AllocsPerRun(100, b.Send); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSendToNobody(b *testing.B) {
	var all Broadcast
	for b.Loop() {
		all.Send()
	}
}
