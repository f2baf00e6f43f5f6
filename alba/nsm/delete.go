package nsm

import (
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Condition holds when the object Name has version Version; Version 0: when there is no
// such object.
type Condition struct {
	Name    string
	Version uint64
}

// deleteArg: U64 namespace, List of String names, Bool conditional, String
// name, U64 version.
type deleteArg struct {
	ns          uint64
	names       []string
	conditional bool
	cond        Condition
}

func (a *deleteArg) Fields(c *record.Codec) {
	c.U64(&a.ns)
	record.Strings(c, &a.names, MaxNames, MaxName)
	c.Bool(&a.conditional)
	c.String(&a.cond.Name, MaxName)
	c.U64(&a.cond.Version)
}

// maxRemoved bounds the fragments that are to be deleted after one call, and so the size
// of the call's batch.
const maxRemoved = 4 * MaxFragments

// Removed counts what a call took away: U64 objects, U64 bytes stored.
type Removed struct{ Objects, Stored uint64 }

// Fields implements record.Record.
func (r *Removed) Fields(c *record.Codec) {
	c.U64(&r.Objects)
	c.U64(&r.Stored)
}

func remove(tx userfn.Tx, a *deleteArg) (*Removed, error) {
	s, err := openSpace(tx, a.ns, false)
	if err != nil {
		return nil, err
	}
	if a.conditional {
		if err := s.checkCondition(a.cond); err != nil {
			return nil, err
		}
	}
	var r Removed
	fragments := 0
	for i, name := range a.names {
		if err := validName(name); err != nil {
			return nil, err
		}
		o, err := s.object(name)
		if err != nil {
			return nil, err
		}
		if o == nil {
			continue
		}
		if fragments += o.count(); fragments > maxRemoved && i > 0 {
			return nil, userfn.Errorf(userfn.CodeInvalid, "namespace %d: the first %d of %d objects to delete have over %d fragments; delete fewer in one call",
				a.ns, i+1, len(a.names), maxRemoved)
		}
		if err := s.remove(o); err != nil {
			return nil, err
		}
		r.Objects++
		r.Stored += o.Stored()
	}
	return &r, s.save()
}

func (s *space) checkCondition(c Condition) error {
	if err := validName(c.Name); err != nil {
		return err
	}
	o, err := s.object(c.Name)
	if err != nil {
		return err
	}
	var version uint64
	if o != nil {
		version = o.Version
	}
	if version != c.Version {
		return conflict(s.id, c.Name, version, c.Version)
	}
	return nil
}

// cleanupArg: U64 namespace, U32 objects at most.
type cleanupArg struct {
	ns    uint64
	limit uint32
}

func (a *cleanupArg) Fields(c *record.Codec) {
	c.U64(&a.ns)
	c.U32(&a.limit)
}

// Step is what one bounded step of a longer work did: U64 removed, Bool done.
type Step struct {
	Removed uint64
	Done    bool // there is nothing left to do
}

// Fields implements record.Record.
func (s *Step) Fields(c *record.Codec) {
	c.U64(&s.Removed)
	c.Bool(&s.Done)
}

// cleanup takes objects out of a namespace that is being removed, and removes the namespace
// once it is empty. For a namespace that is gone, it is done.
func cleanup(tx userfn.Tx, a *cleanupArg) (*Step, error) {
	if a.limit == 0 || a.limit > MaxNames {
		return nil, userfn.Errorf(userfn.CodeInvalid, "namespace %d: a cleanup step takes 1 to %d objects, not %d", a.ns, MaxNames, a.limit)
	}
	if _, ok := tx.Get(namespaceKey(a.ns)); !ok {
		return &Step{Done: true}, nil
	}
	s, err := openSpace(tx, a.ns, true)
	if err != nil {
		return nil, err
	}
	if s.rec.State != NamespaceRemoving {
		return nil, userfn.Errorf(userfn.CodeInUse, "namespace %d: it is not being removed; delete it on the ABM and deliver its messages", a.ns)
	}
	// Nothing is put into it any more: no id needs remembering.
	s.rec.Epochs.Minimum = s.rec.Epochs.Next
	var step Step
	fragments := 0
	for _, name := range s.names(int(a.limit)) {
		o, err := s.object(name)
		if err != nil {
			return nil, err
		}
		if fragments += o.count(); fragments > maxRemoved && step.Removed > 0 {
			return &step, s.save()
		}
		if err := s.remove(o); err != nil {
			return nil, err
		}
		step.Removed++
	}
	if s.rec.Objects > 0 {
		return &step, s.save()
	}
	forgotten, err := s.forgetIDs(MaxKeys)
	if err != nil {
		return nil, err
	}
	if forgotten == MaxKeys {
		return &step, s.save()
	}
	tx.Delete(namespaceKey(a.ns))
	step.Done = true
	return &step, s.saveCounters()
}

// names returns the first names of the namespace.
func (s *space) names(limit int) []string {
	var names []string
	first := key(tableObject, s.id)
	s.tx.Range(first, userfn.PrefixEnd(first), limit, func(k, _ []byte) bool {
		names = append(names, string(k[len(first):]))
		return true
	})
	return names
}
