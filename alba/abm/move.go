package abm

import (
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// moveStep is a step of a namespace to another NSM host.
type moveStep uint8

const (
	moveBegin   moveStep = 1 // it is to go to a host, in the next generation
	moveSwitch  moveStep = 2 // that host serves it
	moveFinish  moveStep = 3 // the one that it left has dropped it
	moveCancel  moveStep = 4 // it stays; the one that it is to leave has been told
	moveRecover moveStep = 5 // its host is lost, another one is to take what the disks have
	moveServe   moveStep = 6 // that host serves it
)

// namespaceArg: U64 namespace, Enum step, U64 generation, U64 host, 0: the one with the fewest
// namespaces.
type namespaceArg struct {
	number     uint64
	step       moveStep
	generation uint64
	host       uint64
}

func (a *namespaceArg) Fields(c *record.Codec) {
	c.U64(&a.number)
	s := uint8(a.step)
	c.Enum(&s, uint8(moveBegin), uint8(moveServe), "step of a namespace")
	a.step = moveStep(s)
	c.U64(&a.generation)
	c.U64(&a.host)
}

// moveNamespace takes a step, and returns the namespace as it is then. A step of a generation
// that is not the namespace's is refused, and a step that was taken is no error.
func moveNamespace(tx userfn.Tx, a *namespaceArg) (*Namespace, error) {
	n, err := loadNamespace(tx, a.number)
	if err != nil {
		return nil, err
	}
	if a.generation != n.Generation {
		return nil, userfn.Errorf(userfn.CodeConflict, "namespace %d: it is %v in generation %d, not %d", n.Number, n.State, n.Generation, a.generation)
	}
	switch a.step {
	case moveBegin:
		err = begin(tx, n, a.host)
	case moveSwitch:
		if n.State != NamespaceMoving {
			return n, nil // it came to its end, of whatever kind: the caller looks
		}
		if !n.Switched {
			n.Host, n.Other, n.Switched = n.Other, n.Host, true
		}
	case moveFinish:
		err = finish(tx, n)
	case moveCancel:
		err = cancel(tx, n)
	case moveRecover:
		err = recoverAt(tx, n, a.host)
	case moveServe:
		if n.State == NamespaceRecovering {
			n.State = NamespaceActive
		}
	}
	if err != nil {
		return nil, err
	}
	return n, store(tx, namespaceKey(n.Number), n)
}

// pickFor returns the host that a namespace is to go to: the one named or, for 0, the one with
// the fewest namespaces.
func pickFor(tx userfn.Tx, n *Namespace, host uint64) (*Host, error) {
	if host == 0 {
		return pickHost(tx)
	}
	h, err := loadHost(tx, host)
	if err == nil && (h.Closed || h.Lost) {
		err = userfn.Errorf(userfn.CodeNoHost, "namespace %d: NSM host %q takes no namespaces; choose another, or open it", n.Number, h.Name)
	}
	return h, err
}

// prepare tells a host that a namespace comes, and of the OSDs that it may not know, on which
// the namespace has fragments. The host counts it from now on.
func prepare(tx userfn.Tx, h *Host, n *Namespace, from uint64) error {
	h.Namespaces++
	err := eachOSD(tx, func(o *OSD) error {
		if o.State != OSDDraining && o.State != OSDLost {
			return nil
		}
		return send(tx, h, nsm.Message{Kind: nsm.MessageKnowOSD, OSD: o.Number, Node: o.Node, Lost: o.State == OSDLost})
	})
	if err != nil {
		return err
	}
	return send(tx, h, nsm.Message{Kind: nsm.MessageImportNamespace, Namespace: n.Number, Generation: n.Generation, Host: from})
}

// leave has a host count a namespace no more.
func leave(tx userfn.Tx, host uint64) error {
	h, err := loadHost(tx, host)
	if err != nil {
		return err
	}
	h.Namespaces--
	return store(tx, hostKey(host), h)
}

func begin(tx userfn.Tx, n *Namespace, host uint64) error {
	if n.State != NamespaceActive {
		return userfn.Errorf(userfn.CodeConflict, "namespace %d: it is %v; only an active one is moved", n.Number, n.State)
	}
	from, err := loadHost(tx, n.Host)
	if err != nil {
		return err
	}
	if from.Lost {
		return userfn.Errorf(userfn.CodeConflict, "namespace %d: its NSM host %q is lost; recover it", n.Number, from.Name)
	}
	h, err := pickFor(tx, n, host)
	if err != nil {
		return err
	}
	if h.Number == n.Host {
		return userfn.Errorf(userfn.CodeInvalid, "namespace %d: it is on NSM host %q already; choose another", n.Number, h.Name)
	}
	n.State, n.Other, n.Switched = NamespaceMoving, h.Number, false
	n.Generation++
	return prepare(tx, h, n, n.Host)
}

// finish ends a move that was switched.
func finish(tx userfn.Tx, n *Namespace) error {
	switch {
	case n.State != NamespaceMoving:
		return nil
	case !n.Switched:
		return userfn.Errorf(userfn.CodeConflict, "namespace %d: its new NSM host does not serve it yet", n.Number)
	}
	from := n.Other
	n.State, n.Other, n.Switched = NamespaceActive, 0, false
	return leave(tx, from)
}

// cancel ends a move that was not switched. The host that the namespace was to go to learns it
// by message.
func cancel(tx userfn.Tx, n *Namespace) error {
	switch {
	case n.State != NamespaceMoving:
		return nil
	case n.Switched:
		return userfn.Errorf(userfn.CodeConflict, "namespace %d: its new NSM host serves it already; finish the move", n.Number)
	}
	h, err := loadHost(tx, n.Other)
	if err != nil {
		return err
	}
	n.State, n.Other = NamespaceActive, 0
	h.Namespaces--
	return send(tx, h, nsm.Message{Kind: nsm.MessageCancelImport, Namespace: n.Number, Generation: n.Generation, Host: n.Host})
}

// recoverAt gives a namespace whose host is lost to another one. A move that was under way ends
// with it: the other host has a part of the namespace, or is free to drop what it had.
func recoverAt(tx userfn.Tx, n *Namespace, host uint64) error {
	lost, err := loadHost(tx, n.Host)
	if err != nil {
		return err
	}
	if !lost.Lost {
		return userfn.Errorf(userfn.CodeInUse, "namespace %d: its NSM host %q is not lost; give it up first, if it never comes back", n.Number, lost.Name)
	}
	end := cancel // for a state other than NamespaceMoving, both do nothing
	if n.Switched {
		end = finish
	}
	if err := end(tx, n); err != nil {
		return err
	}
	removing := n.State == NamespaceRemoving
	h, err := pickFor(tx, n, host)
	if err != nil {
		return err
	}
	if err := leave(tx, n.Host); err != nil {
		return err
	}
	n.Generation++
	n.Host = h.Number
	if err := prepare(tx, h, n, 0); err != nil {
		return err
	}
	if removing { // its name is free: what is left is to be removed, not recovered
		return send(tx, h, nsm.Message{Kind: nsm.MessageDeleteNamespace, Namespace: n.Number})
	}
	n.State = NamespaceRecovering
	return nil
}
