package nsm

import (
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Mode says when a put may replace what has the name.
type Mode uint8

// Modes. Their numbers are in calls. Whatever the mode, a put whose object id has the name
// already has succeeded before, and succeeds again.
const (
	Create        Mode = 1 // the name must be free
	CreateOrEqual Mode = 2 // free, or taken by an object of equal hash and size
	Replace       Mode = 3 // always
	ReplaceIf     Mode = 4 // the name's version must be the one given, 0: free
)

// putArg: U64 namespace, the put.
type putArg struct {
	ns uint64
	putBody
}

func (a *putArg) Fields(c *record.Codec) {
	c.U64(&a.ns)
	a.putBody.Fields(c)
}

// putBody: Enum mode, U64 version, String name, object, Bytes manifest.
type putBody struct {
	mode   Mode
	ifIs   uint64
	object Object
}

func (a *putBody) Fields(c *record.Codec) {
	m := uint8(a.mode)
	c.Enum(&m, 0, uint8(ReplaceIf), "put mode")
	a.mode = Mode(m)
	c.U64(&a.ifIs)
	c.String(&a.object.Name, MaxName)
	a.object.Fields(c)
	c.Bytes(&a.object.Manifest, MaxManifest)
}

// PutResult is what became of a put.
type PutResult struct {
	Version uint64 // of the object that has the name now
	// Existed: the name has an object with this id or with equal bytes already.
	// Nothing was put; the fragments of the put are to be deleted, unless they are
	// that object's.
	Existed bool
	// Replaced is the object that had the name, without its manifest; nil if
	// there was none.
	Replaced *Object
}

// Fields implements record.Record: U64 version, Bool existed, Bool replaced;
// if so String name and the object.
func (r *PutResult) Fields(c *record.Codec) {
	c.U64(&r.Version)
	c.Bool(&r.Existed)
	replaced := r.Replaced != nil
	c.Bool(&replaced)
	if !replaced {
		return
	}
	if c.Decoding() {
		r.Replaced = new(Object)
	}
	c.String(&r.Replaced.Name, MaxName)
	r.Replaced.Fields(c)
}

func put(tx userfn.Tx, a *putArg) (*PutResult, error) {
	s, err := openSpace(tx, a.ns, false)
	if err != nil {
		return nil, err
	}
	v, err := s.judge(&a.putBody)
	if err != nil {
		return nil, err
	}
	r, err := s.carryOut(&a.putBody, v)
	if err != nil {
		return nil, err
	}
	return r, s.save()
}

// verdict is what judge found of a put.
type verdict struct {
	current *Object // that has the name; nil: none
	existed bool    // nothing is to be put
	discard bool    // the fragments of the put are to be deleted
}

// judge says what a put is to do, or why it is refused. It changes nothing.
func (s *space) judge(a *putBody) (v verdict, err error) {
	o := &a.object
	if err := checkPut(o); err != nil {
		return v, err
	}
	if v.current, err = s.object(o.Name); err != nil {
		return v, err
	}
	switch current := v.current; {
	case current == nil:
	case current.ID == o.ID:
		v.existed = true
		return v, nil
	case a.mode == CreateOrEqual && current.Hash == o.Hash && current.Size == o.Size:
		// Fragments of a closed epoch are garbage already. Fragments of an id that
		// was used belong to the call that used it, of which this one is a retry.
		v.existed, v.discard = true, s.rec.Epochs.open(o.Epoch) && s.checkFresh(o) == nil
		return v, nil
	}
	if err := s.checkEpoch(o.Epoch); err != nil {
		return v, err
	}
	if err := s.checkFresh(o); err != nil {
		return v, err
	}
	if err := s.checkPlaces(o, func(int, int) bool { return true }); err != nil {
		return v, err
	}
	return v, s.checkMode(a, v.current)
}

// carryOut does what judge found. Its error is about a stored record, and leaves a part of
// the put behind: then nothing of the call may take effect.
func (s *space) carryOut(a *putBody, v verdict) (*PutResult, error) {
	o, current := &a.object, v.current
	if v.existed {
		r := &PutResult{Version: current.Version, Existed: true}
		if v.discard {
			return r, s.discard(o)
		}
		return r, nil
	}
	if current != nil {
		if err := s.remove(current); err != nil {
			return nil, err
		}
	}
	o.Version = s.rec.NextVersion
	s.rec.NextVersion++
	o.Time = s.tx.Time()
	if err := s.index(o); err != nil {
		return nil, err
	}
	if err := store(s.tx, idKey(s.id, o.ID), &idRecord{name: o.Name}); err != nil {
		return nil, err
	}
	if current != nil {
		current.Manifest = nil
	}
	return &PutResult{Version: o.Version, Replaced: current}, nil
}

// checkPut refuses an object that is invalid whatever is stored.
func checkPut(o *Object) error {
	if err := o.validate(o.Policy.C); err != nil {
		return err
	}
	if o.Version != 0 || o.Revision != 0 {
		return o.invalid("it has version %d and revision %d before it was put", o.Version, o.Revision)
	}
	for i, c := range o.Chunks {
		for j, f := range c.Fragments {
			if f.Version != 0 {
				return o.invalid("fragment %d of chunk %d has version %d before the object was put", j, i, f.Version)
			}
		}
	}
	return nil
}

// checkFresh refuses an id that another object has or that left the namespace:
// its fragments' keys were used, and may be about to be deleted.
func (s *space) checkFresh(o *Object) error {
	var rec idRecord
	if _, err := load(s.tx, idKey(s.id, o.ID), &rec); err != nil {
		return err
	}
	if rec.name != "" {
		return userfn.Errorf(userfn.CodeIDUsed, "object %q: its id %x is that of object %q; upload it again under a new id", o.Name, o.ID, rec.name)
	}
	if s.rec.Epochs.open(rec.epoch) {
		return usedUp(o)
	}
	return s.checkNotObsolete(o)
}

func usedUp(o *Object) error {
	return userfn.Errorf(userfn.CodeIDUsed, "object %q: its id %x was used by an object that is gone; upload it again under a new id", o.Name, o.ID)
}

// checkNotObsolete refuses an object with a fragment that is to be deleted. It does not
// search an OSD whose totals say that nothing on it is to be deleted.
func (s *space) checkNotObsolete(o *Object) error {
	for i, c := range o.Chunks {
		for j, f := range c.Fragments {
			if f.OSD == 0 {
				continue
			}
			e, err := s.osd(f.OSD)
			if err != nil {
				return err
			}
			if e.totals.Obsolete.Fragments == 0 {
				continue
			}
			k := FragmentKey{Namespace: s.id, ID: o.ID, Chunk: uint32(i), Fragment: uint16(j), Version: f.Version}
			if _, ok := s.tx.Get(obsoleteKey(f.OSD, k)); ok {
				return usedUp(o)
			}
		}
	}
	return nil
}

func (s *space) checkMode(a *putBody, current *Object) error {
	var version uint64
	if current != nil {
		version = current.Version
	}
	switch a.mode {
	case Create, CreateOrEqual:
		if current != nil {
			return userfn.Errorf(userfn.CodeExists, "object %q: it exists in namespace %d with other bytes, version %d", a.object.Name, s.id, version)
		}
	case Replace:
	case ReplaceIf:
		if version != a.ifIs {
			return conflict(s.id, a.object.Name, version, a.ifIs)
		}
	default:
		return userfn.Errorf(userfn.CodeInvalid, "object %q: put mode %d does not exist", a.object.Name, a.mode)
	}
	return nil
}

func conflict(ns uint64, name string, is, want uint64) error {
	return userfn.Errorf(userfn.CodeConflict, "object %q of namespace %d: it has version %d, not %d", name, ns, is, want)
}
