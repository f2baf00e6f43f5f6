package transport

import (
	"bufio"
	"bytes"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// waiting is the requests that may take long. A request whose process is being killed is
// ended: the kernel keeps a process until its requests are answered.
//
// The kernel tells of any signal, once, and does not say which. Signals that do not kill
// are ignored, as on a local disk: few programs expect that a signal ends a read, a
// close or an fsync of a file. So from the first signal on, waiting checks again and
// again whether the process is being killed.
type waiting struct {
	mu  sync.Mutex
	all map[uint64]*waiter // by the request's unique number
	// early are signals for which no request was found: the signal came before its
	// request, as both come by different ways, or after the request had ended.
	early [earlyMax]uint64
	next  int
	ended bool // nobody wants any reply

	deaf     int         // readers of the device that wait for room
	gone     func() bool // whether the mount has gone, which they do not see
	checking bool        // while there are such readers
}

// earlyMax bounds the signals that are remembered.
const earlyMax = 256

// waiter is one request.
type waiter struct {
	thread  uint32 // that waits for the reply, 0 if it is not to be seen from here
	end     func() // has the request end soon; may be called again
	over    chan struct{}
	watched bool
	unasked atomic.Bool // nobody wants the reply
}

// begin notes a request. end has it end soon.
func (w *waiting) begin(unique uint64, thread uint32, end func()) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &waiter{thread: thread, end: end, over: make(chan struct{})}
	if w.ended {
		r.unasked.Store(true)
		r.watch()
	}
	for i, early := range w.early {
		if early == unique {
			w.early[i] = 0
			r.watch()
		}
	}
	if w.all == nil {
		w.all = map[uint64]*waiter{}
	}
	w.all[unique] = r
	return r
}

// done notes the end of a request.
func (w *waiting) done(unique uint64, r *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(r.over)
	delete(w.all, unique)
}

// signal notes that the process of a request has got a signal.
func (w *waiting) signal(unique uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r, ok := w.all[unique]; ok {
		r.watch()
		return
	}
	w.early[w.next] = unique
	w.next = (w.next + 1) % earlyMax
}

// endAll ends all requests at the end of the mount.
func (w *waiting) endAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	for _, r := range w.all {
		r.unasked.Store(true)
		r.watch()
	}
}

// checkKills ends requests whose processes are being killed, and all requests if the
// mount has gone, until done is called. It is for the time in which nobody reads the
// device, and so the kernel's signals.
func (w *waiting) checkKills() (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deaf++; !w.checking {
		w.checking = true
		go w.checkKillsLoop()
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.deaf--
	}
}

func (w *waiting) deafNow() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deaf
}

// checkKillsLoop checks all requests again and again while a reader of the device
// does not read.
func (w *waiting) checkKillsLoop() {
	for {
		<-time.After(watchMax)
		w.mu.Lock()
		if w.deaf == 0 {
			w.checking = false
			w.mu.Unlock()
			return
		}
		all := slices.Collect(maps.Values(w.all))
		w.mu.Unlock()
		if w.gone() {
			w.endAll()
			continue
		}
		for _, r := range all {
			// There was no signal, so a thread that cannot be seen does not count as
			// killed.
			if status, err := statusOf(r.thread); err == nil && sigkillPending(status) {
				w.mu.Lock()
				r.watch()
				w.mu.Unlock()
			}
		}
	}
}

// How often it is checked whether a process is being killed.
const (
	watchMin = 5 * time.Millisecond
	watchMax = 200 * time.Millisecond
)

// watch ends the request when its process is being killed, or when nobody wants the
// reply. It goes on until the request has ended, because the library ignores the end of
// a request that it has not begun yet. The lock is held.
func (r *waiter) watch() {
	if r.watched {
		return
	}
	r.watched = true
	go func() {
		for wait := watchMin; ; wait = min(2*wait, watchMax) {
			if r.unasked.Load() || killed(r.thread) {
				r.end()
			}
			select {
			case <-r.over:
				return
			case <-time.After(wait):
			}
		}
	}()
}

// sigkill is the bit of SIGKILL in a set of signals.
const sigkill = 1 << 8

// killed reports whether a thread is to end: every signal that kills a process leaves
// SIGKILL pending in its threads. A thread that cannot be seen from here counts as
// killed.
func killed(thread uint32) bool {
	status, err := statusOf(thread)
	return err != nil || sigkillPending(status)
}

func statusOf(thread uint32) ([]byte, error) {
	return os.ReadFile("/proc/" + strconv.FormatUint(uint64(thread), 10) + "/status")
}

func sigkillPending(status []byte) bool {
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if name == "SigPnd" || name == "ShdPnd" {
			set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err == nil && set&sigkill != 0 {
				return true
			}
		}
	}
	return false
}
