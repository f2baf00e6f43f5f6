package state

import (
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// writes is what a batch of entries has written so far, over what Pebble has.
// Of a key that many commands write, such as a counter, only the last value
// reaches Pebble. Keys are Pebble's.
type writes struct {
	db     *pebble.DB
	recent *recent
	all    map[string][]byte // nil: deleted
	ranged *pebble.Batch     // indexed; made by the first range that is read
	behind map[string]struct{}
}

func newWrites(db *pebble.DB, r *recent) *writes {
	return &writes{db: db, recent: r, all: map[string][]byte{}}
}

// get returns a key's value, nil if it is absent. It is not to be changed.
func (w *writes) get(key []byte) ([]byte, error) {
	if v, ok := w.all[string(key)]; ok {
		return v, nil
	}
	if v, ok := w.recent.get(key); ok {
		return v, nil
	}
	v, found, err := get(w.db, key)
	if found {
		w.recent.put(string(key), v)
	}
	return v, err
}

// set sets a key, or deletes it if value is nil. Both are kept.
func (w *writes) set(key string, value []byte) {
	w.all[key] = value
	if w.ranged != nil {
		w.behind[key] = struct{}{}
	}
}

// reader returns what ranges are read from. It is valid until the next set.
func (w *writes) reader() (pebble.Reader, error) {
	if len(w.all) == 0 {
		return w.db, nil
	}
	if w.ranged == nil {
		w.ranged, w.behind = w.db.NewIndexedBatch(), map[string]struct{}{}
		return w.ranged, w.fill(w.ranged)
	}
	for k := range w.behind {
		if err := putTo(w.ranged, k, w.all[k]); err != nil {
			return nil, err
		}
	}
	clear(w.behind)
	return w.ranged, nil
}

// fill puts all into a batch. In order a key's place in the memtable is found
// from the one before it.
func (w *writes) fill(b *pebble.Batch) error {
	for _, k := range slices.Sorted(maps.Keys(w.all)) {
		if err := putTo(b, k, w.all[k]); err != nil {
			return err
		}
	}
	return nil
}

func putTo(b *pebble.Batch, key string, value []byte) error {
	if value == nil {
		return b.Delete([]byte(key), nil)
	}
	return b.Set([]byte(key), value, nil)
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
	for k, v := range w.all {
		w.recent.update(k, v)
	}
	return nil
}

func (w *writes) close() {
	if w.ranged != nil {
		_ = w.ranged.Close()
	}
}

// Bounds of recent, in bytes.
const (
	recentMax      = 512 << 10 // of a generation
	recentValueMax = 4 << 10
	recentEntry    = 64 // what an entry takes beside its bytes
)

// recent is a cache of keys that commands have read lately, such as counters.
// A key that is deleted stays in it as absent; one that was not found does not
// come into it: most such keys are looked for once.
//
// Apply alone writes the store, and keeps the cache true. It is two generations: what
// is used moves to the newer one, and when that is full the older one goes.
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

// update notes a new value of a key, if the cache has the key.
func (r *recent) update(key string, value []byte) {
	_, newer := r.newer[key]
	_, older := r.older[key]
	if !newer && !older {
		return
	}
	delete(r.newer, key)
	delete(r.older, key)
	r.put(key, value)
}
