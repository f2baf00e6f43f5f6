package nsm

import (
	"bytes"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Change puts another fragment in a place: chunk Chunk, fragment Fragment.
type Change struct {
	Chunk    uint32
	Fragment uint16
	// To is the new fragment; OSD 0 drops the one that is there. Version is the
	// object's next revision, or 0 for a late fragment of the upload whose place was
	// never filled.
	To Fragment
}

// Fields implements record.Record: U32 chunk, U16 fragment, U64 OSD, U32
// version.
func (h *Change) Fields(c *record.Codec) {
	c.U32(&h.Chunk)
	c.U16(&h.Fragment)
	h.To.Fields(c)
}

// Update changes fragments of one object.
type Update struct {
	Name     string
	ID       [16]byte // the object must still be this one,
	Revision uint32   // with its fragments unchanged since this revision
	Epoch    uint64   // under which the new fragments were written
	Changes  []Change
	Manifest []byte // with the changes in it
}

// updateArg: U64 namespace, String name, ID id, U32 revision, U64 epoch, List
// of changes, Bytes manifest.
type updateArg struct {
	ns uint64
	Update
}

func (a *updateArg) Fields(c *record.Codec) {
	c.U64(&a.ns)
	c.String(&a.Name, MaxName)
	c.ID(&a.ID)
	c.U32(&a.Revision)
	c.U64(&a.Epoch)
	record.Records(c, &a.Changes, MaxChanges)
	c.Bytes(&a.Manifest, MaxManifest)
}

// revision is the result of an update: U32 revision.
type revision struct{ v uint32 }

func (r *revision) Fields(c *record.Codec) { c.U32(&r.v) }

func update(tx userfn.Tx, a *updateArg) (*revision, error) {
	if err := validName(a.Name); err != nil {
		return nil, err
	}
	s, err := openSpace(tx, a.ns, false)
	if err != nil {
		return nil, err
	}
	old, err := s.object(a.Name)
	switch {
	case err != nil:
		return nil, err
	case old == nil || old.ID != a.ID:
		return nil, userfn.Errorf(userfn.CodeNotFound, "object %q of namespace %d: the one with id %x is gone", a.Name, a.ns, a.ID)
	case old.Revision == a.Revision+1 && updated(old, a):
		return &revision{old.Revision}, nil
	case old.Revision != a.Revision:
		return nil, userfn.Errorf(userfn.CodeConflict, "object %q of namespace %d: its fragments have revision %d, not %d; read its manifest again",
			a.Name, a.ns, old.Revision, a.Revision)
	case len(a.Changes) == 0:
		return nil, old.invalid("an update without changes")
	}
	if err := s.checkEpoch(a.Epoch); err != nil {
		return nil, err
	}
	o, err := s.change(old, a)
	if err != nil {
		return nil, err
	}
	if err := s.unindex(old); err != nil {
		return nil, err
	}
	if err := s.index(o); err != nil {
		return nil, err
	}
	return &revision{o.Revision}, s.save()
}

// updated reports whether the same update was made before.
func updated(o *Object, a *updateArg) bool {
	if !bytes.Equal(o.Manifest, a.Manifest) {
		return false
	}
	for _, h := range a.Changes {
		f := o.slot(h)
		if f == nil || f.OSD != h.To.OSD || f.OSD != 0 && f.Version != h.To.Version {
			return false
		}
	}
	return true
}

// slot returns the place of a change, nil if the object has no such place.
func (o *Object) slot(h Change) *Fragment {
	if uint64(h.Chunk) >= uint64(len(o.Chunks)) || int(h.Fragment) >= len(o.Chunks[h.Chunk].Fragments) {
		return nil
	}
	return &o.Chunks[h.Chunk].Fragments[h.Fragment]
}

// change returns the object after an update, and has the fragments that it
// replaced deleted.
func (s *space) change(old *Object, a *updateArg) (*Object, error) {
	o := old.clone()
	o.Revision++
	o.Manifest, o.ManifestSize = a.Manifest, uint32(len(a.Manifest))
	type place struct {
		chunk    int
		fragment int
	}
	changed := make(map[place]bool) // looked up, never ranged over
	for _, h := range a.Changes {
		at := place{int(h.Chunk), int(h.Fragment)}
		slot := o.slot(h)
		if slot == nil {
			return nil, o.invalid("it has no fragment %d of chunk %d", h.Fragment, h.Chunk)
		}
		if changed[at] {
			return nil, o.invalid("an update changes fragment %d of chunk %d twice", h.Fragment, h.Chunk)
		}
		changed[at] = true
		was := *slot
		if err := o.place(slot, h); err != nil {
			return nil, err
		}
		k := FragmentKey{Namespace: s.id, ID: o.ID, Chunk: h.Chunk, Fragment: h.Fragment, Version: h.To.Version}
		if _, dying := s.tx.Get(obsoleteKey(h.To.OSD, k)); dying && h.To.OSD != 0 {
			return nil, userfn.Errorf(userfn.CodeConflict, "object %q: fragment %d of chunk %d is about to be deleted on OSD %d; place it elsewhere", o.Name, h.Fragment, h.Chunk, h.To.OSD)
		}
		if was.OSD == 0 {
			continue
		}
		k.Version = was.Version
		if err := s.obsolete(was.OSD, k, uint64(o.Chunks[h.Chunk].Length)); err != nil {
			return nil, err
		}
	}
	// With fewer than K fragments a chunk cannot be read. An object that lost more stays
	// listed with the OSDs that it had.
	if err := o.validate(o.Policy.K); err != nil {
		return nil, err
	}
	return o, s.checkPlaces(o, func(chunk, fragment int) bool { return changed[place{chunk, fragment}] })
}

// place makes a change. The new version must be one that this place never had: a deletion
// that is still under way could otherwise hit the new fragment.
func (o *Object) place(slot *Fragment, h Change) error {
	neverFilled := *slot == Fragment{}
	switch {
	case h.To.OSD == 0 && slot.OSD == 0:
		return o.invalid("fragment %d of chunk %d is dropped, but is not there", h.Fragment, h.Chunk)
	case h.To.OSD == 0:
		*slot = Fragment{Version: o.Revision}
		return nil
	case h.To.Version == o.Revision, h.To.Version == 0 && neverFilled:
		*slot = h.To
		return nil
	case h.To.Version == 0:
		return userfn.Errorf(userfn.CodeConflict, "object %q: fragment %d of chunk %d came late, its place was filled meanwhile", o.Name, h.Fragment, h.Chunk)
	}
	return o.invalid("fragment %d of chunk %d has version %d, it takes the next revision, %d", h.Fragment, h.Chunk, h.To.Version, o.Revision)
}
