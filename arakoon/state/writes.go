package state

import (
	"bytes"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// writes is what a batch of entries has written so far, on top of what Pebble holds;
// nothing else is written to Pebble meanwhile. If many commands write one key, a counter
// for example, only the last value reaches Pebble. Keys are as Pebble has them.
type writes struct {
	db     *pebble.DB
	recent *recent          // nil for a trial
	gets   int              // that Pebble had to answer
	seeker *pebble.Iterator // made by the first gets

	at      map[string]int // of a key in entries
	entries []written
	journal []replaced // of the command that is being run

	arena []byte // room for values
	key   []byte // room for a key

	track   bool  // touched is wanted
	touched []int // entries that commands of the current entry of the log wrote, which did not fail
	leased  bool  // leases are among what was written
	marks   int   // that were met

	ranged *pebble.Batch // indexed; made by the first range that is read
	behind []int         // entries that are newer than in ranged
}

type written struct {
	key     string
	value   []byte // nil: deleted
	dropped bool   // only commands that failed wrote it
}

// replaced is what an entry was before a command wrote it.
type replaced struct {
	entry   int
	value   []byte
	dropped bool
}

// newWrites begins a batch. It uses the memory of the one before, which is closed.
func newWrites(s *State) *writes {
	w := &s.writes
	w.db, w.recent = s.db, s.recent
	if w.at == nil {
		w.at = map[string]int{}
	}
	return w
}

// trial says that nothing of this will reach Pebble.
func (w *writes) trial() bool { return w.recent == nil }

// keepEntries is the number of entries above which their memory is not used again.
const keepEntries = 4096

// get returns a key's value, nil if it is absent. It is not to be changed.
func (w *writes) get(key []byte) ([]byte, error) {
	if i, ok := w.at[string(key)]; ok && !w.entries[i].dropped {
		return w.entries[i].value, nil
	}
	if w.recent == nil {
		return w.stored(key)
	}
	if v, ok := w.recent.get(key); ok {
		return v, nil
	}
	v, err := w.stored(key)
	if v != nil {
		w.recent.put(string(key), v)
	}
	return v, err
}

// seekAfter is how many gets of a batch are made without an iterator. Making one costs
// as much as some gets; from then on it is faster, as it keeps open what it has opened.
const seekAfter = 4

// stored returns a key's value in Pebble.
func (w *writes) stored(key []byte) ([]byte, error) {
	if w.gets++; w.gets <= seekAfter {
		v, _, err := get(w.db, key)
		return v, err
	}
	if w.seeker == nil {
		it, err := w.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
		if err != nil {
			return nil, err
		}
		w.seeker = it
	}
	if !w.seeker.SeekPrefixGE(key) || !bytes.Equal(w.seeker.Key(), key) {
		return nil, damaged(w.seeker.Error())
	}
	v, err := w.seeker.ValueAndErr()
	if err != nil {
		return nil, damaged(err)
	}
	return append(make([]byte, 0, len(v)), v...), nil
}

// set sets a key, or deletes it if value is nil. The value is kept.
func (w *writes) set(key, value []byte) {
	i, ok := w.at[string(key)]
	if !ok {
		i = len(w.entries)
		w.entries = append(w.entries, written{key: string(key), dropped: true})
		w.at[w.entries[i].key] = i
	}
	e := &w.entries[i]
	w.journal = append(w.journal, replaced{i, e.value, e.dropped})
	e.value, e.dropped = value, false
	if w.ranged != nil {
		w.behind = append(w.behind, i)
	}
}

// arenaSize is how many bytes for values are allocated at once, and the size
// above which a value gets its own.
const (
	arenaSize = 32 << 10
	arenaMax  = 4 << 10
)

// copy returns a copy of a value, never nil. Whoever holds the copy holds its neighbours
// in memory too, so what outlives the batch is copied once more.
func (w *writes) copy(value []byte) []byte {
	if len(value) > arenaMax {
		return append(make([]byte, 0, len(value)), value...)
	}
	if cap(w.arena)-len(w.arena) < len(value) || w.arena == nil {
		w.arena = make([]byte, 0, arenaSize)
	}
	at := len(w.arena)
	w.arena = append(w.arena, value...)
	return w.arena[at:len(w.arena):len(w.arena)]
}

// begin begins a command: undo goes back to here.
func (w *writes) begin() { w.journal = w.journal[:0] }

// undo takes back all that the command wrote, as it has failed.
func (w *writes) undo() {
	for _, r := range slices.Backward(w.journal) {
		w.entries[r.entry].value, w.entries[r.entry].dropped = r.value, r.dropped
	}
	if len(w.journal) > 0 {
		w.forgetRanged()
	}
	w.journal = w.journal[:0]
}

// touch notes what the command wrote, which has not failed.
func (w *writes) touch() {
	if w.track {
		for _, j := range w.journal {
			w.touched = append(w.touched, j.entry)
		}
	}
}

func (w *writes) forgetRanged() {
	if w.ranged != nil {
		_ = w.ranged.Close()
	}
	w.ranged, w.behind = nil, nil
}

// reader returns what ranges are read from. An iterator over it does not see what is
// set later.
func (w *writes) reader() (pebble.Reader, error) {
	if len(w.entries) == 0 {
		return w.db, nil
	}
	if w.ranged == nil {
		w.ranged = w.db.NewIndexedBatch()
		return w.ranged, w.fill(w.ranged)
	}
	for _, i := range w.behind {
		if err := putTo(w.ranged, &w.entries[i]); err != nil {
			return nil, err
		}
	}
	w.behind = w.behind[:0]
	return w.ranged, nil
}

// fill puts all writes into a batch, ordered by key: Pebble then finds the place of each
// key in the memtable from that of the key before.
func (w *writes) fill(b *pebble.Batch) error {
	order := make([]*written, len(w.entries))
	for i := range w.entries {
		order[i] = &w.entries[i]
	}
	slices.SortFunc(order, func(a, b *written) int { return strings.Compare(a.key, b.key) })
	for _, e := range order {
		if err := putTo(b, e); err != nil {
			return err
		}
	}
	return nil
}

func putTo(b *pebble.Batch, e *written) error {
	switch {
	case e.dropped:
		return nil
	case e.value == nil:
		op := b.DeleteDeferred(len(e.key))
		copy(op.Key, e.key)
		return op.Finish()
	}
	op := b.SetDeferred(len(e.key), len(e.value))
	copy(op.Key, e.key)
	copy(op.Value, e.value)
	return op.Finish()
}

// apply applies all to Pebble at once.
func (w *writes) apply() error {
	b := w.db.NewBatch()
	defer b.Close()
	if err := w.fill(b); err != nil {
		return err
	}
	if err := w.db.Apply(b, pebble.NoSync); err != nil {
		return err
	}
	for i := range w.entries {
		if e := &w.entries[i]; !e.dropped {
			w.recent.update(e.key, e.value)
		}
	}
	return nil
}

// close lets go of what is open and of all writes. An error of the seeker is dropped: get
// has returned it already.
func (w *writes) close() {
	w.forgetRanged()
	if w.seeker != nil {
		_ = w.seeker.Close()
	}
	if len(w.entries) > keepEntries || cap(w.journal) > keepEntries || cap(w.touched) > keepEntries {
		*w = writes{at: map[string]int{}}
		return
	}
	clear(w.at)
	clear(w.entries)
	journal := w.journal[:cap(w.journal)]
	clear(journal)
	*w = writes{at: w.at, entries: w.entries[:0], journal: journal[:0], arena: w.arena, key: w.key, touched: w.touched[:0]}
}

// Bounds of recent, in bytes.
const (
	recentMax      = 512 << 10 // of a generation
	recentValueMax = 4 << 10
	recentEntry    = 64 // what an entry takes beside its bytes
)

// recent is a cache of keys that commands have read lately, such as counters. A key that
// is deleted stays in the cache as absent. A key that was not found does not enter it:
// most such keys are asked for once.
//
// Apply alone writes to Pebble, and updates the cache. The cache has two generations.
// Whatever is used moves to the newer one; when that is full, the older one is dropped.
type recent struct {
	newer, older map[string][]byte
	bytes        int // of newer
}

func (r *recent) get(key []byte) ([]byte, bool) {
	if v, ok := r.newer[string(key)]; ok {
		return v, true
	}
	v, ok := r.older[string(key)]
	if ok {
		r.put(string(key), v)
	}
	return v, ok
}

func (r *recent) put(key string, value []byte) {
	size := len(key) + len(value) + recentEntry
	if size > recentValueMax {
		return
	}
	if r.newer == nil || r.bytes+size > recentMax {
		r.newer, r.older, r.bytes = map[string][]byte{}, r.newer, 0
	}
	r.newer[key] = value
	r.bytes += size
}

// update notes a copy of a new value of a key, if the cache has the key.
func (r *recent) update(key string, value []byte) {
	_, newer := r.newer[key]
	_, older := r.older[key]
	if !newer && !older {
		return
	}
	delete(r.newer, key)
	delete(r.older, key)
	r.put(key, bytes.Clone(value))
}
