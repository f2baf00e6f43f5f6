package nsm

import (
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Bounds of what goes over in one call of a move.
const (
	MaxImport      = 64      // objects
	maxImportBytes = 1 << 20 // of their records, about; one object may be more
)

// Moved is an object as it goes over to another host, or its absence.
type Moved struct {
	Name   string
	Object *Object // with its manifest; nil: there is none of that name
}

// Fields implements record.Record: String name, Bool present; if so the object, Bytes manifest.
func (m *Moved) Fields(c *record.Codec) {
	c.String(&m.Name, MaxName)
	present := m.Object != nil
	c.Bool(&present)
	if !present {
		return
	}
	if c.Decoding() {
		m.Object = new(Object)
	}
	m.Object.Fields(c)
	c.Bytes(&m.Object.Manifest, MaxManifest)
	m.Object.Name = m.Name
}

// pageArg: U64 namespace, U64 generation, String after, String last, Bool complete, List of
// objects.
type pageArg struct {
	ns          uint64
	generation  uint64
	after, last string // it has every object with a name between these, last included
	complete    bool   // there is none behind last
	list        []Moved
}

func (a *pageArg) Fields(c *record.Codec) {
	c.U64(&a.ns)
	c.U64(&a.generation)
	c.String(&a.after, MaxName)
	c.String(&a.last, MaxName)
	c.Bool(&a.complete)
	record.Records(c, &a.list, MaxImport)
}

// importing loads a namespace that is coming here.
func importing(tx userfn.Tx, ns, generation uint64) (*space, error) {
	s, err := openMove(tx, ns, generation)
	if err != nil {
		return nil, err
	}
	if s.rec.State != NamespaceImporting || s.rec.Generation != generation {
		return nil, s.another(generation, "it is to come here")
	}
	if s.rec.Cursor == "" && !s.rec.Complete && s.rec.Changes == 0 && s.rec.Objects > 0 {
		return nil, userfn.Errorf(userfn.CodeConflict, "namespace %d: objects that an earlier stay left: %d; drop them first", ns, s.rec.Objects)
	}
	return s, nil
}

// importPage takes the next page of a namespace.
func importPage(tx userfn.Tx, a *pageArg) (*Namespace, error) {
	s, err := importing(tx, a.ns, a.generation)
	if err != nil {
		return nil, err
	}
	switch {
	case s.rec.Peer == 0:
		return nil, userfn.Errorf(userfn.CodeInvalid, "namespace %d: it comes from the disks, in changes, not in pages", a.ns)
	case a.last < a.after || a.last == a.after && (len(a.list) > 0 || !a.complete):
		return nil, userfn.Errorf(userfn.CodeInvalid, "namespace %d: a page of %d objects from behind %q to %q", a.ns, len(a.list), a.after, a.last)
	case s.rec.Cursor == a.last && s.rec.Complete == a.complete:
		return &s.rec, nil // it came before
	case s.rec.Complete || s.rec.Cursor != a.after:
		return nil, userfn.Errorf(userfn.CodeConflict, "namespace %d: pages have come up to %q (all: %v), this one begins behind %q", a.ns, s.rec.Cursor, s.rec.Complete, a.after)
	}
	before := a.after
	for _, m := range a.list {
		if m.Object == nil || m.Name <= before || m.Name > a.last {
			return nil, userfn.Errorf(userfn.CodeInvalid, "namespace %d: object %q in a page behind %q, after %q", a.ns, m.Name, a.after, before)
		}
		before = m.Name
		if err := s.take(m); err != nil {
			return nil, err
		}
	}
	s.rec.Cursor, s.rec.Complete = a.last, a.complete
	return &s.rec, s.save()
}

// changesArg: U64 namespace, U64 generation, U64 after, U64 last, List of objects.
type changesArg struct {
	ns          uint64
	generation  uint64
	after, last uint64 // the objects of the changes between these, last included
	list        []Moved
}

func (a *changesArg) Fields(c *record.Codec) {
	c.U64(&a.ns)
	c.U64(&a.generation)
	c.U64(&a.after)
	c.U64(&a.last)
	record.Records(c, &a.list, MaxImport)
}

// importChanges takes the next changes of a namespace, once all its pages have come. One that
// comes from the disks has only changes, which its importer numbers.
func importChanges(tx userfn.Tx, a *changesArg) (*Namespace, error) {
	s, err := importing(tx, a.ns, a.generation)
	if err != nil {
		return nil, err
	}
	switch {
	case a.last <= a.after:
		return nil, userfn.Errorf(userfn.CodeInvalid, "namespace %d: changes from behind %d to %d", a.ns, a.after, a.last)
	case s.rec.Changes == a.last:
		return &s.rec, nil // they came before
	case s.rec.Changes != a.after || !s.rec.Complete && s.rec.Peer != 0:
		return nil, userfn.Errorf(userfn.CodeConflict, "namespace %d: changes have come up to %d (all pages before: %v), these begin behind %d", a.ns, s.rec.Changes, s.rec.Complete, a.after)
	}
	for _, m := range a.list {
		if err := s.take(m); err != nil {
			return nil, err
		}
	}
	s.rec.Changes = a.last
	return &s.rec, s.save()
}

// take makes an object here what it is on the source. No fragment is deleted for one that is
// replaced: whoever replaced it there has seen to that.
func (s *space) take(m Moved) error {
	if err := validName(m.Name); err != nil {
		return err
	}
	old, err := s.object(m.Name)
	if err != nil {
		return err
	}
	if o := m.Object; o != nil {
		if err := o.validate(o.Policy.K); err != nil {
			return err
		}
		if o.Version == 0 {
			return o.invalid("it has no version")
		}
		if old != nil && s.rec.Peer == 0 && (old.Version > o.Version || old.Version == o.Version && old.Revision >= o.Revision) {
			return nil // the disks told of a newer one before
		}
	}
	if old != nil {
		if err := s.drop(old); err != nil {
			return err
		}
	}
	if m.Object == nil {
		return nil
	}
	return s.enter(m.Object)
}

// enter stores an object of the source.
func (s *space) enter(o *Object) error {
	var rec idRecord
	switch _, err := load(s.tx, idKey(s.id, o.ID), &rec); {
	case err != nil:
		return err
	case rec.name != "":
		return userfn.Errorf(userfn.CodeIDUsed, "object %q: its id %x is that of object %q", o.Name, o.ID, rec.name)
	}
	for _, c := range o.Chunks {
		for _, f := range c.Fragments {
			if f.OSD == 0 {
				continue
			}
			if f.Version > o.Revision {
				return o.invalid("a fragment on OSD %d has version %d, the object revision %d", f.OSD, f.Version, o.Revision)
			}
			if err := s.know(f.OSD); err != nil {
				return err
			}
		}
	}
	s.rec.NextVersion = max(s.rec.NextVersion, o.Version+1)
	if err := store(s.tx, idKey(s.id, o.ID), &idRecord{name: o.Name}); err != nil {
		return err
	}
	return s.index(o)
}

// know makes an OSD known that this host was never told of: the ABM has forgotten it, or gave
// it up before the host came. It is lost, so what it had is repaired.
func (s *space) know(osd uint64) error {
	e, err := s.osd(osd)
	if err != nil || e.state != 0 {
		return err
	}
	e.osdRecord = osdRecord{state: OSDLost}
	return store(s.tx, osdKey(osd), &e.osdRecord)
}

// activateArg: U64 namespace, U64 generation, U64 next version, U64 next epoch, the sums.
type activateArg struct {
	ns          uint64
	generation  uint64
	nextVersion uint64 // of the source
	nextEpoch   uint64
	sums        Sums
}

func (a *activateArg) Fields(c *record.Codec) {
	c.U64(&a.ns)
	c.U64(&a.generation)
	c.U64(&a.nextVersion)
	c.U64(&a.nextEpoch)
	a.sums.Fields(c)
}

// activate begins to serve a namespace that has come. The caller has seen the source leave it.
// One that comes from the disks has numbers of its own.
func activate(tx userfn.Tx, a *activateArg) (*Namespace, error) {
	s, err := openMove(tx, a.ns, a.generation)
	if err != nil {
		return nil, err
	}
	if s.rec.Generation == a.generation && s.rec.State == NamespaceActive {
		return &s.rec, nil
	}
	if s, err = importing(tx, a.ns, a.generation); err != nil {
		return nil, err
	}
	switch {
	case s.rec.Peer != 0 && (!s.rec.Complete || s.rec.Sums() != a.sums):
		return nil, userfn.Errorf(userfn.CodeConflict, "namespace %d: it has %+v here (all pages: %v) and had %+v on NSM host %d", a.ns, s.rec.Sums(), s.rec.Complete, a.sums, s.rec.Peer)
	case s.rec.Peer != 0 && a.nextEpoch == 0:
		return nil, userfn.Errorf(userfn.CodeInvalid, "namespace %d: next gc epoch 0", a.ns)
	case s.rec.Peer != 0:
		s.rec.Epochs = Epochs{Minimum: a.nextEpoch, Next: a.nextEpoch + 1}
		s.rec.NextVersion = max(s.rec.NextVersion, a.nextVersion)
	}
	s.rec.State = NamespaceActive
	return &s.rec, s.save()
}
