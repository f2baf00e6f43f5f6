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
)

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
}

// Fields implements record.Record:
//
//	Enum state, Time created, U64 minimum, U64 next, U64 next version,
//	U64 objects, U64 size, U64 stored
func (n *Namespace) Fields(c *record.Codec) {
	s := uint8(n.State)
	c.Enum(&s, uint8(NamespaceActive), uint8(NamespaceRemoving), "namespace state")
	n.State = NamespaceState(s)
	c.Time(&n.Created)
	n.Epochs.Fields(c)
	c.U64(&n.NextVersion)
	c.U64(&n.Objects)
	c.U64(&n.Size)
	c.U64(&n.Stored)
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
