package transport

import "sync"

// earlyMax bounds the interrupts that are remembered.
const earlyMax = 256

// waiting is the reads and writes that wait, and can be interrupted. An
// interrupt may come before its request does, as they come by different ways;
// a few of them are remembered, of requests that had ended too.
type waiting struct {
	mu    sync.Mutex
	all   map[uint64]chan struct{} // by the request's unique number
	early [earlyMax]uint64
	next  int
	ended bool
}

// begin returns the channel that is closed when the request is interrupted.
func (w *waiting) begin(unique uint64) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	cancel := make(chan struct{})
	if w.ended {
		close(cancel)
		return cancel
	}
	for i, early := range w.early {
		if early == unique {
			w.early[i] = 0
			close(cancel)
			return cancel
		}
	}
	if w.all == nil {
		w.all = map[uint64]chan struct{}{}
	}
	w.all[unique] = cancel
	return cancel
}

func (w *waiting) end(unique uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, unique)
}

// interrupt reports whether the request was waiting.
func (w *waiting) interrupt(unique uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	cancel, ok := w.all[unique]
	if !ok {
		w.early[w.next] = unique
		w.next = (w.next + 1) % earlyMax
		return false
	}
	close(cancel)
	delete(w.all, unique)
	return true
}

// interruptAll is for the end of the mount: nobody wants the replies.
func (w *waiting) interruptAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	for unique, cancel := range w.all {
		close(cancel)
		delete(w.all, unique)
	}
}
