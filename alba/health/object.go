package health

import (
	"fmt"

	"openvstorage/internal/counted"
)

// States of an object, of a namespace and of a backend, besides ok.
const (
	Degraded   State = "degraded"   // something is wrong with it, and all of it can be read
	Unreadable State = "unreadable" // some of it cannot be read now
)

// Unknown is the state of a namespace that one of the managers does not know.
const Unknown State = "unknown"

// ObjectStates and NamespaceStates are all states of each, from the best to the worst.
var (
	ObjectStates    = []State{OK, Degraded, Unreadable}
	NamespaceStates = []State{OK, Degraded, Unreadable, Unknown}
)

// Fragment is what is known of a fragment without reading it.
type Fragment struct {
	Nowhere  bool   // no disk has it yet
	DiskLost bool   // its disk was given up
	Err      string // why its disk does not tell, "" if it does
	Found    bool   // its disk has it
	Size     uint32 // bytes that the disk has
	Want     uint32 // bytes that it should have
	Bad      bool   // a read found it bad
}

// Judge returns "ok", or why the fragment cannot be read.
func (f Fragment) Judge() (ok bool, text string) {
	switch {
	case f.Nowhere:
		return false, "not stored yet"
	case f.DiskLost:
		return false, "its disk is lost"
	case f.Err != "":
		return false, f.Err
	case !f.Found:
		return false, "its disk does not have it"
	case f.Size != f.Want:
		return false, fmt.Sprintf("it has %d bytes", f.Size)
	case f.Bad:
		return false, "a read found it bad"
	}
	return true, string(OK)
}

// Object is what is known of an object.
type Object struct {
	K     int // fragments that a read of a chunk needs; 0: the object is in its manifest
	Width int // fragments that each chunk is to have
	// Readable is the number of fragments of the weakest chunk that are on disks which
	// can be read, without those that were found bad.
	Readable int
}

// Judge returns the state of the object.
func (o Object) Judge() State {
	switch {
	case o.K == 0 || o.Readable >= o.Width:
		return OK
	case o.Readable >= o.K:
		return Degraded
	}
	return Unreadable
}

// MayLose is how many more fragments of its weakest chunk the object may lose. Below
// zero, so many fragments have to come back before it can be read.
func (o Object) MayLose() int { return o.Readable - o.K }

// Namespace is what is known of a namespace.
type Namespace struct {
	Name    string
	Wanted  bool   // a vDisk lives in it
	NoABM   bool   // the ABM does not know it
	NoNSM   bool   // the NSM does not know it
	Coded   bool   // it has objects with fragments
	MayLose int    // with Coded: how many more fragments its weakest object may lose
	Narrow  uint64 // objects below full width
	Failed  uint64 // objects of which a read failed for good
	Waiting uint64 // objects with fragments that are known to be bad or absent
	Spread  bool   // it has fragments on disks that are gone
}

// NamespaceIs is the judgement of a namespace.
type NamespaceIs struct {
	State  State
	Reason string // "" if it is ok
}

// Judge returns the state of the namespace.
func (n *Namespace) Judge() NamespaceIs {
	switch {
	case n.NoNSM:
		return NamespaceIs{Unknown, fmt.Sprintf("namespace %s is not known to the NSM: none of its objects can be read; stop, and restore arakoon/ of the data directory from one copy", n.Name)}
	case n.NoABM && n.Wanted:
		return NamespaceIs{Unknown, fmt.Sprintf("namespace %s is not known to the ABM, and there is a vDisk in it; stop, and restore arakoon/ of the data directory from one copy", n.Name)}
	case n.Coded && n.MayLose < 0:
		return NamespaceIs{Unreadable, fmt.Sprintf("namespace %s has objects with too few fragments on disks that are there", n.Name)}
	case n.Failed > 0:
		return NamespaceIs{Unreadable, fmt.Sprintf("namespace %s has %s that could not be read", n.Name, counted.Of(n.Failed, "object", "objects"))}
	case n.Narrow > 0:
		return NamespaceIs{Degraded, counted.Of(n.Narrow, "object is", "objects are") + " below full width"}
	case n.Waiting > 0:
		return NamespaceIs{Degraded, counted.Of(n.Waiting, "object waits", "objects wait") + " for a repair"}
	case n.Spread:
		return NamespaceIs{Degraded, "some of its fragments are on disks that are gone"}
	}
	return NamespaceIs{State: OK}
}
