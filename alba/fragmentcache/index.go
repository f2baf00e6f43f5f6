package fragmentcache

import "sync"

const (
	shardBits = 6
	slotMax   = 1 << 13 // segments
)

// location is where an extent begins: 13 bits for the slot of its segment, 18
// for the block in it. Block 0 is a header, so zero is nowhere.
type location uint32

// hit is set beside a location when the extent was read since it was written.
const hit = 1 << 31

func locate(slot int, block uint32) location { return location(slot)<<18 | location(block) }

func (l location) slot() int     { return int(l&^hit) >> 18 }
func (l location) block() uint32 { return uint32(l) & (blocksMax - 1) }

// run is which blocks of its page an extent has: the number of the first in the high 4
// bits, their number less one in the low 4 bits.
type run uint8

func makeRun(first, n uint32) run { return run(first<<4 | (n - 1)) }

func (r run) first() uint32 { return uint32(r >> 4) }
func (r run) n() uint32     { return uint32(r&15) + 1 }
func (r run) mask() uint32  { return (1<<r.n() - 1) << r.first() }

// index finds the extents of a page by the page's fingerprint. It is safe for
// concurrent use; one goroutine inserts, moves and claims.
type index struct {
	shards [1 << shardBits]shard
}

// shard is a hash table with linear probing. All extents of a page are in one chain. It has
// three arrays, so that alignment costs nothing. A zero in locs marks an empty place.
type shard struct {
	mu   sync.Mutex
	fps  []uint64
	locs []location
	runs []run
	used int
	_    [32]byte // a shard's mutex has a cache line of its own
}

func (x *index) shard(fp uint64) *shard { return &x.shards[fp>>(64-shardBits)] }

// home is where the search for fp begins.
func (s *shard) home(fp uint64) int { return int(uint64(uint32(fp)) * uint64(len(s.fps)) >> 32) }

func (s *shard) next(i int) int {
	if i++; i < len(s.fps) {
		return i
	}
	return 0
}

// find returns the first place at or after i in fp's chain that has fp.
func (s *shard) find(fp uint64, i int) (int, bool) {
	for s.locs[i] != 0 {
		if s.fps[i] == fp {
			return i, true
		}
		i = s.next(i)
	}
	return 0, false
}

// first begins a search.
func (s *shard) first(fp uint64) (int, bool) {
	if s.used == 0 {
		return 0, false
	}
	return s.find(fp, s.home(fp))
}

// present returns which blocks of a page are there.
func (s *shard) present(fp uint64) (mask uint32) {
	for i, ok := s.first(fp); ok; i, ok = s.find(fp, s.next(i)) {
		mask |= s.runs[i].mask()
	}
	return mask
}

// add makes a new entry. The table is at most 4/5 full.
func (s *shard) add(fp uint64, r run, l location) {
	if 5*(s.used+1) > 4*len(s.fps) {
		s.resize(max(64, len(s.fps)+len(s.fps)/4))
	}
	s.place(fp, r, l)
	s.used++
}

func (s *shard) place(fp uint64, r run, l location) {
	i := s.home(fp)
	for s.locs[i] != 0 {
		i = s.next(i)
	}
	s.fps[i], s.runs[i], s.locs[i] = fp, r, l
}

func (s *shard) resize(n int) {
	fps, runs, locs := s.fps, s.runs, s.locs
	s.fps, s.runs, s.locs = make([]uint64, n), make([]run, n), make([]location, n)
	for i, l := range locs {
		if l != 0 {
			s.place(fps[i], runs[i], l)
		}
	}
}

// remove empties place i and closes the gap: what was placed behind its home
// because of i moves forward.
func (s *shard) remove(i int) {
	s.used--
	for j := i; ; {
		j = s.next(j)
		if s.locs[j] == 0 {
			break
		}
		if home := s.home(s.fps[j]); between(i, home, j) {
			continue
		}
		s.fps[i], s.runs[i], s.locs[i] = s.fps[j], s.runs[j], s.locs[j]
		i = j
	}
	s.locs[i] = 0
}

