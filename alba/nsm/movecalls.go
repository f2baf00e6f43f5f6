package nsm

import (
	"context"
	"encoding/binary"

	"openvstorage/alba/nsm/userfn"
)

// These are the calls of a move, in the order of move.go. All can be repeated. ErrConflict:
// somebody else has taken the step after, or the move was cancelled: whoever moves reads the
// namespace from the ABM and both hosts again, and goes on from there.

// Moves are a Client's calls for namespaces that move, in the order of move.go.
type Moves struct{ *Client }

func (c Moves) export(ctx context.Context, a exportArg) (Namespace, error) {
	var n Namespace
	err := c.call(ctx, nameExport, &a, &n)
	return n, err
}

// BeginExport has the host note what changes in a namespace that is to go to the host numbered
// to. If the namespace is still NamespaceActive then, the call is to be repeated: notes of an
// earlier move are being forgotten.
func (c Moves) BeginExport(ctx context.Context, ns, generation, to uint64) (Namespace, error) {
	return c.export(ctx, exportArg{ns: ns, generation: generation, step: exportBegin, peer: to})
}

// FreezeExport has the host refuse writes to the namespace (ErrMoving).
func (c Moves) FreezeExport(ctx context.Context, ns, generation uint64) (Namespace, error) {
	return c.export(ctx, exportArg{ns: ns, generation: generation, step: exportFreeze})
}

// LeaveExport ends the service of the namespace here (ErrMoved from then on). came is the
// namespace as the target has it: all pages, all changes and the same sums, else ErrConflict.
func (c Moves) LeaveExport(ctx context.Context, ns, generation uint64, came Namespace) (Namespace, error) {
	if came.Generation != generation || !came.Complete {
		return Namespace{}, userfn.Errorf(userfn.CodeConflict, "namespace %d: not all of its pages have come to its new host in generation %d", ns, generation)
	}
	return c.export(ctx, exportArg{ns: ns, generation: generation, step: exportLeave, changes: came.Changes, sums: came.Sums()})
}

// CancelExport has the host serve the namespace as before, and refuse the generation from then
// on. ErrConflict: it has left already, and the move is to be finished.
func (c Moves) CancelExport(ctx context.Context, ns, generation uint64) (Namespace, error) {
	return c.export(ctx, exportArg{ns: ns, generation: generation, step: exportCancel})
}

// TrimChanges forgets changes up to one that the target has taken, in steps.
func (c Moves) TrimChanges(ctx context.Context, ns, generation, changes uint64) (Step, error) {
	var s Step
	err := c.call(ctx, nameTrim, &trimArg{ns, generation, changes}, &s)
	return s, err
}

// DropMoved drops up to limit objects (at most MaxNames) of a namespace that has left this
// host, or of an earlier stay of one that comes. Fragments stay where they are. Repeat it until
// the step is done.
func (c Moves) DropMoved(ctx context.Context, ns, generation uint64, limit int) (Step, error) {
	var s Step
	err := c.call(ctx, nameDropMoved, &dropArg{ns, generation, uint32(min(max(limit, 1), MaxNames))}, &s)
	return s, err
}

// Record returns what the host knows of a namespace, in whatever state.
func (c *Client) Record(ctx context.Context, ns uint64, how userfn.Consistency) (Namespace, error) {
	var n Namespace
	values, err := c.reader.MultiGet(ctx, [][]byte{namespaceKey(ns)}, how)
	switch {
	case err != nil:
		return n, err
	case values[0] == nil:
		return n, userfn.Errorf(userfn.CodeNamespaceNotFound, "namespace %d: not found on this NSM host", ns)
	}
	return n, decode(namespaceKey(ns), values[0], &n)
}

// exporting demands that the namespace is being copied in a generation. It is asked after a
// page was read, so that the page is from then or later.
func (c Moves) exporting(ctx context.Context, ns, generation uint64) error {
	n, err := c.Record(ctx, ns, userfn.Consistent)
	if err == nil && (n.Generation != generation || n.State != NamespaceCopying && n.State != NamespaceFrozen) {
		err = userfn.Errorf(userfn.CodeConflict, "namespace %d: it is %v in generation %d, not being copied in %d", ns, n.State, n.Generation, generation)
	}
	return err
}

// size is about what an object takes in a call.
func (o *Object) size() int { return len(o.Manifest) + 16*o.count() + 512 }

// Page is a part of a namespace that moves.
type Page struct {
	After, Last string
	Complete    bool // there is nothing behind Last
	Objects     []Moved
}

