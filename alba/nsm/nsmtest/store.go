package nsmtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"openvstorage/alba/nsm/userfn"
)

// Store runs functions on an ordered map. It implements userfn.Caller and
// userfn.Reader, and is safe for concurrent use.
type Store struct {
	mu        sync.Mutex
	tx        memory
	functions []userfn.Function
}

// New makes an empty store that knows the given functions. Its time stands at
// 1 until SetTime.
func New(functions ...userfn.Function) *Store {
	return &Store{functions: functions, tx: memory{now: 1}}
}

// SetTime sets what the next calls see as time.
func (s *Store) SetTime(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tx.now = now
}

// Call runs a function; what it wrote before an error is undone.
func (s *Store) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.functions {
		if f.Name != name || f.Version != version {
			continue
		}
		s.tx.undo = s.tx.undo[:0]
		result, err := f.Run(&s.tx, arg)
		if err != nil {
			s.tx.rollback()
			return nil, err
		}
		return bytes.Clone(result), nil
	}
	return nil, fmt.Errorf("no function %s version %d", name, version)
}

// View calls fn with the state, which fn must not change.
func (s *Store) View(fn func(tx userfn.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fn(&s.tx)
}

// Edit calls fn with the state, to damage it on purpose.
func (s *Store) Edit(fn func(tx userfn.Tx)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(&s.tx)
}

// MultiGet implements userfn.Reader.
func (s *Store) MultiGet(ctx context.Context, keys [][]byte, _ userfn.Consistency) ([][]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	values := make([][]byte, len(keys))
	for i, key := range keys {
		if v, ok := s.tx.Get(key); ok {
			values[i] = append([]byte{}, v...)
		}
	}
	return values, nil
}

// Range implements userfn.Reader.
func (s *Store) Range(ctx context.Context, first, last []byte, limit int, _ userfn.Consistency) ([]userfn.Pair, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var pairs []userfn.Pair
	s.tx.Range(first, last, limit, func(k, v []byte) bool {
		pairs = append(pairs, userfn.Pair{Key: bytes.Clone(k), Value: append([]byte{}, v...)})
		return true
	})
	return pairs, nil
}

// Dump returns every key and value, with lengths, in order: equal states have
// equal dumps.
func (s *Store) Dump() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b []byte
	for _, p := range s.tx.pairs {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p.Key)))
		b = append(b, p.Key...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p.Value)))
		b = append(b, p.Value...)
	}
	return b
}

// memory is an ordered map with an undo log.
type memory struct {
	pairs []userfn.Pair // sorted by key
	undo  []undo
	now   int64
}

type undo struct {
	key, value []byte
	had        bool
}

func (m *memory) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(m.pairs, key, func(p userfn.Pair, key []byte) int { return bytes.Compare(p.Key, key) })
}

func (m *memory) Get(key []byte) ([]byte, bool) {
	i, ok := m.find(key)
	if !ok {
		return nil, false
	}
	return m.pairs[i].Value, true
}

func (m *memory) Set(key, value []byte) {
	key, value = bytes.Clone(key), append([]byte{}, value...)
	i, ok := m.find(key)
	if ok {
		m.undo = append(m.undo, undo{key: key, value: m.pairs[i].Value, had: true})
		m.pairs[i].Value = value
		return
	}
	m.undo = append(m.undo, undo{key: key})
	m.pairs = slices.Insert(m.pairs, i, userfn.Pair{Key: key, Value: value})
}

func (m *memory) Delete(key []byte) {
	i, ok := m.find(key)
	if !ok {
		return
	}
	m.undo = append(m.undo, undo{key: m.pairs[i].Key, value: m.pairs[i].Value, had: true})
	m.pairs = slices.Delete(m.pairs, i, i+1)
}

// rollback undoes everything since undo was emptied.
func (m *memory) rollback() {
	log := m.undo
	m.undo = nil
	for _, u := range slices.Backward(log) {
		if u.had {
			m.Set(u.key, u.value)
		} else {
			m.Delete(u.key)
		}
	}
	m.undo = log[:0]
}

// interval returns where the keys from first to last are.
func (m *memory) interval(first, last []byte) (from, to int) {
	from, _ = m.find(first)
	to = len(m.pairs)
	if last != nil {
		to, _ = m.find(last)
	}
	return from, max(from, to)
}

func (m *memory) Range(first, last []byte, limit int, fn func(key, value []byte) bool) {
	from, to := m.interval(first, last)
	for _, p := range m.pairs[from:min(to, from+max(limit, 0))] {
		if !fn(p.Key, p.Value) {
			return
		}
	}
}

func (m *memory) Reverse(first, last []byte, limit int, fn func(key, value []byte) bool) {
	from, to := m.interval(first, last)
	for _, p := range slices.Backward(m.pairs[max(from, to-max(limit, 0)):to]) {
		if !fn(p.Key, p.Value) {
			return
		}
	}
}

func (m *memory) Time() int64 { return m.now }
