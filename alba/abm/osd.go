package abm

import (
	"fmt"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// initialise gives the backend its id. Doing it again with the same id does
// nothing.
func initialise(tx userfn.Tx, a *idArg) (*userfn.Empty, error) {
	if a.id == [16]byte{} {
		return nil, invalid("backend: its id is zero")
	}
	var b Backend
	ok, err := load(tx, backendKey(), &b)
	switch {
	case err != nil:
		return nil, err
	case ok && b.ID == a.id:
		return &userfn.Empty{}, nil
	case ok:
		return nil, userfn.Errorf(userfn.CodeExists, "backend: its id is %x, not %x", b.ID, a.id)
	}
	return &userfn.Empty{}, store(tx, backendKey(), &Backend{ID: a.id, NextOSD: 1, NextNamespace: 1, NextHost: 1})
}

// idArg: ID id.
type idArg struct{ id [16]byte }

func (a *idArg) Fields(c *record.Codec) { c.ID(&a.id) }

// register makes an OSD known, or brings node, endpoint and capacity of a known OSD up to
// date. The node of a claimed OSD stays: objects rely on it.
func register(tx userfn.Tx, a *OSD) (*userfn.Empty, error) {
	if err := validLabel("OSD: node", a.Node); err != nil {
		return nil, err
	}
	if len(a.Zone) > MaxLabel {
		return nil, invalid("OSD: a zone of %d bytes, it takes up to %d", len(a.Zone), MaxLabel)
	}
	if a.LongID == [16]byte{} {
		return nil, invalid("OSD: its long id is zero")
	}
	b, err := loadBackend(tx)
	if err != nil {
		return nil, err
	}
	var o OSD
	known, err := load(tx, osdKey(a.LongID), &o)
	if err != nil {
		return nil, err
	}
	if known {
		if o.State != OSDAvailable && o.Node != a.Node {
			return nil, userfn.Errorf(userfn.CodeConflict, "OSD %x: it is claimed on node %q and cannot move to %q; decommission it first", a.LongID, o.Node, a.Node)
		}
		o.Node, o.Endpoint, o.Capacity = a.Node, a.Endpoint, a.Capacity
		if a.Zone != "" {
			o.Zone = a.Zone
		}
		return &userfn.Empty{}, store(tx, osdKey(a.LongID), &o)
	}
	if b.OSDs >= MaxOSDs {
		return nil, userfn.Errorf(userfn.CodeFull, "OSD %x: there are %d OSDs, the most that there may be; purge some", a.LongID, b.OSDs)
	}
	b.OSDs++
	o = OSD{LongID: a.LongID, State: OSDAvailable, Node: a.Node, Endpoint: a.Endpoint, Zone: a.Zone, Health: Health{Capacity: a.Capacity, Used: a.Used}}
	if err := store(tx, osdKey(a.LongID), &o); err != nil {
		return nil, err
	}
	return &userfn.Empty{}, store(tx, backendKey(), b)
}

func loadOSD(tx userfn.Tx, long [16]byte) (*OSD, error) {
	var o OSD
	ok, err := load(tx, osdKey(long), &o)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, userfn.Errorf(userfn.CodeNotFound, "OSD %x: not found; register it first", long)
	}
	return &o, nil
}

func loadOSDByNumber(tx userfn.Tx, n uint64) (*OSD, error) {
	k := key(tableOSDNumber, n)
	long, ok := tx.Get(k)
	if !ok {
		return nil, userfn.Errorf(userfn.CodeNotFound, "OSD %d: not found", n)
	}
	if len(long) != 16 {
		return nil, userfn.Stop(fmt.Sprintf("key %q", k), fmt.Errorf("%w: a long id of %d bytes", record.ErrCorrupt, len(long)))
	}
	return loadOSD(tx, [16]byte(long))
}

// claimArg: ID long id, U64 number of the OSD that it replaces, 0: none.
type claimArg struct {
	long     [16]byte
	replaces uint64
}

func (a *claimArg) Fields(c *record.Codec) {
	c.ID(&a.long)
	c.U64(&a.replaces)
}

