package arakoon

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"openvstorage/arakoon/state"
	"openvstorage/internal/disk/crashdisk"
)

// TestMomentsAreOfOneInstant: while the state of one group is held and that of the next is
// not, a record is made in the one and named in the other, or the name goes and then the
// record. What is named must be there all the same, whichever group comes first.
func TestMomentsAreOfOneInstant(t *testing.T) {
	for name, namedFirst := range map[string]bool{"named first": true, "names first": false} {
		t.Run(name, func(t *testing.T) {
			named, names := open(t, testOptions(crashdisk.New())), open(t, testOptions(crashdisk.New()))
			set(t, named, "old", "")
			set(t, names, "old", "")
			nodes := []Momentary{{Node: names}, {Node: named}}
			if namedFirst {
				slices.Reverse(nodes)
			}
			calls := 0
			list, err := momentsOf(t.Context(), nodes, func() {
				if calls++; calls > 1 {
					return
				}
				set(t, named, "new", "")
				set(t, names, "new", "")
				for _, n := range []*Node{names, named} {
					if _, err := n.Do(t.Context(), new(Sequence).Delete([]byte("old"))); err != nil {
						t.Error(err)
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			for i, m := range list {
				if there := keysOf(t, m); len(there) != 1 || !there["key \"new\": 0 bytes \"\"\n"] {
					t.Errorf("group %d holds %v", i, there)
				}
			}
			if err := closeAll(list); err != nil || calls != 4 {
				t.Errorf("%v, %d states were held", err, calls)
			}
			// Groups that never stand still are given up, and nothing is held on to.
			if list, err = momentsOf(t.Context(), nodes, func() { set(t, named, "more", "") }); !errors.Is(err, ErrBusy) || list != nil {
				t.Errorf("%v, %v", list, errors.Join(err, closeAll(list))) // what is held would keep the node from ending
			}
			ctx, cancel := context.WithCancel(t.Context())
			if list, err = momentsOf(ctx, nodes, func() { cancel(); set(t, named, "more", "") }); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", errors.Join(err, closeAll(list)))
			}
		})
	}
}

// keysOf are the users' keys of a moment.
func keysOf(t *testing.T, m *Moment) map[string]bool {
	t.Helper()
	var out bytes.Buffer
	if err := m.Backup(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	fs := crashdisk.New()
	if _, err := Restore(Options{FS: fs, Dir: "/restored", Member: 1}, &out); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := state.Dump(state.Options{FS: fs, Dir: "/restored/state"}, &text, 0); err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for line := range bytes.Lines(text.Bytes()) {
		if bytes.HasPrefix(line, []byte("key ")) {
			keys[string(line)] = true
		}
	}
	return keys
}

// TestMomentThatIsNotCurrent: a write after the moment is known to be missing in it.
func TestMomentThatIsNotCurrent(t *testing.T) {
	n := open(t, testOptions(crashdisk.New()))
	set(t, n, "a", "1")
	m, err := n.Moment(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if now, err := m.Current(t.Context()); err != nil || !now {
		t.Errorf("%v, %v", now, err)
	}
	set(t, n, "b", "2")
	if now, err := m.Current(t.Context()); err != nil || now {
		t.Errorf("a write came after it: %v, %v", now, err)
	}
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Error(err)
	}
}

// TestFigures: what a node counts is what it did.
func TestFigures(t *testing.T) {
	n := open(t, testOptions(crashdisk.New()))
	before := n.Figures()
	if before.Lead.Elections != 1 || before.Lead.Changes != 1 || before.Lead.Since.IsZero() || before.Lead.LastElection.IsZero() {
		t.Errorf("%+v", before.Lead)
	}
	for range 5 {
		set(t, n, "a", "1")
	}
	if _, err := n.NewSession(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := n.Figures()
	if f.Proposals.Count()-before.Proposals.Count() != 6 || f.Stores.Count()-before.Stores.Count() < 6 || f.Applies.Count()-before.Applies.Count() < 6 {
		t.Errorf("proposals %d, stores %d, applies %d", f.Proposals.Count(), f.Stores.Count(), f.Applies.Count())
	}
	if f.Sessions != 1 || f.Leases != 0 || f.Watchers != 0 || f.LogBytes <= 0 || f.SnapshotsSent+f.SnapshotsTaken != 0 {
		t.Errorf("%+v", f)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if ended := n.Figures(); ended.Proposals.Count() != f.Proposals.Count() || ended.Sessions != 0 {
		t.Errorf("after the end: %+v", ended)
	}
}
