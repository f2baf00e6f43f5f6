package policy

// None is the OSD number of no disk. A fragment with it is not stored yet.
const None uint64 = 0

// Disk is what a decision needs to know of an OSD.
type Disk struct {
	OSD      uint64 // its number, used once; never None
	Node     string // the machine that it is in
	Zone     string // where that machine is: what may fail together with it; "" is a zone like others
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
