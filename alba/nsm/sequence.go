package nsm

import (
	"context"
	"fmt"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// MaxAsserts is the number of assertions of a sequence.
const MaxAsserts = 64

// AssertKind says what an assertion demands.
type AssertKind uint8

// Kinds of assertion. Their numbers are in calls.
const (
	AssertExists  AssertKind = 1
	AssertAbsent  AssertKind = 2
	AssertID      AssertKind = 3 // the object has ID
	AssertHash    AssertKind = 4 // its bytes have Hash
	AssertVersion AssertKind = 5 // it has Version
	AssertFixed   AssertKind = 6 // it has Version, and its fragments Revision
)

// Assert demands something of an object by name.
type Assert struct {
	Kind     AssertKind
	Name     string
	ID       [16]byte
	Hash     [32]byte
	Version  uint64
	Revision uint32
}

// Fields implements record.Record: Enum kind, String name, ID id, Hash hash, U64 version, U32
// revision.
func (a *Assert) Fields(c *record.Codec) {
	k := uint8(a.Kind)
	c.Enum(&k, uint8(AssertExists), uint8(AssertFixed), "assertion")
	a.Kind = AssertKind(k)
	c.String(&a.Name, MaxName)
	c.ID(&a.ID)
	c.Hash(&a.Hash)
	c.U64(&a.Version)
	c.U32(&a.Revision)
}

// holds says whether an assertion is true of the object that has its name, nil if none has.
func (a *Assert) holds(o *Object) bool {
	switch {
	case a.Kind == AssertAbsent || o == nil:
		return a.Kind == AssertAbsent && o == nil
	case a.Kind == AssertID:
		return o.ID == a.ID
	case a.Kind == AssertHash:
		return o.Hash == a.Hash
	case a.Kind == AssertVersion:
		return o.Version == a.Version
	case a.Kind == AssertFixed:
		return o.Version == a.Version && o.Revision == a.Revision
	}
	return true
}

// sequenceArg: U64 namespace, List of assertions, List of puts, List of String names to
// delete.
type sequenceArg struct {
	ns      uint64
	asserts []Assert
	puts    []putBody
	deletes []string
}

func (a *sequenceArg) Fields(c *record.Codec) {
	c.U64(&a.ns)
	record.Records(c, &a.asserts, MaxAsserts)
	record.Records(c, &a.puts, MaxPuts)
	record.Strings(c, &a.deletes, MaxNames, MaxName)
}

// sequenceResult: List of results of the puts.
type sequenceResult struct{ list []PutResult }

func (r *sequenceResult) Fields(c *record.Codec) { record.Records(c, &r.list, MaxPuts) }

// applySequence makes puts and deletes, all if every assertion holds before, or none. The
// same call again, whose puts are all there and whose deleted objects are all gone, is not
// judged by its assertions: it is what made them untrue.
func applySequence(tx userfn.Tx, a *sequenceArg) (*sequenceResult, error) {
	s, err := openSpace(tx, a.ns, false)
	if err != nil {
		return nil, err
	}
	if err := a.distinct(); err != nil {
		return nil, err
	}
	made, err := s.made(a)
	if err != nil {
		return nil, err
	}
	if !made {
		if err := s.assert(a.asserts); err != nil {
			return nil, err
		}
	}
	var r sequenceResult
	fragments := 0
	for i := range a.puts {
		v, err := s.judge(&a.puts[i])
		if err != nil {
			return nil, err
		}
		if v.current != nil && !v.existed {
			fragments += v.current.count()
		}
		one, err := s.carryOut(&a.puts[i], v)
		if err != nil {
			return nil, err
		}
		r.list = append(r.list, *one)
	}
	for _, name := range a.deletes {
		o, err := s.object(name)
		if err != nil {
			return nil, err
		}
		if o == nil {
			continue
		}
		fragments += o.count()
		if err := s.remove(o); err != nil {
			return nil, err
		}
	}
	if fragments > maxRemoved {
		return nil, userfn.Errorf(userfn.CodeInvalid, "namespace %d: a sequence has %d fragments be deleted, it takes up to %d", a.ns, fragments, maxRemoved)
	}
	return &r, s.save()
}

// distinct refuses a sequence that does two things to one name: their order would matter.
func (a *sequenceArg) distinct() error {
	seen := make(map[string]bool, len(a.puts)+len(a.deletes)) // looked up, never ranged over
	names := append([]string(nil), a.deletes...)
	for i := range a.puts {
		names = append(names, a.puts[i].object.Name)
	}
	for _, name := range names {
		if err := validName(name); err != nil {
			return err
		}
		if seen[name] {
			return userfn.Errorf(userfn.CodeInvalid, "object %q: a sequence does two things to it", name)
		}
		seen[name] = true
	}
	return nil
}

// made reports whether the same sequence was made before: every put's object has its name, and
// nothing has a name that is to be deleted.
func (s *space) made(a *sequenceArg) (bool, error) {
	for i := range a.puts {
		o, err := s.object(a.puts[i].object.Name)
		if err != nil || o == nil || o.ID != a.puts[i].object.ID {
			return false, err
		}
	}
	for _, name := range a.deletes {
		if _, there := s.tx.Get(objectKey(s.id, name)); there {
			return false, nil
		}
	}
	return len(a.puts) > 0, nil
}

func (s *space) assert(list []Assert) error {
	for i := range list {
		a := &list[i]
		if err := validName(a.Name); err != nil {
			return err
		}
		o, err := s.object(a.Name)
		if err != nil {
			return err
		}
		if a.holds(o) {
			continue
		}
		is := "it is not there"
		if o != nil {
			is = fmt.Sprintf("it has id %x, version %d, revision %d", o.ID, o.Version, o.Revision)
		}
		return userfn.Errorf(userfn.CodeAssert, "object %q of namespace %d: assertion %d of the sequence does not hold: %s", a.Name, s.id, i, is)
	}
	return nil
}

// Sequence is what Apply makes together.
type Sequence struct {
	Asserts []Assert // up to MaxAsserts, of the state before
	Puts    []Put    // up to MaxPuts
	Deletes []string // up to MaxNames; absent ones are no error
}

// Apply makes several puts and deletes together, durable on return: all of them, if every
// assertion holds (else ErrAssert) and no put is refused, or none. A name is in one put or
// delete at most. A put whose object has the name already has been made, as with Put; one in
// mode CreateOrEqual may exist with equal bytes. A call that is repeated finds its work done, unless
// it only deletes: that one may report ErrAssert. Errors are those of Put besides. Objects
// appear together to Consistent reads of several names at once (MultiGet).
func (c *Client) Apply(ctx context.Context, ns uint64, q Sequence) ([]PutResult, error) {
	arg := sequenceArg{ns: ns, asserts: q.Asserts, deletes: q.Deletes}
	for i := range q.Puts {
		p := &q.Puts[i]
		if p.Mode > ReplaceIf || p.Mode == 0 {
			return nil, userfn.Errorf(userfn.CodeInvalid, "object %q: put mode %d does not exist", p.Object.Name, p.Mode)
		}
		body := putBody{mode: p.Mode, ifIs: p.Version, object: *p.Object}
		body.object.ManifestSize = uint32(len(p.Object.Manifest))
		body.object.Version, body.object.Revision, body.object.Time = 0, 0, 0
		arg.puts = append(arg.puts, body)
	}
	var r sequenceResult
	if err := c.call(ctx, nameApply, &arg, &r); err != nil {
		return nil, err
	}
	if len(r.list) != len(q.Puts) {
		return nil, fmt.Errorf("%s: %d results of %d puts", nameApply, len(r.list), len(q.Puts))
	}
	return r.list, nil
}

// MultiExists says of up to MaxPage names whether an object has each.
func (c *Client) MultiExists(ctx context.Context, ns uint64, names []string, how userfn.Consistency) ([]bool, error) {
	if len(names) > MaxPage {
		return nil, userfn.Errorf(userfn.CodeInvalid, "%d names exceed %d", len(names), MaxPage)
	}
	keys := make([][]byte, len(names))
	for i, name := range names {
		keys[i] = objectKey(ns, name)
	}
	values, err := c.get(ctx, ns, how, keys...)
	if err != nil {
		return nil, err
	}
	there := make([]bool, len(names))
	for i := range values {
		there[i] = values[i] != nil
	}
	return there, nil
}
