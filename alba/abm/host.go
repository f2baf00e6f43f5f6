package abm

import (
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

func hostKey(h uint64) []byte { return key(tableHost, h) }

func loadHost(tx userfn.Tx, n uint64) (*Host, error) {
	var h Host
	ok, err := load(tx, hostKey(n), &h)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, userfn.Errorf(userfn.CodeNotFound, "NSM host %d: not found", n)
	}
	return &h, nil
}

// eachHost calls fn with every host, in order of number.
func eachHost(tx userfn.Tx, fn func(h *Host) error) error {
	return each(tx, key(tableHost), MaxHosts, func(k, v []byte) error {
		var h Host
		if err := userfn.Read(k, v, &h); err != nil {
			return err
		}
		return fn(&h)
	})
}

// pickHost returns the host with the fewest namespaces of those that take more; of equals,
// the oldest.
func pickHost(tx userfn.Tx) (*Host, error) {
	var best *Host
	err := eachHost(tx, func(h *Host) error {
		behind := h.NextMessage-1-h.Delivered >= MaxQueue
		if !h.Closed && !h.Lost && !behind && (best == nil || h.Namespaces < best.Namespaces) {
			best = h
		}
		return nil
	})
	if err == nil && best == nil {
		err = userfn.Errorf(userfn.CodeNoHost, "there is no NSM host that takes namespaces; add one, open one, or deliver the messages of one")
	}
	return best, err
}

// hostArg: String name, Bytes endpoint, Bool closed.
type hostArg struct {
	name     string
	endpoint []byte
	closed   bool
}

func (a *hostArg) Fields(c *record.Codec) {
	c.String(&a.name, MaxLabel)
	c.Bytes(&a.endpoint, MaxInfo)
	c.Bool(&a.closed)
}

// putHost adds an NSM host, or changes one, and returns its number. A new host is told of
// all OSDs.
func putHost(tx userfn.Tx, a *hostArg) (*number, error) {
	if err := validLabel("NSM host", a.name); err != nil {
		return nil, err
	}
	b, err := loadBackend(tx)
	if err != nil {
		return nil, err
	}
	var at number
	known, err := load(tx, named(tableHostName, a.name), &at)
	if err != nil {
		return nil, err
	}
	if known {
		h, err := loadHost(tx, at.v)
		if err != nil {
			return nil, err
		}
		h.Endpoint, h.Closed = a.endpoint, a.closed
		return &at, store(tx, hostKey(at.v), h)
	}
	if b.Hosts >= MaxHosts {
		return nil, userfn.Errorf(userfn.CodeFull, "NSM host %q: there are %d hosts, the most that there may be", a.name, b.Hosts)
	}
	h := &Host{Number: b.NextHost, Name: a.name, Endpoint: a.endpoint, Closed: a.closed, NextMessage: 1}
	b.NextHost++
	b.Hosts++
	if err := store(tx, backendKey(), b); err != nil {
		return nil, err
	}
	if err := store(tx, named(tableHostName, a.name), &number{h.Number}); err != nil {
		return nil, err
	}
	if err := store(tx, hostKey(h.Number), h); err != nil {
		return nil, err
	}
	return &number{h.Number}, each(tx, key(tableOSDNumber), MaxOSDs, func(_, long []byte) error {
		o, err := loadOSD(tx, [16]byte(long))
		if err != nil || o.State != OSDActive {
			return err
		}
		return send(tx, h, nsm.Message{Kind: nsm.MessageLinkOSD, OSD: o.Number, Node: o.Node})
	})
}

// send appends a message to a host's queue and stores the host.
func send(tx userfn.Tx, h *Host, m nsm.Message) error {
	if err := store(tx, messageKey(h.Number, h.NextMessage), &m); err != nil {
		return err
	}
	h.NextMessage++
	return store(tx, hostKey(h.Number), h)
}

