package abm

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
)

// Moves are a Client's calls for namespaces that get another NSM host.
type Moves struct{ *Client }

func (c Moves) step(ctx context.Context, n Namespace, step moveStep, host uint64) (Namespace, error) {
	var now Namespace
	err := c.call(ctx, nameMoveNamespace, &namespaceArg{number: n.Number, step: step, generation: n.Generation, host: host}, &now)
	return now, err
}

// BeginMove has an active namespace move to an NSM host (0: the one with the fewest
// namespaces). n is the namespace as the caller read it; after an error of the Caller, the
// caller reads it again. Mover carries the move out. ErrConflict: the namespace is not active, or
// has moved since; ErrNoHost: the host takes no namespaces.
func (c Moves) BeginMove(ctx context.Context, n Namespace, host uint64) (Namespace, error) {
	return c.step(ctx, n, moveBegin, host)
}

// RecoverNamespace gives a namespace whose NSM host is lost (else ErrInUse) to another one (0: the one
// with the fewest namespaces). The caller carries that host's messages next. The namespace is
// NamespaceRecovering until what the disks have of it was entered there (nsm.Client.ImportChanges,
// Activate) and ServeRecovered was called; nothing of it is collected until then. What was
// being removed is removed there.
func (c Moves) RecoverNamespace(ctx context.Context, n Namespace, host uint64) (Namespace, error) {
	return c.step(ctx, n, moveRecover, host)
}

// ServeRecovered ends the recovery of a namespace that its host has activated. From then on
// fragments that no object names are garbage: the caller has read every OSD that is not lost.
func (c Moves) ServeRecovered(ctx context.Context, n Namespace) (Namespace, error) {
	return c.step(ctx, n, moveServe, 0)
}

// NamespaceByNumber returns a namespace in whatever state, or ErrNamespaceNotFound.
func (c *Client) NamespaceByNumber(ctx context.Context, number uint64, how userfn.Consistency) (Namespace, error) {
	var n Namespace
	ok, err := c.one(ctx, namespaceKey(number), how, &n)
	if err == nil && !ok {
		err = userfn.Errorf(userfn.CodeNamespaceNotFound, "namespace %d: not found", number)
	}
	return n, err
}

// Mover moves namespaces from NSM host to NSM host while they are used. Any number of agents may
// carry out the same move at once, and any of them may stop anywhere: what they do is decided
// by the managers' records alone. Whoever holds the work's lease does it, so that they do not
// do it twice. It keeps one page of at most about 1 MiB in memory. Safe for concurrent use.
type Mover struct {
	ABM *Client
	// Host returns a client of the NSM host with the number.
	Host func(number uint64) (*nsm.Client, error)
}

// closeEnough is the number of changes that are left when writes are refused for the rest: one
// batch.
const closeEnough = nsm.MaxImport

// Move carries out, or goes on with, the move of a namespace that BeginMove began, to its end.
// Writes are refused (nsm.ErrMoving) from its last changes on until the new host serves, which
// takes some ten calls. An error leaves the move where it is: call it again. For a
// namespace that is not moving it does nothing.
func (m *Mover) Move(ctx context.Context, number uint64) error {
	n, err := m.ABM.NamespaceByNumber(ctx, number, userfn.Consistent)
	if err == nil && n.State == NamespaceMoving {
		err = m.move(ctx, n)
	}
	if err != nil {
		return fmt.Errorf("move of namespace %d: %w", number, err)
	}
	return nil
}

func (m *Mover) move(ctx context.Context, n Namespace) error {
	source, target := n.Host, n.Other
	if n.Switched {
		source, target = target, source
	}
	from, err := m.Host(source)
	if err != nil {
		return err
	}
	to, err := m.Host(target)
	if err != nil {
		return err
	}
	t := transfer{number: n.Number, generation: n.Generation, source: from, target: to, targetHost: target}
	if !n.Switched {
		if err := m.ABM.Carry(ctx, target, to); err != nil {
			return err
		}
		if err := t.run(ctx); err != nil {
			return err
		}
		if n, err = (Moves{m.ABM}).step(ctx, n, moveSwitch, 0); err != nil {
			return err
		}
	}
	// What is lost has nothing to drop.
	var h Host
	if _, err := m.ABM.one(ctx, hostKey(source), userfn.Consistent, &h); err != nil {
		return err
	}
	if !h.Lost {
		if err := t.drop(ctx, t.source); err != nil {
			return err
		}
	}
	_, err = (Moves{m.ABM}).step(ctx, n, moveFinish, 0)
	return err
}

