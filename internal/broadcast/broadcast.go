// Package broadcast wakes all goroutines that wait for something to change.
package broadcast

import "sync"

// Broadcast wakes all that wait. A waiter takes Next before it checks its condition, or
// under the lock that guards the condition. Then it misses no change:
//
//	for {
//		next := changed.Next()
//		if ready() {
//			return
//		}
//		<-next
//	}
//
// A broadcast that nobody waits for costs an uncontended lock and no memory. The zero
// value is ready for use. Its methods are safe for concurrent use, also under locks of
// the caller; a Broadcast must not be copied.
type Broadcast struct {
	mu   sync.Mutex
	next chan struct{} // nil: nobody has asked since the last Send
}

// Next returns a channel that the next Send closes. It makes the channel if there is
// none, so it is only for callers that may wait.
func (b *Broadcast) Next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

// Send wakes all that wait.
func (b *Broadcast) Send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}
