// Package nbdtest is for tests of NBD servers and devices. It has a device in memory, a device of any
// size that keeps no data, both with hooks for faults and delays, and exports of them. The suite for
// devices is in package devicetest.
package nbdtest

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"openvstorage/device"
	"openvstorage/nbd"
)

// Cluster is the unit of allocation of a Memory, in bytes.
const Cluster = 4096

// Op names a method of a device to a hook.
type Op int

// The methods.
const (
	OpTryRead Op = iota
	OpRead
	OpTryWrite
	OpWrite
	OpFlush
	OpTrim
	OpZero
	OpExtents
	OpPrefetch
	ops
)

// Memory is a device in memory. Its hook may be set before it is used.
type Memory struct {
	// Hook, if set, is called at the start of every operation, for a batch
	// with its first offset and the sum of its lengths. What it returns fails
	// the operation: device.ErrWouldBlock sends a Try away. It may wait: see Gate.
	Hook func(ctx context.Context, op Op, off, n int64) error

	mu      sync.RWMutex
	data    []byte
	used    []bool // clusters
	written int    // changes so far
	durable int    // of them flushed

	countMu sync.Mutex
	counts  [ops]int
}

// NewMemory returns a device of size zeros.
func NewMemory(size int64) *Memory {
	return &Memory{data: make([]byte, size), used: make([]bool, (size+Cluster-1)/Cluster)}
}

// Holding returns a device that holds data.
func Holding(data []byte) *Memory {
	m := NewMemory(int64(len(data)))
	m.put(0, data)
	return m
}

// ReadOnly hides that a device can be written.
func ReadOnly(d device.Reader) device.Reader { return struct{ device.Reader }{d} }

// Count tells how often an operation was called.
func (m *Memory) Count(op Op) int {
	m.countMu.Lock()
	defer m.countMu.Unlock()
	return m.counts[op]
}

// Unflushed tells how many changes a power cut would lose.
func (m *Memory) Unflushed() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.written - m.durable
}

// Resize changes the size.
func (m *Memory) Resize(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data = append(m.data, make([]byte, max(0, size-int64(len(m.data))))...)[:size]
	used := make([]bool, (size+Cluster-1)/Cluster)
	copy(used, m.used)
	m.used = used
}

func (m *Memory) enter(ctx context.Context, op Op, off, n int64) error {
	if m.Hook == nil {
		return nil
	}
	m.countMu.Lock()
	m.counts[op]++
	m.countMu.Unlock()
	return m.Hook(ctx, op, off, n)
}

// CountOnly is a hook that injects nothing: operations are only counted.
func CountOnly(context.Context, Op, int64, int64) error { return nil }

func batchRange(batch []device.Span) (off, n int64) {
	for _, s := range batch {
		n += int64(len(s.Data))
	}
	return batch[0].Off, n
}

func (m *Memory) Size() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return int64(len(m.data))
}

func (m *Memory) TryRead(p []byte, off int64) error {
	if err := m.enter(context.Background(), OpTryRead, off, int64(len(p))); err != nil {
		return err
	}
	m.get(p, off)
	return nil
}

func (m *Memory) Read(ctx context.Context, p []byte, off int64) error {
	if err := m.enter(ctx, OpRead, off, int64(len(p))); err != nil {
		return err
	}
	m.get(p, off)
	return nil
}

func (m *Memory) TryWrite(batch []device.Span) error {
	off, n := batchRange(batch)
	if err := m.enter(context.Background(), OpTryWrite, off, n); err != nil {
		return err
	}
	m.write(batch)
	return nil
}

func (m *Memory) Write(ctx context.Context, batch []device.Span) error {
	off, n := batchRange(batch)
	if err := m.enter(ctx, OpWrite, off, n); err != nil {
		return err
	}
	m.write(batch)
	return nil
}

func (m *Memory) write(batch []device.Span) {
	for _, s := range batch {
		m.put(s.Off, s.Data)
	}
}