// Cancel ends a move that has not gone too far, and has the namespace stay where it is.
// ErrConflict: it has left already; Move goes on. For a namespace that is not moving it does
// nothing.
func (m *Mover) Cancel(ctx context.Context, number uint64) error {
	n, err := m.ABM.NamespaceByNumber(ctx, number, userfn.Consistent)
	if err != nil || n.State != NamespaceMoving {
		return err
	}
	if n.Switched {
		return fmt.Errorf("move of namespace %d: it cannot be cancelled: %w: NSM host %d serves it already", number, ErrConflict, n.Host)
	}
	from, err := m.Host(n.Host)
	if err != nil {
		return err
	}
	// The source first: what it then refuses to leave cannot be served elsewhere.
	if _, err := (nsm.Moves{Client: from}).CancelExport(ctx, number, n.Generation); err != nil {
		return fmt.Errorf("move of namespace %d: it cannot be cancelled: %w", number, err)
	}
	_, err = (Moves{m.ABM}).step(ctx, n, moveCancel, 0)
	return err
}

// transfer is what a move does between its two hosts.
type transfer struct {
	number, generation uint64
	source, target     *nsm.Client
	targetHost         uint64
}

// run brings the namespace to the target and has that one serve it. It follows the steps of
// package nsm's move.go, beginning with the first that was not taken.
func (t *transfer) run(ctx context.Context) error {
	here, err := t.source.Record(ctx, t.number, userfn.Consistent)
	if err != nil {
		return err
	}
	if here.State != nsm.NamespaceMoved || here.Generation != t.generation {
		if here, err = t.carry(ctx); err != nil {
			return err
		}
	}
	_, err = (nsm.Moves{Client: t.target}).Activate(ctx, t.number, t.generation, here)
	return err
}

// carry takes the steps up to the source's leaving, and returns the source's record then.
func (t *transfer) carry(ctx context.Context) (nsm.Namespace, error) {
	here, err := (nsm.Moves{Client: t.source}).BeginExport(ctx, t.number, t.generation, t.targetHost)
	for err == nil && here.State == nsm.NamespaceActive {
		here, err = (nsm.Moves{Client: t.source}).BeginExport(ctx, t.number, t.generation, t.targetHost)
	}
	if err != nil {
		return here, err
	}
	there, err := t.pages(ctx)
	if err != nil {
		return here, err
	}
	for left := uint64(closeEnough); left >= closeEnough && here.State == nsm.NamespaceCopying; {
		if there, left, err = t.changes(ctx, there); err != nil {
			return here, err
		}
	}
	if _, err = (nsm.Moves{Client: t.source}).FreezeExport(ctx, t.number, t.generation); err != nil {
		return here, err
	}
	for left := uint64(1); left > 0; {
		if there, left, err = t.changes(ctx, there); err != nil {
			return here, err
		}
	}
	return (nsm.Moves{Client: t.source}).LeaveExport(ctx, t.number, t.generation, there)
}

// pages carries over what pages are left.
func (t *transfer) pages(ctx context.Context) (nsm.Namespace, error) {
	there, err := t.target.Record(ctx, t.number, userfn.Consistent)
	if err != nil || there.Complete {
		return there, err
	}
	if there.Generation == t.generation && there.State == nsm.NamespaceImporting && there.Cursor == "" && there.Objects > 0 {
		if err := t.drop(ctx, t.target); err != nil {
			return there, err
		}
	}
	for !there.Complete {
		page, err := (nsm.Moves{Client: t.source}).ExportPage(ctx, t.number, t.generation, there.Cursor)
		if err != nil {
			return there, err
		}
		if there, err = (nsm.Moves{Client: t.target}).ImportPage(ctx, t.number, t.generation, page); err != nil {
			return there, err
		}
	}
	return there, nil
}

// changes carries over a batch of changes, if there are any, and returns how many there were.
func (t *transfer) changes(ctx context.Context, there nsm.Namespace) (nsm.Namespace, uint64, error) {
	batch, err := (nsm.Moves{Client: t.source}).ExportChanges(ctx, t.number, t.generation, there.Changes)
	if err != nil || batch.Last == batch.After {
		return there, 0, err
	}
	if there, err = (nsm.Moves{Client: t.target}).ImportChanges(ctx, t.number, t.generation, batch); err != nil {
		return there, 0, err
	}
	_, err = (nsm.Moves{Client: t.source}).TrimChanges(ctx, t.number, t.generation, there.Changes)
	return there, batch.Last - batch.After, err
}

// drop drops what a host has of the namespace and is not to serve.
func (t *transfer) drop(ctx context.Context, from *nsm.Client) error {
	for {
		step, err := (nsm.Moves{Client: from}).DropMoved(ctx, t.number, t.generation, nsm.MaxNames)
		if errors.Is(err, nsm.ErrNamespaceNotFound) || err == nil && step.Done {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
