package nsm

import (
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// epochArg: U64 namespace, U64 epoch.
type epochArg struct{ ns, epoch uint64 }

func (a *epochArg) Fields(c *record.Codec) {
	c.U64(&a.ns)
	c.U64(&a.epoch)
}

// openEpoch opens the named epoch, which must be the next one. An epoch that was opened
// before is no error, so that a retry opens no second one.
func openEpoch(tx userfn.Tx, a *epochArg) (*Epochs, error) {
	s, err := openSpace(tx, a.ns, false)
	if err != nil {
		return nil, err
	}
	e := &s.rec.Epochs
	switch {
	case a.epoch == e.Next && e.Next-e.Minimum >= MaxEpochs:
		return nil, userfn.Errorf(userfn.CodeConflict, "namespace %d: gc epochs %d to %d are open, the most that may be; close some", a.ns, e.Minimum, e.Next-1)
	case a.epoch > e.Next:
		return nil, userfn.Errorf(userfn.CodeConflict, "namespace %d: the next gc epoch is %d, not %d", a.ns, e.Next, a.epoch)
	case a.epoch == e.Next:
		e.Next++
	}
	return e, s.save()
}

// closeEpoch closes the named epoch and all before it. At least one stays open. If the
// epoch is closed already, the call goes on forgetting ids.
func closeEpoch(tx userfn.Tx, a *epochArg) (*Epochs, error) {
	s, err := openSpace(tx, a.ns, false)
	if err != nil {
		return nil, err
	}
	e := &s.rec.Epochs
	if a.epoch >= e.Next-1 {
		return nil, userfn.Errorf(userfn.CodeConflict, "namespace %d: gc epoch %d is the newest (of %d to %d); open the next before closing it", a.ns, a.epoch, e.Minimum, e.Next-1)
	}
	e.Minimum = max(e.Minimum, a.epoch+1)
	if _, err := s.forgetIDs(MaxKeys); err != nil {
		return nil, err
	}
	return e, s.save()
}

// forgetIDs forgets up to limit ids of closed epochs, and returns how many: no put with
// such an id passes checkEpoch. The next call forgets more.
func (s *space) forgetIDs(limit int) (int, error) {
	var keys [][]byte
	s.tx.Range(key(tableUsedID, s.id), key(tableUsedID, s.id, s.rec.Epochs.Minimum), limit, func(k, _ []byte) bool {
		keys = append(keys, append([]byte(nil), k...))
		return true
	})
	for _, k := range keys {
		epoch, id, err := parseUsedIDKey(k)
		if err != nil {
			return 0, userfn.Stop("used ids", err)
		}
		s.tx.Delete(k)
		// An object may have the id again, and may have left again.
		var rec idRecord
		if _, err := load(s.tx, idKey(s.id, id), &rec); err != nil {
			return 0, err
		}
		if rec.name == "" && rec.epoch == epoch {
			s.tx.Delete(idKey(s.id, id))
		}
	}
	return len(keys), nil
}

// Fields implements record.Record: U64 namespace, ID id, U32 chunk, U16
// fragment, U32 version.
func (f *FragmentKey) Fields(c *record.Codec) {
	c.U64(&f.Namespace)
	c.ID(&f.ID)
	c.U32(&f.Chunk)
	c.U16(&f.Fragment)
	c.U32(&f.Version)
}

// doneArg: U64 OSD, List of fragments.
type doneArg struct {
	osd  uint64
	keys []FragmentKey
}

func (a *doneArg) Fields(c *record.Codec) {
	c.U64(&a.osd)
	record.Records(c, &a.keys, MaxKeys)
}

// markDeleted forgets fragments that were deleted on their OSD. It passes over fragments
// that were not to be deleted.
func markDeleted(tx userfn.Tx, a *doneArg) (*Step, error) {
	var step Step
	var gone Usage
	for _, f := range a.keys {
		k := obsoleteKey(a.osd, f)
		var length number
		ok, err := load(tx, k, &length)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		tx.Delete(k)
		gone.Fragments++
		gone.Bytes += length.v
		step.Removed++
	}
	return &step, settle(tx, a.osd, gone, &step)
}

// settle takes deleted fragments off an OSD's totals. The step is done when no fragment
// is to be deleted any more.
func settle(tx userfn.Tx, osd uint64, gone Usage, step *Step) error {
	key := totalsKey(osd)
	var t Totals
	if _, err := load(tx, key, &t); err != nil {
		return err
	}
	if gone.Fragments > 0 {
		if err := t.Obsolete.shift(false, gone, 0, osd); err != nil {
			return err
		}
		if err := storeUnless(tx, key, t == Totals{}, &t); err != nil {
			return err
		}
	}
	step.Done = t.Obsolete == Usage{}
	return nil
}

// forgetOSD forgets an OSD that holds nothing any more. If the OSD is lost, it first
// forgets, in bounded steps, the fragments that were to be deleted on it. The step is done
// when the OSD is forgotten; until then objects have fragments on it that must be repaired.
func forgetOSD(tx userfn.Tx, a *number) (*Step, error) {
	osd := a.v
	var rec osdRecord
	ok, err := load(tx, osdKey(osd), &rec)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return &Step{Done: true}, nil
	case rec.state == OSDLinked:
		return nil, userfn.Errorf(userfn.CodeInUse, "OSD %d: it takes fragments; decommission it on the ABM and deliver its messages", osd)
	}
	var step Step
	if rec.state == OSDLost {
		if err := dropObsolete(tx, osd, &step); err != nil {
			return nil, err
		}
	}
	if _, holds := tx.Get(totalsKey(osd)); holds {
		step.Done = false
		return &step, nil
	}
	tx.Delete(osdKey(osd))
	step.Done = true
	return &step, nil
}

func dropObsolete(tx userfn.Tx, osd uint64, step *Step) error {
	var keys []FragmentKey
	var bad error
	first := key(tableObsolete, osd)
	tx.Range(first, userfn.PrefixEnd(first), MaxKeys, func(k, _ []byte) bool {
		var f FragmentKey
		if _, f, bad = parseObsoleteKey(k); bad != nil {
			return false
		}
		keys = append(keys, f)
		return true
	})
	if bad != nil {
		return userfn.Stop("fragments to delete", bad)
	}
	removed, err := markDeleted(tx, &doneArg{osd: osd, keys: keys})
	if err != nil {
		return err
	}
	*step = *removed
	return nil
}