// claim makes an available OSD ours and returns its number. An OSD that the same call has
// claimed before keeps its number.
func claim(tx userfn.Tx, a *claimArg) (*number, error) {
	b, err := loadBackend(tx)
	if err != nil {
		return nil, err
	}
	o, err := loadOSD(tx, a.long)
	if err != nil {
		return nil, err
	}
	if o.State == OSDActive && o.Replaces == a.replaces {
		return &number{o.Number}, nil
	}
	if o.State != OSDAvailable {
		return nil, userfn.Errorf(userfn.CodeConflict, "OSD %x: it is %v as number %d, it cannot be claimed", a.long, o.State, o.Number)
	}
	if a.replaces != 0 {
		if err := lose(tx, a.replaces); err != nil {
			return nil, err
		}
	}
	o.State, o.Number, o.Replaces = OSDActive, b.NextOSD, a.replaces
	b.NextOSD++
	tx.Set(key(tableOSDNumber, o.Number), a.long[:])
	if err := store(tx, osdKey(a.long), o); err != nil {
		return nil, err
	}
	if err := store(tx, backendKey(), b); err != nil {
		return nil, err
	}
	return &number{o.Number}, broadcast(tx, nsm.Message{Kind: nsm.MessageLinkOSD, OSD: o.Number, Node: o.Node})
}

// retireArg: U64 number, Bool lost.
type retireArg struct {
	osd  uint64
	lost bool
}

func (a *retireArg) Fields(c *record.Codec) {
	c.U64(&a.osd)
	c.Bool(&a.lost)
}

// retire drains an OSD, or gives it up.
func retire(tx userfn.Tx, a *retireArg) (*userfn.Empty, error) {
	if a.lost {
		return &userfn.Empty{}, lose(tx, a.osd)
	}
	o, err := loadOSDByNumber(tx, a.osd)
	if err != nil {
		return nil, err
	}
	if o.State != OSDActive {
		return &userfn.Empty{}, nil // draining or lost: on its way already
	}
	o.State = OSDDraining
	if err := store(tx, osdKey(o.LongID), o); err != nil {
		return nil, err
	}
	return &userfn.Empty{}, broadcast(tx, nsm.Message{Kind: nsm.MessageUnlinkOSD, OSD: a.osd})
}

func lose(tx userfn.Tx, n uint64) error {
	o, err := loadOSDByNumber(tx, n)
	if err != nil {
		return err
	}
	if o.State == OSDLost {
		return nil
	}
	o.State = OSDLost
	if err := store(tx, osdKey(o.LongID), o); err != nil {
		return err
	}
	return broadcast(tx, nsm.Message{Kind: nsm.MessageUnlinkOSD, OSD: n, Lost: true})
}

// purge forgets an OSD that is draining or lost. The caller has seen every NSM host forget
// it. For an OSD that is forgotten already, purge does nothing.
func purge(tx userfn.Tx, a *number) (*userfn.Empty, error) {
	if _, ok := tx.Get(key(tableOSDNumber, a.v)); !ok {
		return &userfn.Empty{}, nil
	}
	o, err := loadOSDByNumber(tx, a.v)
	if err != nil {
		return nil, err
	}
	if o.State != OSDDraining && o.State != OSDLost {
		return nil, userfn.Errorf(userfn.CodeInUse, "OSD %d: it is %v; decommission it first", a.v, o.State)
	}
	b, err := loadBackend(tx)
	if err != nil {
		return nil, err
	}
	tx.Delete(key(tableOSDNumber, a.v))
	tx.Delete(osdKey(o.LongID))
	b.OSDs--
	return &userfn.Empty{}, store(tx, backendKey(), b)
}

// HealthUpdate is news of an OSD. Times are entered if they are newer, counts are added, and
// Capacity and Used are entered if Capacity is not 0.
type HealthUpdate struct {
	LongID [16]byte
	Health
}

// Fields implements record.Record: ID long id, then the health.
func (u *HealthUpdate) Fields(c *record.Codec) {
	c.ID(&u.LongID)
	u.Health.Fields(c)
}

// healthArg: List of updates.
type healthArg struct{ updates []HealthUpdate }

func (a *healthArg) Fields(c *record.Codec) { record.Records(c, &a.updates, MaxUpdates) }

// updateHealth passes over OSDs that are gone.
func updateHealth(tx userfn.Tx, a *healthArg) (*userfn.Empty, error) {
	for _, u := range a.updates {
		var o OSD
		ok, err := load(tx, osdKey(u.LongID), &o)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if u.Capacity != 0 {
			o.Capacity, o.Used = u.Capacity, u.Used
		}
		o.LastRead = max(o.LastRead, u.LastRead)
		o.LastWrite = max(o.LastWrite, u.LastWrite)
		o.LastError = max(o.LastError, u.LastError)
		o.Errors += u.Errors
		o.ChecksumErrors += u.ChecksumErrors
		if err := store(tx, osdKey(u.LongID), &o); err != nil {
			return nil, err
		}
	}
	return &userfn.Empty{}, nil
}
