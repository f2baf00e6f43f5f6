package policy_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"openvstorage/alba/policy"
)

// outlived tries all sets of groups, and returns the largest n of which every set of n may
// die.
func outlived(k int, groups []string) int {
	index := make(map[string]int)
	for _, g := range groups {
		if _, ok := index[g]; !ok {
			index[g] = len(index)
		}
	}
	least := len(index) + 1 // of a set whose death is too much
	for set := range 1 << len(index) {
		left, dead := 0, 0
		for _, g := range groups {
			if set>>index[g]&1 == 0 {
				left++
			}
		}
		for b := set; b != 0; b &= b - 1 {
			dead++
		}
		if left < k {
			least = min(least, dead)
		}
	}
	return least - 1
}

// Whatever the places: as many disks, nodes and zones may die as all sets of them say.
func TestSafety(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for round := range 5000 {
		at := make([]policy.Where, rng.IntN(9))
		var osds, nodes, zones []string
		for i := range at {
			osd, node := uint64(1+rng.IntN(9)), rng.IntN(5)
			if rng.IntN(4) > 0 {
				osd = uint64(10 + i) // mostly, a disk has one fragment
			}
			at[i] = policy.Where{OSD: osd, Node: fmt.Sprint(node), Zone: fmt.Sprint(node % 3)}
			osds, nodes, zones = append(osds, fmt.Sprint(osd)), append(nodes, at[i].Node), append(zones, at[i].Zone)
		}
		k := 1 + rng.IntN(5)
		want := policy.Safety{Disks: outlived(k, osds), Nodes: outlived(k, nodes), Zones: outlived(k, zones)}
		if got := policy.SafetyOf(k, at); got != want {
			t.Fatalf("round %d: %d of %+v: %+v, not %+v", round, k, at, got, want)
		}
	}
}

// What Place places keeps what policies are for: with enough zones m disks and one zone may
// die, on one machine no node.
func TestSafetyOfWhatIsPlaced(t *testing.T) {
	where := func(placed []uint64, disks []policy.Disk) (at []policy.Where) {
		for _, osd := range placed {
			if osd != policy.None {
				d := disks[osd-1]
				at = append(at, policy.Where{OSD: osd, Node: d.Node, Zone: d.Zone})
			}
		}
		return at
	}
	for _, c := range []struct {
		policy string
		disks  []policy.Disk
		want   policy.Safety
	}{
		{"2,1,2,3", cluster(3), policy.Safety{Disks: 1}},
		{"2,1,2,1", cluster(3, 3, 3), policy.Safety{Disks: 1, Nodes: 1}},
		{"2,1,2,1", zoned([]int{3}, []int{3}, []int{3}), policy.Safety{Disks: 1, Nodes: 1, Zones: 1}},
		{"4,2,5,2", zoned([]int{3, 3}, []int{3, 3}, []int{3, 3}), policy.Safety{Disks: 2, Nodes: 2, Zones: 1}},
		{"4,2,5,2", zoned([]int{3, 3, 3, 3}, []int{3, 3}), policy.Safety{Disks: 2, Nodes: 2, Zones: 0}},
		{"1,2,2,1", zoned([]int{1}, []int{1}, []int{1}), policy.Safety{Disks: 2, Nodes: 2, Zones: 2}},
		{"2,1,2,3", cluster(2), policy.Safety{}},
		{"2,1,2,3", cluster(1), policy.Lost},
	} {
		p := parse(t, c.policy)[0]
		placed := policy.Place(p, c.disks, nil, rand.New(rand.NewPCG(1, 9)))
		if got := policy.SafetyOf(int(p.K), where(placed, c.disks)); got != c.want {
			t.Errorf("%s on %d disks: %+v, not %+v", c.policy, len(c.disks), got, c.want)
		}
	}
}

func TestSafetyOrder(t *testing.T) {
	list := []policy.Safety{policy.Lost, {0, 0, 0}, {1, 0, 1}, {1, 1, 0}, {1, 1, 1}, {2, 0, 0}}
	for i, a := range list {
		for j, b := range list {
			if a.Less(b) != (i < j) {
				t.Errorf("%+v before %+v: %v", a, b, a.Less(b))
			}
		}
	}
	if w := (policy.Safety{Disks: 2, Nodes: 0, Zones: 1}).Worse(policy.Safety{Disks: 1, Nodes: 1, Zones: 0}); w != (policy.Safety{Disks: 1}) {
		t.Errorf("%+v", w)
	}
}

func BenchmarkSafety(b *testing.B) {
	var at []policy.Where
	for i := range 6 {
		at = append(at, policy.Where{OSD: uint64(i + 1), Node: fmt.Sprint("node", i/2), Zone: "zone"})
	}
	b.ReportAllocs()
	for b.Loop() {
		policy.SafetyOf(4, at)
	}
}
