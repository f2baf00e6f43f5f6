package asd

import "testing"

// Which segment is compacted, and when none is.
func TestVictim(t *testing.T) {
	const size = 100 * blockSize
	full := func(n uint32) load { return load{number: n, size: size, live: size - blockSize} }
	half := func(n uint32, dead int64) load { return load{number: n, size: size, live: size - blockSize - dead} }
	deletes := func(n uint32, lastDelete, since uint64) load {
		return load{number: n, size: size, tomb: 10 * blockSize, lastDelete: lastDelete, since: since}
	}
	stuck := func(l load) load { l.stuck = true; return l }
	for _, c := range []struct {
		name  string
		loads []load
		saved uint64
		hurry bool
		used  int64
		want  uint32
	}{
		{name: "nothing there"},
		{name: "the newest may still be written to", loads: []load{half(1, size/2+blockSize)}},
		{name: "all of them full", loads: []load{full(1), full(2), full(3)}},
		{name: "less than half dead", loads: []load{half(1, 49*blockSize), full(2)}},
		{name: "half dead", loads: []load{full(1), half(2, 50*blockSize), full(3)}, want: 2},
		{name: "most dead", loads: []load{half(1, 60*blockSize), half(2, 70*blockSize), half(3, 65*blockSize), full(4)}, want: 2},
		{name: "a tenth is enough in a hurry", loads: []load{half(1, 10*blockSize), full(2)}, hurry: true, want: 1},
		{name: "less is not", loads: []load{half(1, 9*blockSize), full(2)}, hurry: true},
		{name: "stuck", loads: []load{stuck(half(1, 70*blockSize)), half(2, 60*blockSize), full(3)}, want: 2},
		{name: "empty goes first", loads: []load{half(1, 90*blockSize), {number: 2, size: size}, full(3)}, want: 2},
		{name: "stuck once, and empty now", loads: []load{stuck(load{number: 1, size: size}), full(2)}, want: 1},
		{name: "deletes that no checkpoint holds", loads: []load{deletes(1, 9, 1), full(2)}, saved: 8, want: 1}, // copied
		{name: "deletes of what an older segment holds", loads: []load{full(1), deletes(2, 9, 2), full(3)}, saved: 9, want: 2},
		{name: "of their own segment alone", loads: []load{deletes(2, 9, 2), full(3)}, saved: 9, want: 2},
		{
			name:  "deletes pile up: the oldest is copied, dead or not",
			loads: []load{full(1), {number: 2, size: size, live: size / 2, tomb: 3 * size, lastDelete: 9, since: 2}, full(3)}, saved: 9, want: 1,
		},
		{
			name:  "unless it is stuck",
			loads: []load{stuck(full(1)), {number: 2, size: size, live: size / 2, tomb: 3 * size, lastDelete: 9, since: 2}, full(3)}, saved: 9,
		},
		{
			name:  "or they are few beside what is used",
			loads: []load{full(1), {number: 2, size: size, live: size / 2, tomb: 3 * size, lastDelete: 9, since: 2}, full(3)}, saved: 9, used: 200 * size,
		},
	} {
		v := &survey{saved: c.saved}
		for _, l := range c.loads {
			v.add(l)
		}
		if got := v.victim(c.hurry, c.used, size); got != c.want {
			t.Errorf("%s: segment %d, not %d", c.name, got, c.want)
		}
	}
}

// A delete counts as long as the checkpoint, or another segment that is no younger, may
// hold what it deleted. Whatever the order is that segments are found in.
func TestDeletesCount(t *testing.T) {
	for _, c := range []struct {
		name       string
		others     []uint32
		since      uint64
		lastDelete uint64
		want       bool
	}{
		{name: "alone", since: 5, lastDelete: 9},
		{name: "after the checkpoint", since: 5, lastDelete: 11, want: true},
		{name: "only younger ones", others: []uint32{6, 7}, since: 5, lastDelete: 9},
		{name: "an older one", others: []uint32{4, 7}, since: 5, lastDelete: 9, want: true},
		{name: "moved here from one that was younger than all", others: []uint32{4, 3}, since: 2, lastDelete: 9},
		{name: "moved here from one that was older than some", others: []uint32{4, 3, 8}, since: 3, lastDelete: 9, want: true},
	} {
		l := load{number: 5, size: 1 << 20, tomb: 100, since: c.since, lastDelete: c.lastDelete}
		list := []load{l}
		for _, n := range c.others {
			list = append(list, load{number: n, size: 1 << 20})
		}
		for range len(list) {
			list = append(list[1:], list[0])
			v := &survey{saved: 10}
			held := &contents{segments: map[uint32]*segment{}, saved: 10}
			for _, l := range list {
				v.add(l)
				held.segments[l.number] = &segment{number: l.number}
			}
			if got := v.needsDeletes(&l); got != c.want {
				t.Errorf("%s: %v, not %v", c.name, got, c.want)
			}
			if got := held.needsDelete(held.segments[5], c.lastDelete, c.since); got != c.want {
				t.Errorf("%s: a single one: %v, not %v", c.name, got, c.want)
			}
		}
	}
}

// How much may be used before puts are refused.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name            string
		opt             Options
		used, free      uint64
		limit, capacity uint64
	}{
		{"of the file system", Options{FullAt: 0.5, SegmentBytes: 100}, 40, 60, 50, 100},
		{"as it was told", Options{FullAt: 0.5, SegmentBytes: 100, Capacity: 200}, 40, 60, 100, 200},
		{"a segment's length stays free", Options{FullAt: 1, SegmentBytes: 100}, 400, 400, 700, 800},
		{"unless it is too small for that", Options{FullAt: 1, SegmentBytes: 100}, 400, 399, 799, 799},
		{"nothing left", Options{FullAt: 1, SegmentBytes: 100}, 0, 0, 0, 0},
	} {
		if limit, capacity := c.opt.limits(c.used, c.free); limit != c.limit || capacity != c.capacity {
			t.Errorf("%s: %d of %d, not %d of %d", c.name, limit, capacity, c.limit, c.capacity)
		}
	}
}
