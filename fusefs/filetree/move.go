package filetree

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
)

// Bounds of one move: it is one command of the store, perhaps together with
// the vDisks below.
const (
	MoveMax      = 8192    // entries
	moveMaxBytes = 3 << 20 // of paths, the old and the new ones
)

// Move moves an entry, and with a directory all that is below it. If replace is set, a
// file may take the place of a file, and a directory the place of an empty directory.
// Nothing else is replaced. A directory that only vDisks below it imply has no entry:
// then commit must be given, which moves these vDisks in the same step. The directories
// that the entry leaves and comes to are modified at a time, in nanoseconds since 1970;
// at 0 they are not.
//
// Errors: fs.ErrNotExist, fs.ErrExist, fs.ErrInvalid for a path that cannot be,
// ENAMETOOLONG for a path that gets too long, ErrMany.
func (t *Tree) Move(ctx context.Context, from, to string, replace bool, at int64, commit Commit) error {
	end, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	e, there := t.Get(from)
	if !there {
		e.Kind = Directory
	}
	moves := t.moves(from, to)
	switch {
	case !there && commit == nil:
		return absent(from)
	case from == to:
		return nil
	case !Valid(to) || strings.HasPrefix(to, from+"/"):
		return fmt.Errorf("file %q cannot become %q: %w", from, to, fs.ErrInvalid)
	}
	other, taking := t.Get(to)
	if taking && !(replace && t.replaces(e, to, other)) {
		return taken(to)
	}
	if err := t.fits(moves, to); err != nil {
		return err
	}
	times := t.touched(at, from, to)
	swaps, changes := t.moving(moves, to, other, taking)
	changes = append(changes, changesOf(times)...)
	for _, d := range times {
		swaps = append(swaps, Swap{Key: entryKey(d.name), Old: encode(d.old), New: encode(d.now)})
	}
	write := func() error { return t.keys.Write(ctx, changes) }
	if commit != nil {
		write = func() error { return commit(ctx, swaps) }
		changes = nil
		for _, s := range swaps {
			changes = append(changes, Change{s.Key, s.New})
		}
	}
	return t.commit(changes, func() {
		if taking {
			t.leave(to)
		}
		for _, m := range moves {
			t.leave(m.from)
			t.enter(m.to, m.e)
		}
		t.retime(times)
	}, write)
}

// replaces reports whether e may take the place of what is at to.
func (t *Tree) replaces(e Entry, to string, other Entry) bool {
	return e.Kind == other.Kind && (e.Kind == File || e.Kind == Directory && len(t.List(to)) == 0)
}

// fits refuses moves that are too many, or that lead to paths which are taken or
// too long.
func (t *Tree) fits(moves []move, to string) error {
	size := 0
	for _, m := range moves {
		if _, there := t.Get(m.to); there && m.to != to {
			return taken(m.to)
		}
		if !Valid(m.to) {
			return fmt.Errorf("file %q cannot become %q: %w", m.from, m.to, syscall.ENAMETOOLONG)
		}
		size += len(m.from) + len(m.to)
	}
	if len(moves) > MoveMax || size > moveMaxBytes {
		return fmt.Errorf("directory %q has %d entries below it, whose paths have %d bytes: %w", moves[0].from, len(moves), size, ErrMany)
	}
	return nil
}

// moving is what moves change, once as swaps and once as changes: the entries and, only
// among the changes, the content of a file that is replaced. Only this tree knows that
// content.
func (t *Tree) moving(moves []move, to string, other Entry, taking bool) (swaps []Swap, changes []Change) {
	var replaced []byte
	if taking {
		replaced, changes = encode(other), drop(other)
	}
	for _, m := range moves {
		record := encode(m.e)
		changes = append(changes, Change{Key: entryKey(m.from)}, Change{entryKey(m.to), record})
		swaps = append(swaps, Swap{Key: entryKey(m.from), Old: record, New: nil})
		if m.to == to {
			swaps = append(swaps, Swap{Key: entryKey(m.to), Old: replaced, New: record})
			continue
		}
		swaps = append(swaps, Swap{Key: entryKey(m.to), Old: nil, New: record})
	}
	if taking && !slices.ContainsFunc(moves, func(m move) bool { return m.to == to }) {
		swaps = append(swaps, Swap{Key: entryKey(to), Old: replaced, New: nil})
	}
	return swaps, changes
}

type move struct {
	from, to string
	e        Entry
}

// moves lists an entry and all below it.
func (t *Tree) moves(from, to string) (list []move) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for name, e := range t.entries {
		if rest, ok := strings.CutPrefix(name, from); ok && (rest == "" || rest[0] == '/') {
			list = append(list, move{name, to + rest, *e})
		}
	}
	return list
}
