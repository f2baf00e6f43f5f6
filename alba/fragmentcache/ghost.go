package fragmentcache

import "math/bits"

// Bounds of ghosts, in pages remembered.
const (
	ghostsMin = 1 << 10
	ghostsMax = 1 << 24
	ghostWays = 4
)

// ghosts remembers which blocks were put lately, of about as many pages as the cache has
// room for, in 4 bytes a page. When a page's set of four is full, an arbitrary one is
// forgotten: if it were the oldest, five pages of a set that are read in turn would never
// be known. About once in ten thousand times ghosts is mistaken, and an extent is admitted
// that need not be.
type ghosts struct {
	sets   [][ghostWays]ghost
	mask   uint64
	forgot uint64 // how often
}

// ghost has 16 bits of a fingerprint, and a bit for each block of the page that
// was put.
type ghost uint32

func newGhosts(pages int64) *ghosts {
	n := min(max(pages, ghostsMin), ghostsMax) / ghostWays
	n = 1 << bits.Len64(uint64(n-1))
	return &ghosts{sets: make([][ghostWays]ghost, n), mask: uint64(n - 1)}
}

// seen reports whether a block of the run was put before, and remembers it.
func (g *ghosts) seen(fp uint64, r run) bool {
	set := &g.sets[fp&g.mask]
	tag, blocks := ghost(fp>>32)<<16, ghost(r.mask())
	for i := range set {
		if set[i]&0xffff0000 == tag && set[i]&0xffff != 0 {
			again := set[i]&blocks != 0
			set[i] |= blocks
			return again
		}
	}
	set[g.place(set)] = tag | blocks
	return false
}

// place is where a page is entered: a free place, or an arbitrary one.
func (g *ghosts) place(set *[ghostWays]ghost) uint64 {
	for i, h := range set {
		if h&0xffff == 0 {
			return uint64(i)
		}
	}
	g.forgot++
	return g.forgot * 0x9e3779b97f4a7c15 >> 32 % ghostWays
}

func (g *ghosts) bytes() int64 { return int64(len(g.sets)) * ghostWays * 4 }
