package fragmentcache

import "math/bits"

// Bounds of ghosts, in pages remembered.
const (
	ghostsMin = 1 << 10
	ghostsMax = 1 << 24
	ghostWays = 4
)

// ghosts remembers which blocks were put lately, of about as many pages as the
// cache has room for, in 4 bytes a page: in a page's set of four, what came
// first is forgotten first. It is mistaken once in some ten thousand times, and
// then something is admitted that need not be.
type ghosts struct {
	sets [][ghostWays]ghost
	mask uint64
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
	copy(set[1:], set[:ghostWays-1])
	set[0] = tag | blocks
	return false
}

func (g *ghosts) bytes() int64 { return int64(len(g.sets)) * ghostWays * 4 }
