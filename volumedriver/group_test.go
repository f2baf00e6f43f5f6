package volumedriver

import (
	"context"
	"testing"

	"openvstorage/internal/disk/crashdisk"
)

// groupOf makes a TLog of each write and chooses a group of them all.
func groupOf(t *testing.T, v *Volume, writes ...func()) *group {
	t.Helper()
	for _, w := range writes {
		w()
		v.buf.CloseTLog()
	}
	g, err := v.store.chooseGroup(t.Context(), v.buf.Work().TLogs, false)
	must(t, err)
	if len(g.tlogs) != len(writes) || len(g.scos) != len(writes) {
		t.Fatalf("%d TLogs and %d SCOs of %d writes", len(g.tlogs), len(g.scos), len(writes))
	}
	return g
}

// marked are the clusters that are to be stored of each SCO of the group.
func marked(g *group) (n []int64) {
	for _, s := range g.scos {
		if m := g.marks[s.Number]; m != nil {
			n = append(n, m.Count())
		} else {
			n = append(n, -1)
		}
	}
	return n
}

func equal(t *testing.T, what string, got []int64, want ...int64) {
	t.Helper()
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatalf("%s: %v are marked, not %v", what, got, want)
		}
	}
}

func TestMark(t *testing.T) {
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	defer func() { must(t, r.close()) }()
	v := volumeOf(t, r, "v")
	v.store.stop()
	w := func(cluster, n, i int) func() { return func() { write(t, d, cluster, n, i) } }

	g := groupOf(t, v, w(0, 8, 1), w(2, 4, 2), w(3, 1, 3))
	if early, err := v.store.chooseGroup(t.Context(), v.buf.Work().TLogs, true); err != nil || early != nil {
		t.Errorf("a group is chosen while the buffer has room: %v, %v", early, err)
	}
	equal(t, "overwritten within the group", marked(g), 4, 3, 1)

	// What is written after the choice changes nothing: the group is a prefix.
	write(t, d, 0, 8, 4)
	equal(t, "overwritten later", marked(g), 4, 3, 1)

	v.store.mark(g)
	equal(t, "looked at again", marked(g), 4, 3, 1)
}

// What a snapshot sees is stored whole, and so is everything if a rollback has
// taken the map back.
func TestMarkSnapshots(t *testing.T) {
	ctx := context.Background()
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	defer func() { must(t, r.close()) }()
	v := volumeOf(t, r, "v")
	write(t, d, 0, 1, 9)
	snapshot := func(name string) {
		t.Helper()
		_, err := r.host.SnapshotCreate(ctx, "v", name)
		must(t, err)
	}
	snapshot("before")
	must(t, r.host.Sync(ctx, "v", nil))
	v.store.stop()
	w := func(cluster, n, i int) func() { return func() { write(t, d, cluster, n, i) } }
	g := groupOf(t, v, w(0, 8, 1), func() {
		write(t, d, 0, 4, 2)
		snapshot("within")
	}, w(0, 4, 3))
	equal(t, "a snapshot within the group", marked(g), -1, -1, 4)
}

// A rollback may bring back what was overwritten before it; what is written
// behind it overwrites again.
func TestMarkRollback(t *testing.T) {
	ctx := context.Background()
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	defer func() { must(t, r.close()) }()
	v := volumeOf(t, r, "v")
	_, err := r.host.SnapshotCreate(ctx, "v", "empty")
	must(t, err)
	must(t, r.host.Sync(ctx, "v", nil))
	v.store.stop()
	w := func(cluster, n, i int) func() { return func() { write(t, d, cluster, n, i) } }
	g := groupOf(t, v, w(0, 8, 1), w(0, 2, 2), func() {
		must(t, r.host.Rollback(ctx, "v", "empty"))
		write(t, d, 1, 2, 3)
	}, w(2, 1, 4))
	equal(t, "before a rollback and behind it", marked(g), 6, 1, 1, 1)
}
