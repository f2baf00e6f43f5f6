package arakoon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/arakoon/state"
	"openvstorage/internal/bell"
	"openvstorage/internal/broadcast"
)

// ErrNoHash: this member has no hash at that index. It was not running, or did not know the
// members there yet, or was busy with others, or so many came after it.
var ErrNoHash = errors.New("arakoon: no hash at that index")

// Hash proposes that every member hashes its state at the index of the proposal, and
// returns that index and this member's hash: a SHA-256 over users' keys, sessions, leases,
// members and level. It is equal on all members; HashAt asks the others. It reads the whole
// state in the background, Options.ScanBytes a second.
func (i ImageCalls) Hash(ctx context.Context) (index uint64, sum [32]byte, err error) {
	if index, _, err = i.node.Write(ctx, state.Mark()); err != nil {
		return 0, sum, err
	}
	sum, err = i.HashAt(ctx, index)
	return index, sum, err
}

// HashAt returns this member's hash at an index that Hash has returned, here or on another
// member. It waits until the index is applied here and the hash is made. The last 16 are
// kept.
func (i ImageCalls) HashAt(ctx context.Context, index uint64) (sum [32]byte, err error) {
	if err := i.node.readers.settle(ctx, AtLeast(index)); err != nil {
		return sum, err
	}
	h := i.node.hasher
	for {
		changed := h.changed.Next()
		one, ok := h.result(index)
		if !ok || one.done {
			return one.sum, one.err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return sum, ctx.Err()
		case <-i.node.end.stop:
			return sum, i.node.Err()
		case <-i.node.end.failed:
			return sum, i.node.Err()
		}
	}
}

// hasher makes hashes of images, one at a time. While one is made another image may wait,
// and a later one takes its place, so at most two keep files from being removed.
type hasher struct {
	node *Node
	// held is the last entry that the log has held since before the start: marks up to there
	// are old. It falls when whoever leads puts others in the place of entries at the log's end.
	held atomic.Uint64

	wake    bell.Bell
	changed broadcast.Broadcast

	mu      sync.Mutex
	waiting *held
	ended   bool
	results []hashed // the newest last
}

type hashed struct {
	index uint64
	done  bool
	sum   [32]byte
	err   error
}

const hashesKept = 16

// take takes an image from Apply.
func (h *hasher) take(image *state.Image) {
	i := h.node.state.hold(image)
	h.mu.Lock()
	old := h.waiting
	if i.Index() <= h.held.Load() || i.Joining() || h.ended {
		old = i
	} else {
		h.waiting = i
		if h.results = append(h.results, hashed{index: i.Index()}); len(h.results) > hashesKept {
			h.results = h.results[1:]
		}
	}
	h.mu.Unlock()
	if old == i {
		_ = i.Close() // of a reader
		return
	}
	if old != nil {
		_ = old.Close()
		h.note(hashed{index: old.Index(), err: fmt.Errorf("%w: %d: a later one took its place", ErrNoHash, old.Index())})
	}
	h.wake.Ring()
}

// stored notes that an entry is about to be stored, and so that all from there on are new.
func (h *hasher) stored(index uint64) {
	if index <= h.held.Load() { // only the appender changes it
		h.held.Store(index - 1)
	}
}

func (h *hasher) loop() {
	for {
		select {
		case <-h.wake.Rung():
		case <-h.node.end.stop:
			return
		case <-h.node.end.failed:
			return
		}
		h.mu.Lock()
		i := h.waiting
		h.waiting = nil
		h.mu.Unlock()
		if i == nil {
			continue
		}
		sum, err := i.Sum(context.Background(), h.node.pace)
		_ = i.Close()
		h.note(hashed{index: i.Index(), sum: sum, err: err})
	}
}

// note notes a result, whose place take has made.
func (h *hasher) note(r hashed) {
	r.done = true
	h.mu.Lock()
	for n := range h.results {
		if h.results[n].index == r.index {
			h.results[n] = r
		}
	}
	h.mu.Unlock()
	h.changed.Send()
}

// result returns what is known of an index; an error in it, and false, if nothing is.
func (h *hasher) result(index uint64) (hashed, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.results {
		if r.index == index {
			return r, true
		}
	}
	return hashed{err: fmt.Errorf("%w: %d", ErrNoHash, index)}, false
}

// drop closes the image that waits, and takes no other. The loop has ended.
func (h *hasher) drop() {
	h.mu.Lock()
	i := h.waiting
	h.waiting, h.ended = nil, true
	h.mu.Unlock()
	if i != nil {
		_ = i.Close()
	}
}

// pace waits as long as reading so many bytes may take.
func (i ImageCalls) pace(ctx context.Context, bytes int) error {
	timer := time.NewTimer(time.Duration(int64(bytes) * int64(time.Second) / i.node.opt.ScanBytes))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-i.node.end.stop:
	case <-i.node.end.failed:
	}
	return i.node.Err()
}
