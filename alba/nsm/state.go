package nsm

import (
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// recordVersion is the version of all records that are stored.
const recordVersion = 1

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
//	U8 state, Time created, U64 minimum, U64 next, U64 next version,
//	U64 objects, U64 size, U64 stored
func (n *Namespace) Fields(c *record.Codec) {
	s := uint8(n.State)
	c.U8(&s)
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

// Fields implements record.Record: U8 state, String node.
func (o *osdRecord) Fields(c *record.Codec) {
	s := uint8(o.state)
	c.U8(&s)
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

// storedManifest is a manifest with what ties it to the object of its name:
// ID id, U32 revision, Bytes manifest.
type storedManifest struct {
	id       [16]byte
	revision uint32
	manifest []byte
}

func (m *storedManifest) Fields(c *record.Codec) {
	c.ID(&m.id)
	c.U32(&m.revision)
	c.Bytes(&m.manifest, MaxManifest)
}

// empty is the value of keys that say all themselves.
var empty = []byte{recordVersion}

func load(tx Tx, key []byte, v record.Record) (bool, error) {
	return userfn.Load(tx, key, recordVersion, v)
}

func store(tx Tx, key []byte, v record.Record) error {
	return userfn.Store(tx, key, recordVersion, v)
}

// bump adds to a counter, whose key is absent at zero.
func bump(tx Tx, key []byte, up bool, by uint64) error {
	var n number
	if _, err := load(tx, key, &n); err != nil {
		return err
	}
	if err := shift(&n.v, up, by, key); err != nil {
		return err
	}
	return storeUnless(tx, key, n.v == 0, &n)
}

// shift moves a counter and refuses to take it below zero: then the indexes
// contradict each other.
func shift(v *uint64, up bool, by uint64, key []byte) error {
	switch {
	case up:
		*v += by
	case *v < by:
		return userfn.Errorf(userfn.CodeCorrupt, "key %q: the counter is %d and would lose %d", key, *v, by)
	default:
		*v -= by
	}
	return nil
}

func (u *Usage) shift(up bool, by Usage, key []byte) error {
	if err := shift(&u.Fragments, up, by.Fragments, key); err != nil {
		return err
	}
	return shift(&u.Bytes, up, by.Bytes, key)
}

func storeUnless(tx Tx, key []byte, zero bool, v record.Record) error {
	if zero {
		tx.Delete(key)
		return nil
	}
	return store(tx, key, v)
}

// bumpUsage moves what a namespace has on an OSD.
func bumpUsage(tx Tx, key []byte, up bool, by Usage) error {
	var u Usage
	if _, err := load(tx, key, &u); err != nil {
		return err
	}
	if err := u.shift(up, by, key); err != nil {
		return err
	}
	return storeUnless(tx, key, u == Usage{}, &u)
}

// bumpTotals moves what an OSD holds, live or obsolete.
func bumpTotals(tx Tx, osd uint64, up, obsolete bool, by Usage) error {
	key := totalsKey(osd)
	var t Totals
	if _, err := load(tx, key, &t); err != nil {
		return err
	}
	which := &t.Live
	if obsolete {
		which = &t.Obsolete
	}
	if err := which.shift(up, by, key); err != nil {
		return err
	}
	return storeUnless(tx, key, t == Totals{}, &t)
}
