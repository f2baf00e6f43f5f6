package filetree

import (
	"context"
	"slices"
)

// timed is a directory that is modified.
type timed struct {
	name     string
	old, now Entry
}

// touched is the directories that the entries of these paths are in, modified at a time
// in nanoseconds since 1970. It leaves out directories that have no entry, or newer
// times; at 0 it is empty. The times are stored together with what modifies the
// directories: no stop loses the one and keeps the other.
func (t *Tree) touched(at int64, names ...string) (list []timed) {
	if at == 0 {
		return nil
	}
	for i, name := range names {
		names[i], _ = split(name)
	}
	slices.Sort(names)
	for _, dir := range slices.Compact(names) {
		if d, ok := t.touch(dir, at); ok {
			list = append(list, d)
		}
	}
	return list
}

// touch is a directory modified at a time. It is false if the directory has no entry, or
// newer times.
func (t *Tree) touch(dir string, at int64) (timed, bool) {
	e, ok := t.Get(dir)
	if !ok || e.Kind != Directory || e.Modified >= at && e.Changed >= at {
		return timed{}, false
	}
	d := timed{dir, e, e}
	d.now.Modified, d.now.Changed = max(e.Modified, at), max(e.Changed, at)
	return d, true
}

func changesOf(list []timed) (changes []Change) {
	for _, d := range list {
		changes = append(changes, Change{entryKey(d.name), encode(d.now)})
	}
	return changes
}

// retime has memory follow the change of times. t.mu is held.
func (t *Tree) retime(list []timed) {
	for _, d := range list {
		t.entries[d.name].Attr = d.now.Attr
	}
}

// Touch sets the times of modification and change of directories, given in nanoseconds
// since 1970. It leaves out directories that have no entry, or newer times.
func (t *Tree) Touch(ctx context.Context, times map[string]int64) error {
	end, err := t.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	var list []timed
	for name, at := range times {
		if d, ok := t.touch(name, at); ok {
			list = append(list, d)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return t.write(ctx, changesOf(list), func() { t.retime(list) })
}
