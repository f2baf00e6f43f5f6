package arakoon

import (
	"errors"
	"strings"
	"testing"

	"openvstorage/arakoon/state"
	"openvstorage/internal/disk/crashdisk"
)

// put sets the key k to its argument, behind what names the version.
func put(version, level uint32) Function {
	return Function{Name: "put", Version: version, Level: level, Run: func(tx Tx, arg []byte) ([]byte, error) {
		tx.Set([]byte("k"), append([]byte{'0' + byte(version)}, arg...))
		return nil, nil
	}}
}

// mixed is a group of three. What release says of a member is what it runs at its next start:
// an older one knows level 1, and one function less.
func mixed(t *testing.T, older ...uint64) (c *cluster, upgrade func(id uint64)) {
	t.Helper()
	c = newCluster(t)
	old := map[uint64]bool{}
	for _, id := range older {
		old[id] = true
	}
	c.change = func(id uint64, o *Options) {
		if o.Functions = []Function{put(1, 0)}; old[id] {
			o.Knows = 1
			return
		}
		o.Functions = append(o.Functions, put(2, state.LevelSteps))
	}
	c.grow(3)
	return c, func(id uint64) {
		t.Helper()
		old[id] = false
		c.kill(id, killed)
		c.start(id)
	}
}

// lead has a member lead.
func (c *cluster) lead(id uint64) *Node {
	c.t.Helper()
	c.until("that member leads", func() bool {
		n := c.leader()
		return n.opt.Member == id || n.Transfer(c.t.Context(), id) == nil && c.leader().opt.Member == id
	})
	return c.node(id)
}

func call(t *testing.T, n *Node, version uint32, arg string) error {
	t.Helper()
	_, err := n.Call(t.Context(), "put", version, []byte(arg))
	return err
}

// While the members of a group run two releases, nothing is proposed that the older one does
// not know, whoever leads: no step and no version of a function. When all of them run the newer
// one the group is raised, and only then these are used. From then on the older release is
// refused by name, on a directory of its own and as a member that is made anew.
func TestRollingUpgrade(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c, upgrade := mixed(t, 1, 2, 3)
		for _, id := range []uint64{3, 1, 2} {
			upgrade(id)
			for lead := uint64(1); lead <= 3; lead++ {
				n := c.lead(lead)
				if err := call(t, n, 1, "a"); err != nil {
					t.Fatal(err)
				}
				var low *LevelError
				if err := call(t, n, 2, "b"); !errors.As(err, &low) && !errors.Is(err, state.ErrUnknownFunction) {
					t.Fatalf("member %d: %v", lead, err)
				}
				if _, err := n.Do(t.Context(), new(Sequence).Confirm([]byte("k"), nil)); !errors.As(err, &low) {
					t.Fatalf("member %d: %v", lead, err)
				}
			}
			c.same("k", "1a")
		}
		n := c.lead(2)
		if n.Knows() != state.LevelNewest || n.Level() != 1 {
			t.Fatal(n.Knows(), n.Level())
		}
		if err := n.RaiseLevel(t.Context(), state.LevelSteps, true); err != nil {
			t.Fatal(err)
		}
		if err := call(t, n, 2, "c"); err != nil {
			t.Fatal(err)
		}
		c.same("k", "2c")

		was := c.change
		c.change = func(id uint64, o *Options) {
			if was(id, o); id >= 3 {
				o.Knows, o.Functions = 1, o.Functions[:1]
			}
		}
		if err := c.node(3).Close(); err != nil { // which flushes its state: after a kill it would stop at the entry in its log
			t.Fatal(err)
		}
		if _, err := c.open(3); !errors.Is(err, state.ErrNewer) || !strings.Contains(err.Error(), "level 2, this release knows up to 1; run a release") {
			t.Fatalf("a member that went back to the older release: %v", err)
		}
		joiner := c.start(4)
		if err := n.AddLearner(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
		c.until("the member of the older release stops", func() bool { return joiner.Err() != nil })
		if err := joiner.Err(); !errors.Is(err, state.ErrNewer) {
			t.Fatal(err)
		}
		set(t, c.leader(2, 1), "k", "on")
	})
}

// One that is raised on a wrong word stops the member that does not know the level, named, and
// no other. It loses nothing: under the newer release it goes on where it was.
func TestRaisedOnAWrongWord(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c, upgrade := mixed(t, 3)
		n := c.lead(1)
		if err := n.RaiseLevel(t.Context(), state.LevelSteps, true); err != nil {
			t.Fatal(err)
		}
		c.until("the older member stops", func() bool { return c.node(3).Err() != nil })
		if err := c.node(3).Err(); !errors.Is(err, state.ErrNewer) || !strings.Contains(err.Error(), "level 2, this release knows up to 1") {
			t.Fatal(err)
		}
		if err := call(t, n, 2, "a"); err != nil {
			t.Fatal(err)
		}
		upgrade(3)
		c.same("k", "2a")
		// The older release itself raises to nothing that it does not know.
		c, _ = mixed(t, 1)
		var unknown *LevelUnknownError
		if err := c.lead(1).RaiseLevel(t.Context(), state.LevelSteps, true); !errors.As(err, &unknown) || unknown.Knows != 1 {
			t.Fatal(err)
		}
	})
}

// A function that a member lacks stops that member, named, and the others go on. Under a
// release that has it, it goes on too.
func TestAnUnknownFunctionStopsThatMember(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		lacks := true
		c.change = func(id uint64, o *Options) {
			if o.Functions = []Function{put(1, 0)}; id != 2 || !lacks {
				o.Functions = append(o.Functions, put(7, 0))
			}
		}
		c.grow(3)
		if err := call(t, c.lead(1), 7, "a"); err != nil {
			t.Fatal(err)
		}
		c.until("the member without it stops", func() bool { return c.node(2).Err() != nil })
		if err := c.node(2).Err(); !errors.Is(err, state.ErrUnknownFunction) || !strings.Contains(err.Error(), "user function put, version 7, is not registered; run a release that has it") {
			t.Fatal(err)
		}
		for range 3 {
			set(t, c.leader(1, 3), "other", "1")
		}
		lacks = false
		c.kill(2, func(d *crashdisk.FS) *crashdisk.FS { return d.Kill() })
		c.start(2)
		c.same("k", "7a")
		c.same("other", "1")
	})
}
