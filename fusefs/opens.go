package fusefs

import (
	"context"
	"sync"
	"time"
)

// opens counts the handles by which a file is open. Its lock is held for a moment, and taken last.
type opens struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n is 0 again
}

// add counts one more.
func (o *opens) add() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n++; o.n == 1 {
		o.idle = make(chan struct{})
	}
}

// addAnother counts one more, unless it would be the first.
func (o *opens) addAnother() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == 0 {
		return false
	}
	o.n++
	return true
}

// drop counts one less, and reports whether it was the last.
func (o *opens) drop() (last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n--; o.n > 0 {
		return false
	}
	close(o.idle)
	return true
}

// dropUnlessLast counts one less, unless it is the last.
func (o *opens) dropUnlessLast() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == 1 {
		return false
	}
	o.n--
	return true
}

// any reports whether somebody has the file open.
func (o *opens) any() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n > 0
}

// releaseWait is how long a deletion waits for closes that the kernel has not
// told about yet: it does so after close(2) has returned.
const releaseWait = 200 * time.Millisecond

// waitIdle waits for the last close, for releaseWait or until ctx ends.
func (o *opens) waitIdle(ctx context.Context) {
	o.mu.Lock()
	idle, n := o.idle, o.n
	o.mu.Unlock()
	if n == 0 {
		return
	}
	late := time.NewTimer(releaseWait)
	defer late.Stop()
	select {
	case <-idle:
	case <-late.C:
	case <-ctx.Done():
	}
}
