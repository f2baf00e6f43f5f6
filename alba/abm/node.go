package abm

import (
	"context"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// MaxNodes is the number of nodes that have a record.
const MaxNodes = 1000

// Node is a host that has OSDs. Zones hang on nodes: the OSDs of a node have its zone.
type Node struct {
	ID   string // what OSD.Node says; for a host its UUID
	Name string // for people
	Zone string // "": it was not told
}

// Fields implements record.Record: String name, String zone.
func (n *Node) Fields(c *record.Codec) {
	c.String(&n.Name, MaxLabel)
	c.String(&n.Zone, MaxLabel)
}

// nodeArg: String id, String name, String zone.
type nodeArg struct{ Node }

func (a *nodeArg) Fields(c *record.Codec) {
	c.String(&a.ID, MaxLabel)
	a.Node.Fields(c)
}

func nodeKey(id string) []byte { return named(tableNode, id) }

// putNode makes a node known, or changes its name and zone, and gives the zone to its OSDs.
func putNode(tx userfn.Tx, a *nodeArg) (*userfn.Empty, error) {
	if err := validLabel("node", a.ID); err != nil {
		return nil, err
	}
	if _, err := loadBackend(tx); err != nil {
		return nil, err
	}
	var old Node
	known, err := load(tx, nodeKey(a.ID), &old)
	if err != nil {
		return nil, err
	}
	if !known && rows(tx, tableNode, MaxNodes) >= MaxNodes {
		return nil, userfn.Errorf(userfn.CodeFull, "node %q: there are %d nodes, the most that there may be; forget some", a.ID, MaxNodes)
	}
	if err := store(tx, nodeKey(a.ID), &a.Node); err != nil {
		return nil, err
	}
	return &userfn.Empty{}, eachOSD(tx, func(o *OSD) error {
		if o.Node != a.ID || o.Zone == a.Zone {
			return nil
		}
		o.Zone = a.Zone
		return store(tx, osdKey(o.LongID), o)
	})
}

// forgetNode forgets a node that has no OSD. A node that is not known is no error.
func forgetNode(tx userfn.Tx, a *nameArg) (*userfn.Empty, error) {
	err := eachOSD(tx, func(o *OSD) error {
		if o.Node == a.name {
			return userfn.Errorf(userfn.CodeInUse, "node %q: OSD %x is on it, %v; move it or purge it first", a.name, o.LongID, o.State)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	tx.Delete(nodeKey(a.name))
	return &userfn.Empty{}, nil
}

// eachOSD calls fn with every OSD, in order of long id.
func eachOSD(tx userfn.Tx, fn func(o *OSD) error) error {
	return each(tx, key(tableOSD), MaxOSDs, func(k, v []byte) error {
		var o OSD
		if err := userfn.Read(k, v, &o); err != nil {
			return err
		}
		return fn(&o)
	})
}

// rows counts the keys of a table, up to limit.
func rows(tx userfn.Tx, table byte, limit int) (n int) {
	base := key(table)
	tx.Range(base, userfn.PrefixEnd(base), limit, func(_, _ []byte) bool { n++; return true })
	return n
}

// moveArg: ID long id, String node, Bytes endpoint, U64 capacity.
type moveArg struct {
	long     [16]byte
	node     string
	endpoint []byte
	capacity uint64
}

func (a *moveArg) Fields(c *record.Codec) {
	c.ID(&a.long)
	c.String(&a.node, MaxLabel)
	c.Bytes(&a.endpoint, MaxInfo)
	c.U64(&a.capacity)
}

// moveOSD says where an OSD is from now on: its disk came to another slot or host, or its
// server to another address. The NSM hosts learn its node by message.
func moveOSD(tx userfn.Tx, a *moveArg) (*userfn.Empty, error) {
	if err := validLabel("OSD: node", a.node); err != nil {
		return nil, err
	}
	o, err := loadOSD(tx, a.long)
	if err != nil {
		return nil, err
	}
	if err := placeFree(tx, a); err != nil {
		return nil, err
	}
	was := o.Node
	o.Node, o.Endpoint = a.node, a.endpoint
	if a.capacity != 0 {
		o.Capacity = a.capacity
	}
	var n Node
	switch known, err := load(tx, nodeKey(a.node), &n); {
	case err != nil:
		return nil, err
	case known || was != a.node: // of a node that is not known no zone is known
		o.Zone = n.Zone
	}
	if err := store(tx, osdKey(a.long), o); err != nil {
		return nil, err
	}
	if was == a.node || o.State != OSDActive && o.State != OSDDraining {
		return &userfn.Empty{}, nil
	}
	return &userfn.Empty{}, broadcast(tx, nsm.Message{Kind: nsm.MessageMoveOSD, OSD: o.Number, Node: o.Node})
}

// placeFree refuses a place that another OSD has. An OSD that is lost has none.
func placeFree(tx userfn.Tx, a *moveArg) error {
	return eachOSD(tx, func(o *OSD) error {
		if o.LongID != a.long && o.State != OSDLost && len(a.endpoint) > 0 && o.Node == a.node && string(o.Endpoint) == string(a.endpoint) {
			return userfn.Errorf(userfn.CodeExists, "OSD %x: OSD %x is at %q on node %q already; say first where that one is, or lose it", a.long, o.LongID, o.Endpoint, o.Node)
		}
		return nil
	})
}

// undrain has a draining OSD take fragments again.
func undrain(tx userfn.Tx, a *number) (*userfn.Empty, error) {
	o, err := loadOSDByNumber(tx, a.v)
	switch {
	case err != nil:
		return nil, err
	case o.State == OSDActive:
		return &userfn.Empty{}, nil
	case o.State != OSDDraining:
		return nil, userfn.Errorf(userfn.CodeConflict, "OSD %d: it is %v, only a drain can be cancelled", a.v, o.State)
	}
	o.State = OSDActive
	if err := store(tx, osdKey(o.LongID), o); err != nil {
		return nil, err
	}
	return &userfn.Empty{}, broadcast(tx, nsm.Message{Kind: nsm.MessageLinkOSD, OSD: o.Number, Node: o.Node})
}

// finishOSD is purge for callers that may be too early: it is refused while a message is on
// its way to an NSM host that is not lost, as one of them may be the OSD's.
func finishOSD(tx userfn.Tx, a *number) (*userfn.Empty, error) {
	err := eachHost(tx, func(h *Host) error {
		if n := h.NextMessage - 1 - h.Delivered; n > 0 && !h.Lost {
			return userfn.Errorf(userfn.CodeInUse, "OSD %d: NSM host %q has not applied its last %d messages; deliver them first", a.v, h.Name, n)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return purge(tx, a)
}

// PutNode makes a node known, or changes its name and zone. Its OSDs have its zone from then
// on. ErrFull: there are MaxNodes nodes.
func (c *Client) PutNode(ctx context.Context, n Node) error {
	return c.do(ctx, namePutNode, &nodeArg{n})
}

// ForgetNode forgets a node that has no OSD (else ErrInUse).
func (c *Client) ForgetNode(ctx context.Context, id string) error {
	return c.do(ctx, nameForgetNode, &nameArg{id})
}

// Nodes returns all nodes, in order of id.
func (c *Client) Nodes(ctx context.Context, how userfn.Consistency) ([]Node, error) {
	base := key(tableNode)
	pairs, err := c.list(ctx, base, nil, MaxNodes, how)
	if err != nil {
		return nil, err
	}
	list := make([]Node, len(pairs))
	for i, p := range pairs {
		list[i].ID = string(p.Key[len(base):])
		if err := decode(p.Key, p.Value, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// MoveOSD says where a known OSD is from now on: its node and endpoint, and its capacity if it
// is not 0. The caller has read the OSD's identity at that place. The OSD has the zone of the
// node. The caller delivers the hosts' messages next. ErrExists: another OSD is there.
func (c *Client) MoveOSD(ctx context.Context, long [16]byte, node string, endpoint []byte, capacity uint64) error {
	return c.do(ctx, nameMoveOSD, &moveArg{long: long, node: node, endpoint: endpoint, capacity: capacity})
}

// CancelDrain has an OSD that is draining take fragments again. An active one stays as it is;
// one that is lost stays lost (ErrConflict).
func (c *Client) CancelDrain(ctx context.Context, osd uint64) error {
	return c.do(ctx, nameUndrain, &number{osd})
}

// FinishOSD ends a drain, or the life of a lost OSD, as PurgeOSD does. It is refused (ErrInUse)
// until every message was delivered to every NSM host that is not lost. Before it the
// caller has had nsm.Client.ForgetOSD be done on each of these hosts.
func (c *Client) FinishOSD(ctx context.Context, osd uint64) error {
	return c.do(ctx, nameFinishOSD, &number{osd})
}
