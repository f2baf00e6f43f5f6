package policy

import (
	"cmp"
	"slices"
)

// zone is one zone while fragments are placed.
type zone struct {
	count int // fragments of this chunk in it
}

// node is one machine while fragments are placed.
type node struct {
	zoneName string
	zone     *zone
	disks    []Disk // usable ones that have no fragment yet
	weight   float64
	count    int // fragments of this chunk on it
}

// take removes a disk by chance.
func (n *node) take(rng Rand) Disk {
	at := pick(len(n.disks), n.weight, rng, func(i int) float64 { return n.disks[i].weight() })
	d := n.disks[at]
	n.disks = slices.Delete(n.disks, at, at+1)
	n.weight -= d.weight()
	n.count++
	n.zone.count++
	return d
}

// pick draws one of n with chance weight(i)/sum.
func pick(n int, sum float64, rng Rand, weight func(int) float64) int {
	at := rng.Float64() * sum
	for i := range n - 1 {
		if at -= weight(i); at < 0 {
			return i
		}
	}
	return n - 1
}

// Place returns an OSD for each of the k+m fragments of a chunk, or None where no disk
// is left that may take the fragment. have is nil for a new chunk. For a repair it has
// the OSD of each fragment that is stored, and None for each fragment to be placed.
// Stored fragments keep their OSDs, and count against x if the OSD is among disks.
//
// What must hold: no OSD gets two fragments and no node more than x. As many fragments
// are placed as can be under these rules, data fragments before parity.
//
// What is wished for: no zone gets more than m, so that a chunk outlives any zone. Where
// that cannot be, the sum over the zones of what is above m is the least that can be.
//
// Within both, nodes fill evenly: each fragment goes to one of the nodes that have the
// fewest, and within them the chance of a disk follows its free share and its load. What
// is above m goes to the zone with the fewest, if its nodes have no more than others.
func Place(p Policy, disks []Disk, have []uint64, rng Rand) []uint64 {
	out := make([]uint64, p.Width())
	copy(out, have)
	nodes := byNode(disks, out)
	missing := 0
	for _, osd := range out {
		if osd == None {
			missing++
		}
	}
	chosen := make([]uint64, 0, missing)
	var open []*node
	for len(chosen) < missing {
		if open = fittest(open[:0], nodes, p); len(open) == 0 {
			break
		}
		sum := 0.0
		for _, n := range open {
			sum += n.weight
		}
		n := open[pick(len(open), sum, rng, func(i int) float64 { return open[i].weight })]
		chosen = append(chosen, n.take(rng).OSD)
	}
	// The disks drawn first tend to be the emptiest. Data fragments, which are read
	// more than parity, should not all land there.
	rng.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	for i := range out {
		if out[i] == None && len(chosen) > 0 {
			out[i], chosen = chosen[0], chosen[1:]
		}
	}
	return out
}

// PlaceOne is Place for fragment i alone, wherever it is now: it returns a disk for it, or
// None if no disk may take it. Other fragments that are on no disk stay there.
func PlaceOne(p Policy, disks []Disk, have []uint64, i int, rng Rand) uint64 {
	const nobody = ^uint64(0) // no disk has this number
	others := make([]uint64, p.Width())
	copy(others, have)
	for j, osd := range others {
		if osd == None {
			others[j] = nobody
		}
	}
	others[i] = None
	return Place(p, disks, others, rng)[i]
}

// byNode sorts the disks by machine, and counts the fragments that are there.
// The order is that of the names, so that equal draws give equal results.
func byNode(disks []Disk, have []uint64) []*node {
	byName := make(map[string]*node)
	var names []string
	for _, d := range disks {
		n := byName[d.Node]
		if n == nil {
			n = new(node)
			byName[d.Node] = n
			names = append(names, d.Node)
		}
		// A node is in one zone. While its disks are told of a new one, they may differ.
		if d.Zone != n.zoneName {
			n.zoneName = max(n.zoneName, d.Zone)
		}
		twice := slices.ContainsFunc(n.disks, func(o Disk) bool { return o.OSD == d.OSD })
		switch {
		case d.OSD != None && slices.Contains(have, d.OSD):
			n.count++
		case d.Usable() && !twice:
			n.disks = append(n.disks, d)
			n.weight += d.weight()
		}
	}
	slices.Sort(names)
	nodes := make([]*node, len(names))
	for i, name := range names {
		nodes[i] = byName[name]
		slices.SortFunc(nodes[i].disks, func(a, b Disk) int { return cmp.Compare(a.OSD, b.OSD) })
	}
	inZones(nodes)
	return nodes
}

// inZones gives each node its zone, with the fragments that are there.
func inZones(nodes []*node) {
	var byName map[string]*zone // made when there is a second zone
	for i, n := range nodes {
		switch {
		case i == 0:
			n.zone = new(zone)
		case n.zoneName == nodes[0].zoneName:
			n.zone = nodes[0].zone
		default:
			if byName == nil {
				byName = make(map[string]*zone)
			}
			if n.zone = byName[n.zoneName]; n.zone == nil {
				n.zone = new(zone)
				byName[n.zoneName] = n.zone
			}
		}
		n.zone.count += n.count
	}
}

// fittest appends to dst, of the nodes that can take another fragment, those that should:
// those in zones with fewer than m come first, then those with the fewest fragments. Once
// no zone has fewer than m, the zones with the fewest come before others at last.
//
// That each step takes the best one leads to the best whole: the room of a node and of a
// zone does not depend on what the others take, and only the step that finds no zone below
// m goes above it.
func fittest(dst []*node, nodes []*node, p Policy) []*node {
	best := 0
	for _, n := range nodes {
		if len(n.disks) == 0 || n.count >= int(p.X) {
			continue
		}
		rank := n.count << 16 // counts are up to MaxWidth
		if n.zone.count >= int(p.M) {
			rank |= 1<<32 | n.zone.count
		}
		switch {
		case len(dst) == 0 || rank < best:
			best, dst = rank, append(dst[:0], n)
		case rank == best:
			dst = append(dst, n)
		}
	}
	return dst
}
