package state

import (
	"context"
	"fmt"
	"sync"

	"openvstorage/internal/bell"
)

// ErrTooManyWatchers is the error for one watcher more than HistoryOptions.Watchers.
var ErrTooManyWatchers = fmt.Errorf("arakoon: too many watchers")

// Watcher is told of the changes of keys with a prefix. One goroutine uses it.
type Watcher struct {
	h       *History
	prefix  string // as in Pebble
	bell    bell.Bell
	greeted bool // it was told that it has come to what is applied

	// Under dispatch.mu. All before next was told, or does not concern the watcher. While
	// it is reading, the watcher itself looks at what there is from next on. While it is
	// not, the dispatcher does that, and then all up to dispatch.done is dealt with too.
	next    uint64
	reading bool
	notice  bool // it is to be told how far it has come
	lost    bool // events from next on may be missing
}

// Bites of what a watcher looks at, and of what it is told at once.
const (
	biteRevisions = 256
	biteBytes     = 1 << 20
)

// Watch begins to watch the users' keys with a prefix, from a revision on; 0: from what is
// applied now. If the revision is not applied yet, the watcher is told once it is.
func (h *History) Watch(ctx context.Context, prefix []byte, from uint64) (*Watcher, error) {
	return h.watch(ctx, string(userPrefix)+string(prefix), from)
}

// WatchLease begins to watch a lease from a revision on. Events of other leases whose names
// begin with this name come too.
func (h *History) WatchLease(ctx context.Context, name string, from uint64) (*Watcher, error) {
	return h.watch(ctx, string(leasePrefix)+name, from)
}

