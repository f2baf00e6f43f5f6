package maintenance

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"openvstorage/alba/policy"
)

// Fragments are moved one after the other, any of them may fail, and at every moment
// the chunk keeps the rules: one fragment on a disk, x on a node.
func TestPlaceKeepsTheRulesAtEveryStep(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := policy.Policy{K: uint8(1 + r.IntN(4)), M: uint8(r.IntN(4)), X: uint8(1 + r.IntN(3))}
		p.C = p.K
		var disks []policy.Disk
		node := make(map[uint64]string)
		for i := range uint64(1 + r.IntN(10)) {
			d := policy.Disk{OSD: 1 + i, Node: fmt.Sprint(r.IntN(4)), Capacity: 100, Used: r.Uint64N(100)}
			disks, node[d.OSD] = append(disks, d), d.Node
		}
		have := policy.Place(p, disks, nil, r)
		for i := range disks {
			disks[i].Failing = r.IntN(3) == 0
		}
		for range 20 {
			i := r.IntN(len(have))
			to := place(p, disks, have, i, r)
			if to == policy.None || r.IntN(4) == 0 {
				continue // it stays, or the write fails
			}
			have[i] = to
			on, at := make(map[uint64]int), make(map[string]int)
			for j, osd := range have {
				if osd == policy.None {
					continue
				}
				on[osd]++
				at[node[osd]]++
				if on[osd] > 1 || at[node[osd]] > int(p.X) {
					t.Fatalf("seed %d: %v: fragments are on %v of %v; the last is %d", seed, p, have, node, j)
				}
			}
			for _, d := range disks {
				if d.OSD == to && !d.Usable() {
					t.Fatalf("seed %d: disk %d takes nothing", seed, to)
				}
			}
		}
	}
}

// The only usable disk is the fragment's own: it is written there again, and no
// other one is.
func TestPlaceOnItsOwnDisk(t *testing.T) {
	p := policy.Policy{K: 2, M: 2, C: 2, X: 4}
	disks := []policy.Disk{{OSD: 1, Node: "n", Capacity: 1, Failing: true}, {OSD: 2, Node: "n", Capacity: 1}, {OSD: 3, Node: "n", Capacity: 1}}
	have := []uint64{policy.None, 2, 3, 1}
	r := rand.New(rand.NewPCG(1, 1))
	if n := place(p, disks, have, 0, r); n != policy.None {
		t.Errorf("a fragment goes beside another, on disk %d", n)
	}
	if n := place(p, disks, have, 1, r); n != 2 {
		t.Errorf("a fragment cannot be rewritten where it is: %d", n)
	}
}
