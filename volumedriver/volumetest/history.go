package volumetest

import (
	"bytes"
	"context"
	"maps"
	"testing"

	"openvstorage/volumedriver"
)

// history is the model of one vDisk: all its operations in order, so that the state after
// any prefix can be computed. One client writes, so that the order of acknowledgements is
// the order of seqs.
type history struct {
	size    int
	base    []byte // what it begins with; nil: zeros
	ops     []func(state *modelState)
	flushed int // operations that a flush covers
	// deleted snapshots: a deletion changes the catalog and is durable at once, so that
	// it has no place in the order of writing.
	deleted map[string]bool
}

func newHistory(size int) *history { return &history{size: size, deleted: map[string]bool{}} }

type modelState struct {
	data  []byte
	snaps map[string][]byte
}

// after is the state after the first n operations.
func (h *history) after(n int) *modelState {
	s := &modelState{data: make([]byte, h.size), snaps: map[string][]byte{}}
	copy(s.data, h.base)
	for _, op := range h.ops[:n] {
		op(s)
	}
	return s
}

// until returns the history of the first n operations, to which others can be added.
func (h *history) until(n int) *history {
	return &history{size: h.size, base: h.base, ops: h.ops[:n:n], flushed: min(n, h.flushed), deleted: maps.Clone(h.deleted)}
}

// live returns how many of a state's snapshots were not deleted later.
func (h *history) live(s *modelState) int {
	n := 0
	for name := range s.snaps {
		if !h.deleted[name] {
			n++
		}
	}
	return n
}

func (h *history) add(op func(*modelState)) { h.ops = append(h.ops, op) }

// addRange records a change of [off, off+n) as one operation a cluster: a
// request may be cut between its entries, but never within a cluster.
func (h *history) addRange(off, n int64, op func(s *modelState, from, to int64)) {
	for at := off; at < off+n; at = (at/4096 + 1) * 4096 {
		from, to := at, min((at/4096+1)*4096, off+n)
		h.add(func(s *modelState) { op(s, from, to) })
	}
}

// prefix finds how many operations the vDisk holds. It must hold exactly a prefix of the
// history, snapshots included, of at least the given length.
func prefix(t *testing.T, h *volumedriver.Host, hist *history, least int) int {
	t.Helper()
	got := readAll(t, opened(t, h, "v"))
	list, err := h.SnapshotList(context.Background(), "v")
	if err != nil {
		t.Fatal(err)
	}
	s := hist.after(least)
	for n := least; ; n++ {
		if bytes.Equal(s.data, got) && hist.live(s) == len(list) {
			for _, i := range list {
				if b := readAll(t, opened(t, h, "v@"+i.Name)); !bytes.Equal(b, s.snaps[i.Name]) {
					t.Fatalf("snapshot %s differs at %d", i.Name, diff(b, s.snaps[i.Name]))
				}
			}
			return n
		}
		if n == len(hist.ops) {
			break
		}
		hist.ops[n](s)
	}
	full, low := hist.after(len(hist.ops)), hist.after(least)
	if at := diff(got, low.data); at >= 0 {
		t.Logf("at %d (cluster %d) there is %q, flushed %q, whole %q", at, at/4096, got[at:min(at+16, len(got))], low.data[at:min(at+16, len(got))], full.data[at:min(at+16, len(got))])
	}
	info, _ := h.Info(context.Background(), "v")
	t.Fatalf("the vDisk is no prefix of %d operations with at least %d: differs from the flushed state at %d, from the whole at %d; %d snapshots, flushed %d, whole %d; %+v",
		len(hist.ops), least, diff(got, low.data), diff(got, full.data), len(list), hist.live(low), hist.live(full), info)
	return 0
}