// ExportPage reads the objects behind a name, as many as go over in one call.
func (c Moves) ExportPage(ctx context.Context, ns, generation uint64, after string) (Page, error) {
	p := Page{After: after, Last: after}
	base := key(tableObject, ns)
	first := base
	if after != "" {
		first = userfn.After(objectKey(ns, after))
	}
	pairs, err := c.reader.Range(ctx, first, userfn.PrefixEnd(base), MaxImport, userfn.Consistent)
	if err != nil {
		return p, err
	}
	bytes := 0
	p.Complete = len(pairs) < MaxImport
	for _, pair := range pairs {
		o := &Object{Name: string(pair.Key[len(base):])}
		if err := decode(pair.Key, pair.Value, &stored{o}); err != nil {
			return p, err
		}
		if bytes += o.size(); bytes > maxImportBytes && len(p.Objects) > 0 {
			p.Complete = false
			break
		}
		p.Objects = append(p.Objects, Moved{o.Name, o})
		p.Last = o.Name
	}
	return p, c.exporting(ctx, ns, generation)
}

// ImportPage takes the next page: the one behind the host's Move.Cursor.
func (c Moves) ImportPage(ctx context.Context, ns, generation uint64, p Page) (Namespace, error) {
	var n Namespace
	err := c.call(ctx, nameImportPage, &pageArg{ns, generation, p.After, p.Last, p.Complete, p.Objects}, &n)
	return n, err
}

// Changes are objects that have changed, as they are after change Last or later.
type Changes struct {
	After, Last uint64 // equal: there is nothing new
	Objects     []Moved
}

// ExportChanges reads what has changed behind a change, as much as goes over in one call.
// ErrConflict: another agent has carried those changes over meanwhile.
func (c Moves) ExportChanges(ctx context.Context, ns, generation, after uint64) (Changes, error) {
	ch := Changes{After: after, Last: after}
	base := key(tableChange, ns)
	pairs, err := c.reader.Range(ctx, userfn.After(changeKey(ns, after)), userfn.PrefixEnd(base), MaxImport, userfn.Consistent)
	if err != nil {
		return ch, err
	}
	keys := make([][]byte, len(pairs))
	for i, p := range pairs {
		if len(p.Key) != len(base)+8 || binary.BigEndian.Uint64(p.Key[len(base):]) != after+uint64(i)+1 {
			return ch, userfn.Errorf(userfn.CodeConflict, "namespace %d: change %d is gone, as another agent has carried it over; go on from what the new host has", ns, after+uint64(i)+1)
		}
		keys[i] = objectKey(ns, string(p.Value))
	}
	if len(keys) == 0 {
		return ch, c.exporting(ctx, ns, generation)
	}
	values, err := c.reader.MultiGet(ctx, keys, userfn.Consistent)
	if err != nil {
		return ch, err
	}
	bytes := 0
	for i, v := range values {
		m := Moved{Name: string(pairs[i].Value)}
		if v != nil {
			m.Object = &Object{Name: m.Name}
			if err := decode(keys[i], v, &stored{m.Object}); err != nil {
				return ch, err
			}
			bytes += m.Object.size()
		}
		if bytes > maxImportBytes && len(ch.Objects) > 0 {
			break
		}
		ch.Objects = append(ch.Objects, m)
		ch.Last++
	}
	return ch, c.exporting(ctx, ns, generation)
}

// ImportChanges takes the next changes: those behind the host's Move.Changes. Whoever rebuilds a
// namespace from the disks enters what was found by it alone, in batches that it numbers from 1
// on; of an object that comes twice the newest version and revision stays.
func (c Moves) ImportChanges(ctx context.Context, ns, generation uint64, ch Changes) (Namespace, error) {
	var n Namespace
	err := c.call(ctx, nameImportChanges, &changesArg{ns, generation, ch.After, ch.Last, ch.Objects}, &n)
	return n, err
}

// Activate begins to serve a namespace that has come. left is what LeaveExport returned, and is
// zero for a namespace that came from the disks.
func (c Moves) Activate(ctx context.Context, ns, generation uint64, left Namespace) (Namespace, error) {
	if left != (Namespace{}) && (left.State != NamespaceMoved || left.Generation != generation) {
		return Namespace{}, userfn.Errorf(userfn.CodeConflict, "namespace %d: it is %v in generation %d on the host that it comes from; that one must have left it in %d first", ns, left.State, left.Generation, generation)
	}
	var n Namespace
	err := c.call(ctx, nameActivate, &activateArg{ns, generation, left.NextVersion, left.Epochs.Next, left.Sums()}, &n)
	return n, err
}
