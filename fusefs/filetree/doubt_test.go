package filetree_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/filetree/treetest"
)

// Random changes, of which many are not answered, made or not: whatever became of
// them, the tree in memory is that which is stored as soon as somebody asks.
func TestDoubt(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	noAnswer := errors.New("no answer")
	keys := treetest.New()
	tree := open(t, keys)
	name := func() string { return fmt.Sprintf("%c", 'a'+rng.IntN(6)) }
	unknown := 0
	for i := range 3000 {
		if rng.IntN(2) == 0 {
			keys.Doubt(noAnswer, rng.IntN(2) == 0)
		}
		e, there := tree.Get(name())
		var err error
		switch rng.IntN(7) {
		case 0, 1:
			_, err = tree.Make(ctx, name(), filetree.Entry{Kind: filetree.File})
		case 2:
			err = tree.Remove(ctx, name(), 0)
		case 3:
			err = tree.Move(ctx, name(), name(), rng.IntN(2) == 0, 0, nil)
		case 4:
			err = tree.Move(ctx, name(), name(), true, 0, func(ctx context.Context, swaps []filetree.Swap) error {
				var changes []filetree.Change
				for _, s := range swaps {
					changes = append(changes, filetree.Change{Key: s.Key, Value: s.New})
				}
				return keys.Write(ctx, changes)
			})
		case 5:
			err = tree.KeepDisk(ctx, [16]byte{byte(rng.IntN(3))}, filetree.DiskAttr{Attr: filetree.Attr{UID: uint32(i)}}, 0)
		default:
			if there {
				content := bytes.Repeat([]byte{byte(i)}, rng.IntN(200<<10))
				err = tree.Store(ctx, e.Node, content, 0, 3, time.Unix(int64(i), 0))
			}
		}
		doubt := errors.Is(err, noAnswer) && !errors.Is(err, filetree.ErrNotWritten)
		if doubt {
			unknown++
			if err := tree.Remove(ctx, "absent", 0); !errors.Is(err, filetree.ErrNotWritten) {
				t.Fatalf("change %d: the next does not wait for it: %v", i, err)
			}
		}
		keys.Fail(nil)
		if _, err := tree.Load(ctx, 1<<40); err == nil {
			t.Fatal("a node that is not there has a content")
		}
		stored := open(t, keys)
		if a, b := tree.List(""), stored.List(""); !slices.Equal(a, b) || tree.Bytes() != stored.Bytes() {
			t.Fatalf("change %d: memory has\n%+v, %d bytes\nthe store\n%+v, %d bytes", i, a, tree.Bytes(), b, stored.Bytes())
		}
		for id := range byte(3) {
			a, _ := tree.Disk([16]byte{id})
			if b, _ := stored.Disk([16]byte{id}); a != b {
				t.Fatalf("change %d: vDisk %d: %+v, stored %+v", i, id, a, b)
			}
		}
	}
	if unknown < 300 {
		t.Errorf("only %d changes of unknown outcome", unknown)
	}
}
