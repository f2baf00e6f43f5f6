package health

// Room is the room of a disk, in bytes.
type Room struct {
	Used     uint64
	Capacity uint64
	// Shared identifies the file system of the disk. Disks with the same one share its
	// free space; 0: not known, and shared with no other.
	Shared uint64
}

// Total adds disks up. The free space of a file system counts once, however many disks
// are on it.
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
		// The disks were asked at different moments, so their answers may differ: the
		// largest counts.
		left[d.Shared] = max(left[d.Shared], free)
	}
	for _, free := range left {
		capacity += free
	}
	return used, capacity
}
