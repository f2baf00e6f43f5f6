package nsm

import (
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// NamespaceState says what may be done to a namespace.
type NamespaceState uint8

// States of a namespace. Numbers are stored.
const (
	NamespaceActive   NamespaceState = 1
	NamespaceRemoving NamespaceState = 2 // no calls but Cleanup
	// NamespaceImporting: it comes here from another host or from the disks. No calls but
	// those of its import.
	NamespaceImporting NamespaceState = 3
	NamespaceCopying   NamespaceState = 4 // active; what changes is noted, as it is being moved
	NamespaceFrozen    NamespaceState = 5 // read only, for the end of a move
	// NamespaceMoved: Peer has it. What is left of it here is to be dropped; no fragment of it
	// is to be deleted for that.
	NamespaceMoved NamespaceState = 6
)

// serves reports whether a namespace may be read here.
func (s NamespaceState) serves() bool {
	return s == NamespaceActive || s == NamespaceCopying || s == NamespaceFrozen
}

// Epochs is the window of open gc epochs, [Minimum, Next).
type Epochs struct{ Minimum, Next uint64 }

func (e *Epochs) open(epoch uint64) bool { return e.Minimum <= epoch && epoch < e.Next }

// Fields implements record.Record.
func (e *Epochs) Fields(c *record.Codec) {
	c.U64(&e.Minimum)
	c.U64(&e.Next)
}

// Namespace is what the manager keeps for a whole namespace.
type Namespace struct {
	State       NamespaceState
	Created     int64
	Epochs      Epochs
	NextVersion uint64
	Objects     uint64
	Size        uint64 // bytes of objects
	Stored      uint64 // bytes of fragments and of inline manifests
	Move
}

// Move is what a host knows of a namespace's last move. All is zero if there was none.
type Move struct {
	// Generation is that of the move, as the ABM counts them. A call of another generation
	// than the one under way is refused.
	Generation uint64
	Peer       uint64 // number of the host that the namespace goes to or comes from, 0: the disks
	// Cursor is, on the host that the namespace comes to, the last name of the pages that
	// have come; Complete says that all have.
	Cursor   string
	Complete bool
	// Changes is, on the host that the namespace leaves, the number of the last change that it
	// noted, and, on the other, of the last one that has come.
	Changes uint64
}

// Fields implements record.Record: U64 generation, U64 peer, String cursor, Bool complete, U64
// changes.
func (m *Move) Fields(c *record.Codec) {
	c.U64(&m.Generation)
	c.U64(&m.Peer)
	c.String(&m.Cursor, MaxName)
	c.Bool(&m.Complete)
	c.U64(&m.Changes)
}

// namespaceMove is the version of a namespace's record that has its move.
const namespaceMove = 2

// Newest implements record.Versioned.
func (n *Namespace) Newest() uint8 { return namespaceMove }

// Needs implements record.Versioned.
func (n *Namespace) Needs() uint8 {
	if n.Generation != 0 {
		return namespaceMove
	}
	return 1
}

// Fields implements record.Record:
//
//	Enum state, Time created, U64 minimum, U64 next, U64 next version,
//	U64 objects, U64 size, U64 stored; version 2: its move
func (n *Namespace) Fields(c *record.Codec) {
	s := uint8(n.State)
	last := NamespaceRemoving
	if c.Version() >= namespaceMove {
		last = NamespaceMoved
	}
	c.Enum(&s, uint8(NamespaceActive), uint8(last), "namespace state")
	n.State = NamespaceState(s)
	c.Time(&n.Created)
	n.Epochs.Fields(c)
	c.U64(&n.NextVersion)
	c.U64(&n.Objects)
	c.U64(&n.Size)
	c.U64(&n.Stored)
	if c.Version() >= namespaceMove {
		n.Move.Fields(c)
	}
}

// OSDState says what may be done with an OSD.
type OSDState uint8

// States of an OSD. Numbers are stored.
const (
	OSDLinked   OSDState = 1 // takes new fragments
	OSDDraining OSDState = 2 // holds fragments, takes no new ones
	OSDLost     OSDState = 3 // gone with all it held
)

// osdRecord is what the host knows of an OSD.
type osdRecord struct {
	state OSDState
	node  string
}

// Fields implements record.Record: Enum state, String node.
func (o *osdRecord) Fields(c *record.Codec) {
	s := uint8(o.state)
	c.Enum(&s, uint8(OSDLinked), uint8(OSDLost), "OSD state")
	o.state = OSDState(s)
	c.String(&o.node, MaxNode)
}

// Usage is what an OSD holds: U64 fragments, U64 bytes.
type Usage struct{ Fragments, Bytes uint64 }

// Fields implements record.Record.
func (u *Usage) Fields(c *record.Codec) {
	c.U64(&u.Fragments)
	c.U64(&u.Bytes)
}

// Totals is what an OSD holds over all namespaces of the host, and what of it
// is to be deleted on top: U64 fragments, U64 bytes, U64 fragments, U64 bytes.
type Totals struct{ Live, Obsolete Usage }

// Fields implements record.Record.
func (t *Totals) Fields(c *record.Codec) {
	t.Live.Fields(c)
	t.Obsolete.Fields(c)
}

// number is a record of one U64.
type number struct{ v uint64 }

func (n *number) Fields(c *record.Codec) { c.U64(&n.v) }

// stored is an object under its name: the object's fields, Bytes manifest.
type stored struct{ *Object }

func (s *stored) Fields(c *record.Codec) {
	s.Object.Fields(c)
	c.Bytes(&s.Manifest, MaxManifest)
}

// idRecord says whose an id is: U64 epoch, String name. Either epoch is 0 and the object
// with the name has the id, or name is empty and the object that had the id left the
// namespace when epoch was the newest.
type idRecord struct {
	epoch uint64
	name  string
}

func (r *idRecord) Fields(c *record.Codec) {
	c.U64(&r.epoch)
	c.String(&r.name, MaxName)
}

// empty is the value of keys that need none.
var empty = []byte{1}

func load(tx userfn.Tx, key []byte, v record.Record) (bool, error) {
	return userfn.Load(tx, key, v)
}

func store(tx userfn.Tx, key []byte, v record.Record) error {
	return userfn.Store(tx, key, v)
}

// shift adds to a counter or takes off it. It returns false if the counter would fall below
// zero: then the indexes contradict each other.
func shift(v *uint64, up bool, by uint64) bool {
	if up {
		*v += by
		return true
	}
	if *v < by {
		return false
	}
	*v -= by
	return true
}

// shift adds to what an OSD holds, or takes off it; ns is 0 for all namespaces.
func (u *Usage) shift(up bool, by Usage, ns, osd uint64) error {
	if was := *u; !shift(&u.Fragments, up, by.Fragments) || !shift(&u.Bytes, up, by.Bytes) {
		return userfn.Errorf(userfn.CodeCorrupt, "OSD %d, namespace %d: it counts %+v and would lose %+v", osd, ns, was, by)
	}
	return nil
}

func storeUnless(tx userfn.Tx, key []byte, zero bool, v record.Record) error {
	if zero {
		tx.Delete(key)
		return nil
	}
	return store(tx, key, v)
}
