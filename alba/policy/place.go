package policy

import (
	"cmp"
	"slices"
)

// None is the OSD number of no disk. A fragment with it is not stored yet.
const None uint64 = 0

// Disk is what a decision needs to know of an OSD.
type Disk struct {
	OSD      uint64 // its number, used once; never None
	Node     string // the machine that it is in
	Used     uint64 // bytes
	Capacity uint64 // bytes
	Load     uint32 // requests that wait for it
	Failing  bool   // its last write failed, or it is on its way out
}

// Usable reports whether the disk may be given fragments.
func (d Disk) Usable() bool { return d.OSD != None && !d.Failing && d.Used < d.Capacity }

// weight is the disk's chance against others: its free share, times 8/(8+load), so that
// eight waiting requests halve it. It is above zero for a usable disk, so that every
// usable disk gets fragments.
func (d Disk) weight() float64 {
	const floor = 1.0 / 256
	free := float64(d.Capacity-d.Used) / float64(d.Capacity)
	return max(free, floor) * 8 / (8 + float64(d.Load))
}

// Rand is the source of chance for Place; *math/rand/v2.Rand is one.
type Rand interface {
	Float64() float64
	Shuffle(n int, swap func(i, j int))
}

// Choose finds the first policy of the list that the disks can keep: its c is at most
// the sum over nodes of min(x, usable disks). It returns the index of the policy, and
// the width that an object would get: that sum or k+m, whichever is less. ok is false
// if the disks can keep none.
func Choose(list []Policy, disks []Disk) (index, width int, ok bool) {
	perNode := make(map[string]int)
	for _, d := range disks {
		if d.Usable() {
			perNode[d.Node]++
		}
	}
	for i, p := range list {
		sum := 0
		for _, n := range perNode {
			sum += min(n, int(p.X))
		}
		if sum >= int(p.C) {
			return i, min(sum, p.Width()), true
		}
	}
	return 0, 0, false
}

// node is one machine while fragments are placed.
type node struct {
	disks  []Disk // usable ones that have no fragment yet
	weight float64
	count  int // fragments of this chunk on it
}

// take removes a disk by chance.
func (n *node) take(rng Rand) Disk {
	at := pick(len(n.disks), n.weight, rng, func(i int) float64 { return n.disks[i].weight() })
	d := n.disks[at]
	n.disks = slices.Delete(n.disks, at, at+1)
	n.weight -= d.weight()
	n.count++
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
// No OSD gets two fragments and no node more than x. Nodes fill evenly: each
// fragment goes to one of the nodes that have the fewest, and within them the
// chance of a disk follows its free share and its load. Too few disks leave
// parity fragments without one, before data fragments. As many fragments are
// placed as can be under these rules.
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
		if open = leastFilled(open[:0], nodes, int(p.X)); len(open) == 0 {
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
	return nodes
}

// leastFilled appends to dst, of the nodes that can take another fragment, those with
// the fewest.
func leastFilled(dst []*node, nodes []*node, x int) []*node {
	fewest := x
	for _, n := range nodes {
		if len(n.disks) == 0 || n.count > fewest || n.count >= x {
			continue
		}
		if n.count < fewest {
			fewest, dst = n.count, dst[:0]
		}
		dst = append(dst, n)
	}
	return dst
}
