package policy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"openvstorage/alba/policy"
)

// zoned returns disks numbered from 1: counts[z][n] of them on node n of zone z.
func zoned(counts ...[]int) (disks []policy.Disk) {
	for z, nodes := range counts {
		for n, count := range nodes {
			for range count {
				disks = append(disks, policy.Disk{
					OSD: uint64(len(disks) + 1), Node: fmt.Sprintf("node%d.%d", z, n), Zone: fmt.Sprint("zone", z), Capacity: 1 << 40, Used: 1 << 38,
				})
			}
		}
	}
	return disks
}

// zonesOf counts the fragments of each zone.
func zonesOf(placed []uint64, disks []policy.Disk) map[string]int {
	zones := make(map[string]int)
	for _, osd := range placed {
		if osd != policy.None {
			zones[disks[osd-1].Zone]++
		}
	}
	return zones
}

func excess(zones map[string]int, m int) (sum int) {
	for _, n := range zones {
		sum += max(n-m, 0)
	}
	return sum
}

// leastExcess tries all ways to take fragments from nodes, and returns the least that is
// above m, of the ways that take the most fragments. Fragments that are kept count.
func leastExcess(p policy.Policy, disks []policy.Disk, have []uint64) (fragments, least int) {
	type room struct {
		zone string
		left int
	}
	var names []string
	rooms := make(map[string]*room)
	kept := make(map[string]int)
	on := make(map[string]int)
	missing := p.Width()
	for _, osd := range have {
		if osd != policy.None {
			missing--
			kept[disks[osd-1].Zone]++
			on[disks[osd-1].Node]++
		}
	}
	for _, d := range disks {
		if rooms[d.Node] == nil {
			rooms[d.Node] = &room{zone: d.Zone}
			names = append(names, d.Node)
		}
		if d.Usable() && !slices.Contains(have, d.OSD) {
			rooms[d.Node].left++
		}
	}
	least = 1 << 30
	var try func(i, taken int)
	try = func(i, taken int) {
		if i == len(names) {
			if e := excess(kept, int(p.M)); taken > fragments || taken == fragments && e < least {
				fragments, least = taken, e
			}
			return
		}
		r := rooms[names[i]]
		for n := 0; n <= min(r.left, int(p.X)-on[names[i]], missing-taken); n++ {
			kept[r.zone] += n
			try(i+1, taken+n)
			kept[r.zone] -= n
		}
		if int(p.X) < on[names[i]] {
			try(i+1, taken)
		}
	}
	try(0, 0)
	return fragments, least
}

// Whatever the nodes and zones: as many fragments as can be, and no zone above m that need
// not be, for new chunks and for repairs. All other ways are tried.
func TestPlaceWishesForZones(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for round := range 3000 {
		counts := make([][]int, 1+rng.IntN(4))
		for z := range counts {
			counts[z] = make([]int, 1+rng.IntN(3))
			for n := range counts[z] {
				counts[z][n] = rng.IntN(4)
			}
		}
		disks := zoned(counts...)
		for i := range disks {
			disks[i].Failing = rng.IntN(8) == 0
		}
		p := policy.Policy{K: uint8(1 + rng.IntN(4)), M: uint8(rng.IntN(4)), X: uint8(1 + rng.IntN(3))}
		p.C = p.K
		have := make([]uint64, p.Width())
		for range 2 {
			fragments, least := leastExcess(p, disks, have)
			placed := policy.Place(p, disks, have, rng)
			if got := count(placed) - count(have); got != fragments {
				t.Fatalf("round %d: %v on %v beside %v: %d fragments were placed, and %d can be", round, p, counts, have, got, fragments)
			}
			if got := excess(zonesOf(placed, disks), int(p.M)); got != least {
				t.Fatalf("round %d: %v on %v beside %v: %v has %d above m, the least is %d", round, p, counts, have, placed, got, least)
			}
			have = placed // some are lost, and placed again
			for i := range have {
				if rng.IntN(3) == 0 {
					have[i] = policy.None
				}
			}
			rng.Shuffle(len(have), func(i, j int) { have[i], have[j] = have[j], have[i] })
		}
	}
}

