package state

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"openvstorage/internal/broadcast"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Event is what a revision has made of a key.
type Event struct {
	Key, Value []byte // not to be changed
	Deleted    bool   // Value is nil then
}

// Events are all that a revision has done to the keys that are watched, ascending by key,
// with one event for each key. An empty List says that the watcher has been told of all up
// to Revision.
type Events struct {
	Revision uint64
	List     []Event
}

// ErrCompacted is the error of a watch from a revision of which the events are not kept any
// more. The watcher reads what it watches, and goes on from behind what it has read.
type ErrCompacted struct {
	First uint64 // the earliest revision that a watch may begin at
}

func (e *ErrCompacted) Error() string {
	return fmt.Sprintf("arakoon: events before revision %d are not kept any more; read the keys, and watch from there", e.First)
}

// HistoryOptions bound a History; zero values get the defaults.
type HistoryOptions struct {
	Bytes     int // of keys and values, with what an event takes beside them; default 16 MiB
	Revisions int // with events; default 65536
	Watchers  int // at once; default 4096
}

// eventSize is what an event takes beside its key and value.
const eventSize = 96

// History keeps the newest events in memory for those who watch. Applying fills it; nothing
// of it is on disk, so after a start it is empty. While a group of one has no watcher
// nothing is recorded, and a group of several always records, so that watchers can go on at
// another member. A nil History records nothing.
//
// Apply takes only History.mu, and for moments. A goroutine that runs while there are
// watchers finds out whom an event concerns, however many they are.
type History struct {
	opt HistoryOptions

	mu        sync.Mutex
	first     uint64 // of all revisions from here to last the events are there
	last      uint64 // applied
	kept      []revision
	bytes     int
	blind     bool                // a batch is being applied and not recorded
	wanted    bool                // by watchers, of now or of a while ago
	unwatched int                 // bytes recorded since the last watcher has gone
	watched   int                 // watchers
	settled   broadcast.Broadcast // blind has become false
	work      chan struct{}       // wakes the dispatcher

	dispatch dispatch
}

// revision is what one revision did. It does not change any more.
type revision struct {
	index uint64
	bytes int
	list  []Event // keys as in Pebble
}

// NewHistory makes an empty history, which gets its place in the log from a State.
func NewHistory(opt HistoryOptions) *History {
	if opt.Bytes == 0 {
		opt.Bytes = 16 << 20
	}
	if opt.Revisions == 0 {
		opt.Revisions = 65536
	}
	if opt.Watchers == 0 {
		opt.Watchers = 4096
	}
	h := &History{opt: opt, first: 1, work: make(chan struct{}, 1)}
	h.dispatch.watchers = map[*Watcher]bool{}
	h.dispatch.prefixes = map[string]map[*Watcher]bool{}
	return h
}

// recording is what a batch of entries does, until it is published. Nil: not recorded.
type recording struct {
	list   []revision
	bytes  int
	room   []byte  // for keys and values
	spare  []Event // for lists
	listed int     // events that the last allocation had
}

func (r *recording) recorded() bool { return r != nil }

// begin begins a batch of entries, which is applied with these members.
func (h *History) begin(conf *pb.ConfState) *recording {
	if h == nil {
		return nil
	}
	alone := len(conf.GetVoters())+len(conf.GetLearners())+len(conf.GetVotersOutgoing()) <= 1
	h.mu.Lock()
	defer h.mu.Unlock()
	if alone && !h.wanted {
		h.blind = true
		return nil
	}
	return new(recording)
}

// add notes what an entry wrote.
func (r *recording) add(index uint64, b *writes) {
	if r == nil || len(b.touched) == 0 {
		return
	}
	slices.Sort(b.touched)
	touched := slices.Compact(b.touched)
	touched = slices.DeleteFunc(touched, func(i int) bool { k := b.entries[i].key[0]; return k != userPrefix[0] && k != leasePrefix[0] })
	slices.SortFunc(touched, func(i, j int) int { return strings.Compare(b.entries[i].key, b.entries[j].key) })
	b.touched = b.touched[:0]
	if len(touched) == 0 {
		return
	}
	one := revision{index: index, list: r.lists(len(touched))}
	for _, i := range touched {
		one.bytes += len(b.entries[i].key) + len(b.entries[i].value)
	}
	r.reserve(one.bytes)
	for n, i := range touched {
		e := &b.entries[i]
		one.list[n] = Event{Key: copyTo(r, e.key), Deleted: e.value == nil}
		if e.value != nil {
			one.list[n].Value = copyTo(r, e.value)
		}
	}
	one.bytes += len(touched) * eventSize
	r.bytes += one.bytes
	r.list = append(r.list, one)
}

