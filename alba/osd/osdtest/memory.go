package osdtest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"

	"openvstorage/alba/osd"

	"github.com/google/uuid"
)

// Memory is an OSD in memory. It is the contract, sentence by sentence, in the plainest
// code that keeps it. When it is dropped its data is gone.
type Memory struct {
	id       uuid.UUID
	capacity uint64

	mu       sync.RWMutex // guards all below
	values   map[string]*value
	keys     []string // of values, sorted; nil: to be made again
	used     uint64
	full     bool
	readOnly error
	closed   bool
}

// value is never changed once it is stored, except by Corrupt.
type value struct {
	data  []byte
	crcs  []uint32
	seed  uint64
	epoch uint64
}

// NewMemory returns an empty OSD that holds capacity bytes, keys and checksums
// included.
func NewMemory(id uuid.UUID, capacity uint64) *Memory {
	return &Memory{id: id, capacity: capacity, values: make(map[string]*value)}
}

// Corrupt flips a bit of the byte at offset of a stored value, which Read and
// Verify then find. It reports whether there is such a byte.
func (m *Memory) Corrupt(key []byte, offset int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.values[string(key)]
	if v == nil || offset < 0 || offset >= len(v.data) {
		return false
	}
	v.data[offset] ^= 0x10
	return true
}

// SetFull makes the OSD refuse puts, as if its disk had no room, or take them
// again.
func (m *Memory) SetFull(full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full = full
}

// SetReadOnly makes the OSD refuse every Apply for a reason; nil ends that.
func (m *Memory) SetReadOnly(reason error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.readOnly = reason
}

// Close makes all further calls fail with osd.ErrClosed.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// ID implements osd.OSD.
func (m *Memory) ID() uuid.UUID { return m.id }

// size is what a value costs.
func size(key string, v *value) uint64 {
	if v == nil {
		return 0
	}
	return uint64(len(key) + len(v.data) + 4*len(v.crcs))
}

func (m *Memory) usableLocked(ctx context.Context) error {
	if m.closed {
		return osd.ErrClosed
	}
	return ctx.Err()
}

// Apply implements osd.OSD.
func (m *Memory) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	if err := checkApply(asserts, updates); err != nil {
		return err
	}
	next := make(map[string]*value) // nil: deleted
	for _, u := range updates {
		if u.Delete {
			next[string(u.Key)] = nil
			continue
		}
		crcs := osd.AppendCRCs(nil, u.Value.Seed, 0, u.Value.Data)
		if !slices.Equal(crcs, u.Value.CRCs) {
			return fmt.Errorf("put of %x: %w: CRCs are %08x, not %08x", u.Key, osd.ErrCorrupt, crcs, u.Value.CRCs)
		}
		next[string(u.Key)] = &value{bytes.Clone(u.Value.Data), crcs, u.Value.Seed, u.Value.Epoch}
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(ctx); err != nil {
		return err
	}
	if m.readOnly != nil {
		return fmt.Errorf("%w: %w", osd.ErrReadOnly, m.readOnly)
	}
	for _, a := range asserts {
		if !m.holdsLocked(a) {
			return &osd.AssertError{Key: bytes.Clone(a.Key)}
		}
	}
	used, puts := m.used, false
	for k, v := range next {
		used += size(k, v) - size(k, m.values[k])
		puts = puts || v != nil
	}
	if puts && (m.full || used > m.capacity) {
		return fmt.Errorf("%w: %d of %d bytes are used, %d would be", osd.ErrFull, m.used, m.capacity, used)
	}
	for k, v := range next {
		if v == nil {
			delete(m.values, k)
		} else {
			m.values[k] = v
		}
	}
	m.used, m.keys = used, nil
	return nil
}

func (m *Memory) holdsLocked(a osd.Assert) bool {
	v := m.values[string(a.Key)]
	switch a.Kind {
	case osd.Exists:
		return v != nil
	case osd.Absent:
		return v == nil
	case osd.NotNewer:
		return v == nil || v.epoch <= a.Epoch
	default:
		return v != nil && bytes.Equal(v.data, a.Value)
	}
}

func checkKey(key []byte) error {
	if len(key) == 0 || len(key) > osd.KeyMax {
		return fmt.Errorf("%w: key of %d bytes", osd.ErrInvalid, len(key))
	}
	return nil
}

func checkApply(asserts []osd.Assert, updates []osd.Update) error {
	if len(asserts) > osd.UpdatesMax || len(updates) > osd.UpdatesMax {
		return fmt.Errorf("%w: %d asserts and %d updates", osd.ErrInvalid, len(asserts), len(updates))
	}
	for _, a := range asserts {
		if err := checkKey(a.Key); err != nil {
			return err
		}
		if a.Kind < osd.Exists || a.Kind > osd.NotNewer || a.Kind == osd.Equals && len(a.Value) > osd.BlockSize {
			return fmt.Errorf("%w: assert of kind %d with %d bytes", osd.ErrInvalid, a.Kind, len(a.Value))
		}
	}
	total := 0
	for _, u := range updates {
		if err := checkKey(u.Key); err != nil {
			return err
		}
		if u.Delete {
			continue
		}
		n := len(u.Value.Data)
		if total += n; n > osd.ValueMax || total > osd.ApplyMax || len(u.Value.CRCs) != osd.Blocks(n) {
			return fmt.Errorf("%w: value of %d bytes with %d CRCs, %d bytes in all", osd.ErrInvalid, n, len(u.Value.CRCs), total)
		}
	}
	return nil
}

