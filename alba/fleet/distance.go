package fleet

// Distance is how far a disk is from this process.
type Distance uint8

// Distances, the nearest first.
const (
	SameNode Distance = iota
	SameZone
	Elsewhere
)

// SetNode says which node this process is on. Until then all disks are Elsewhere.
func (f *Fleet) SetNode(node string) { f.node.Store(&node) }

// Distance returns how far a disk is. The zone of this process is that of the disks on its
// node; if there are none it is not known.
func (f *Fleet) Distance(d *Disk) Distance {
	node := f.node.Load()
	if node == nil {
		return Elsewhere
	}
	if d.Node == *node {
		return SameNode
	}
	if zone := f.zone.Load(); zone != nil && *zone != "" && d.Zone() == *zone {
		return SameZone
	}
	return Elsewhere
}

// locate finds out in which zone this process is.
func (f *Fleet) locate(all []*Disk) {
	node := f.node.Load()
	if node == nil {
		return
	}
	zone := ""
	for _, d := range all {
		if d.Node == *node {
			zone = d.Zone()
			break
		}
	}
	if was := f.zone.Load(); was == nil || *was != zone {
		f.zone.Store(&zone)
	}
}
