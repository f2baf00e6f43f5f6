package filetree_test

import (
	"context"
	"errors"
	"testing"

	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/filetree/treetest"
)

// A directory is modified in the same step as what is in it: what a kill leaves of the
// one it leaves of the other, and in doubt both are made or none.
func TestDirectoryTimes(t *testing.T) {
	keys := treetest.New()
	tree := open(t, keys)
	made := func(name string, at int64) filetree.Entry {
		t.Helper()
		e, err := tree.Make(ctx, name, filetree.Entry{Kind: filetree.Directory, Attr: filetree.Attr{Modified: at, Changed: at}})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	d, _, late := made("d", 10), made("e", 10), made("late", 1000)
	writes := 0
	keys.Hold(func(context.Context) error { writes++; return nil })
	for i, c := range []struct {
		what string
		do   func(at int64) error
		dirs []string
	}{
		{"make", func(at int64) error {
			_, _, err := tree.MakeIn(ctx, d.Node, "a", filetree.Entry{Kind: filetree.File, Attr: filetree.Attr{Modified: at}})
			return err
		}, []string{"d"}},
		{"move within", func(at int64) error { return tree.Move(ctx, "d/a", "d/b", false, at, nil) }, []string{"d"}},
		{"move", func(at int64) error { return tree.Move(ctx, "d/b", "e/b", false, at, nil) }, []string{"d", "e"}},
		{"move with others", func(at int64) error {
			return tree.Move(ctx, "e/b", "d/b", false, at, func(ctx context.Context, swaps []filetree.Swap) error {
				var changes []filetree.Change
				for _, s := range swaps {
					if string(keys.All()[string(s.Key)]) != string(s.Old) {
						t.Errorf("key %q is swapped from what it is not", s.Key)
					}
					changes = append(changes, filetree.Change{Key: s.Key, Value: s.New})
				}
				return keys.Write(ctx, changes)
			})
		}, []string{"d", "e"}},
		{"remove", func(at int64) error { return tree.Remove(ctx, "d/b", at) }, []string{"d"}},
		{"make in a newer one", func(at int64) error {
			_, _, err := tree.MakeIn(ctx, late.Node, "a", filetree.Entry{Kind: filetree.File, Attr: filetree.Attr{Modified: at}})
			return err
		}, nil},
		{"make in the root", func(at int64) error {
			_, _, err := tree.MakeIn(ctx, 0, "a", filetree.Entry{Kind: filetree.File, Attr: filetree.Attr{Modified: at}})
			return err
		}, nil},
		{"remove that is no event", func(int64) error { return tree.Remove(ctx, "late/a", 0) }, nil},
		{"make in doubt", func(at int64) error {
			noAnswer := errors.New("no answer")
			keys.Doubt(noAnswer, true)
			_, _, err := tree.MakeIn(ctx, d.Node, "c", filetree.Entry{Kind: filetree.File, Attr: filetree.Attr{Modified: at}})
			if !errors.Is(err, noAnswer) {
				return err
			}
			keys.Fail(nil)
			_, err = tree.Set(ctx, late.Node, func(*filetree.Attr) {}) // finds out
			return err
		}, []string{"d"}},
	} {
		at, before := int64(100+i), writes
		if err := c.do(at); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if writes != before+1 {
			t.Errorf("%s: %d writes", c.what, writes-before)
		}
		for where, tree := range map[string]*filetree.Tree{"now": tree, "after a kill": open(t, keys)} {
			for _, dir := range []string{"d", "e", "late"} {
				e, _ := tree.Get(dir)
				moved := false
				for _, want := range c.dirs {
					moved = moved || want == dir
				}
				if (e.Modified == at) != moved || e.Modified > e.Changed {
					t.Errorf("%s, %s: %s is modified at %d, changed at %d", c.what, where, dir, e.Modified, e.Changed)
				}
			}
		}
	}
}