// One zone is every machine's case, and disks that know no zone are in one: nothing is
// wished for that cannot be.
func TestPlaceWithoutZones(t *testing.T) {
	p := policy.Policy{K: 4, M: 2, C: 5, X: 2}
	plain, one := cluster(3, 3, 3), cluster(3, 3, 3)
	for i := range one {
		one[i].Zone = "a"
	}
	for seed := range uint64(50) {
		a := policy.Place(p, plain, nil, rand.New(rand.NewPCG(seed, 1)))
		b := policy.Place(p, one, nil, rand.New(rand.NewPCG(seed, 1)))
		if !slices.Equal(a, b) {
			t.Fatalf("%v without zones, %v in one", a, b)
		}
	}
}

// While the disks of a node are told of its new zone, some still say the old one: the node
// counts as in one zone.
func TestPlaceWhileZonesChange(t *testing.T) {
	disks := zoned([]int{2}, []int{2}, []int{2})
	disks[0].Zone = "" // node0.0 is zone0
	p := policy.Policy{K: 2, M: 1, C: 2, X: 2}
	for seed := range uint64(100) {
		placed := policy.Place(p, disks, nil, rand.New(rand.NewPCG(seed, 3)))
		nodes := make(map[string]int)
		for _, osd := range placed {
			nodes[disks[osd-1].Node]++
		}
		if len(nodes) != 3 {
			t.Fatalf("seed %d: %v is on %v", seed, placed, nodes)
		}
	}
}

// Three zones of 20 disks each on 12 nodes: every disk gets its share, of first fragments
// and of all, though each chunk has two fragments in each zone.
func TestPlaceUsesEveryDiskOfZones(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	disks := zoned([]int{5, 5, 5, 5}, []int{5, 5, 5, 5}, []int{5, 5, 5, 5})
	p := parse(t, "4,2,5,2")[0]
	const rounds = 20000
	var all, first [61]int
	for range rounds {
		placed := policy.Place(p, disks, nil, rng)
		if e := excess(zonesOf(placed, disks), 2); e != 0 {
			t.Fatalf("%v has %d above m", placed, e)
		}
		first[placed[0]]++
		for _, osd := range placed {
			all[osd]++
		}
	}
	for osd := 1; osd <= 60; osd++ {
		if want := rounds * 6 / 60; all[osd] < want*9/10 || all[osd] > want*11/10 {
			t.Errorf("disk %d got %d fragments, its share is %d", osd, all[osd], want)
		}
		if want := rounds / 60; first[osd] < want*7/10 || first[osd] > want*13/10 {
			t.Errorf("disk %d got %d first fragments, its share is %d", osd, first[osd], want)
		}
	}
}

// A zone of one node beside two of ten: the wish does not send more to the lone node than
// its share, as long as the others may have it.
func TestPlaceDoesNotFillASmallZone(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 2))
	ten := []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}
	disks := zoned(ten, ten, []int{1})
	p := parse(t, "2,2,3,1")[0]
	const rounds = 20000
	lone := 0
	for range rounds {
		if slices.Contains(policy.Place(p, disks, nil, rng), 21) {
			lone++
		}
	}
	if share := rounds * 4 / 21; lone > share*13/10 {
		t.Errorf("the lone node got %d fragments, its share is %d", lone, share)
	}
}

// PlaceOne moves one fragment and leaves the others where they are.
func TestPlaceOne(t *testing.T) {
	disks := zoned([]int{2, 2}, []int{2, 2}, []int{2, 2})
	p := policy.Policy{K: 2, M: 1, C: 2, X: 1}
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 5))
		have := policy.Place(p, disks, nil, rng)
		have[0] = policy.None
		to := policy.PlaceOne(p, disks, have, 1, rng)
		if z := disks[to-1].Zone; to == policy.None || z == disks[have[2]-1].Zone {
			t.Fatalf("seed %d: beside %v fragment 1 goes to %d in %s", seed, have, to, z)
		}
		disks[to-1].Failing = true
		if again := policy.PlaceOne(p, disks, have, 1, rng); again == to {
			t.Fatalf("seed %d: a failing disk was taken", seed)
		}
		disks[to-1].Failing = false
	}
}
