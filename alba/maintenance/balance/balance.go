// Package balance decides which fragments should be on other disks, once all objects are whole.
// There are two wishes: that the fragments of a chunk are spread over nodes and zones, so that
// more of these may die, and that disks are about equally full. They cannot fight each other:
// there is one Strain of all that is stored, and every move lowers it. Strain counts the spread
// first, so a move for the sake of the spread may fill a disk, and a move for the sake of the
// fill never spoils the spread. There are finitely many ways to place what is stored, so
// balancing ends.
package balance

import "openvstorage/alba/policy"

// Disk is a disk that holds or may take fragments. Used is what is stored on it, as exactly as
// it is known. It must count what was moved at once, or too much is moved.
type Disk = policy.Disk

// Strain is how badly fragments are placed: Spread before Fill.
type Strain struct {
	Spread int64   // see Spread
	Fill   float64 // sum over disks of used * used / capacity
}

// Less reports whether what s is of is placed better.
func (s Strain) Less(o Strain) bool {
	if s.Spread != o.Spread {
		return s.Spread < o.Spread
	}
	return s.Fill < o.Fill
}

// Fill is the Fill of disks.
func Fill(disks []Disk) (sum float64) {
	for _, d := range disks {
		if d.Capacity > 0 {
			sum += float64(d.Used) / float64(d.Capacity) * float64(d.Used)
		}
	}
	return sum
}

// Chunk is one stripe, all of whose fragments are on disks that are there.
type Chunk struct {
	Policy policy.Policy
	On     []uint64 // the OSD of each fragment
	Bytes  uint64   // of each fragment
}

// Move is a fragment that should be on another disk.
type Move struct {
	Fragment int
	To       uint64
}

// Cluster is the disks of a moment. Not safe for concurrent use.
type Cluster struct {
	disks []Disk
	at    map[uint64]int // in disks, by number
	gap   float64
}

// New makes a Cluster. gap is how much fuller one disk must be than another, as a share of
// their capacities, before fragments move for the sake of the fill; it is above 0.
func New(disks []Disk, gap float64) *Cluster {
	c := &Cluster{disks: disks, at: make(map[uint64]int, len(disks)), gap: gap}
	for i, d := range disks {
		c.at[d.OSD] = i
	}
	return c
}

// Moved notes a move that was made.
func (c *Cluster) Moved(from, to, bytes uint64) {
	if i, ok := c.at[from]; ok {
		c.disks[i].Used -= min(c.disks[i].Used, bytes)
	}
	if i, ok := c.at[to]; ok {
		c.disks[i].Used += bytes
	}
}

// Fullest returns the disk that is fullest for its size, if some disk that may take fragments
// is emptier by the gap.
func (c *Cluster) Fullest() (osd uint64, ok bool) {
	var most, least *Disk
	for i := range c.disks {
		d := &c.disks[i]
		if d.Capacity == 0 {
			continue
		}
		if most == nil || share(d, 0) > share(most, 0) {
			most = d
		}
		if d.Usable() && (least == nil || share(d, 0) < share(least, 0)) {
			least = d
		}
	}
	if most == nil || least == nil || share(most, 0)-share(least, 0) < c.gap {
		return 0, false
	}
	return most.OSD, true
}

// share is how full a disk is with so many bytes more.
func share(d *Disk, more float64) float64 {
	return (float64(d.Used) + more) / float64(d.Capacity)
}

// Spread is how badly the fragments of a chunk are spread. What is above x on a node counts
// most, then what is above m in a zone, then how uneven the nodes are. ok is false if a
// fragment is on a disk that is not there.
func (c *Cluster) Spread(k *Chunk) (strain int64, ok bool) {
	for i := range k.On {
		if _, there := c.at[k.On[i]]; !there {
			return 0, false
		}
	}
	return c.spread(k, -1, 0), true
}

// spread is Spread with fragment i on another disk; i -1: none.
func (c *Cluster) spread(k *Chunk, i int, to uint64) int64 {
	disk := func(j int) *Disk {
		if j == i {
			return &c.disks[c.at[to]]
		}
		return &c.disks[c.at[k.On[j]]]
	}
	var overX, overM, uneven int64
	for j := range k.On {
		d := disk(j)
		firstOfNode, firstOfZone := true, true
		var node, zone int64
		for l := range k.On {
			o := disk(l)
			if o.Node == d.Node {
				node++
				firstOfNode = firstOfNode && l >= j
			}
			if o.Zone == d.Zone {
				zone++
				firstOfZone = firstOfZone && l >= j
			}
		}
		if firstOfNode {
			overX += max(0, node-int64(k.Policy.X))
			uneven += node * node
		}
		if firstOfZone {
			overM += max(0, zone-int64(k.Policy.M))
		}
	}
	return (overX<<16|overM)<<20 | uneven // widths are up to policy.MaxWidth
}

// Best returns the move of one fragment of a chunk that lowers the strain most; ok is false if
// none lowers it. No move puts two fragments on a disk, more than x on a node, or anything on a
// disk that should take none. A move for the sake of the fill is between disks that are the gap
// apart, and leaves the one that was fuller no emptier than the other.
func (c *Cluster) Best(k *Chunk) (best Move, ok bool) {
	now, ok := c.Spread(k)
	if !ok {
		return Move{}, false
	}
	least := Strain{Spread: now}
	found := false
	for t := range c.disks {
		to := &c.disks[t]
		if !c.takes(k, to) {
			continue
		}
		for i := range k.On {
			from := &c.disks[c.at[k.On[i]]]
			s := Strain{Spread: c.spread(k, i, to.OSD), Fill: moved(from, to, float64(k.Bytes))}
			if s.Spread > now || s.Spread == now && !c.apart(from, to, float64(k.Bytes)) {
				continue
			}
			if s.Less(least) {
				least, best, found = s, Move{i, to.OSD}, true
			}
		}
	}
	return best, found
}

// takes reports whether a disk may take a fragment of a chunk.
func (c *Cluster) takes(k *Chunk, to *Disk) bool {
	if !to.Usable() || to.Capacity-to.Used < k.Bytes {
		return false
	}
	for _, on := range k.On {
		if on == to.OSD {
			return false
		}
	}
	return true
}

// apart reports whether two disks are so unequal that a fragment should move.
func (c *Cluster) apart(from, to *Disk, bytes float64) bool {
	return share(from, 0)-share(to, 0) >= c.gap && share(from, -bytes) >= share(to, bytes)
}

// moved is the change of Fill by a move.
func moved(from, to *Disk, bytes float64) float64 {
	return (bytes*bytes-2*bytes*float64(from.Used))/float64(from.Capacity) + (bytes*bytes+2*bytes*float64(to.Used))/float64(to.Capacity)
}
