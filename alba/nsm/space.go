package nsm

import (
	"openvstorage/alba/nsm/userfn"
)

// space is one namespace within one call.
type space struct {
	tx  Tx
	id  uint64
	rec Namespace
}

// openSpace loads a namespace; removing says whether one that is being removed
// will do.
func openSpace(tx Tx, ns uint64, removing bool) (*space, error) {
	s := &space{tx: tx, id: ns}
	ok, err := load(tx, namespaceKey(ns), &s.rec)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, userfn.Errorf(userfn.CodeNamespaceNotFound, "namespace %d: not found on this NSM host", ns)
	case s.rec.State != NamespaceActive && !removing:
		return nil, userfn.Errorf(userfn.CodeNamespaceNotFound, "namespace %d: being removed", ns)
	}
	return s, nil
}

func (s *space) save() error { return store(s.tx, namespaceKey(s.id), &s.rec) }

// object loads an object without its manifest, nil if there is none.
func (s *space) object(name string) (*Object, error) {
	o := &Object{Name: name}
	ok, err := load(s.tx, objectKey(s.id, name), o)
	if !ok || err != nil {
		return nil, err
	}
	return o, nil
}

// checkEpoch is the fence of uploads and repairs.
func (s *space) checkEpoch(epoch uint64) error {
	if s.rec.Epochs.open(epoch) {
		return nil
	}
	return userfn.Errorf(userfn.CodeEpoch, "namespace %d: gc epoch %d is not open (%d to %d are); write the fragments again under an open one",
		s.id, epoch, s.rec.Epochs.Minimum, s.rec.Epochs.Next-1)
}

// index puts an object into every table; o.Manifest must be set.
func (s *space) index(o *Object) error {
	if err := store(s.tx, objectKey(s.id, o.Name), o); err != nil {
		return err
	}
	m := storedManifest{id: o.ID, revision: o.Revision, manifest: o.Manifest}
	if err := store(s.tx, manifestKey(s.id, o.Name), &m); err != nil {
		return err
	}
	s.tx.Set(idKey(s.id, o.ID), []byte(o.Name))
	s.tx.Set(bucketKey(s.id, o.Bucket(), o.Name), empty)
	for _, h := range o.shares() {
		s.tx.Set(onOSDKey(s.id, h.osd, o.Name), empty)
	}
	return s.account(o, true)
}

// unindex takes an object out of every table.
func (s *space) unindex(o *Object) error {
	s.tx.Delete(objectKey(s.id, o.Name))
	s.tx.Delete(manifestKey(s.id, o.Name))
	s.tx.Delete(idKey(s.id, o.ID))
	s.tx.Delete(bucketKey(s.id, o.Bucket(), o.Name))
	for _, h := range o.shares() {
		s.tx.Delete(onOSDKey(s.id, h.osd, o.Name))
	}
	return s.account(o, false)
}

// account moves all counters by an object. The namespace's own are saved by
// the caller.
func (s *space) account(o *Object, up bool) error {
	key := namespaceKey(s.id)
	for _, c := range []struct {
		v  *uint64
		by uint64
	}{{&s.rec.Objects, 1}, {&s.rec.Size, o.Size}, {&s.rec.Stored, o.Stored()}} {
		if err := shift(c.v, up, c.by, key); err != nil {
			return err
		}
	}
	if err := bump(s.tx, countKey(s.id, o.Bucket()), up, 1); err != nil {
		return err
	}
	for _, h := range o.shares() {
		by := Usage{Fragments: h.fragments, Bytes: h.bytes}
		if err := bumpUsage(s.tx, usageKey(s.id, h.osd), up, by); err != nil {
			return err
		}
		if err := bumpTotals(s.tx, h.osd, up, false, by); err != nil {
			return err
		}
	}
	return nil
}

// remove takes an object out for good: its fragments are to be deleted, its
// id is not to be used again.
func (s *space) remove(o *Object) error {
	if err := s.unindex(o); err != nil {
		return err
	}
	return s.discard(o)
}

// discard has the fragments of an object deleted, and remembers its id for as
// long as a late commit of it could still pass the epoch's fence: until the
// newest epoch closes, and all before it with it.
func (s *space) discard(o *Object) error {
	if newest := s.rec.Epochs.Next - 1; s.rec.Epochs.open(newest) {
		s.tx.Set(usedIDKey(s.id, newest, o.ID), empty)
	}
	for i, c := range o.Chunks {
		for j, f := range c.Fragments {
			if f.OSD == 0 {
				continue
			}
			k := FragmentKey{Namespace: s.id, ID: o.ID, Chunk: uint32(i), Fragment: uint16(j), Version: f.Version}
			if err := s.obsolete(f.OSD, k, uint64(c.Length)); err != nil {
				return err
			}
		}
	}
	return nil
}

// obsolete notes a fragment to be deleted. What a lost or forgotten OSD held
// needs no deleting.
func (s *space) obsolete(osd uint64, f FragmentKey, length uint64) error {
	var rec osdRecord
	if _, err := load(s.tx, osdKey(osd), &rec); err != nil || rec.state != OSDLinked && rec.state != OSDDraining {
		return err
	}
	key := obsoleteKey(osd, f)
	if _, there := s.tx.Get(key); there {
		return userfn.Errorf(userfn.CodeCorrupt, "key %q: a fragment becomes obsolete twice", key)
	}
	if err := store(s.tx, key, &number{length}); err != nil {
		return err
	}
	return bumpTotals(s.tx, osd, true, true, Usage{Fragments: 1, Bytes: length})
}

// checkPlaces refuses fragments on OSDs that take no new ones, and more of
// them on a node than the policy allows. isNew says which fragments are new;
// nodes that get none are not looked at.
func (s *space) checkPlaces(o *Object, isNew func(chunk, fragment int) bool) error {
	known := make(map[uint64]osdRecord) // looked up, never ranged over
	for i, c := range o.Chunks {
		nodes := make([]string, len(c.Fragments))
		for j, f := range c.Fragments {
			if f.OSD == 0 {
				continue
			}
			rec, ok := known[f.OSD]
			if !ok {
				if _, err := load(s.tx, osdKey(f.OSD), &rec); err != nil {
					return err
				}
				known[f.OSD] = rec
			}
			if rec.state != OSDLinked && isNew(i, j) {
				return userfn.Errorf(userfn.CodeOSD, "object %q: OSD %d takes no new fragments; fetch the OSDs again and place it elsewhere", o.Name, f.OSD)
			}
			nodes[j] = rec.node
		}
		if err := checkNodes(o, i, nodes, isNew); err != nil {
			return err
		}
	}
	return nil
}

func checkNodes(o *Object, chunk int, nodes []string, isNew func(chunk, fragment int) bool) error {
	fragments := o.Chunks[chunk].Fragments
	for j, f := range fragments {
		if f.OSD == 0 || !isNew(chunk, j) {
			continue
		}
		same := 0
		for l, other := range fragments {
			if other.OSD != 0 && nodes[l] == nodes[j] {
				same++
			}
		}
		if same > int(o.Policy.X) {
			return userfn.Errorf(userfn.CodeSpread, "object %q: chunk %d has %d fragments on node %q, its policy allows %d",
				o.Name, chunk, same, nodes[j], o.Policy.X)
		}
	}
	return nil
}
