package health

import (
	"fmt"
	"time"

	"openvstorage/internal/counted"
)

// States of a disk.
const (
	Slow     State = "slow"      // it answers much later than other disks would
	Damaged  State = "damaged"   // it lacks fragments that it had, or a file that a start needs
	Draining State = "draining"  // a person has its fragments moved to other disks
	Full     State = "full"      // it refuses puts for want of room
	ReadOnly State = "read-only" // it can be read, and takes no writes
	Failing  State = "failing"   // it is there, and fails or does not answer
	Unopened State = "unopened"  // it is there, and the machine lacks what it takes to open it
	Missing  State = "missing"   // it is not where it should be
	Lost     State = "lost"      // it was given up
)

// DiskStates are all states of a disk, from the best to the worst. If several hold, the
// worst is the state of the disk. Draining is worse than full, as a disk that is being
// drained gets no fragments anyway.
var DiskStates = []State{OK, Slow, Damaged, Full, Draining, ReadOnly, Failing, Unopened, Missing, Lost}

// Trouble is something that has been observed of a disk for a while.
type Trouble struct {
	Reason string
	Since  time.Time
}

// Disk is what is known of a disk. The zero value is a disk that is ok.
type Disk struct {
	// What the ABM has recorded.
	Lost, Draining bool
	Fragments      uint64 // of objects, on this disk

	// What the last attempt to open it found.
	Missing  string // why it is not open, "" if it is
	Unopened bool   // with Missing: it is there, and cannot be opened

	// What its users have observed.
	Failing *Trouble
	Unread  bool // with Failing: reads fail or do not return; else only writes do
	Slow    *Trouble
	Silent  string // the error when it was asked how full it is, "" if it answers

	// What it says of itself.
	ReadOnly string // why it takes no writes, "" if it takes them
	Full     bool   // it refuses puts
	Refused  bool   // it refused a put for want of room, and has taken none as large since
	Room     uint64 // bytes that it has for puts
	Absent   uint64 // fragments and recovery records that it had, and has no more
	Need     uint64 // bytes of the largest fragment that a put may bring; 0: not known
	Trouble  string // why the next start would not open it, "" if nothing is known
}

// DiskIs is the judgement of a disk.
type DiskIs struct {
	State  State
	Reason string    // "" if it is ok
	Since  time.Time // zero: not known
	Gone   bool      // its fragments cannot be read now
}

// Judge returns the state of the disk: the worst of those that hold.
func (d *Disk) Judge() DiskIs {
	switch {
	case d.Lost:
		return DiskIs{State: Lost, Reason: "it was given up; what it held is made again elsewhere", Gone: true}
	case d.Missing != "" && d.Unopened:
		return DiskIs{State: Unopened, Reason: d.Missing, Gone: true}
	case d.Missing != "":
		return DiskIs{State: Missing, Reason: d.Missing, Gone: true}
	case d.Failing != nil:
		return DiskIs{State: Failing, Reason: d.Failing.Reason, Since: d.Failing.Since, Gone: d.Unread}
	case d.Silent != "":
		return DiskIs{State: Failing, Reason: d.Silent, Gone: true}
	case d.ReadOnly != "":
		return DiskIs{State: ReadOnly, Reason: d.ReadOnly}
	case d.Draining:
		return DiskIs{State: Draining, Reason: counted.Of(d.Fragments, "fragment is", "fragments are") + " to be moved"}
	case d.Full, d.Refused, d.Room < d.Need:
		return DiskIs{State: Full, Reason: d.fullReason()}
	case d.Trouble != "":
		return DiskIs{State: Damaged, Reason: "the next start would not open it: " + d.Trouble}
	case d.Absent > 0:
		return DiskIs{State: Damaged, Reason: counted.Of(d.Absent, "fragment or recovery record that it had is gone from it; it is", "fragments and recovery records that it had are gone from it; they are") + " made again"}
	case d.Slow != nil:
		return DiskIs{State: Slow, Reason: d.Slow.Reason, Since: d.Slow.Since}
	}
	return DiskIs{State: OK}
}

func (d *Disk) fullReason() string {
	if d.Refused && d.Room >= d.Need && !d.Full {
		return "it refused a write for want of room"
	}
	return fmt.Sprintf("%d KiB are left for puts, and a fragment may have %d", d.Room>>10, d.Need>>10)
}

// Takes reports whether a disk in this state takes fragments of puts.
func (i DiskIs) Takes() bool { return i.State == OK || i.State == Slow || i.State == Damaged }

// Well reports whether a disk in this state needs no attention. A person has asked for
// a drain, so a draining disk needs none.
func (i DiskIs) Well() bool { return i.State == OK || i.State == Draining }
