package arakoon

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"openvstorage/arakoon/state"
	"openvstorage/internal/disk/crashdisk"
)

// TestMomentsAreOfOneInstant: records of one group are named by another while the groups go
// on, made before they are named and removed after it. Whatever backups hold, what is named
// is there. Backups one after the other, in either order, lack it now and then.
func TestMomentsAreOfOneInstant(t *testing.T) {
	named, names := open(t, testOptions(crashdisk.New())), open(t, testOptions(crashdisk.New()))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	key := func(i int) []byte { return []byte{'k', byte(i), byte(i >> 8)} }
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			for _, step := range []struct {
				n   *Node
				seq *Sequence
			}{
				{named, new(Sequence).Set(key(i), nil)}, {names, new(Sequence).Set(key(i), nil)},
				{names, new(Sequence).Delete(key(i))}, {named, new(Sequence).Delete(key(i))},
			} {
				if _, err := step.n.Do(context.WithoutCancel(ctx), step.seq); err != nil {
					done <- err
					return
				}
			}
		}
		done <- nil
	}()
	held := 0
	for range 50 {
		list, err := Moments(t.Context(), named, names)
		if errors.Is(err, ErrBusy) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		held++
		there := keysOf(t, list[0])
		for k := range keysOf(t, list[1]) {
			if !there[k] {
				t.Errorf("%q is named and not there", k)
			}
		}
		if err := closeAll(list); err != nil {
			t.Error(err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if held == 0 {
		t.Error("no instant was found")
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
