package stamp

import (
	"fmt"
	"slices"
)

// Fault says how a sector contradicts the log.
type Fault string

// The ways in which a device can be wrong.
const (
	Corrupt   Fault = "corrupt"   // neither zeros nor a whole stamp
	Misplaced Fault = "misplaced" // a good stamp of another address
	Foreign   Fault = "foreign"   // a good stamp of another run, or of a write never issued here
	Stale     Fault = "stale"     // an older write than a check has already seen here
	Lost      Fault = "lost"      // a write that had to be kept is missing
	Torn      Fault = "torn"      // no order of the writes explains the cluster
	Reordered Fault = "reordered" // after a power cut: a later write is there without an earlier one
)

// Finding is one fault at one sector.
type Finding struct {
	Fault  Fault
	Sector uint64
	Detail string
}

// String is one line for a report.
func (f Finding) String() string {
	return fmt.Sprintf("%s at offset %d: %s", f.Fault, f.Sector*SectorSize, f.Detail)
}

// duty is why a write must be there.
type duty int

const (
	free    duty = iota // may be missing
	prefix              // a later write is there (P1 after a power cut)
	flushed             // a flush or FUA vouched for it
	acked               // it was acknowledged and only the process died
)

// duty of w, given whether power was cut and the newest seq found anywhere.
func (h *History) duty(w *write, powerCut bool, newest uint64) duty {
	switch {
	case w.ack == 0:
		return free
	case !powerCut:
		return acked
	case w.fua || w.ack < h.durable:
		return flushed
	case w.ack < newest:
		return prefix
	}
	return free
}

// judge compares what one cluster holds with what it may hold.
//
// A write is applied if it had to be kept, or if any sector of the cluster shows it.
// Each sector says that the write it shows came after every other applied write to that
// sector. The log says which writes came before which. The cluster is right if these
// statements have no cycle.
func (h *History) judge(number uint64, held sectors, powerCut bool, newest uint64) []Finding {
	c := h.clusters[number]
	if c == nil {
		c = &cluster{}
	}
	var found []Finding
	var shown [sectorsPerCluster]*write // nil: what the last check saw
	applied := map[*write]duty{}
	for i, seq := range held {
		if seq == c.base[i] {
			continue
		}
		sector := number*sectorsPerCluster + uint64(i)
		if shown[i] = c.find(seq, sector); shown[i] == nil {
			found = append(found, h.unexplained(sector, seq, c.base[i]))
			continue
		}
		applied[shown[i]] = free
	}
	if found != nil {
		return found
	}
	for _, w := range c.writes {
		if d := h.duty(w, powerCut, newest); d != free {
			applied[w] = d
		}
	}
	for i, x := range shown {
		sector := number*sectorsPerCluster + uint64(i)
		for y, d := range applied {
			if y != x && y.covers(sector) && (x == nil || x.before(y)) {
				found = append(found, missing(sector, held[i], y, d))
			}
		}
	}
	if found == nil && cyclic(number, shown, applied) {
		found = append(found, Finding{Torn, number * sectorsPerCluster,
			fmt.Sprintf("no order of the writes in flight gives sectors %v", held)})
	}
	return found
}

func (c *cluster) find(seq, sector uint64) *write {
	i := slices.IndexFunc(c.writes, func(w *write) bool { return w.seq == seq && w.covers(sector) })
	if i < 0 {
		return nil
	}
	return c.writes[i]
}

func (h *History) unexplained(sector, seq, base uint64) Finding {
	switch {
	case seq == 0:
		return Finding{Lost, sector, fmt.Sprintf("zeros where write %d had been seen", base)}
	case seq < base:
		return Finding{Stale, sector, fmt.Sprintf("write %d is back, %d had been seen after it", seq, base)}
	case h.writes[seq] == nil && seq < h.next:
		return Finding{Stale, sector, fmt.Sprintf("write %d is here, which an earlier check did not see", seq)}
	}
	return Finding{Foreign, sector, fmt.Sprintf("write %d was never issued here", seq)}
}

func missing(sector, held uint64, y *write, d duty) Finding {
	switch d {
	case acked:
		return Finding{Lost, sector, fmt.Sprintf("write %d, acknowledged at %d, is missing: the sector holds %d", y.seq, y.ack, held)}
	case flushed:
		return Finding{Lost, sector, fmt.Sprintf("write %d, flushed, is missing: the sector holds %d", y.seq, held)}
	case prefix:
		return Finding{Reordered, sector, fmt.Sprintf("write %d is missing though a later one is there: the sector holds %d", y.seq, held)}
	}
	return Finding{Torn, sector, fmt.Sprintf("write %d is only partly in its cluster: the sector holds %d", y.seq, held)}
}

// cyclic reports whether "came after" contradicts itself among the applied writes of
// one cluster. It removes, again and again, a write that need not come after any other
// that is left. If no such write is left, but others are, there is a cycle.
func cyclic(number uint64, shown [sectorsPerCluster]*write, applied map[*write]duty) bool {
	precedes := func(y, x *write) bool {
		if y.before(x) {
			return true
		}
		for i, s := range shown {
			if s == x && y.covers(number*sectorsPerCluster+uint64(i)) {
				return true
			}
		}
		return false
	}
	left := make([]*write, 0, len(applied))
	for w := range applied {
		left = append(left, w)
	}
	for len(left) > 0 {
		i := slices.IndexFunc(left, func(x *write) bool {
			return !slices.ContainsFunc(left, func(y *write) bool { return y != x && precedes(y, x) })
		})
		if i < 0 {
			return true
		}
		left = slices.Delete(left, i, i+1)
	}
	return false
}
