package asd

import (
	"bytes"

	"openvstorage/alba/osd"
)

// admit checks the asserts of a request and adds its updates to the batch. What the
// batch holds already counts as applied.
func (w *writer) admit(b *batch, r *request) error {
	for i := range r.asserts {
		s := &r.asserts[i]
		ok, err := w.holds(b, s)
		if err != nil {
			return err
		}
		if !ok {
			return &osd.AssertError{Key: bytes.Clone(s.Key)}
		}
	}
	for i := range r.updates {
		if u := &r.updates[i]; r.skip == nil || !r.skip[i] {
			if u.Delete {
				w.addDelete(b, u.Key)
			} else {
				b.add(entry{Key: u.Key, Size: uint32(len(u.Value.Data)), Seed: u.Value.Seed, Epoch: u.Value.Epoch}, u.Value)
			}
		}
	}
	for i := range r.moves {
		w.addMove(b, &r.moves[i])
	}
	return nil
}

// addDelete adds a delete of a key that is there.
func (w *writer) addDelete(b *batch, key []byte) {
	i, ok := b.overlay[string(key)]
	if ok && b.entries[i].Delete {
		return
	}
	if !ok {
		if _, ok := w.contents.place(key); !ok {
			return
		}
	}
	// append sets Since when it knows the segment.
	b.add(entry{Key: key, Delete: true}, osd.Value{})
}

// addMove adds an entry that compaction writes again, if it still counts: nobody has
// put or deleted the key since.
func (w *writer) addMove(b *batch, m *move) {
	key := m.update.Key
	if _, ok := b.overlay[string(key)]; ok {
		return
	}
	p, ok := w.contents.place(key)
	if m.update.Delete {
		if !ok {
			b.add(entry{Key: key, Delete: true, Since: m.since}, osd.Value{})
			b.moved = true
		}
		return
	}
	if ok && p == m.from {
		v := m.update.Value
		b.add(entry{Key: key, Size: uint32(len(v.Data)), Seed: v.Seed, Epoch: v.Epoch}, v)
		b.moved = true
	}
}

// holds reports whether an assert holds.
func (w *writer) holds(b *batch, s *osd.Assert) (bool, error) {
	if i, ok := b.overlay[string(s.Key)]; ok {
		e := &b.entries[i]
		switch s.Kind {
		case osd.Exists:
			return !e.Delete, nil
		case osd.Absent:
			return e.Delete, nil
		case osd.NotNewer:
			return e.Delete || e.Epoch <= s.Epoch, nil
		}
		return !e.Delete && bytes.Equal(b.values[i].Data, s.Value), nil
	}
	p, ok := w.contents.place(s.Key)
	switch s.Kind {
	case osd.Exists:
		return ok, nil
	case osd.Absent:
		return !ok, nil
	case osd.NotNewer:
		return !ok || p.epoch <= s.Epoch, nil
	}
	if !ok || int(p.size) != len(s.Value) {
		return false, nil
	}
	have := w.reader.buffer()
	defer w.reader.putBuffer(have)
	var crcs [1]uint32
	if err := w.reader.read(s.Key, 0, have[:p.size], crcs[:osd.Blocks(int(p.size))]); err != nil {
		return false, err
	}
	return bytes.Equal(have[:p.size], s.Value), nil
}
