package metadata

import (
	"fmt"

	"openvstorage/sco"
)

const (
	fanout     = 512 // words of a page
	fanoutLog2 = 9
	pageBytes  = fanout * 8
	maxLevels  = 7 // 2^63 clusters

	refKindShift   = 62
	refOriginShift = 50
	refNumberMask  = 1<<refOriginShift - 1
)

// PageRef refers to the subtree below one word of an interior page, or to a
// whole tree. 64 bits, on disk:
//
//	bits  0-49  page number
//	bits 50-61  origin: whose page it is, as in sco.Location
//	bits 62-63  kind: 0 hole, 1 page, 2 zero
//
// Hole and zero are whole subtrees without pages. All of their words are sco.Hole or sco.Zero,
// which have the same bits as the reference.
type PageRef uint64

// References to subtrees without pages.
const (
	HoleRef = PageRef(sco.Hole)
	ZeroRef = PageRef(sco.Zero)
)

// MaxPage is the largest page number.
const MaxPage uint64 = refNumberMask

const refPage = 1 // kind of a reference to a page

// RefTo returns the reference to a page.
func RefTo(o sco.Origin, number uint64) PageRef {
	return PageRef(refPage)<<refKindShift | PageRef(o&sco.MaxOrigin)<<refOriginShift | PageRef(number&refNumberMask)
}

// IsPage reports whether r refers to a page, and not to a uniform subtree.
func (r PageRef) IsPage() bool { return r>>refKindShift == refPage }

// Origin returns the index of the page's vDisk in the origin table. Only if IsPage.
func (r PageRef) Origin() sco.Origin { return sco.Origin(r>>refOriginShift) & sco.MaxOrigin }

// Number returns the page's number. Only if IsPage.
func (r PageRef) Number() uint64 { return uint64(r) & refNumberMask }

func (r PageRef) String() string {
	switch {
	case r == HoleRef:
		return "hole"
	case r == ZeroRef:
		return "zero"
	case r.IsPage():
		return fmt.Sprintf("%d:page-%d", r.Origin(), r.Number())
	}
	return fmt.Sprintf("ref(%#x)", uint64(r))
}

// Root is an immutable state of a tree.
type Root struct {
	Page     PageRef
	Levels   uint8  // height: a root page has level Levels-1
	Clusters uint64 // addresses from here on are outside
}

// Drop is a detached subtree whose locations are still to be subtracted from
// the live counters.
type Drop struct {
	Page  PageRef
	Level uint8 // of the page
}

// State is what a checkpoint keeps of a map besides its pages.
type State struct {
	Seq        uint64
	NextPage   uint64 // pages from this number on do not belong to it
	Generation uint64 // pages with a birth generation up to this are immutable
	Root       Root
	Live       Root // tree of the live counters, addressed by SCO number
	Drops      []Drop
	Recount    uint64 // seq of a rollback after which the counters are not complete, 0 if they are
}

// levelsFor returns the height of the smallest tree with n addresses.
func levelsFor(n uint64) uint8 {
	l := uint8(1)
	for l < maxLevels && n > span(l) {
		l++
	}
	return l
}

// span returns how many addresses a page of the level above, one slot of a
// page of this level, covers: 512^level.
func span(level uint8) uint64 { return 1 << (fanoutLog2 * uint(level)) }

// slotOf returns which word of a page of the level leads to addr.
func slotOf(addr uint64, level uint8) int {
	return int(addr>>(fanoutLog2*uint(level))) & (fanout - 1)
}