// Read implements osd.OSD.
func (m *Memory) Read(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	if err := checkKey(key); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.usableLocked(ctx); err != nil {
		return err
	}
	v := m.values[string(key)]
	if v == nil {
		return fmt.Errorf("%w: %x", osd.ErrNotFound, key)
	}
	end := uint64(off) + uint64(len(p))
	if end > uint64(len(v.data)) || off%osd.BlockSize != 0 || len(crcs) != osd.Blocks(len(p)) ||
		len(p)%osd.BlockSize != 0 && end != uint64(len(v.data)) {
		return fmt.Errorf("%w: %d bytes and %d CRCs at %d of the %d bytes of %x", osd.ErrInvalid, len(p), len(crcs), off, len(v.data), key)
	}
	first := int(off / osd.BlockSize)
	if err := v.check(key, first, len(crcs)); err != nil {
		return err
	}
	copy(p, v.data[off:])
	copy(crcs, v.crcs[first:])
	return nil
}

// check compares n blocks with their checksums.
func (v *value) check(key []byte, first, n int) error {
	for i := first; i < first+n; i++ {
		at := i * osd.BlockSize
		block := v.data[at:min(at+osd.BlockSize, len(v.data))]
		if got := osd.BlockCRC(v.seed, uint32(i), block); got != v.crcs[i] {
			return fmt.Errorf("%w: %x at %d: CRC is %08x, not %08x", osd.ErrCorrupt, key, at, got, v.crcs[i])
		}
	}
	return nil
}

// Stat implements osd.OSD.
func (m *Memory) Stat(ctx context.Context, keys [][]byte) ([]osd.Info, error) {
	if len(keys) > osd.RangeMax {
		return nil, fmt.Errorf("%w: %d keys", osd.ErrInvalid, len(keys))
	}
	for _, k := range keys {
		if err := checkKey(k); err != nil {
			return nil, err
		}
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.usableLocked(ctx); err != nil {
		return nil, err
	}
	infos := make([]osd.Info, len(keys))
	for i, k := range keys {
		infos[i].Key = bytes.Clone(k)
		if v := m.values[string(k)]; v != nil {
			infos[i] = v.info(string(k))
		}
	}
	return infos, nil
}

func (v *value) info(key string) osd.Info {
	return osd.Info{Key: []byte(key), Found: true, Size: uint32(len(v.data)), Epoch: v.epoch}
}

// fromLocked returns the keys from first on.
func (m *Memory) fromLocked(first []byte) []string {
	if m.keys == nil {
		m.keys = make([]string, 0, len(m.values))
		for k := range m.values {
			m.keys = append(m.keys, k)
		}
		slices.Sort(m.keys)
	}
	return m.keys[sort.SearchStrings(m.keys, string(first)):]
}

// Range implements osd.OSD.
func (m *Memory) Range(ctx context.Context, first, last []byte, limit int) ([]osd.Info, error) {
	if len(first) > osd.KeyMax || len(last) > osd.KeyMax || limit < 0 || limit > osd.RangeMax {
		return nil, fmt.Errorf("%w: range of %d keys between keys of %d and %d bytes", osd.ErrInvalid, limit, len(first), len(last))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(ctx); err != nil {
		return nil, err
	}
	var infos []osd.Info
	for _, k := range m.fromLocked(first) {
		if len(infos) == limit || last != nil && k >= string(last) {
			break
		}
		infos = append(infos, m.values[k].info(k))
	}
	return infos, nil
}

// Verify implements osd.OSD.
func (m *Memory) Verify(ctx context.Context, after []byte, limit int) (bad []osd.Bad, next []byte, err error) {
	if len(after) > osd.KeyMax || limit < 1 {
		return nil, nil, fmt.Errorf("%w: verify of %d values behind a key of %d bytes", osd.ErrInvalid, limit, len(after))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usableLocked(ctx); err != nil {
		return nil, nil, err
	}
	keys := m.fromLocked(after)
	if after != nil && len(keys) > 0 && keys[0] == string(after) {
		keys = keys[1:]
	}
	for i, k := range keys {
		if i == limit {
			return bad, []byte(keys[i-1]), nil
		}
		v := m.values[k]
		if err := v.check([]byte(k), 0, len(v.crcs)); err != nil {
			bad = append(bad, osd.Bad{Key: []byte(k), Err: err})
		}
	}
	return bad, nil, nil
}

// Usage implements osd.OSD.
func (m *Memory) Usage(ctx context.Context) (osd.Usage, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.usableLocked(ctx); err != nil {
		return osd.Usage{}, err
	}
	u := osd.Usage{
		Used: m.used, Capacity: m.capacity, Keys: uint64(len(m.values)),
		// Less than a block is no room.
		Full:     m.full || m.capacity-m.used < osd.BlockSize,
		ReadOnly: m.readOnly,
	}
	if !u.Full && m.readOnly == nil {
		u.Room = m.capacity - m.used
	}
	return u, nil
}
