package health

import (
	"fmt"
	"time"

	"openvstorage/internal/counted"
)

// States of a disk.
const (
	Slow     State = "slow"      // it answers, and others would be done long before
	Damaged  State = "damaged"   // it lacks fragments that it had, or what a start needs of it
	Draining State = "draining"  // its fragments are being moved, as somebody wished
	Full     State = "full"      // it refuses what puts would give it
	ReadOnly State = "read-only" // it is read, and takes no writes
	Failing  State = "failing"   // it is there, and fails or does not answer
	Unopened State = "unopened"  // it is there, and the machine lacks what it takes to open it
	Missing  State = "missing"   // it is not where it should be
	Lost     State = "lost"      // it was given up
)

// DiskStates are all states of a disk, from the best to the worst: of several that
// hold, it is in the last. Draining comes before full, as a disk that is drained
// gets nothing anyway.
var DiskStates = []State{OK, Slow, Damaged, Full, Draining, ReadOnly, Failing, Unopened, Missing, Lost}

// Trouble is something that has been observed of a disk for a while.
type Trouble struct {
	Reason string
	Since  time.Time
}

// Disk is what is known of a disk. The zero value is one that is well.
type Disk struct {
	// As the ABM has it.
	Lost, Draining bool
	Fragments      uint64 // of objects, on it

	// As it was found when it was to be opened: why it is not there, "" if it is.
	Missing  string
	Unopened bool // with Missing: it is there all the same

	// As it does its work. Failing and Slow are what whoever uses it has observed.
	Failing *Trouble
	// Unread, with Failing: reads of it fail or do not return. Without, only its
	// writes do, and what is on it can be read.
	Unread bool
	Slow   *Trouble
	// Silent is the error of asking how full it is, "" if it answers.
	Silent string

	// As it says itself.
	ReadOnly string // why it takes no writes, "" if it does
	Full     bool   // it refuses puts
	Refused  bool   // it refused the last one that was as large, for want of room
	Room     uint64 // bytes that it has for puts
	Absent   uint64 // fragments that it had, and that are gone from it
	Need     uint64 // bytes of the largest fragment that a put may bring; 0: not known
	Trouble  string // what the next start would meet, "" if nothing is known
}

// DiskIs is how a disk is.
type DiskIs struct {
	State  State
	Reason string    // "" if it is ok
	Since  time.Time // zero: not known
	// Gone: what is on it cannot be read now.
	Gone bool
}

// Judge says how the disk is.
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
		return DiskIs{State: Damaged, Reason: counted.Of(d.Absent, "fragment that it had is gone from it; it is", "fragments that it had are gone from it; they are") + " made again"}
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

// Takes reports whether a disk in this state takes what puts bring.
func (i DiskIs) Takes() bool { return i.State == OK || i.State == Slow || i.State == Damaged }

// Well reports whether nobody has to do anything about a disk in this state. One
// that is drained is on its way out because somebody wished it.
func (i DiskIs) Well() bool { return i.State == OK || i.State == Draining }
