package volumedriver

import (
	"errors"
	"testing"

	"openvstorage/volumedriver/catalog"

	"github.com/google/uuid"
)

// What grew from a snapshot that goes grew from its parent: snapshots, pending checkpoints
// and the live state. One that is in use, or that a rollback may have gone to, stays.
func TestSnapshotTree(t *testing.T) {
	c := &core{host: &Host{table: newTable()}}
	c.setName("v")
	tree := &snapshotTree{core: c}
	k := &checkpointer{core: c, tree: tree}
	add := func(name string, seq uint64) *snapshot {
		s := &snapshot{Snapshot: catalog.Snapshot{ID: uuid.New(), Name: name, Seq: seq}}
		tree.add(s)
		return s
	}
	a := add("a", 1)
	b := add("b", 2)
	last := add("c", 3)
	if a.Parent != uuid.Nil || b.Parent != a.ID || last.Parent != b.ID || tree.parent != last.ID {
		t.Fatal("parents are not those in order of time")
	}
	k.pending = []*pendingCheckpoint{{seq: 2, parent: b.ID}, {seq: 3, parent: last.ID}}

	got, err := tree.pinNamed("b")
	if err != nil || got != b || !tree.pinned() {
		t.Fatalf("pin: %v", err)
	}
	if err := tree.close(b, 3); !errors.Is(err, ErrBusy) {
		t.Errorf("close of one with a pin: %v", err)
	}
	tree.unpin(b)
	tree.rollBack(b, 4)
	if err := tree.close(b, 3); !errors.Is(err, errRolledBack) {
		t.Errorf("close behind a rollback that no checkpoint covers: %v", err)
	}
	if err := tree.close(b, 4); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.read("b"); !errors.Is(err, ErrBusy) {
		t.Errorf("read of one that is being deleted: %v", err)
	}
	tree.reopen(b)
	if _, err := tree.read("b"); err != nil {
		t.Errorf("read of one whose deletion failed: %v", err)
	}
	if tree.unread(b) {
		t.Error("one that everybody sees is unused")
	}
	tree.remove(b, func() { k.bequeath(b) })
	if tree.parent != a.ID || last.Parent != a.ID || k.pending[0].parent != a.ID || k.pending[1].parent != last.ID {
		t.Error("what grew from the one that is gone did not get its parent")
	}
	if _, err := tree.named("b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the one that is gone: %v", err)
	}

	a.Auto = true
	child := &catalog.Catalog{Children: []catalog.Child{{Volume: uuid.New(), Snapshot: a.ID}}}
	tree.hideChildless(child)
	if a.hidden || tree.lost(child) != nil {
		t.Error("one with a clone is hidden")
	}
	tree.hideChildless(&catalog.Catalog{})
	if names := tree.names(); len(names) != 1 || names[0] != "c" || tree.lost(&catalog.Catalog{}) != a {
		t.Errorf("the one whose clone is gone: %v are seen", names)
	}
}
