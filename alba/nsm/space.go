package nsm

import (
	"openvstorage/alba/nsm/userfn"
)

// space is one namespace within one call.
type space struct {
	tx   userfn.Tx
	id   uint64
	rec  Namespace
	was  Namespace // as it is stored
	osds ledger
	// buckets are the counters that the call moves, few.
	buckets []bucketCount
}

// bucketCount is the number of objects in a bucket.
type bucketCount struct {
	Bucket
	n, was number
}

// openSpace loads a namespace. removing says whether it may be one that is being removed.
func openSpace(tx userfn.Tx, ns uint64, removing bool) (*space, error) {
	s := &space{tx: tx, id: ns}
	ok, err := load(tx, namespaceKey(ns), &s.rec)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, userfn.Errorf(userfn.CodeNamespaceNotFound, "namespace %d: not found on this NSM host", ns)
	case !removing:
		if err := mayWrite(ns, &s.rec); err != nil {
			return nil, err
		}
	}
	s.was = s.rec
	return s, nil
}

// save stores the namespace and the counters of OSDs and buckets as the call has changed
// them.
func (s *space) save() error {
	if err := s.saveCounters(); err != nil || s.rec == s.was {
		return err
	}
	s.was = s.rec
	return store(s.tx, namespaceKey(s.id), &s.rec)
}

// bucket returns the counter of a bucket.
func (s *space) bucket(b Bucket) (*bucketCount, error) {
	for i := range s.buckets {
		if s.buckets[i].Bucket == b {
			return &s.buckets[i], nil
		}
	}
	c := bucketCount{Bucket: b}
	if _, err := load(s.tx, countKey(s.id, b), &c.was); err != nil {
		return nil, err
	}
	c.n = c.was
	s.buckets = append(s.buckets, c)
	return &s.buckets[len(s.buckets)-1], nil
}

// saveBuckets stores those counters of buckets that have changed.
func (s *space) saveBuckets() error {
	for i := range s.buckets {
		c := &s.buckets[i]
		if c.n == c.was {
			continue
		}
		if err := storeUnless(s.tx, countKey(s.id, c.Bucket), c.n.v == 0, &c.n); err != nil {
			return err
		}
		c.was = c.n
	}
	return nil
}

// object loads an object with its manifest, nil if there is none.
func (s *space) object(name string) (*Object, error) {
	k := objectKey(s.id, name)
	raw, ok := s.tx.Get(k)
	if !ok {
		return nil, nil
	}
	o := &Object{Name: name}
	if err := userfn.Read(k, raw, &stored{o}); err != nil {
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

// index stores an object under its name, and in its bucket's index if it is below full
// width. o.Manifest must be set. The entry of its id is made by put.
func (s *space) index(o *Object) error {
	if err := store(s.tx, objectKey(s.id, o.Name), &stored{o}); err != nil {
		return err
	}
	s.note(o.Name)
	if b := o.Bucket(); !b.Full() {
		s.tx.Set(bucketKey(s.id, b, o.Name), empty)
	}
	return s.account(o, true)
}

// unindex takes an object out of its bucket and of all counters. The entries of its name and
// id are left to the caller.
func (s *space) unindex(o *Object) error {
	if b := o.Bucket(); !b.Full() {
		s.tx.Delete(bucketKey(s.id, b, o.Name))
	}
	return s.account(o, false)
}

// account adds an object to all counters, or takes it off; save stores them.
func (s *space) account(o *Object, up bool) error {
	if !shift(&s.rec.Objects, up, 1) || !shift(&s.rec.Size, up, o.Size) || !shift(&s.rec.Stored, up, o.Stored()) {
		return userfn.Errorf(userfn.CodeCorrupt, "namespace %d: it counts %+v and would lose object %q of %d bytes, %d stored", s.id, s.rec, o.Name, o.Size, o.Stored())
	}
	b, err := s.bucket(o.Bucket())
	if err != nil {
		return err
	}
	if !shift(&b.n.v, up, 1) {
		return userfn.Errorf(userfn.CodeCorrupt, "key %q: the counter is %d and would lose object %q", countKey(s.id, b.Bucket), b.n.v, o.Name)
	}
	for _, c := range o.Chunks {
		for _, f := range c.Fragments {
			if f.OSD == 0 {
				continue
			}
			if err := s.hold(f.OSD, up, Usage{Fragments: 1, Bytes: uint64(c.Length)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove takes an object out for good: its fragments are to be deleted, its
// id is not to be used again.
func (s *space) remove(o *Object) error {
	s.tx.Delete(objectKey(s.id, o.Name))
	s.note(o.Name)
	if err := s.unindex(o); err != nil {
		return err
	}
	return s.discard(o)
}

// discard has the fragments of an object deleted. It remembers the object's id for as long
// as a late commit of it could pass the epoch's fence: until the epoch that is the newest
// now is closed, and all before it with it.
func (s *space) discard(o *Object) error {
	if newest := s.rec.Epochs.Next - 1; s.rec.Epochs.open(newest) {
		if err := store(s.tx, idKey(s.id, o.ID), &idRecord{epoch: newest}); err != nil {
			return err
		}
		s.tx.Set(usedIDKey(s.id, newest, o.ID), empty)
	} else {
		s.tx.Delete(idKey(s.id, o.ID))
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

// obsolete notes a fragment to be deleted, unless its OSD is lost or forgotten.
func (s *space) obsolete(osd uint64, f FragmentKey, length uint64) error {
	e, err := s.osd(osd)
	if err != nil || e.state != OSDLinked && e.state != OSDDraining {
		return err
	}
	key := obsoleteKey(osd, f)
	if _, there := s.tx.Get(key); there {
		return userfn.Errorf(userfn.CodeCorrupt, "key %q: a fragment becomes obsolete twice", key)
	}
	if err := store(s.tx, key, &number{length}); err != nil {
		return err
	}
	return e.totals.Obsolete.shift(true, Usage{Fragments: 1, Bytes: length}, 0, osd)
}

// checkPlaces refuses new fragments on OSDs that take none, and more fragments on a node than
// the policy allows. isNew says which fragments are new; nodes that get none are not looked
// at.
func (s *space) checkPlaces(o *Object, isNew func(chunk, fragment int) bool) error {
	var nodes []string
	for i, c := range o.Chunks {
		nodes = append(nodes[:0], make([]string, len(c.Fragments))...)
		for j, f := range c.Fragments {
			if f.OSD == 0 {
				continue
			}
			rec, err := s.osd(f.OSD)
			if err != nil {
				return err
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
