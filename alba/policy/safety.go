package policy

// Where is where a fragment is that can be read.
type Where struct {
	OSD        uint64
	Node, Zone string
}

// Safety is how much more may die before a chunk cannot be read: any so many disks, nodes
// or zones, whichever they are. It is 0 where the death of one may be too much. All three
// are -1 for a chunk that cannot be read now.
type Safety struct{ Disks, Nodes, Zones int }

// Lost is the Safety of a chunk that cannot be read.
var Lost = Safety{-1, -1, -1}

// Worse returns the safety of two chunks together: the lesser of each number.
func (s Safety) Worse(o Safety) Safety {
	return Safety{min(s.Disks, o.Disks), min(s.Nodes, o.Nodes), min(s.Zones, o.Zones)}
}

// Less orders by urgency of repair: what outlives fewer disks comes first, of that what
// outlives fewer nodes, then zones.
func (s Safety) Less(o Safety) bool {
	switch {
	case s.Disks != o.Disks:
		return s.Disks < o.Disks
	case s.Nodes != o.Nodes:
		return s.Nodes < o.Nodes
	}
	return s.Zones < o.Zones
}

// SafetyOf returns the safety of a chunk of which any k fragments are enough. at is where
// its fragments are, without those that cannot be read: on no disk, bad, or on a disk that
// is away. It takes up to MaxWidth fragments, and allocates nothing.
//
// It counts by name: nodes whose zone is not known are in one zone together, that of the
// empty name.
func SafetyOf(k int, at []Where) Safety {
	if len(at) < k {
		return Lost
	}
	return Safety{
		Disks: outlives(k, at, func(a, b *Where) bool { return a.OSD == b.OSD }),
		Nodes: outlives(k, at, func(a, b *Where) bool { return a.Node == b.Node }),
		Zones: outlives(k, at, func(a, b *Where) bool { return a.Zone == b.Zone }),
	}
}

// outlives returns how many groups of fragments may die together, in the worst case: those
// with the most fragments die first.
func outlives(k int, at []Where, together func(a, b *Where) bool) (groups int) {
	var sizes [MaxWidth + 1]uint8 // how many groups have so many fragments
	var counted [MaxWidth]bool
	for i := range at {
		if counted[i] {
			continue
		}
		size := 0
		for j := i; j < len(at); j++ {
			if !counted[j] && together(&at[i], &at[j]) {
				counted[j] = true
				size++
			}
		}
		sizes[size]++
	}
	left := len(at)
	for size := len(at); size > 0; size-- {
		for range sizes[size] {
			if left -= size; left < k {
				return groups
			}
			groups++
		}
	}
	return groups
}
