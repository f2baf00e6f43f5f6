package asd

import (
	"context"
	"fmt"
	"sync/atomic"

	"openvstorage/alba/osd"
)

// request is an Apply, or a part of a compaction, on its way to the writer.
type request struct {
	asserts []osd.Assert
	updates []osd.Update
	skip    []bool // by update: a later one of the same key counts; nil: none is skipped
	moves   []move // instead of asserts and updates
	puts    bool
	roll    bool // instead of all that: begin a new segment
	state   atomic.Int32
	done    chan error // takes one

	err error // the writer's
}

// States of a request. The writer takes it, or the caller leaves it: whichever changes
// the state first decides what becomes of it.
const (
	waiting = iota
	taken
	left
)

// move is an entry of a segment. Compaction asks the writer to write it again, if it
// still counts by then.
type move struct {
	update osd.Update
	from   place  // where the index must say that the value is
	since  uint64 // of a delete
}

// Apply implements osd.OSD.
func (a *ASD) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	r := &request{asserts: asserts, updates: updates, done: make(chan error, 1)}
	bytes, err := r.check()
	if err == nil {
		err = a.writer.submit(ctx, r, bytes)
	}
	if err != nil {
		return fmt.Errorf("asd: apply: %w", err)
	}
	a.stats.applies.Add(1)
	return nil
}

// check verifies the request, values and all, and returns their bytes.
func (r *request) check() (bytes int64, err error) {
	if len(r.asserts) > osd.UpdatesMax || len(r.updates) > osd.UpdatesMax {
		return 0, fmt.Errorf("%w: %d asserts, %d updates", osd.ErrInvalid, len(r.asserts), len(r.updates))
	}
	for i := range r.asserts {
		s := &r.asserts[i]
		if err := checkKey(s.Key); err != nil {
			return 0, err
		}
		if s.Kind < osd.Exists || s.Kind > osd.NotNewer || len(s.Value) > osd.BlockSize {
			return 0, fmt.Errorf("%w: assert of kind %d with %d bytes", osd.ErrInvalid, s.Kind, len(s.Value))
		}
	}
	for i := range r.updates {
		u := &r.updates[i]
		if err := checkKey(u.Key); err != nil {
			return 0, err
		}
		if u.Delete {
			continue
		}
		r.puts = true
		v := &u.Value
		if len(v.Data) > osd.ValueMax || len(v.CRCs) != osd.Blocks(len(v.Data)) {
			return 0, fmt.Errorf("%w: key %x: %d bytes with %d checksums", osd.ErrInvalid, u.Key, len(v.Data), len(v.CRCs))
		}
		if bytes += int64(len(v.Data)); bytes > osd.ApplyMax {
			return 0, fmt.Errorf("%w: over %d bytes of values", osd.ErrInvalid, osd.ApplyMax)
		}
	}
	for i := range r.updates {
		u := &r.updates[i]
		if u.Delete {
			continue
		}
		if bad := check(u.Value.Data, u.Value.CRCs, u.Value.Seed, 0); bad >= 0 {
			return 0, fmt.Errorf("%w: key %x: block %d came with another checksum", osd.ErrCorrupt, u.Key, bad)
		}
	}
	r.dedupe()
	return bytes, nil
}

func checkKey(key []byte) error {
	if len(key) == 0 || len(key) > osd.KeyMax {
		return fmt.Errorf("%w: key of %d bytes", osd.ErrInvalid, len(key))
	}
	return nil
}

// dedupe sets skip for each update that a later one of the same key follows.
func (r *request) dedupe() {
	if len(r.updates) < 2 {
		return
	}
	seen := make(map[string]struct{}, len(r.updates))
	for i := len(r.updates) - 1; i >= 0; i-- {
		key := r.updates[i].Key
		if _, ok := seen[string(key)]; !ok {
			seen[string(key)] = struct{}{}
			continue
		}
		if r.skip == nil {
			r.skip = make([]bool, len(r.updates))
		}
		r.skip[i] = true
	}
}