func (h *History) watch(ctx context.Context, prefix string, from uint64) (*Watcher, error) {
	for {
		settled := h.settled.Next()
		w, err := h.enter(prefix, from)
		if w != nil || err != nil {
			return w, err
		}
		// A batch is being applied of which nothing is recorded.
		select {
		case <-settled:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// enter makes a watcher. Without an error and a watcher it is to be called again when
// settled rings.
func (h *History) enter(prefix string, from uint64) (*Watcher, error) {
	d := &h.dispatch
	d.mu.Lock()
	defer d.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(d.watchers) >= h.opt.Watchers {
		return nil, fmt.Errorf("%w: there are %d", ErrTooManyWatchers, len(d.watchers))
	}
	h.wanted, h.unwatched = true, 0
	if h.blind {
		return nil, nil
	}
	if from == 0 {
		from = h.last + 1
	}
	if from < h.first {
		return nil, &ErrCompacted{First: h.first}
	}
	w := &Watcher{h: h, prefix: prefix, next: from, reading: true}
	d.add(w)
	h.watched = len(d.watchers)
	if !d.running {
		d.running, d.done, d.told, d.toldBytes = true, h.last, h.last, 0
		go h.run()
	}
	return w, nil
}

// Watchers is how many there are.
func (h *History) Watchers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.watched
}

// Close ends the watch.
func (w *Watcher) Close() {
	d := &w.h.dispatch
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remove(w)
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	w.h.watched = len(d.watchers)
	select {
	case w.h.work <- struct{}{}: // so that the dispatcher ends with the last watcher
	default:
	}
}

// Next returns what has happened since it returned last, in the order of revisions, each of
// them whole, and waits until there is something. When the watcher has come to what is
// applied for the first time, and from time to time after that, an Events without events
// says how far it has come. It fails with an *ErrCompacted if the watcher was too slow, and
// with a context's error. When one of the channels is closed it fails with ErrStopped.
func (w *Watcher) Next(ctx context.Context, ends ...<-chan struct{}) ([]Events, error) {
	for {
		told, err := w.look()
		if told != nil || err != nil {
			return told, err
		}
		var end [2]<-chan struct{}
		copy(end[:], ends)
		select {
		case <-w.bell.Rung():
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-end[0]:
			return nil, ErrStopped
		case <-end[1]:
			return nil, ErrStopped
		}
	}
}

// look returns what there is for the watcher; nothing if it has to wait.
func (w *Watcher) look() ([]Events, error) {
	for {
		from, told, wait, err := w.turn()
		if told != nil || wait || err != nil {
			return told, err
		}
		list, upTo, err := w.h.span(from, biteRevisions)
		if err != nil {
			return nil, err
		}
		size := 0
		for _, r := range list {
			events, n := r.of(w.prefix)
			if len(events) == 0 {
				continue
			}
			told = append(told, Events{r.index, events})
			if size += n; size >= biteBytes {
				upTo = r.index
				break
			}
		}
		w.passed(upTo)
		if told != nil {
			return told, nil
		}
	}
}

// turn says what the watcher does next: look at what there is from a revision on, return
// that it has come so far, or wait.
func (w *Watcher) turn() (from uint64, told []Events, wait bool, err error) {
	d := &w.h.dispatch
	d.mu.Lock()
	defer d.mu.Unlock()
	w.h.mu.Lock()
	first, last := w.h.first, w.h.last
	w.h.mu.Unlock()
	switch {
	case w.lost:
		return 0, nil, false, &ErrCompacted{First: first}
	case w.reading && w.next <= last:
		return w.next, nil, false, nil
	case w.reading:
		w.reading = false // from here on the dispatcher tells
	}
	// A notice is of what is known to be told: the revision may not be applied yet that the
	// watch begins at.
	if w.notice || !w.greeted {
		w.notice, w.greeted = false, true
		return 0, []Events{{Revision: min(max(w.next-1, d.done), last)}}, false, nil
	}
	return 0, nil, true, nil
}

// passed notes that all up to a revision was looked at.
func (w *Watcher) passed(upTo uint64) {
	d := &w.h.dispatch
	d.mu.Lock()
	defer d.mu.Unlock()
	w.next = max(w.next, upTo+1)
}

// dispatch finds out which watchers an event concerns. One goroutine does that while there
// are watchers. Its lock is taken before that of History.
type dispatch struct {
	mu       sync.Mutex
	running  bool
	watchers map[*Watcher]bool
	prefixes map[string]map[*Watcher]bool
	lengths  []int  // number of watchers by the length of their prefix
	done     uint64 // all up to here is dispatched

	told      uint64 // revision of the last notice to all
	toldBytes int    // dispatched since
}

func (d *dispatch) add(w *Watcher) {
	d.watchers[w] = true
	same := d.prefixes[w.prefix]
	if same == nil {
		same = map[*Watcher]bool{}
		d.prefixes[w.prefix] = same
	}
	same[w] = true
	for len(d.lengths) <= len(w.prefix) {
		d.lengths = append(d.lengths, 0)
	}
	d.lengths[len(w.prefix)]++
}

func (d *dispatch) remove(w *Watcher) {
	if !d.watchers[w] {
		return
	}
	delete(d.watchers, w)
	delete(d.prefixes[w.prefix], w)
	if len(d.prefixes[w.prefix]) == 0 {
		delete(d.prefixes, w.prefix)
	}
	d.lengths[len(w.prefix)]--
}

// lose tells the watchers who have not been told of all up to an index that they have lost
// their place.
func (d *dispatch) lose(index uint64) {
	for w := range d.watchers {
		told := w.next - 1
		if !w.reading {
			told = max(told, d.done)
		}
		if told < index {
			w.lost = true
			w.bell.Ring()
		}
	}
	d.done = index
}

// event wakes the watchers whom an event concerns.
func (d *dispatch) event(index uint64, e Event) {
	for n := 1; n < len(d.lengths) && n <= len(e.Key); n++ {
		if d.lengths[n] == 0 {
			continue
		}
		for w := range d.prefixes[string(e.Key[:n])] {
			if !w.reading && w.next <= index {
				w.next, w.reading = index, true
				w.bell.Ring()
			}
		}
	}
}

// run dispatches until there are no watchers.
func (h *History) run() {
	for range h.work {
		for {
			more, end := h.step()
			if end {
				return
			}
			if !more {
				break
			}
		}
	}
}

// step dispatches a bite.
func (h *History) step() (more, end bool) {
	d := &h.dispatch
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.watchers) == 0 {
		d.running = false
		return false, true
	}
	list, upTo, err := h.span(d.done+1, biteRevisions)
	if err != nil {
		// Applying was faster by all that is kept. Those whose place is known to be
		// behind that have lost it.
		first := err.(*ErrCompacted).First
		d.lose(first - 1)
		return true, false
	}
	for _, r := range list {
		d.toldBytes += r.bytes
		for _, e := range r.list {
			d.event(r.index, e)
		}
	}
	d.done = upTo
	notice := upTo-d.told >= uint64(h.opt.Revisions/4) || d.toldBytes >= h.opt.Bytes/4
	if !notice {
		return len(list) == biteRevisions, false
	}
	for w := range d.watchers {
		if !w.reading {
			w.notice = true
			w.bell.Ring()
		}
	}
	d.told, d.toldBytes = upTo, 0
	return len(list) == biteRevisions, false
}
