package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"openvstorage/internal/ctxlock"
	"openvstorage/volumedriver/registry"
)

// names decides which vDisk has which name: in the registry first, then in the table.
type names struct {
	// structure is held while a vDisk gets its name, gets another one, or is marked as
	// being deleted: one at a time. Whoever holds it waits for the registry, never for
	// the backend.
	structure ctxlock.Lock
	registry  Registry
	table     *table
	doubts    *doubts
	elsewhere *elsewhere
}

// hold keeps everybody else from giving and taking names until release is called.
func (n *names) hold(ctx context.Context) (release func(), err error) {
	if err := n.structure.Take(ctx); err != nil {
		return nil, err
	}
	return n.structure.Give, nil
}

// available refuses a name that cannot be given, so that nothing is made for it in vain.
// Before that it finds out what became of an operation that may have taken the name, and
// whether another host still has it that had it at the last look.
func (n *names) available(ctx context.Context, name string) error {
	if err := n.doubts.settleName(ctx, name); err != nil {
		return err
	}
	if err := n.isFree(name); err != nil {
		return err
	}
	if _, has := n.table.foreign(name); !has {
		return nil
	}
	n.elsewhere.look(ctx)
	if r, has := n.table.foreign(name); has {
		return fmt.Errorf("%w: %s", taken(name), whereabouts(r))
	}
	return nil
}

// isFree refuses a name that is not valid (ErrInvalid), or that a vDisk of this host has
// (ErrExists). Whether one of another host has it, the registry says when the name is
// given: what the table has of other hosts may be old.
func (n *names) isFree(name string) error {
	if err := registry.ValidateName(name); err != nil {
		return kinded{err: err, kind: ErrInvalid}
	}
	return n.notTaken(name)
}

func (n *names) notTaken(name string) error {
	if _, err := n.table.named(name); err == nil {
		return taken(name)
	}
	return nil
}

func taken(name string) error {
	return fmt.Errorf("vDisk %q: %w; choose another name", name, ErrExists)
}

// rename gives a vDisk another name.
func (n *names) rename(ctx context.Context, old, name string) error {
	if _, err := n.doubts.find(ctx, old); err != nil {
		return err
	}
	if err := n.doubts.settleName(ctx, name); err != nil {
		return err
	}
	release, err := n.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	v, err := n.table.named(old)
	if err != nil {
		return err
	}
	return n.apply(ctx, []renaming{{v: v, old: old, new: name}}, registry.Beside{})
}

// renameBelow is Host.RenameBelow.
func (n *names) renameBelow(ctx context.Context, from, to string, beside registry.Beside) error {
	release, err := n.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := n.table.foreignBelow(from); err != nil {
		return err
	}
	var list []renaming
	for _, v := range n.table.all() {
		name := v.Name()
		if rest, ok := strings.CutPrefix(name, from+"/"); ok {
			list = append(list, renaming{v, name, to + "/" + rest, to})
		}
	}
	return n.apply(ctx, list, beside)
}

// settleBelow is Host.SettleBelow.
func (n *names) settleBelow(ctx context.Context, dirs ...string) error {
	for _, v := range n.table.below(dirs...) {
		if err := n.doubts.settle(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// renaming gives a vDisk another name.
type renaming struct {
	v        *Volume
	old, new string
	dir      string // that the name begins with now, if it is a renaming of a directory
}

// validate returns nil if the vDisk may get the name. Earlier releases allowed names
// that are not valid any more: a vDisk with such a name may keep its part of it when
// its directory is renamed.
func (r renaming) validate() error {
	err := registry.ValidateName(r.new)
	if err != nil && r.dir != "" && registry.ValidateName(r.old) != nil {
		if err = registry.ValidateName(r.dir); err == nil && len(r.new) > registry.NameMax {
			err = fmt.Errorf("%w: %.100q has %d bytes", registry.ErrName, r.new, len(r.new))
		}
	}
	if err != nil {
		return kinded{err: err, kind: ErrInvalid}
	}
	return nil
}

// apply makes renamings: durably in the registry first, then in the table.
// n.structure is held.
func (n *names) apply(ctx context.Context, list []renaming, beside registry.Beside) error {
	records := make([]registry.Renaming, len(list))
	for i, r := range list {
		if err := r.v.sure(); err != nil {
			return err
		}
		if err := r.validate(); err != nil {
			return err
		}
		if err := n.notTaken(r.new); err != nil {
			return err
		}
		records[i] = registry.Renaming{ID: r.v.id, Name: r.new, By: r.v.held}
	}
	err := n.registry.RenameAll(ctx, records, beside)
	if errors.Is(err, registry.ErrUnknownOutcome) {
		n.unknown(list, err)
		return fmt.Errorf("rename of %s: %w: %w", renamed(list), ErrUnknownOutcome, err)
	}
	if err != nil {
		return fmt.Errorf("rename of %s: %w", renamed(list), n.refused(err))
	}
	n.table.rename(list)
	return nil
}

// refused is the error of a change that the registry has refused. If that says that
// another owner has a vDisk which is open here, this host has lost it: the vDisk halts
// (P4).
func (n *names) refused(err error) error {
	var e *registry.NotOwnerError
	if errors.As(err, &e) {
		if v := n.table.byID(e.ID); v != nil {
			v.halt(err)
		}
	}
	return registryError(err)
}

// renamed says what is renamed.
func renamed(list []renaming) string {
	switch len(list) {
	case 0:
		return "no vDisk"
	case 1:
		return fmt.Sprintf("vDisk %q", list[0].old)
	}
	return fmt.Sprintf("%d vDisks, the first %q", len(list), list[0].old)
}

// unknown lists vDisks under both names until it is known which name they have. Their
// users go on: whatever its name, it is the same vDisk.
func (n *names) unknown(list []renaming, cause error) {
	for _, r := range list {
		n.table.answer(r.v, r.new)
		n.doubts.note(r.v, &unsure{
			state: StateUnsure, what: fmt.Sprintf("whether it is named %q or %q is not known", r.old, r.new), cause: cause,
			settle: func(ctx context.Context) error {
				rec, err := n.registry.Get(ctx, r.v.id)
				if err != nil {
					return err
				}
				n.table.settleName(r.v, rec.Name)
				return nil
			},
		})
	}
}
