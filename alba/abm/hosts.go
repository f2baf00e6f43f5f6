package abm

import (
	"context"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// HostState says what an NSM host is to be.
type HostState uint8

// States of an NSM host, in calls.
const (
	HostOpen    HostState = 1 // takes new namespaces
	HostRetired HostState = 2 // takes none; can be removed once it has none
	HostLost    HostState = 3 // gone for good with all that it kept
)

// hostStateArg: String name, Enum state.
type hostStateArg struct {
	name  string
	state HostState
}

func (a *hostStateArg) Fields(c *record.Codec) {
	c.String(&a.name, MaxLabel)
	s := uint8(a.state)
	c.Enum(&s, uint8(HostOpen), uint8(HostLost), "NSM host state")
	a.state = HostState(s)
}

func hostNamed(tx userfn.Tx, name string) (*Host, error) {
	var at number
	switch ok, err := load(tx, named(tableHostName, name), &at); {
	case err != nil:
		return nil, err
	case !ok:
		return nil, userfn.Errorf(userfn.CodeNotFound, "NSM host %q: not found", name)
	}
	return loadHost(tx, at.v)
}

// setHost opens, retires or gives up an NSM host. What is lost stays lost: its namespaces
// may be served by another host by then.
func setHost(tx userfn.Tx, a *hostStateArg) (*userfn.Empty, error) {
	h, err := hostNamed(tx, a.name)
	if err != nil {
		return nil, err
	}
	if h.Lost && a.state != HostLost {
		return nil, userfn.Errorf(userfn.CodeConflict, "NSM host %q: it was lost and does not come back; add it under another name", a.name)
	}
	h.Closed = a.state != HostOpen
	h.Lost = a.state == HostLost
	return &userfn.Empty{}, store(tx, hostKey(h.Number), h)
}

// removeHost forgets an NSM host that has no namespaces and takes none, with its messages, up
// to MaxMessages of them at a time. The step is done when the host is forgotten, and for one
// that is not known.
func removeHost(tx userfn.Tx, a *nameArg) (*nsm.Step, error) {
	var at number
	if ok, err := load(tx, named(tableHostName, a.name), &at); err != nil || !ok {
		return &nsm.Step{Done: true}, err
	}
	h, err := loadHost(tx, at.v)
	switch {
	case err != nil:
		return nil, err
	case !h.Closed:
		return nil, userfn.Errorf(userfn.CodeInUse, "NSM host %q: it takes namespaces; retire it first", a.name)
	case h.Namespaces > 0:
		return nil, userfn.Errorf(userfn.CodeInUse, "NSM host %q: namespaces left on it: %d; move them, or recover them if it is lost", a.name, h.Namespaces)
	}
	var step nsm.Step
	for h.Delivered+1 < h.NextMessage && step.Removed < MaxMessages {
		h.Delivered++
		tx.Delete(messageKey(h.Number, h.Delivered))
		step.Removed++
	}
	if h.Delivered+1 < h.NextMessage {
		return &step, store(tx, hostKey(h.Number), h)
	}
	b, err := loadBackend(tx)
	if err != nil {
		return nil, err
	}
	tx.Delete(hostKey(h.Number))
	tx.Delete(named(tableHostName, a.name))
	b.Hosts--
	step.Done = true
	return &step, store(tx, backendKey(), b)
}

// SetHost opens an NSM host for new namespaces, retires it or gives it up for lost. Retiring
// moves nothing: see MoveNamespace. A host that is lost stays lost (ErrConflict); its
// namespaces are given to other hosts one by one: see RecoverNamespace. Whoever gives a host
// up asserts that its members never serve again.
func (c *Client) SetHost(ctx context.Context, name string, state HostState) error {
	return c.do(ctx, nameSetHost, &hostStateArg{name: name, state: state})
}

// RemoveHost takes a step of forgetting a retired or lost NSM host that has no namespaces left
// (else ErrInUse). Messages that it has not applied are forgotten with it. Repeat it until the
// step is done.
func (c *Client) RemoveHost(ctx context.Context, name string) (nsm.Step, error) {
	var s nsm.Step
	err := c.call(ctx, nameRemoveHost, &nameArg{name}, &s)
	return s, err
}
