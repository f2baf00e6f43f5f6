package policy

import "sort"

// Room is the room that a disk has left.
type Room struct {
	Node   string
	Shared uint64 // disks of a node with the same number, other than 0, share their room
	Free   uint64 // bytes
}

// Takes returns how many bytes of data fit on disks, in chunks of width fragments, of
// which k are data. No disk gets two fragments of a chunk, and no node more than x. A
// disk with much more room than the others therefore cannot be filled.
//
// Let each of the width positions of a chunk hold t bytes over all chunks. Then a disk
// can take at most t bytes, and a node x*t. Any amounts within these bounds can be cut
// into chunks, so the answer is k times the largest t for which width*t bytes fit.
func (p Policy) Takes(width int, disks []Room) uint64 {
	if width < int(p.K) || len(disks) == 0 {
		return 0
	}
	all := uint64(0)
	for _, d := range disks {
		all += d.Free
	}
	fits := func(t uint64) bool { return p.held(t, disks) >= uint64(width)*t }
	// The first t that does not fit, above 0.
	t := sort.Search(int(all/uint64(width)), func(i int) bool { return !fits(uint64(i) + 1) })
	return uint64(t) * uint64(p.K)
}

// held is how many bytes the disks take if each position holds t bytes.
func (p Policy) held(t uint64, disks []Room) (sum uint64) {
	type group struct {
		node   string
		shared uint64
	}
	type filled struct{ takes, free uint64 }
	groups, nodes := make(map[group]filled), make(map[string]uint64)
	for _, d := range disks {
		takes := min(d.Free, t)
		if d.Shared == 0 {
			nodes[d.Node] += takes
			continue
		}
		g := groups[group{d.Node, d.Shared}]
		groups[group{d.Node, d.Shared}] = filled{g.takes + takes, max(g.free, d.Free)}
	}
	for g, f := range groups {
		nodes[g.node] += min(f.takes, f.free)
	}
	for _, n := range nodes {
		sum += min(n, uint64(p.X)*t)
	}
	return sum
}
