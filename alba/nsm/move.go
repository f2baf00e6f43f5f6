package nsm

import (
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// A namespace moves from host to host so, each step durable before the next, and each to be
// repeated by whoever goes on after a cut:
//
//  1. The ABM says that it moves, in a generation of its own. Target: Importing.
//  2. Source: Copying. It serves all calls, and numbers every change of an object's record.
//  3. Pages in order of name go to the target. A page is taken only behind the one before it.
//  4. Then the changes go there in their order, as the objects are by then. A batch of them is
//     taken only behind the one before it: so nobody who was slow overwrites what is newer.
//  5. Source: Frozen. It refuses writes. The last changes go over.
//  6. Source: Moved, if the target has taken every change, and counts what the source counts.
//     Nobody serves the namespace, and there is no way back.
//  7. Target: Active, under the object versions and gc epochs that follow the source's. All
//     epochs of before are closed by that: whoever uploads under one is refused, and uploads
//     again. So no id that left the source needs to be known here.
//  8. The ABM names the target as the host. The source drops what it has of the namespace, and
//     has no fragment deleted for it: all are the target's. Fragments that were to be deleted
//     before stay on the source's list, and are deleted from there.
//
// Until 6 a move can be cancelled: the source first, which does not begin that generation again.
// Never two serve: the source has stopped at 6, before the target begins at 7.

// mayWrite says why the objects of a namespace cannot be changed here.
func mayWrite(ns uint64, n *Namespace) error {
	if n.State == NamespaceFrozen {
		return userfn.Errorf(userfn.CodeMoving, "namespace %d: it is about to be moved to NSM host %d; try again soon", ns, n.Peer)
	}
	return mayRead(ns, n)
}

// mayRead says why a namespace cannot be read here.
func mayRead(ns uint64, n *Namespace) error {
	switch {
	case n.State.serves():
		return nil
	case n.State == NamespaceImporting:
		return userfn.Errorf(userfn.CodeMoving, "namespace %d: it is not here yet, in generation %d; try again soon", ns, n.Generation)
	case n.State == NamespaceMoved:
		return userfn.Errorf(userfn.CodeMoved, "namespace %d: it was moved to NSM host %d in generation %d; ask the ABM for its host", ns, n.Peer, n.Generation)
	}
	return userfn.Errorf(userfn.CodeNamespaceNotFound, "namespace %d: being removed", ns)
}

// note numbers a change of an object's record while the namespace is being copied.
func (s *space) note(name string) {
	if s.rec.State == NamespaceCopying {
		s.rec.Changes++
		s.tx.Set(changeKey(s.id, s.rec.Changes), []byte(name))
	}
}

// forgetChanges forgets up to MaxKeys changes up to one. It reports whether none is left of
// those.
func (s *space) forgetChanges(to uint64) bool {
	var keys [][]byte
	s.tx.Range(changeKey(s.id, 0), userfn.After(changeKey(s.id, to)), MaxKeys, func(k, _ []byte) bool {
		keys = append(keys, append([]byte(nil), k...))
		return true
	})
	for _, k := range keys {
		s.tx.Delete(k)
	}
	return len(keys) < MaxKeys
}

// openMove loads a namespace for a step of its move.
func openMove(tx userfn.Tx, ns, generation uint64) (*space, error) {
	if generation == 0 {
		return nil, userfn.Errorf(userfn.CodeInvalid, "namespace %d: a move of generation 0", ns)
	}
	return openSpace(tx, ns, true)
}

// another refuses a step that does not fit what is with the namespace.
func (s *space) another(generation uint64, what string) error {
	return userfn.Errorf(userfn.CodeConflict, "namespace %d: %s in generation %d, but it is %v in generation %d; read the namespace from the ABM and begin from that",
		s.id, what, generation, s.rec.State, s.rec.Generation)
}

// exportStep is a step of the host that a namespace leaves.
type exportStep uint8

const (
	exportBegin  exportStep = 1
	exportFreeze exportStep = 2
	exportLeave  exportStep = 3
	exportCancel exportStep = 4
)

// Sums are what both hosts of a move must count alike: U64 objects, U64 size, U64 stored.
type Sums struct{ Objects, Size, Stored uint64 }

// Fields implements record.Record.
func (s *Sums) Fields(c *record.Codec) {
	c.U64(&s.Objects)
	c.U64(&s.Size)
	c.U64(&s.Stored)
}

// Sums are those of the namespace.
func (n *Namespace) Sums() Sums { return Sums{n.Objects, n.Size, n.Stored} }

// exportArg: U64 namespace, U64 generation, Enum step, U64 peer, U64 changes, the sums.
type exportArg struct {
	ns         uint64
	generation uint64
	step       exportStep
	peer       uint64
	changes    uint64 // that the target has taken
	sums       Sums   // of the target
}

func (a *exportArg) Fields(c *record.Codec) {
	c.U64(&a.ns)
	c.U64(&a.generation)
	e := uint8(a.step)
	c.Enum(&e, uint8(exportBegin), uint8(exportCancel), "step of an export")
	a.step = exportStep(e)
	c.U64(&a.peer)
	c.U64(&a.changes)
	a.sums.Fields(c)
}

// export takes a step of the host that a namespace leaves, and returns what the host knows of
// the namespace then.
func export(tx userfn.Tx, a *exportArg) (*Namespace, error) {
	s, err := openMove(tx, a.ns, a.generation)
	if err != nil {
		return nil, err
	}
	step := map[exportStep]func(*exportArg) error{exportBegin: s.begin, exportFreeze: s.freeze, exportLeave: s.leave, exportCancel: s.cancel}[a.step]
	if err := step(a); err != nil {
		return nil, err
	}
	return &s.rec, s.save()
}

// begin has changes be noted from now on. Those that a cancelled move has left behind are
// forgotten first: until then the namespace stays as it is, and the caller repeats the call.
func (s *space) begin(a *exportArg) error {
	if s.rec.Generation == a.generation && (s.rec.State == NamespaceCopying || s.rec.State == NamespaceFrozen || s.rec.State == NamespaceMoved) {
		return nil
	}
	if s.rec.State != NamespaceActive || a.generation <= s.rec.Generation || a.peer == 0 {
		return s.another(a.generation, "it is to be copied")
	}
	if s.forgetChanges(s.rec.Changes) {
		s.rec.State, s.rec.Move = NamespaceCopying, Move{Generation: a.generation, Peer: a.peer}
	}
	return nil
}

func (s *space) freeze(a *exportArg) error {
	switch {
	case s.rec.Generation != a.generation:
	case s.rec.State == NamespaceCopying:
		s.rec.State = NamespaceFrozen
		return nil
	case s.rec.State == NamespaceFrozen, s.rec.State == NamespaceMoved:
		return nil
	}
	return s.another(a.generation, "it is to be frozen")
}

// leave ends the service here, if the target has it all.
func (s *space) leave(a *exportArg) error {
	switch {
	case s.rec.Generation == a.generation && s.rec.State == NamespaceMoved:
		return nil
	case s.rec.Generation != a.generation || s.rec.State != NamespaceFrozen:
		return s.another(a.generation, "it is to be left")
	case s.rec.Changes != a.changes:
		return userfn.Errorf(userfn.CodeConflict, "namespace %d: its new host has taken %d changes of %d; carry over the others", s.id, a.changes, s.rec.Changes)
	case s.rec.Sums() != a.sums:
		return userfn.Errorf(userfn.CodeConflict, "namespace %d: it has %+v here and %+v on its new host; cancel the move and begin another", s.id, s.rec.Sums(), a.sums)
	}
	s.rec.State = NamespaceMoved
	return nil
}

// cancel goes on as if there was no move. A generation that was cancelled is not begun again,
// be it that its begin comes late.
func (s *space) cancel(a *exportArg) error {
	switch {
	case s.rec.State == NamespaceActive && a.generation >= s.rec.Generation,
		s.rec.Generation == a.generation && (s.rec.State == NamespaceCopying || s.rec.State == NamespaceFrozen):
		s.rec.State, s.rec.Generation = NamespaceActive, a.generation
		s.forgetChanges(s.rec.Changes)
		return nil
	}
	return s.another(a.generation, "its move is to be cancelled")
}

// trimArg: U64 namespace, U64 generation, U64 changes.
type trimArg struct{ ns, generation, changes uint64 }

func (a *trimArg) Fields(c *record.Codec) {
	c.U64(&a.ns)
	c.U64(&a.generation)
	c.U64(&a.changes)
}

// trimChanges forgets up to MaxKeys changes that the target has taken.
func trimChanges(tx userfn.Tx, a *trimArg) (*Step, error) {
	s, err := openMove(tx, a.ns, a.generation)
	if err != nil {
		return nil, err
	}
	if s.rec.Generation != a.generation || a.changes > s.rec.Changes {
		return nil, s.another(a.generation, "changes are to be forgotten")
	}
	return &Step{Done: s.forgetChanges(a.changes)}, nil
}

// dropArg: U64 namespace, U64 generation, U32 objects at most.
type dropArg struct {
	ns         uint64
	generation uint64
	limit      uint32
}

func (a *dropArg) Fields(c *record.Codec) {
	c.U64(&a.ns)
	c.U64(&a.generation)
	c.U32(&a.limit)
}

// dropMoved drops what is left of a namespace that is elsewhere, in steps. No fragment is
// deleted for it. The record stays, for clients that come late.
func dropMoved(tx userfn.Tx, a *dropArg) (*Step, error) {
	s, err := openMove(tx, a.ns, a.generation)
	if err != nil {
		return nil, err
	}
	// An import that has taken nothing has only what an earlier stay left.
	begun := s.rec.Cursor != "" || s.rec.Complete || s.rec.Changes > 0
	switch {
	case a.limit == 0 || a.limit > MaxNames:
		return nil, userfn.Errorf(userfn.CodeInvalid, "namespace %d: a step takes 1 to %d objects, not %d", a.ns, MaxNames, a.limit)
	case s.rec.Generation != a.generation || s.rec.State != NamespaceMoved && (s.rec.State != NamespaceImporting || begun):
		return nil, s.another(a.generation, "it is to be dropped")
	}
	var step Step
	for _, name := range s.names(int(a.limit)) {
		o, err := s.object(name)
		if err != nil {
			return nil, err
		}
		if err := s.drop(o); err != nil {
			return nil, err
		}
		step.Removed++
	}
	s.rec.Epochs.Minimum = s.rec.Epochs.Next // no id needs remembering here
	if s.rec.Objects == 0 {
		forgotten, err := s.forgetIDs(MaxKeys)
		if err != nil {
			return nil, err
		}
		step.Done = s.forgetChanges(^uint64(0)-1) && forgotten < MaxKeys
	}
	return &step, s.save()
}

// drop takes an object out as if it had never been here.
func (s *space) drop(o *Object) error {
	s.tx.Delete(objectKey(s.id, o.Name))
	s.tx.Delete(idKey(s.id, o.ID))
	return s.unindex(o)
}

// applyMove does what a message says of a namespace that comes here.
func applyMove(tx userfn.Tx, m Message) error {
	var n Namespace
	known, err := load(tx, namespaceKey(m.Namespace), &n)
	if err != nil {
		return err
	}
	if m.Kind == MessageCancelImport {
		if n.State != NamespaceImporting || n.Generation != m.Generation {
			return nil
		}
		n.State, n.Move = NamespaceMoved, Move{Generation: m.Generation, Peer: m.Host}
		return store(tx, namespaceKey(m.Namespace), &n)
	}
	if known && (n.State != NamespaceMoved || m.Generation <= n.Generation) {
		return nil // what is served here is not begun anew
	}
	// The disks may have seen any epoch and version of before: each generation has its own.
	base := m.Generation << generationShift
	n.State, n.Created = NamespaceImporting, tx.Time()
	n.Epochs, n.NextVersion = Epochs{Minimum: base + 1, Next: base + 2}, base+1
	if m.Host != 0 { // those of the source are known when it has stopped
		n.Epochs, n.NextVersion = Epochs{Minimum: 1, Next: 1}, 1
	}
	n.Move = Move{Generation: m.Generation, Peer: m.Host}
	return store(tx, namespaceKey(m.Namespace), &n)
}

// generationShift is how far apart the numbers of two generations are that were begun from the
// disks: 2^40 gc epochs and object versions.
const generationShift = 40

func (s NamespaceState) String() string {
	names := [...]string{NamespaceActive: "active", NamespaceRemoving: "being removed", NamespaceImporting: "being imported",
		NamespaceCopying: "being copied", NamespaceFrozen: "frozen", NamespaceMoved: "moved"}
	if int(s) < len(names) && names[s] != "" {
		return names[s]
	}
	return "unknown"
}
