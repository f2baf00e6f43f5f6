package fusefs

import (
	"slices"
	"testing"

	"github.com/google/uuid"
)

// Of two moments, the directories are told in which something has come or gone.
func TestChangedDirs(t *testing.T) {
	id := func(b byte) uuid.UUID { return uuid.UUID{b} }
	for what, c := range map[string]struct {
		before, after []Info
		last          string // a directory that has an entry
		want          []string
		snaps         []string
	}{
		"nothing":                   {before: []Info{{Name: "a", ID: id(1)}}, after: []Info{{Name: "a", ID: id(1)}}},
		"one comes":                 {after: []Info{{Name: "a", ID: id(1)}}, want: []string{""}, snaps: []string{""}},
		"another one of that name":  {before: []Info{{Name: "a", ID: id(1)}}, after: []Info{{Name: "a", ID: id(2)}}, want: []string{""}},
		"one goes":                  {before: []Info{{Name: "d/a", ID: id(1)}, {Name: "d/b", ID: id(2)}}, after: []Info{{Name: "d/b", ID: id(2)}}, want: []string{"d"}, snaps: []string{"d"}},
		"the last goes":             {before: []Info{{Name: "d/a", ID: id(1)}}, want: []string{"", "d"}, snaps: []string{"", "d"}},
		"the last goes, none stays": {before: []Info{{Name: "d/a", ID: id(1)}}, last: "d", want: []string{"d"}, snaps: []string{"", "d"}},
		"one is renamed":            {before: []Info{{Name: "a", ID: id(1)}}, after: []Info{{Name: "b", ID: id(1)}}, want: []string{""}, snaps: []string{""}},
		"a snapshot comes": {
			before: []Info{{Name: "a", ID: id(1)}}, after: []Info{{Name: "a", ID: id(1), Snapshots: []Snapshot{{Name: "s"}}}},
			snaps: []string{"a"},
		},
		"a snapshot of that name comes": {
			before: []Info{{Name: "a", ID: id(1), Snapshots: []Snapshot{{Name: "s", Created: 1}}}},
			after:  []Info{{Name: "a", ID: id(1), Snapshots: []Snapshot{{Name: "s", Created: 2}}}},
			snaps:  []string{"a"},
		},
	} {
		before, after := shapeOf(c.before), shapeOf(c.after)
		set := func(dirs []string) []string { slices.Sort(dirs); return slices.Compact(dirs) }
		if got := set(changedDirs(before.disks, after.disks, func(dir string) bool { return dir == c.last && dir != "" })); !slices.Equal(got, c.want) {
			t.Errorf("%s: of vDisks %q, want %q", what, got, c.want)
		}
		if got := set(changedDirs(before.snaps, after.snaps, func(string) bool { return false })); !slices.Equal(got, c.snaps) {
			t.Errorf("%s: of snapshots %q, want %q", what, got, c.snaps)
		}
	}
}

// A clone holds the ranges of the copy that made it, one after the other, until the end
// or a write.
func TestCopied(t *testing.T) {
	from, other := content{disk: uuid.UUID{1}}, content{disk: uuid.UUID{1}, snap: "s"}
	const size = 30
	for what, c := range map[string]struct {
		from  content
		off   int64
		touch bool
		want  bool
	}{
		"the next":          {from: from, off: 10, want: true},
		"the first again":   {from: from},
		"not the next":      {from: from, off: 20},
		"of another source": {from: other, off: 10},
		"after a write":     {from: from, off: 10, touch: true},
	} {
		var clone copied
		clone.begin(from, 10, size)
		if c.touch {
			clone.touch()
		}
		if got := clone.goesOn(c.from, c.off, 10, size); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
		if got := clone.goesOn(from, 20, 10, size); got != c.want {
			t.Errorf("after that, %s: the range behind it: %v", what, got)
		}
		if clone.goesOn(from, size, 10, size) {
			t.Errorf("%s: it goes on past the end", what)
		}
	}
	var whole copied
	if whole.begin(from, size, size); whole.goesOn(from, size, 1, size) {
		t.Error("a copy that was whole goes on")
	}
}

// A directory's time is stored once, unless it was changed again since.
func TestDirTimes(t *testing.T) {
	times := &dirTimes{last: map[string]dirTime{}}
	times.touch(5, "a", "a/b")
	times.touch(3, "a") // clocks go back
	due := times.due()
	if len(due) != 2 || due["a"] != 5 || due["a/b"] != 5 {
		t.Fatalf("%v", due)
	}
	times.touch(7, "a/b")
	times.storedAll(due)
	if due = times.due(); len(due) != 1 || due["a/b"] != 7 {
		t.Errorf("%v", due)
	}
	times.move("a", "c")
	if times.changed("a") != 0 || times.changed("a/b") != 0 || times.changed("c") != 5 || times.changed("c/b") != 7 {
		t.Errorf("after a renaming: %v", times.last)
	}
	times.stored("c/b", 6)
	if times.changed("c/b") != 7 {
		t.Error("a newer time is forgotten")
	}
	times.stored("c/b", 7)
	times.forget("c")
	if len(times.last) != 0 {
		t.Errorf("left: %v", times.last)
	}
}
