package arakoon

import (
	"sync"
	"time"
)

// pace lets bytes through at a rate, and at another one while there is other work to do. What
// waits gets its turn in the order in which it came.
type pace struct {
	rate     int64       // bytes a second; below 0: without a bound
	busyRate int64       // the same while busy says so
	busy     func() bool // nil: never

	mu   sync.Mutex
	next time.Time // when the next bytes may go
}

// newPace is the pace of reads of a node's snapshots.
func newPace(n *Node) *pace {
	busy := func() bool {
		writes, _ := n.proposals.usage()
		return writes > 0 || n.readers.count() > 0
	}
	return &pace{rate: n.opt.SnapshotBytesPerSecond, busyRate: n.opt.SnapshotBusyBytesPerSecond, busy: busy}
}

// wait returns when n bytes may go, or with an error when the node ends.
func (p *pace) wait(n int, end *shutdown) error {
	rate := p.rate
	if p.busy != nil && p.busy() {
		rate = p.busyRate
	}
	if rate < 0 {
		return nil
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	due := p.next
	p.next = due.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	p.mu.Unlock()
	if !due.After(now) {
		return nil
	}
	t := time.NewTimer(due.Sub(now))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-end.stop:
	case <-end.failed:
	}
	return end.err()
}