// broadcast sends a message to all hosts that are not lost.
func broadcast(tx userfn.Tx, m nsm.Message) error {
	return eachHost(tx, func(h *Host) error {
		if h.Lost {
			return nil
		}
		return send(tx, h, m)
	})
}

// deliveredArg: U64 host, U64 number of the last message it applied.
type deliveredArg struct{ host, last uint64 }

func (a *deliveredArg) Fields(c *record.Codec) {
	c.U64(&a.host)
	c.U64(&a.last)
}

// markDelivered takes up to MaxMessages messages off a host's queue and does what follows
// from their delivery. It returns the number of the last message that is off the queue.
func markDelivered(tx userfn.Tx, a *deliveredArg) (*number, error) {
	h, err := loadHost(tx, a.host)
	if err != nil {
		return nil, err
	}
	if h.Lost {
		return nil, userfn.Errorf(userfn.CodeConflict, "NSM host %d: it is lost, it applies no messages", a.host)
	}
	if a.last >= h.NextMessage {
		return nil, userfn.Errorf(userfn.CodeConflict, "NSM host %d: message %d was never sent, the last is %d", a.host, a.last, h.NextMessage-1)
	}
	for range MaxMessages {
		if h.Delivered >= a.last {
			break
		}
		k := messageKey(a.host, h.Delivered+1)
		var m nsm.Message
		ok, err := load(tx, k, &m)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, userfn.Errorf(userfn.CodeCorrupt, "key %q: missing", k)
		}
		if err := followUp(tx, h, m); err != nil {
			return nil, err
		}
		tx.Delete(k)
		h.Delivered++
	}
	return &number{h.Delivered}, store(tx, hostKey(a.host), h)
}

// followUp does what a message's delivery changes here.
func followUp(tx userfn.Tx, h *Host, m nsm.Message) error {
	switch m.Kind {
	case nsm.MessageCreateNamespace:
		n, err := loadNamespace(tx, m.Namespace)
		if err != nil {
			return err
		}
		if n.State == NamespaceCreating {
			n.State = NamespaceActive
		}
		return store(tx, namespaceKey(n.Number), n)
	case nsm.MessageDeleteNamespace:
		var n Namespace // whatever this release cannot read is not deleted
		if _, err := load(tx, namespaceKey(m.Namespace), &n); err != nil {
			return err
		}
		tx.Delete(namespaceKey(m.Namespace))
		h.Namespaces--
	}
	return nil
}

// leaseArg: String name, U64 counter, String holder.
type leaseArg struct {
	name    string
	counter uint64
	holder  string
}

func (a *leaseArg) Fields(c *record.Codec) {
	c.String(&a.name, MaxLabel)
	c.U64(&a.counter)
	c.String(&a.holder, MaxLabel)
}

// lease moves a lease on, if its counter is the one named.
func lease(tx userfn.Tx, a *leaseArg) (*Lease, error) {
	if err := validLabel("lease", a.name); err != nil {
		return nil, err
	}
	if err := validLabel("lease "+a.name+": holder", a.holder); err != nil {
		return nil, err
	}
	b, err := loadBackend(tx)
	if err != nil {
		return nil, err
	}
	var l Lease
	known, err := load(tx, named(tableLease, a.name), &l)
	switch {
	case err != nil:
		return nil, err
	case l.Counter != a.counter:
		return nil, userfn.Errorf(userfn.CodeLease, "lease %q: %q holds it at counter %d, not %d", a.name, l.Holder, l.Counter, a.counter)
	case !known && b.Leases >= MaxLeases:
		return nil, userfn.Errorf(userfn.CodeFull, "lease %q: there are %d leases, the most that there may be", a.name, b.Leases)
	case !known:
		b.Leases++
		if err := store(tx, backendKey(), b); err != nil {
			return nil, err
		}
	}
	l = Lease{Counter: a.counter + 1, Holder: a.holder}
	return &l, store(tx, named(tableLease, a.name), &l)
}
