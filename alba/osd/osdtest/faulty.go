package osdtest

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"openvstorage/alba/osd"
	"openvstorage/internal/faults"
	"openvstorage/internal/gate"

	"github.com/google/uuid"
)

// Op is a method of osd.OSD.
type Op string

// The methods that rules hit and that are counted.
const (
	Apply  Op = "apply"
	Read   Op = "read"
	Stat   Op = "stat"
	Range  Op = "range"
	Verify Op = "verify"
	Usage  Op = "usage"
)

// Rule says which calls are hit and what happens to them. The zero value of a
// field matches everything or does nothing.
type Rule struct {
	Ops    []Op
	Prefix []byte                // some key of the call begins with it
	Match  func(key []byte) bool // some key of the call matches

	Skip  int // this many matching calls pass first
	Count int // then this many are hit; 0: all

	Gate  *gate.Gate // holds the call
	Err   error      // what the call returns
	After bool       // gate and error come after the call has succeeded, not before it begins
	Flip  bool       // a Read that succeeds gives its last byte with a bit flipped
}

// Injected is a rule at work.
type Injected = faults.Injected[Rule]

// Count is what was asked of an OSD.
type Count struct {
	Calls int    // begun, those that failed too
	Bytes uint64 // of values, in calls that took effect
}

// Faulty decorates an OSD. Without rules it changes nothing.
type Faulty struct {
	inner osd.OSD
	rules faults.Rules[Rule]

	mu     sync.Mutex // guards all below
	down   error
	counts map[Op]Count
}

// NewFaulty returns inner with no rules.
func NewFaulty(inner osd.OSD) *Faulty {
	return &Faulty{inner: inner, counts: make(map[Op]Count)}
}

// Add puts a rule behind the existing ones. The first rule that hits a call decides.
func (f *Faulty) Add(r Rule) *Injected { return f.rules.Add(r, r.Skip, r.Count) }

// Down makes every call that begins from now on fail with err before it has
// any effect, whatever the rules say; nil brings the OSD back.
func (f *Faulty) Down(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = err
}

// Counted returns what was asked by calls of a method.
func (f *Faulty) Counted(op Op) Count {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[op]
}

// ResetCounts sets all counts to zero.
func (f *Faulty) ResetCounts() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.counts)
}

func (r *Rule) matches(op Op, keys [][]byte) bool {
	if len(r.Ops) > 0 && !slices.Contains(r.Ops, op) {
		return false
	}
	if r.Prefix == nil && r.Match == nil {
		return true
	}
	return slices.ContainsFunc(keys, func(k []byte) bool {
		return bytes.HasPrefix(k, r.Prefix) && (r.Match == nil || r.Match(k))
	})
}

// begin counts a call. The error is that of an OSD that is down.
func (f *Faulty) begin(op Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.counts[op]
	c.Calls++
	f.counts[op] = c
	return f.down
}

// do makes a call under the rules, and returns the one that hit it. call returns the
// bytes of values that it moved.
func (f *Faulty) do(ctx context.Context, op Op, keys [][]byte, call func() (int, error)) (Rule, error) {
	if err := f.begin(op); err != nil {
		return Rule{}, err
	}
	r := f.rules.Hit(func(r *Rule) bool { return r.matches(op, keys) })
	return r, faults.Effect{Gate: r.Gate, Err: r.Err, After: r.After}.Around(ctx, func() error {
		n, err := call()
		if err != nil {
			return err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		c := f.counts[op]
		c.Bytes += uint64(n)
		f.counts[op] = c
		return nil
	})
}

// ID implements osd.OSD. It never fails.
func (f *Faulty) ID() uuid.UUID { return f.inner.ID() }

// Apply implements osd.OSD.
func (f *Faulty) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	keys := make([][]byte, 0, len(asserts)+len(updates))
	n := 0
	for _, a := range asserts {
		keys = append(keys, a.Key)
	}
	for _, u := range updates {
		keys = append(keys, u.Key)
		if !u.Delete {
			n += len(u.Value.Data)
		}
	}
	_, err := f.do(ctx, Apply, keys, func() (int, error) { return n, f.inner.Apply(ctx, asserts, updates) })
	return err
}

// Read implements osd.OSD.
func (f *Faulty) Read(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	r, err := f.do(ctx, Read, [][]byte{key}, func() (int, error) { return len(p), f.inner.Read(ctx, key, off, p, crcs) })
	if err == nil && r.Flip && len(p) > 0 {
		p[len(p)-1] ^= 0x10
	}
	return err
}

// Stat implements osd.OSD.
func (f *Faulty) Stat(ctx context.Context, keys [][]byte) (infos []osd.Info, err error) {
	_, err = f.do(ctx, Stat, keys, func() (_ int, err error) {
		infos, err = f.inner.Stat(ctx, keys)
		return 0, err
	})
	if err != nil {
		return nil, err
	}
	return infos, nil
}

// Range implements osd.OSD. Its first key is the one that rules look at.
func (f *Faulty) Range(ctx context.Context, first, last []byte, limit int) (infos []osd.Info, err error) {
	_, err = f.do(ctx, Range, [][]byte{first}, func() (_ int, err error) {
		infos, err = f.inner.Range(ctx, first, last, limit)
		return 0, err
	})
	if err != nil {
		return nil, err
	}
	return infos, nil
}

// Verify implements osd.OSD. Rules look at after.
func (f *Faulty) Verify(ctx context.Context, after []byte, limit int) (bad []osd.Bad, next []byte, err error) {
	_, err = f.do(ctx, Verify, [][]byte{after}, func() (_ int, err error) {
		bad, next, err = f.inner.Verify(ctx, after, limit)
		return 0, err
	})
	if err != nil {
		return nil, nil, err
	}
	return bad, next, nil
}

// Usage implements osd.OSD. It has no key.
func (f *Faulty) Usage(ctx context.Context) (u osd.Usage, err error) {
	_, err = f.do(ctx, Usage, nil, func() (_ int, err error) {
		u, err = f.inner.Usage(ctx)
		return 0, err
	})
	if err != nil {
		return osd.Usage{}, err
	}
	return u, nil
}
