package volumedriver

import (
	"context"
	"testing"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/sco"
)

func TestWorthwhile(t *testing.T) {
	for _, c := range []struct {
		what              string
		store, live, size int64
		fill              float64
		want              bool
	}{
		{"nothing is overwritten: waiting gains nothing", 100, 100, 100, 0.26, true},
		{"all was overwritten within the group", 0, 0, 100, 0.26, true},
		{"half full: half may be stored", 50, 10, 100, 0.5, true},
		{"half full: not more", 60, 10, 100, 0.5, false},
		{"all was overwritten, but by what is not in the group", 100, 0, 100, 0.5, false},
		{"the buffer fills: whatever it costs", 100, 0, 100, 0.75, true},
		{"an empty group", 0, 0, 0, 0.3, true},
	} {
		if got := worthwhile(c.store, c.live, c.size, c.fill); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}

// groupOf makes a TLog of each write and chooses a group of them all.
func groupOf(t *testing.T, v *Volume, writes ...func()) *group {
	t.Helper()
	for _, w := range writes {
		w()
		v.buf.CloseTLog()
	}
	g, err := v.chooseGroup(t.Context(), v.buf.Work().TLogs)
	must(t, err)
	if len(g.tlogs) != len(writes) || len(g.scos) != len(writes) {
		t.Fatalf("%d TLogs and %d SCOs of %d writes", len(g.tlogs), len(g.scos), len(writes))
	}
	v.mark(g)
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
	v.stopStorer()
	w := func(cluster, n, i int) func() { return func() { write(t, d, cluster, n, i) } }

	g := groupOf(t, v, w(0, 8, 1), w(2, 4, 2), w(3, 1, 3))
	equal(t, "overwritten within the group", marked(g), 4, 3, 1)
	if g.store >= g.size || g.store < 8*sco.ClusterSize {
		t.Errorf("%d of %d bytes are to be stored", g.store, g.size)
	}

	// What is written after the choice changes nothing: the group is a prefix.
	write(t, d, 0, 8, 4)
	equal(t, "overwritten later", marked(g), 4, 3, 1)

	// Chosen anew, the map cannot tell any more who overwrote what first.
	v.mark(g)
	equal(t, "chosen too late", marked(g), 8, 4, 1)
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
	v.stopStorer()
	w := func(cluster, n, i int) func() { return func() { write(t, d, cluster, n, i) } }
	g := groupOf(t, v, w(0, 8, 1), func() {
		write(t, d, 0, 4, 2)
		snapshot("within")
	}, w(0, 4, 3))
	equal(t, "a snapshot within the group", marked(g), -1, -1, 4)
}
