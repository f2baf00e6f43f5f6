package raftlog

import (
	"slices"
	"sort"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// place is where a record is.
type place struct {
	segment uint64
	off     int64
	size    int
}

// stretch is the entries of one record that still count.
type stretch struct {
	first, last uint64
	place
}

// index says where the entries of a log are, and what their terms are. Its memory is
// bounded by the log's length: 48 bytes a record, 16 a term.
type index struct {
	marker Marker
	parts  []stretch // by first, without gaps
	terms  []termFrom
}

// termFrom is the first index of the entries of a term.
type termFrom struct{ first, term uint64 }

func (x *index) first() uint64 { return x.marker.Index + 1 }

func (x *index) last() uint64 {
	if n := len(x.parts); n > 0 {
		return max(x.parts[n-1].last, x.marker.Index)
	}
	return x.marker.Index
}

// add adds the entries of a record. They replace the entries at their indexes and all
// behind those.
func (x *index) add(entries []*pb.Entry, p place) {
	first, last := entries[0].GetIndex(), entries[len(entries)-1].GetIndex()
	x.cut(first)
	if n := len(x.parts); n > 0 && x.parts[n-1].last+1 != first {
		// The entries of the gap went with an older segment, as the state has them.
		// So it has those before the gap.
		x.parts, x.terms = nil, nil
	}
	x.parts = append(x.parts, stretch{first, last, p})
	for _, e := range entries {
		if n := len(x.terms); n == 0 || x.terms[n-1].term != e.GetTerm() {
			x.terms = append(x.terms, termFrom{e.GetIndex(), e.GetTerm()})
		}
	}
}

// cut drops the entries from an index on.
func (x *index) cut(from uint64) {
	for n := len(x.parts); n > 0 && x.parts[n-1].last >= from; n-- {
		if x.parts[n-1].first < from {
			x.parts[n-1].last = from - 1
			break
		}
		x.parts = x.parts[:n-1]
	}
	for n := len(x.terms); n > 0 && x.terms[n-1].first >= from; n-- {
		x.terms = x.terms[:n-1]
	}
}

// mark drops the entries up to a snapshot marker, or all of them if it resets the log.
func (x *index) mark(m Marker) {
	if m.reset {
		x.parts, x.terms = nil, nil
	}
	m.reset = false // later segments repeat the marker, and what came behind it counts
	x.marker = m
	gone := sort.Search(len(x.parts), func(i int) bool { return x.parts[i].last > m.Index })
	x.parts = x.parts[gone:]
	old := sort.Search(len(x.terms), func(i int) bool { return x.terms[i].first > m.Index+1 }) - 1
	if len(x.parts) == 0 {
		x.parts, x.terms = nil, nil
	} else if old > 0 {
		x.terms = x.terms[old:]
	}
}

// term is the term of an entry, or of the marker.
func (x *index) term(i uint64) (uint64, error) {
	switch {
	case i == x.marker.Index:
		return x.marker.Term, nil
	case i < x.marker.Index:
		return 0, raft.ErrCompacted
	case i > x.last():
		return 0, raft.ErrUnavailable
	}
	at := sort.Search(len(x.terms), func(k int) bool { return x.terms[k].first > i })
	return x.terms[at-1].term, nil
}

// find returns the part that holds an entry.
func (x *index) find(i uint64) stretch {
	return x.parts[sort.Search(len(x.parts), func(k int) bool { return x.parts[k].last >= i })]
}

// oldest is the first segment that still holds an entry, newest if none does.
func (x *index) oldest(newest uint64) uint64 {
	if len(x.parts) == 0 {
		return newest
	}
	return x.parts[0].segment
}

// tail holds the newest entries, up to a number of bytes.
type tail struct {
	entries []*pb.Entry
	bytes   int
	limit   int
}

func (t *tail) first() uint64 {
	if len(t.entries) == 0 {
		return ^uint64(0)
	}
	return t.entries[0].GetIndex()
}

func (t *tail) add(entries []*pb.Entry) {
	from := entries[0].GetIndex()
	for n := len(t.entries); n > 0 && t.entries[n-1].GetIndex() >= from; n-- {
		t.bytes -= entrySize(t.entries[n-1])
		t.entries[n-1] = nil
		t.entries = t.entries[:n-1]
	}
	if n := len(t.entries); n > 0 && t.entries[n-1].GetIndex()+1 != from {
		t.entries, t.bytes = nil, 0
	}
	t.entries = append(t.entries, entries...)
	for _, e := range entries {
		t.bytes += entrySize(e)
	}
	drop := 0
	for t.bytes > t.limit && drop < len(t.entries)-1 {
		t.bytes -= entrySize(t.entries[drop])
		drop++
	}
	t.drop(drop)
}

// behind drops the entries up to an index.
func (t *tail) behind(index uint64) {
	n := sort.Search(len(t.entries), func(i int) bool { return t.entries[i].GetIndex() > index })
	for _, e := range t.entries[:n] {
		t.bytes -= entrySize(e)
	}
	t.drop(n)
}

// clear drops all entries.
func (t *tail) clear() { t.entries, t.bytes = nil, 0 }

// drop drops the first n entries. The slices that raft was given are not affected.
func (t *tail) drop(n int) {
	clear(t.entries[:n])
	t.entries = t.entries[n:]
}

// within returns entries [lo, hi), at least one, up to a number of bytes.
func (t *tail) within(lo, hi, limit uint64, size uint64) ([]*pb.Entry, uint64) {
	at := lo - t.first()
	end := at
	for ; end < uint64(len(t.entries)) && t.entries[end].GetIndex() < hi; end++ {
		n := uint64(entrySize(t.entries[end]))
		if size > 0 && size+n > limit {
			break
		}
		size += n
	}
	return slices.Clone(t.entries[at:end]), size
}
