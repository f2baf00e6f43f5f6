package health

import (
	"fmt"

	"openvstorage/internal/counted"
)

// States of a group, besides ok and full. Full: it waits for room, or for what
// else its disk lacks.
const (
	// Failed: a sync or its state failed, or it met what it must not skip. It
	// neither changes nor answers until the next start.
	Failed State = "failed"
	// Older: an older copy of it was accepted by a person, and what was written
	// since is not in it.
	Older State = "older"
)

// GroupStates are all states of a group, from the best to the worst.
var GroupStates = []State{OK, Older, Full, Failed}

// Group is what is known of an Arakoon group.
type Group struct {
	Name   string
	Failed string // why, "" if it has not
	Waits  bool   // for room, or for what else its disk lacks
	Older  bool   // an older copy was accepted
	// Reads: objects cannot be found without it.
	Reads bool
}

// GroupIs is how a group is.
type GroupIs struct {
	State  State
	Reason string // "" if it is ok
}

// Judge says how the group is.
func (g *Group) Judge() GroupIs {
	switch {
	case g.Failed != "":
		return GroupIs{Failed, fmt.Sprintf("group %s has failed, and answers again after a restart: %s", g.Name, g.Failed)}
	case g.Waits:
		return GroupIs{Full, fmt.Sprintf("group %s waits for room, or for what else its disk needs: changes wait with it", g.Name)}
	case g.Older:
		return GroupIs{Older, fmt.Sprintf("group %s is an older copy that was accepted", g.Name)}
	}
	return GroupIs{State: OK}
}

// BackendStates are all states of a backend, from the best to the worst.
var BackendStates = []State{OK, Degraded, Unreadable}

// Backend is what is known of a backend. Reasons of its parts come from their own
// Judge.
type Backend struct {
	Disks      []DiskNamed
	Namespaces []Namespace
	Groups     []Group

	Waiting uint64 // objects with fragments that are known to be bad or absent
	NoPlace uint64 // objects that no disk can take a fragment of
	Failed  uint64 // objects of which a read failed, and has not succeeded since
	Example string // one of these

	NoRoom    string   // why nothing more can be put, "" if something can
	Suspended string   // why nothing is deleted on disks, "" if it is
	Alarms    []string // what else stands for a person to decide
}

// DiskNamed is a disk and what people call it.
type DiskNamed struct {
	Number uint64
	Place  string
	Disk
}

// BackendIs is how a backend is.
type BackendIs struct {
	State   State
	Reasons []string // none if it is ok
}

// Judge says how the backend is.
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
		} else if g.State != OK && g.State != Older { // why it is, Suspended says
			say(Degraded, g.Reason)
		}
	}
	moving := false // something may have to be made elsewhere
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
	if b.NoPlace > 0 && (moving || narrow > 0) { // it was so at the last survey
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
