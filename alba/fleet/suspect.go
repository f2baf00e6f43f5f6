package fleet

import (
	"sync/atomic"
	"time"
)

const (
	// suspectAfter is how many reads in a row must have been overtaken. The reads of a disk
	// that is well are overtaken now and then: its slowest are.
	suspectAfter = 3
	// suspectFor is how long a disk is suspected of which nothing new is seen.
	suspectFor = 10 * time.Second
)

// suspicion is what callers saw of a disk just now. That of reads comes with the third late read,
// long before Watch can tell that the disk is slow, and goes with the first that is in time.
type suspicion struct {
	row  atomic.Int32 // reads overtaken, one after the other
	last atomic.Int64 // when the last one was, in nanoseconds of the fleet's clock

	writes atomic.Int64 // when a write was late, in nanoseconds of the fleet's clock; 0: none since one came back
}

// Overtaken tells that a read of the disk was late, and that others would have been, or were,
// asked with success meanwhile.
func (d *Disk) Overtaken() {
	d.suspicion.last.Store(d.fleet.now().UnixNano())
	if d.suspicion.row.Load() < suspectAfter {
		d.suspicion.row.Add(1)
	}
}

// InTime tells that a read of the disk came within its patience.
func (d *Disk) InTime() {
	if d.suspicion.row.Load() != 0 {
		d.suspicion.row.Store(0)
	}
}

// Suspected reports whether the last reads of the disk were overtaken. Such a disk is read from
// only now and then, if others can be asked that are not suspected.
func (d *Disk) Suspected() bool {
	return d.suspicion.row.Load() >= suspectAfter && d.fleet.now().UnixNano()-d.suspicion.last.Load() < int64(suspectFor)
}

// WriteLate tells that a write of the disk is late, and that its caller goes on without it.
func (d *Disk) WriteLate() { d.suspicion.writes.Store(d.fleet.now().UnixNano()) }

// WritesLate reports whether a write of the disk was late a short while ago, and none has
// succeeded since. Whoever can do without the disk gives it nothing more to write.
func (d *Disk) WritesLate() bool {
	at := d.suspicion.writes.Load()
	return at != 0 && d.fleet.now().UnixNano()-at < int64(suspectFor)
}

// wroteInTime ends what WriteLate began.
func (s *suspicion) wroteInTime() {
	if s.writes.Load() != 0 {
		s.writes.Store(0)
	}
}