func (m *Memory) get(p []byte, off int64) {
	m.mu.RLock()
	copy(p, m.data[off:off+int64(len(p))])
	m.mu.RUnlock()
}

func (m *Memory) put(off int64, p []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data[off:off+int64(len(p))], p)
	m.use(off, int64(len(p)), true)
	m.written++
}

func (m *Memory) use(off, n int64, used bool) {
	for c := off / Cluster; c*Cluster < off+n; c++ {
		m.used[c] = used
	}
}

func (m *Memory) Flush(ctx context.Context) error {
	m.mu.RLock()
	written := m.written
	m.mu.RUnlock()
	if err := m.enter(ctx, OpFlush, 0, 0); err != nil {
		return err
	}
	m.mu.Lock()
	m.durable = max(m.durable, written)
	m.mu.Unlock()
	return nil
}

func (m *Memory) Trim(ctx context.Context, off, n int64) error {
	if err := m.enter(ctx, OpTrim, off, n); err != nil {
		return err
	}
	m.zero(off, n, false)
	return nil
}

func (m *Memory) Zero(ctx context.Context, off, n int64, allocate bool) error {
	if err := m.enter(ctx, OpZero, off, n); err != nil {
		return err
	}
	m.zero(off, n, allocate)
	return nil
}

func (m *Memory) zero(off, n int64, allocate bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.data[off : off+n])
	m.written++
	if allocate {
		m.use(off, n, true)
		return
	}
	// Whole clusters; the last one of the device may be short.
	end := off + n
	if end < int64(len(m.data)) {
		end -= end % Cluster
	}
	if first := (off + Cluster - 1) / Cluster * Cluster; first < end {
		m.use(first, end-first, false)
	}
}

func (m *Memory) Extents(ctx context.Context, off, n int64, fn func(device.Extent) bool) error {
	if err := m.enter(ctx, OpExtents, off, n); err != nil {
		return err
	}
	m.mu.RLock()
	used := slices.Clone(m.used)
	m.mu.RUnlock()
	for end := off + n; off < end; {
		state, next := used[off/Cluster], off
		for next < end && used[next/Cluster] == state {
			next = min((next/Cluster+1)*Cluster, end)
		}
		if !fn(device.Extent{Length: next - off, Hole: !state, Zero: !state}) {
			break
		}
		off = next
	}
	return nil
}

func (m *Memory) Prefetch(ctx context.Context, off, n int64) error {
	return m.enter(ctx, OpPrefetch, off, n)
}

// Exports serves a fixed set of devices.
type Exports map[string]device.Reader

// Open finds a device.
func (e Exports) Open(_ context.Context, name string) (device.Reader, func(), error) {
	dev, ok := e[name]
	if !ok {
		return nil, nil, fmt.Errorf("no device %q: %w", name, fs.ErrNotExist)
	}
	return dev, func() {}, nil
}

// List lists the devices.
func (e Exports) List(context.Context) ([]nbd.Info, error) {
	var infos []nbd.Info
	for name := range e {
		infos = append(infos, nbd.Info{Name: name, Description: "memory"})
	}
	slices.SortFunc(infos, func(a, b nbd.Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

// Gate holds operations until it is opened.
type Gate struct {
	arrived chan struct{}
	opened  chan struct{}
	once    sync.Once
}

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{arrived: make(chan struct{}, 1<<16), opened: make(chan struct{})}
}

// Wait waits until the gate is open, or returns ctx's error.
func (g *Gate) Wait(ctx context.Context) error {
	g.arrived <- struct{}{}
	select {
	case <-g.opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Arrived returns when n more operations have come to the gate.
func (g *Gate) Arrived(n int) {
	for range n {
		<-g.arrived
	}
}

// Open lets all through, for good.
func (g *Gate) Open() { g.once.Do(func() { close(g.opened) }) }
