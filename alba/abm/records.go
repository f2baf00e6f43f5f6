package abm

import (
	"encoding/binary"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Bounds.
const (
	MaxName     = 1024     // bytes of a namespace's name
	MaxLabel    = 255      // bytes of the name of a node, preset, host, lease or holder
	MaxInfo     = 4 << 10  // bytes of an OSD's or a host's endpoint
	MaxPreset   = 64 << 10 // bytes of a preset
	MaxHosts    = 256      // NSM hosts
	MaxPresets  = 1000     // presets
	MaxOSDs     = 10000    // OSDs that are not gone
	MaxUpdates  = 256      // OSDs that one call updates
	MaxPage     = 1000     // entries that one list returns
	MaxMessages = 256      // messages that one list returns or one call marks
	MaxQueue    = 10000    // undelivered messages with which a host gets no new namespaces
	MaxLeases   = 1000     // leases
	MaxKeys     = 1000     // master keys
)

// Tables: the byte behind "abm/".
const (
	tableBackend       = 'B'
	tableOSD           = 'O'
	tableOSDNumber     = 'N'
	tablePreset        = 'P'
	tableNamespaceName = 'A'
	tableNamespace     = 'S'
	tableHost          = 'H'
	tableHostName      = 'G'
	tableMessage       = 'M'
	tableLease         = 'L'
	tableKey           = 'K'
	tableNode          = 'V'
	tableWork          = 'W'
	tableWorkName      = 'Q'
	tableWaiting       = 'Y'
	tableWorkTotals    = 'T'
	tableJob           = 'J'
)

const prefix = "abm/"

// prefixSize is the length of the prefix with the table's byte.
const prefixSize = len(prefix) + 1

func key(table byte, numbers ...uint64) []byte {
	b := append([]byte(prefix), table)
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func named(table byte, name string) []byte { return append(key(table), name...) }

func backendKey() []byte            { return key(tableBackend) }
func osdKey(long [16]byte) []byte   { return append(key(tableOSD), long[:]...) }
func messageKey(h, n uint64) []byte { return key(tableMessage, h, n) }

// Backend is the backend's own record.
type Backend struct {
	ID            [16]byte
	NextOSD       uint64
	NextNamespace uint64
	NextHost      uint64
	Default       string // preset of namespaces that name none
	OSDs          uint64 // registered
	Presets       uint64
	Hosts         uint64
	Leases        uint64
}

// Fields implements record.Record: ID id, U64 next OSD, U64 next namespace,
// U64 next host, String default preset, U64 OSDs, U64 presets, U64 hosts, U64
// leases.
func (b *Backend) Fields(c *record.Codec) {
	c.ID(&b.ID)
	c.U64(&b.NextOSD)
	c.U64(&b.NextNamespace)
	c.U64(&b.NextHost)
	c.String(&b.Default, MaxLabel)
	c.U64(&b.OSDs)
	c.U64(&b.Presets)
	c.U64(&b.Hosts)
	c.U64(&b.Leases)
}

// OSDState says what may be done with an OSD.
type OSDState uint8

// States of an OSD. Numbers are stored.
const (
	OSDAvailable OSDState = 1 // known, not ours
	OSDActive    OSDState = 2
	OSDDraining  OSDState = 3
	OSDLost      OSDState = 4
)

func (s OSDState) String() string {
	names := [...]string{OSDAvailable: "available", OSDActive: "active", OSDDraining: "draining", OSDLost: "lost"}
	if int(s) < len(names) && names[s] != "" {
		return names[s]
	}
	return "unknown"
}

// OSD is an OSD as the backend knows it.
type OSD struct {
	LongID   [16]byte // of the device; for an ASD its UUID
	Number   uint64   // 0 until it is claimed
	State    OSDState
	Node     string
	Endpoint []byte // how to reach it; opaque here
	Replaces uint64 // number of the lost OSD in whose place it came, 0: none
	Zone     string // where the node is; "": it was not told
	Health
}

// Health is what the users of an OSD report of it.
type Health struct {
	Capacity       uint64
	Used           uint64
	LastRead       int64 // newest success, unix nanoseconds
	LastWrite      int64
	LastError      int64
	Errors         uint64 // since it was registered
	ChecksumErrors uint64
}

// Fields implements record.Record: ID long id, U64 number, Enum state, String
// node, Bytes endpoint, U64 replaces, then its health; version 2: String zone.
func (o *OSD) Fields(c *record.Codec) {
	c.ID(&o.LongID)
	c.U64(&o.Number)
	s := uint8(o.State)
	c.Enum(&s, 0, uint8(OSDLost), "OSD state") // 0 in calls that register one
	o.State = OSDState(s)
	c.String(&o.Node, MaxLabel)
	c.Bytes(&o.Endpoint, MaxInfo)
	c.U64(&o.Replaces)
	o.Health.Fields(c)
	if c.Version() >= osdZone {
		c.String(&o.Zone, MaxLabel)
	}
}

// osdZone is the version of an OSD's record that has its zone.
const osdZone = 2

// Newest implements record.Versioned.
func (o *OSD) Newest() uint8 { return osdZone }

// Needs implements record.Versioned.
func (o *OSD) Needs() uint8 {
	if o.Zone != "" {
		return osdZone
	}
	return 1
}

// Fields implements record.Record: U64 capacity, U64 used, Time last read,
// last write, last error, U64 errors, U64 checksum errors.
func (h *Health) Fields(c *record.Codec) {
	c.U64(&h.Capacity)
	c.U64(&h.Used)
	c.Time(&h.LastRead)
	c.Time(&h.LastWrite)
	c.Time(&h.LastError)
	c.U64(&h.Errors)
	c.U64(&h.ChecksumErrors)
}

// Preset is a named bundle of settings of a namespace. Data is opaque here: whoever makes it
// checks it.
type Preset struct {
	Name    string
	Version uint64
	Uses    uint64 // namespaces that have it
	Data    []byte
}

// Fields implements record.Record: U64 version, U64 uses, Bytes data.
func (p *Preset) Fields(c *record.Codec) {
	c.U64(&p.Version)
	c.U64(&p.Uses)
	c.Bytes(&p.Data, MaxPreset)
}

// NamespaceState says how far a namespace's life has come.
type NamespaceState uint8

// States of a namespace. Numbers are stored.
const (
	NamespaceCreating NamespaceState = 1 // its NSM host does not know it yet
	NamespaceActive   NamespaceState = 2
	NamespaceRemoving NamespaceState = 3 // its name is free, its NSM host does not know yet
	// NamespaceRecovering: its NSM host was lost, and another one takes what is found of it on
	// the disks. Nobody serves it.
	NamespaceRecovering NamespaceState = 4
	// NamespaceMoving: Host serves it, and Other is the other host of the move.
	NamespaceMoving NamespaceState = 5
)

func (s NamespaceState) String() string {
	names := [...]string{NamespaceCreating: "creating", NamespaceActive: "active", NamespaceRemoving: "removing",
		NamespaceRecovering: "recovering", NamespaceMoving: "moving"}
	if int(s) < len(names) && names[s] != "" {
		return names[s]
	}
	return "unknown"
}

// Namespace is a namespace of the backend.
type Namespace struct {
	Number  uint64
	Name    string
	State   NamespaceState
	Preset  string
	Host    uint64
	Created int64
	// Generation counts the hosts that the namespace was given after its first, those that did
	// not come to serve it among them.
	Generation uint64
	// Other is, while the namespace is moving, the host that it moves to or, once Switched, the
	// one that it has left. Else 0.
	Other    uint64
	Switched bool
}

// namespaceHosts is the version of a namespace's record that has its generation.
const namespaceHosts = 2

// Newest implements record.Versioned.
func (n *Namespace) Newest() uint8 { return namespaceHosts }

// Needs implements record.Versioned.
func (n *Namespace) Needs() uint8 {
	if n.Generation != 0 {
		return namespaceHosts
	}
	return 1
}

// Fields implements record.Record: U64 number, String name, Enum state, String
// preset, U64 host, Time created; version 2: U64 generation, U64 other, Bool switched.
func (n *Namespace) Fields(c *record.Codec) {
	c.U64(&n.Number)
	c.String(&n.Name, MaxName)
	s := uint8(n.State)
	last := NamespaceRemoving
	if c.Version() >= namespaceHosts {
		last = NamespaceMoving
	}
	c.Enum(&s, uint8(NamespaceCreating), uint8(last), "namespace state")
	n.State = NamespaceState(s)
	c.String(&n.Preset, MaxLabel)
	c.U64(&n.Host)
	c.Time(&n.Created)
	if c.Version() >= namespaceHosts {
		c.U64(&n.Generation)
		c.U64(&n.Other)
		c.Bool(&n.Switched)
	}
}

// Host is an NSM host.
type Host struct {
	Number      uint64
	Name        string
	Endpoint    []byte // how to reach it; opaque here
	Closed      bool   // takes no new namespaces
	Namespaces  uint64
	NextMessage uint64
	Delivered   uint64 // number of the last message that it applied
	Lost        bool   // gone for good with all that it kept; it gets no messages
}

// hostLost is the version of a host's record that says that it is lost.
const hostLost = 2

// Newest implements record.Versioned.
func (h *Host) Newest() uint8 { return hostLost }

// Needs implements record.Versioned.
func (h *Host) Needs() uint8 {
	if h.Lost {
		return hostLost
	}
	return 1
}

// Fields implements record.Record: U64 number, String name, Bytes endpoint,
// Bool closed, U64 namespaces, U64 next message, U64 delivered; version 2: Bool lost.
func (h *Host) Fields(c *record.Codec) {
	c.U64(&h.Number)
	c.String(&h.Name, MaxLabel)
	c.Bytes(&h.Endpoint, MaxInfo)
	c.Bool(&h.Closed)
	c.U64(&h.Namespaces)
	c.U64(&h.NextMessage)
	c.U64(&h.Delivered)
	if c.Version() >= hostLost {
		c.Bool(&h.Lost)
	}
}

// Lease is a counter that its holder moves on to show that it lives. Whoever sees the
// counter stand still for the time agreed on, by their own clock, may take the lease.
type Lease struct {
	Counter uint64
	Holder  string
}

// Fields implements record.Record: U64 counter, String holder.
func (l *Lease) Fields(c *record.Codec) {
	c.U64(&l.Counter)
	c.String(&l.Holder, MaxLabel)
}

// number is a record of one U64.
type number struct{ v uint64 }

func (n *number) Fields(c *record.Codec) { c.U64(&n.v) }

func load(tx userfn.Tx, key []byte, v record.Record) (bool, error) {
	return userfn.Load(tx, key, v)
}

func store(tx userfn.Tx, key []byte, v record.Record) error {
	return userfn.Store(tx, key, v)
}

// loadBackend returns the backend's record, which Init has made; without one it fails.
func loadBackend(tx userfn.Tx) (*Backend, error) {
	var b Backend
	ok, err := load(tx, backendKey(), &b)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, userfn.Errorf(userfn.CodeConflict, "backend: it has no id yet; initialise it first")
	}
	return &b, nil
}

func invalid(msg string, args ...any) error { return userfn.Errorf(userfn.CodeInvalid, msg, args...) }

func validLabel(what, s string) error {
	if s == "" || len(s) > MaxLabel {
		return invalid("%s: a name of %d bytes, it takes 1 to %d", what, len(s), MaxLabel)
	}
	return nil
}

// each calls fn with up to limit values of a table, in order of key. fn may use
// the Tx.
func each(tx userfn.Tx, base []byte, limit int, fn func(k, v []byte) error) error {
	var pairs []userfn.Pair
	tx.Range(base, userfn.PrefixEnd(base), limit, func(k, v []byte) bool {
		pairs = append(pairs, userfn.Pair{Key: append([]byte(nil), k...), Value: append([]byte(nil), v...)})
		return true
	})
	for _, p := range pairs {
		if err := fn(p.Key, p.Value); err != nil {
			return err
		}
	}
	return nil
}
