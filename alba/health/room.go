package health

// Room is what a disk has, in bytes.
type Room struct {
	Used     uint64
	Capacity uint64
	// Shared is the file system that it is on: disks with the same one, unless it
	// is 0, have what is left of it together.
	Shared uint64
}

// Total adds disks up. What file systems have left counts once, however many disks
// are on them.
func Total(disks []Room) (used, capacity uint64) {
	left := make(map[uint64]uint64) // by file system
	for _, d := range disks {
		free := d.Capacity - min(d.Used, d.Capacity)
		used += d.Used
		capacity += d.Used
		if d.Shared == 0 {
			capacity += free
			continue
		}
		// All of them were asked one after the other: the least that one said is
		// not the sum, and the most may be.
		left[d.Shared] = max(left[d.Shared], free)
	}
	for _, free := range left {
		capacity += free
	}
	return used, capacity
}
