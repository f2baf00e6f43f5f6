package asd

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"
)

// place says where a value is and what must be known to read it.
type place struct {
	segment uint32 // number
	data    uint32 // offset in the segment
	table   uint32 // offset of its CRC table
	size    uint32
	seed    uint64
	epoch   uint64
}

const placeSize = 32

func (p place) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b, p.segment)
	le.PutUint32(b[4:], p.data)
	le.PutUint32(b[8:], p.table)
	le.PutUint32(b[12:], p.size)
	le.PutUint64(b[16:], p.seed)
	le.PutUint64(b[24:], p.epoch)
}

func getPlace(b []byte) place {
	le := binary.LittleEndian
	return place{
		segment: le.Uint32(b), data: le.Uint32(b[4:]), table: le.Uint32(b[8:]), size: le.Uint32(b[12:]),
		seed: le.Uint64(b[16:]), epoch: le.Uint64(b[24:]),
	}
}

// index is an ordered map from key to place. It is a list of leaves, and each leaf
// packs some keys and their places. It has no locks.
type index struct {
	leaves []*leaf
	keys   int
	bytes  int // that the leaves take
}

// leaf holds up to leafMax bytes of entries: length of the key u8, place, key. The
// entries lie in buf in any order; at has their offsets, in order of keys.
type leaf struct {
	buf []byte
	at  []uint16
}

const (
	leafMax   = 4096
	leafGrow  = 512 // by which a leaf's memory grows
	entryHead = 1 + placeSize
	leafCost  = 48 + 8 // a leaf and the pointer to it
)

func (l *leaf) entry(i int) []byte {
	b := l.buf[l.at[i]:]
	return b[:entryHead+int(b[0])]
}

func (l *leaf) key(i int) []byte { return l.entry(i)[entryHead:] }

func (l *leaf) cost() int { return leafCost + cap(l.buf) + 2*cap(l.at) }

// search returns where key is or would be.
func (l *leaf) search(key []byte) (int, bool) {
	lo, hi := 0, len(l.at)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		switch bytes.Compare(l.key(mid), key) {
		case 0:
			return mid, true
		case -1:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

// find returns the number of the leaf that key is or would be in. There is at
// least one.
func (x *index) find(key []byte) int {
	return sort.Search(len(x.leaves)-1, func(i int) bool { return bytes.Compare(x.leaves[i+1].key(0), key) > 0 })
}

func (x *index) get(key []byte) (place, bool) {
	if len(x.leaves) == 0 {
		return place{}, false
	}
	l := x.leaves[x.find(key)]
	i, ok := l.search(key)
	if !ok {
		return place{}, false
	}
	return getPlace(l.entry(i)[1:]), true
}

// put sets the place of a key and returns the one that it had.
func (x *index) put(key []byte, p place) (old place, had bool) {
	if len(x.leaves) == 0 {
		x.leaves = append(x.leaves, &leaf{})
		x.bytes += leafCost
	}
	n := x.find(key)
	l := x.leaves[n]
	i, ok := l.search(key)
	if ok {
		b := l.entry(i)[1:]
		old = getPlace(b)
		p.put(b)
		return old, true
	}
	if len(l.buf)+entryHead+len(key) > leafMax {
		right := x.split(n, i == len(l.at))
		if i >= len(l.at) {
			i -= len(l.at)
			l = right
		}
	}
	x.bytes -= l.cost()
	l.insert(i, key, p)
	x.bytes += l.cost()
	x.keys++
	return place{}, false
}

func (l *leaf) insert(i int, key []byte, p place) {
	at := len(l.buf)
	n := entryHead + len(key)
	if at+n > cap(l.buf) {
		grown := make([]byte, at, (at+n+leafGrow-1)/leafGrow*leafGrow)
		copy(grown, l.buf)
		l.buf = grown
	}
	l.buf = l.buf[:at+n]
	b := l.buf[at:]
	b[0] = byte(len(key))
	p.put(b[1:])
	copy(b[entryHead:], key)
	if len(l.at) == cap(l.at) {
		grown := make([]uint16, len(l.at), len(l.at)+8)
		copy(grown, l.at)
		l.at = grown
	}
	l.at = slices.Insert(l.at, i, uint16(at))
}

// split moves the upper half of leaf n to a new one behind it. When keys come
// in order, what is full stays full.
func (x *index) split(n int, atEnd bool) *leaf {
	l := x.leaves[n]
	x.bytes -= l.cost()
	from := len(l.at) / 2
	if atEnd {
		from = len(l.at)
	}
	right := l.cut(from, len(l.at))
	*l = *l.cut(0, from)
	x.leaves = slices.Insert(x.leaves, n+1, right)
	x.bytes += l.cost() + right.cost()
	return right
}

// cut returns a leaf with entries [from, to).
func (l *leaf) cut(from, to int) *leaf {
	size := 0
	for i := from; i < to; i++ {
		size += len(l.entry(i))
	}
	c := &leaf{buf: make([]byte, 0, (size+leafGrow-1)/leafGrow*leafGrow), at: make([]uint16, 0, to-from+4)}
	for i := from; i < to; i++ {
		c.at = append(c.at, uint16(len(c.buf)))
		c.buf = append(c.buf, l.entry(i)...)
	}
	return c
}

// remove takes a key out and returns its place.
func (x *index) remove(key []byte) (old place, had bool) {
	if len(x.leaves) == 0 {
		return place{}, false
	}
	n := x.find(key)
	l := x.leaves[n]
	i, ok := l.search(key)
	if !ok {
		return place{}, false
	}
	b := l.entry(i)
	old = getPlace(b[1:])
	at, size := l.at[i], uint16(len(b))
	l.buf = slices.Delete(l.buf, int(at), int(at+size))
	l.at = slices.Delete(l.at, i, i+1)
	for j, o := range l.at {
		if o > at {
			l.at[j] = o - size
		}
	}
	x.keys--
	switch {
	case len(l.at) == 0:
		x.bytes -= l.cost()
		x.leaves = slices.Delete(x.leaves, n, n+1)
	case n+1 < len(x.leaves) && len(l.buf)+len(x.leaves[n+1].buf) < leafMax/2:
		x.merge(n)
	case n > 0 && len(l.buf)+len(x.leaves[n-1].buf) < leafMax/2:
		x.merge(n - 1)
	}
	return old, true
}

// merge takes leaf n+1 into leaf n.
func (x *index) merge(n int) {
	l, r := x.leaves[n], x.leaves[n+1]
	x.bytes -= l.cost() + r.cost()
	for i := range r.at {
		e := r.entry(i)
		l.insert(len(l.at), e[entryHead:], getPlace(e[1:]))
	}
	x.bytes += l.cost()
	x.leaves = slices.Delete(x.leaves, n+1, n+2)
}

// from calls fn for the keys from first on, in order, until it returns false.
// The keys are the index's: they may be copied, not kept.
func (x *index) from(first []byte, fn func(key []byte, p place) bool) {
	if len(x.leaves) == 0 {
		return
	}
	n := x.find(first)
	i, _ := x.leaves[n].search(first)
	for ; n < len(x.leaves); n++ {
		for l := x.leaves[n]; i < len(l.at); i++ {
			e := l.entry(i)
			if !fn(e[entryHead:], getPlace(e[1:])) {
				return
			}
		}
		i = 0
	}
}