// between reports whether home lies in (i, j], around the table's end.
func between(i, home, j int) bool {
	if i < j {
		return i < home && home <= j
	}
	return i < home || home <= j
}

// present returns which blocks of a page are there.
func (x *index) present(fp uint64) uint32 {
	s := x.shard(fp)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.present(fp)
}

// insert enters those blocks of an extent that the index does not have yet.
func (x *index) insert(fp uint64, r run, l location) {
	s := x.shard(fp)
	s.mu.Lock()
	defer s.mu.Unlock()
	missing := r.mask() &^ s.present(fp)
	for first, n := nextRun(missing, 0); n > 0; first, n = nextRun(missing, first+n) {
		s.add(fp, makeRun(first, n), l+location(first-r.first()))
	}
}

// nextRun returns the first run of ones in mask at or after bit from.
func nextRun(mask, from uint32) (first, n uint32) {
	for first = from; first < runMax && mask>>first&1 == 0; first++ {
	}
	for mask>>(first+n)&1 != 0 {
		n++
	}
	return first, n
}

// drop removes all extents of a page.
func (x *index) drop(fp uint64) {
	s := x.shard(fp)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, ok := s.first(fp); ok; i, ok = s.first(fp) {
		s.remove(i)
	}
}

// extent is an extent that claim found.
type extent struct {
	fp  uint64
	run run
	loc location // without hit
}

// claim finds the extents of a page that lie in [from, from+n). It removes those that were
// not hit, and appends the others to dst, which stay in the index.
func (x *index) claim(dst []extent, fp uint64, from location, n uint32) []extent {
	s := x.shard(fp)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.first(fp)
	for ok {
		switch l := s.locs[i] &^ hit; {
		case l < from || l >= from+location(n):
			i, ok = s.find(fp, s.next(i))
		case s.locs[i]&hit == 0:
			s.remove(i)
			i, ok = s.find(fp, i) // what was behind it may have come here
		default:
			dst = append(dst, extent{fp, s.runs[i], l})
			i, ok = s.find(fp, s.next(i))
		}
	}
	return dst
}

// move enters the new place of an extent that claim returned; it counts as not hit there.
// If the extent was dropped meanwhile, nothing happens.
func (x *index) move(e extent, to location) bool {
	s := x.shard(e.fp)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, ok := s.first(e.fp); ok; i, ok = s.find(e.fp, s.next(i)) {
		if s.locs[i]&^hit == e.loc && s.runs[i] == e.run {
			s.locs[i] = to
			return true
		}
	}
	return false
}

// forget removes an extent that claim returned.
func (x *index) forget(e extent) {
	s := x.shard(e.fp)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, ok := s.first(e.fp); ok; i, ok = s.find(e.fp, s.next(i)) {
		if s.locs[i]&^hit == e.loc && s.runs[i] == e.run {
			s.remove(i)
			return
		}
	}
}

// sweep removes all extents of a segment, by looking at every extent there is.
func (x *index) sweep(slot int) {
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.Lock()
		for j := 0; j < len(s.locs); {
			if s.locs[j] != 0 && s.locs[j].slot() == slot {
				s.remove(j)
				continue // what was behind it may have come here
			}
			j++
		}
		s.mu.Unlock()
	}
}

// clear removes everything.
func (x *index) clear() {
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.Lock()
		s.fps, s.runs, s.locs, s.used = nil, nil, nil, 0
		s.mu.Unlock()
	}
}

// size returns the number of extents and the bytes of memory of the tables.
func (x *index) size() (extents int, bytes int64) {
	for i := range x.shards {
		s := &x.shards[i]
		s.mu.Lock()
		extents += s.used
		bytes += int64(len(s.fps)) * (8 + 4 + 1)
		s.mu.Unlock()
	}
	return extents, bytes
}
