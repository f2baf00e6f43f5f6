package nbdtest

import (
	"context"
	"slices"
	"sync"

	"openvstorage/device"
)

// Vast is a device of any size that keeps no data, only what is allocated, to
// the byte. It reads as zeros. Its hook may be set before it is used.
type Vast struct {
	// Hook, if set, is called at the start of every operation on a range, as
	// that of a Memory.
	Hook func(ctx context.Context, op Op, off, n int64) error

	size int64

	mu    sync.Mutex
	runs  []device.Extent // in order, neighbours differ
	calls []Call
}

// Call is one call of a method with a range.
type Call struct {
	Op     Op
	Off, N int64
}

// NewVast returns a device of holes.
func NewVast(size int64) *Vast {
	return &Vast{size: size, runs: []device.Extent{{Length: size, Hole: true, Zero: true}}}
}

// Calls returns the calls since the last time, but those that read or write.
func (v *Vast) Calls() []Call {
	v.mu.Lock()
	defer v.mu.Unlock()
	calls := v.calls
	v.calls = nil
	return calls
}

func (v *Vast) enter(ctx context.Context, op Op, off, n int64) error {
	v.mu.Lock()
	v.calls = append(v.calls, Call{op, off, n})
	v.mu.Unlock()
	if v.Hook == nil {
		return nil
	}
	return v.Hook(ctx, op, off, n)
}

// set gives [off, off+n) one state.
func (v *Vast) set(off, n int64, hole, zero bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var runs []device.Extent
	add := func(e device.Extent) {
		if last := len(runs) - 1; last >= 0 && runs[last].Hole == e.Hole && runs[last].Zero == e.Zero {
			runs[last].Length += e.Length
		} else if e.Length > 0 {
			runs = append(runs, e)
		}
	}
	at, put := int64(0), false
	for _, e := range v.runs {
		start, end := at, at+e.Length
		at = end
		e.Length = max(0, min(end, off)-start)
		add(e)
		if end > off && !put {
			add(device.Extent{Length: n, Hole: hole, Zero: zero})
			put = true
		}
		e.Length = max(0, end-max(start, off+n))
		add(e)
	}
	v.runs = runs
}

func (v *Vast) Size() int64 { return v.size }

func (v *Vast) TryRead(p []byte, _ int64) error {
	clear(p)
	return nil
}

func (v *Vast) Read(_ context.Context, p []byte, _ int64) error {
	clear(p)
	return nil
}

func (v *Vast) TryWrite(batch []device.Span) error {
	for _, s := range batch {
		v.set(s.Off, int64(len(s.Data)), false, false)
	}
	return nil
}

func (v *Vast) Write(_ context.Context, batch []device.Span) error { return v.TryWrite(batch) }

func (v *Vast) Flush(context.Context) error { return nil }

func (v *Vast) Trim(ctx context.Context, off, n int64) error {
	if err := v.enter(ctx, OpTrim, off, n); err != nil {
		return err
	}
	v.set(off, n, true, true)
	return nil
}

func (v *Vast) Zero(ctx context.Context, off, n int64, allocate bool) error {
	if err := v.enter(ctx, OpZero, off, n); err != nil {
		return err
	}
	v.set(off, n, !allocate, true)
	return nil
}

func (v *Vast) Extents(ctx context.Context, off, n int64, fn func(device.Extent) bool) error {
	if err := v.enter(ctx, OpExtents, off, n); err != nil {
		return err
	}
	v.mu.Lock()
	runs := slices.Clone(v.runs)
	v.mu.Unlock()
	at := int64(0)
	for _, e := range runs {
		start, end := max(at, off), min(at+e.Length, off+n)
		at += e.Length
		e.Length = end - start
		if e.Length > 0 && !fn(e) {
			break
		}
	}
	return nil
}

func (v *Vast) Prefetch(ctx context.Context, off, n int64) error {
	return v.enter(ctx, OpPrefetch, off, n)
}
