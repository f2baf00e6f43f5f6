package policy_test

import (
	"math/rand/v2"
	"testing"

	. "openvstorage/alba/policy"
)

// on makes disks of one node.
func on(node string, free ...uint64) []Room {
	list := make([]Room, len(free))
	for i, f := range free {
		list[i] = Room{Node: node, Free: f}
	}
	return list
}

// together makes disks of one node share their room.
func together(list []Room) []Room {
	for i := range list {
		list[i].Shared = 7
	}
	return list
}

func TestTakes(t *testing.T) {
	three := Policy{2, 1, 2, 3}
	for _, c := range []struct {
		what   string
		policy Policy
		width  int
		disks  []Room
		want   uint64
	}{
		{"no disks", three, 3, nil, 0},
		{"one disk, one copy", Policy{1, 0, 1, 1}, 1, on("a", 100), 100},
		{"two disks, two copies", Policy{1, 1, 1, 2}, 2, on("a", 100, 100), 100},
		{"three equal disks: two thirds", three, 3, on("a", 300, 300, 300), 600},
		{"the fullest of three counts", three, 3, on("a", 300, 100, 300), 200},
		{"a full one of three: nothing at full width", three, 3, on("a", 300, 0, 300), 0},
		{"without it, at the width that there is", three, 2, on("a", 300, 0, 300), 600},
		{"four disks, one full", three, 3, on("a", 300, 0, 300, 300), 600},
		{"four equal disks", three, 3, on("a", 300, 300, 300, 300), 800},
		{"one much larger than the others", three, 3, on("a", 100, 100, 100, 100_000), 300},
		{"less disks than fragments", three, 3, on("a", 300, 300), 0},
		{"three on one file system", three, 3, together(on("a", 300, 300, 300)), 200},
		{"three on one file system with others", three, 3, append(together(on("a", 300, 300, 300)), on("a", 300)...), 300},
		{"of two nodes, two of three fragments on one at most", Policy{2, 1, 2, 2}, 3, append(on("a", 300, 300, 300), on("b", 100)...), 200},
		{"of two nodes, x in the way", Policy{2, 1, 2, 1}, 3, append(on("a", 300, 300), on("b", 300)...), 0},
		{"of three nodes, one fragment on each", Policy{2, 1, 2, 1}, 3, append(append(on("a", 300, 300), on("b", 300)...), on("c", 200)...), 400},
	} {
		if got := c.policy.Takes(c.width, c.disks); got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.what, got, c.want)
		}
	}
}

// What is said to fit does, one chunk after the other onto the emptiest disks,
// but for a rest; and no more.
func TestTakesIsReached(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 5))
	for range 300 {
		p := Policy{K: uint8(1 + r.IntN(4)), M: uint8(r.IntN(3)), X: 255}
		disks := make([]Room, p.Width()+r.IntN(4))
		for i := range disks {
			disks[i] = Room{Node: "a", Free: uint64(r.IntN(200))}
		}
		want := p.Takes(p.Width(), disks)
		got := uint64(0)
		for {
			// A fragment of one byte on each of the emptiest disks.
			for i := range p.Width() {
				for j := i + 1; j < len(disks); j++ {
					if disks[j].Free > disks[i].Free {
						disks[i], disks[j] = disks[j], disks[i]
					}
				}
			}
			if disks[p.Width()-1].Free == 0 {
				break
			}
			for i := range p.Width() {
				disks[i].Free--
			}
			got += uint64(p.K)
		}
		if got != want {
			t.Fatalf("%v on %v: %d bytes went in, %d were said to", p, disks, got, want)
		}
	}
}
