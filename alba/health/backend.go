package health

import (
	"fmt"

	"openvstorage/internal/counted"
)

// States of a group, besides ok and full. A full group waits for room, or for something
// else that its disk lacks.
const (
	// Failed is the state of a group whose member's sync or state failed, or met an entry
	// which it must not skip. The member answers nothing until it was opened anew, which is
	// tried by itself.
	Failed State = "failed"
	// Older is the state of a group of which a person accepted an older copy. The copy
	// lacks what was written since it was made.
	Older State = "older"
)

// GroupStates are all states of a group, from the best to the worst.
var GroupStates = []State{OK, Older, Full, Failed}

// Group is what is known of an Arakoon group.
type Group struct {
	Name   string
	Failed string // why its member here has failed, and how that goes on; "" if it has not
	Waits  bool   // it waits for room, or for something else that its disk lacks
	Older  bool   // an older copy was accepted
	Reads  bool   // objects cannot be found without it
}

// GroupIs is the judgement of a group.
type GroupIs struct {
	State  State
	Reason string // "" if it is ok
}

// Judge returns the state of the group.
func (g *Group) Judge() GroupIs {
	switch {
	case g.Failed != "":
		return GroupIs{Failed, fmt.Sprintf("group %s: the member here has failed: %s", g.Name, g.Failed)}
	case g.Waits:
		return GroupIs{Full, fmt.Sprintf("group %s waits for room, or for what else its disk needs: changes wait with it", g.Name)}
	case g.Older:
		return GroupIs{Older, fmt.Sprintf("group %s is an older copy that was accepted", g.Name)}
	}
	return GroupIs{State: OK}
}

// BackendStates are all states of a backend, from the best to the worst.
var BackendStates = []State{OK, Degraded, Unreadable}

// Backend is what is known of a backend. The reasons of its parts come from the Judge
// of each part.
type Backend struct {
	Disks      []DiskNamed
	Namespaces []Namespace
	Groups     []Group

	Waiting uint64 // objects with fragments that are known to be bad or absent
	NoPlace uint64 // objects that no disk can take a fragment of
	Failed  uint64 // objects whose last read failed though their disks are there
	Example string // the name of one of these

	NoRoom    string   // why no object can be put, "" if one can
	Suspended string   // why deletion on disks is suspended, "" if it is not
	Alarms    []string // what else a person has to decide
}

// DiskNamed is a disk with its number and place.
type DiskNamed struct {
	Number uint64
	Place  string
	Disk
}

// BackendIs is the judgement of a backend.
type BackendIs struct {
	State   State
	Reasons []string // none if it is ok
}

// Judge returns the state of the backend.
func (b *Backend) Judge() BackendIs {
	is := BackendIs{State: OK}
	say := func(s State, reason string) {
		is.Reasons = append(is.Reasons, reason)
		if s == Unreadable || is.State == OK {
			is.State = s
		}
	}
	for i := range b.Groups {
		if g := b.Groups[i].Judge(); g.State == Failed && b.Groups[i].Reads {
			say(Unreadable, g.Reason)
		} else if g.State != OK && g.State != Older { // Suspended tells of older copies
			say(Degraded, g.Reason)
		}
	}
	moving := false // fragments may have to be made again elsewhere
	for i := range b.Disks {
		d := b.Disks[i].Judge()
		moving = moving || d.State != OK
		if !d.Well() {
			say(Degraded, b.Disks[i].sentence(d))
		}
	}
	narrow, short := uint64(0), 0
	for i := range b.Namespaces {
		n := &b.Namespaces[i]
		narrow += n.Narrow
		switch of := n.Judge(); {
		case of.State == Unknown:
			say(Unreadable, of.Reason)
		case n.Coded && n.MayLose < 0:
			short++
		}
	}
	if short > 0 {
		say(Unreadable, "objects in "+counted.Of(short, "namespace", "namespaces")+" have too few fragments on disks that are there")
	}
	if b.Failed > 0 {
		say(Unreadable, fmt.Sprintf("%s could not be read, one of them: %s", counted.Of(b.Failed, "object", "objects"), b.Example))
	}
	if narrow > 0 {
		say(Degraded, counted.Of(narrow, "object is", "objects are")+" below full width")
	}
	if b.Waiting > 0 {
		say(Degraded, counted.Of(b.Waiting, "object has fragments that are known to be bad or absent, and waits", "objects have fragments that are known to be bad or absent, and wait")+" for a repair")
	}
	if b.NoPlace > 0 && (moving || narrow > 0) { // NoPlace is of the last survey, and nothing needs a place by now
		say(Degraded, counted.Of(b.NoPlace, "object lacks", "objects lack")+" a disk that can take a fragment")
	}
	for _, why := range append([]string{b.NoRoom, b.Suspended}, b.Alarms...) {
		if why != "" {
			say(Degraded, why)
		}
	}
	return is
}

func (d *DiskNamed) sentence(is DiskIs) string {
	return fmt.Sprintf("disk %d (%s) is %s: %s", d.Number, d.Place, is.State, is.Reason)
}