// lists returns room for n events. The revisions of a batch share allocations, which
// grow: most batches have one revision, with one event.
func (r *recording) lists(n int) []Event {
	if len(r.spare) < n {
		r.listed = max(n, min(2*r.listed, 64))
		r.spare = make([]Event, r.listed)
	}
	list := r.spare[:n:n]
	r.spare = r.spare[n:]
	return list
}

// reserve makes room for the keys and values of a revision.
func (r *recording) reserve(n int) {
	if cap(r.room)-len(r.room) < n {
		r.room = make([]byte, 0, max(n, min(2*cap(r.room), arenaSize)))
	}
}

// copyTo returns a copy, never nil, in the room that is reserved. Whoever holds it holds
// the revision's other events in memory too, and those of its neighbours.
func copyTo[T string | []byte](r *recording, b T) []byte {
	at := len(r.room)
	r.room = append(r.room, b...)
	return r.room[at:len(r.room):len(r.room)]
}

// publish makes visible what a batch has done, which is applied up to an index.
func (h *History) publish(r *recording, index uint64) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = index
	if r == nil {
		h.forget(index)
		h.blind = false
		h.settled.Send()
		return
	}
	h.kept = append(h.kept, r.list...)
	h.bytes += r.bytes
	h.evict()
	if h.watched > 0 {
		select {
		case h.work <- struct{}{}:
		default:
		}
		return
	}
	if h.unwatched += r.bytes; h.unwatched > h.opt.Bytes && h.wanted {
		h.wanted = false // a group of several records all the same
	}
}

// forget drops all events: what came up to an index is not known; mu is held.
func (h *History) forget(index uint64) {
	h.first, h.kept, h.bytes = index+1, nil, 0
}

// evict drops the oldest revisions above the bounds; mu is held.
func (h *History) evict() {
	n := 0
	for n < len(h.kept) && (h.bytes > h.opt.Bytes || len(h.kept)-n > h.opt.Revisions) {
		h.bytes -= h.kept[n].bytes
		h.first = h.kept[n].index + 1
		h.kept[n] = revision{}
		n++
	}
	h.kept = h.kept[n:]
}

// abort ends a batch that was not published, as it has failed.
func (h *History) abort(r *recording) {
	if h == nil || r != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.blind {
		h.blind = false
		h.settled.Send()
	}
}

// Reset says that the state is that of an index, whatever it was before: it was opened, or
// another one was installed. Watchers who have not been told of all up to there get
// ErrCompacted. A batch must not be under way.
func (h *History) Reset(index uint64) {
	if h == nil {
		return
	}
	h.dispatch.mu.Lock()
	defer h.dispatch.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if index == h.last {
		return
	}
	h.last = index
	h.forget(index)
	h.dispatch.lose(index)
}

// span returns up to n revisions from an index on, and the index up to which they are all
// that there is. It fails if events from there on are missing.
func (h *History) span(from uint64, n int) (list []revision, upTo uint64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if from < h.first {
		return nil, 0, &ErrCompacted{First: h.first}
	}
	at := sort.Search(len(h.kept), func(i int) bool { return h.kept[i].index >= from })
	rest := h.kept[at:]
	if len(rest) > n {
		list = slices.Clone(rest[:n])
		return list, list[n-1].index, nil
	}
	return slices.Clone(rest), max(h.last, from-1), nil
}

func hasPrefix(e Event, prefix string) bool {
	return len(e.Key) >= len(prefix) && string(e.Key[:len(prefix)]) == prefix
}

// of returns what a revision did to the keys with a prefix, which are as in Pebble; those
// that are returned are as users have them.
func (r revision) of(prefix string) (list []Event, size int) {
	at := sort.Search(len(r.list), func(i int) bool { return bytes.Compare(r.list[i].Key, []byte(prefix)) >= 0 })
	for _, e := range r.list[at:] {
		if !hasPrefix(e, prefix) {
			break
		}
		size += len(e.Key) + len(e.Value) + eventSize
		e.Key = e.Key[1:]
		list = append(list, e)
	}
	return list, size
}
