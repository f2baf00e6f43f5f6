package arakoon

import (
	"sync"
	"time"
)

// pace lets bytes through at a rate. What waits gets its turn in the order in which it came.
type pace struct {
	rate int64 // bytes a second; below 0: without a bound

	mu   sync.Mutex
	next time.Time // when the next bytes may go
}

// wait returns when n bytes may go, or with an error when the node ends.
func (p *pace) wait(n int, end *shutdown) error {
	if p.rate < 0 {
		return nil
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	due := p.next
	p.next = due.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
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
