package policy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"openvstorage/alba/policy"
)

func parse(t testing.TB, words ...string) (list []policy.Policy) {
	t.Helper()
	for _, w := range words {
		p, err := policy.Parse(w)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

// cluster returns disks numbered from 1, counts[i] of them on node i.
func cluster(counts ...int) (disks []policy.Disk) {
	for n, count := range counts {
		for range count {
			disks = append(disks, policy.Disk{OSD: uint64(len(disks) + 1), Node: fmt.Sprint("node", n), Capacity: 1 << 40, Used: 1 << 38})
		}
	}
	return disks
}

func TestParse(t *testing.T) {
	for _, s := range []string{"2,1,2,3", "1,0,1,1", "16,4,18,4", "1,63,64,255"} {
		p := parse(t, s)[0]
		if p.String() != s {
			t.Errorf("%s prints as %v", s, p)
		}
		b, err := json.Marshal(p)
		var back policy.Policy
		if err != nil || json.Unmarshal(b, &back) != nil || back != p {
			t.Errorf("%s in JSON is %s, %v", s, b, err)
		}
	}
	if p := parse(t, " 2, 1,2 ,3 ")[0]; p != policy.Default {
		t.Error(p)
	}
	for _, s := range []string{"", "2,1,2", "2,1,2,3,4", "0,1,1,1", "2,1,1,1", "2,1,4,1", "2,1,2,0", "-1,1,1,1", "60,5,60,1", "256,1,1,1", "a,b,c,d", "255,255,255,255"} {
		if p, err := policy.Parse(s); !errors.Is(err, policy.ErrPolicy) {
			t.Errorf("%q is %v, %v", s, p, err)
		}
	}
	if _, err := json.Marshal(policy.Policy{}); err == nil {
		t.Error("no policy was printed")
	}
}

func TestValidateList(t *testing.T) {
	for n := range 10 {
		if err := policy.ValidateList(policy.ForDisks(n)); err != nil {
			t.Errorf("%d disks: %v", n, err)
		}
	}
	for _, list := range [][]policy.Policy{nil, {{}}, parse(t, "2,1,2,3", "2,1,2,3"), make([]policy.Policy, 17)} {
		if err := policy.ValidateList(list); !errors.Is(err, policy.ErrPolicy) {
			t.Errorf("%v: %v", list, err)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		list  []string
		nodes []int
		index int
		width int // 0: none fits
	}{
		{[]string{"2,1,2,3"}, []int{3}, 0, 3},
		{[]string{"2,1,2,3"}, []int{80}, 0, 3},
		{[]string{"2,1,2,3"}, []int{2}, 0, 2},
		{[]string{"2,1,2,3"}, []int{1}, 0, 0},
		{[]string{"2,1,2,3", "1,1,1,2"}, []int{1}, 1, 1},
		{[]string{"2,1,2,1"}, []int{5}, 0, 0},
		{[]string{"2,1,2,1"}, []int{5, 5}, 0, 2},
		{[]string{"5,4,8,3", "2,2,3,4"}, []int{4, 4, 4}, 0, 9},
		{[]string{"5,4,8,3", "2,2,3,4"}, []int{4, 4, 2}, 0, 8},
		{[]string{"5,4,8,3", "2,2,3,4"}, []int{9, 1}, 1, 4},
		{[]string{"5,4,8,3", "2,2,3,4"}, []int{3}, 1, 3},
		{[]string{"5,4,8,3", "2,2,3,4"}, []int{2}, 0, 0},
		{[]string{"16,4,18,4"}, []int{12, 12, 12, 12, 12}, 0, 20},
		{[]string{"16,4,18,4"}, []int{12, 12, 12, 12}, 0, 0},
		{nil, []int{3}, 0, 0},
		{[]string{"1,0,1,1"}, nil, 0, 0},
	} {
		index, width, ok := policy.Choose(parse(t, c.list...), cluster(c.nodes...))
		if index != c.index || width != c.width || ok != (c.width > 0) {
			t.Errorf("%v on %v: %d, width %d, %v", c.list, c.nodes, index, width, ok)
		}
	}
	for n, want := range []string{"", "1,0,1,1", "1,1,1,2", "2,1,2,3", "2,1,2,3"} {
		list := policy.ForDisks(n)
		index, width, ok := policy.Choose(list, cluster(n))
		if ok != (n > 0) || ok && (list[index].String() != want || width != list[index].Width()) {
			t.Errorf("%d disks: %v, width %d, %v", n, list[index], width, ok)
		}
	}
	disks := cluster(4)
	disks[0].Failing = true
	disks[1].Used = disks[1].Capacity
	disks[2].OSD = policy.None
	if _, _, ok := policy.Choose(parse(t, "2,0,2,4"), disks); ok {
		t.Error("disks that cannot be used were counted")
	}
}

// Whatever the cluster: one fragment a disk, x a node, only usable disks, as
// many as Choose says, data fragments first, and what was there is kept.
func TestPlaceKeepsTheRules(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for round := range 4000 {
		counts := make([]int, 1+rng.IntN(8))
		for i := range counts {
			counts[i] = rng.IntN(9)
		}
		disks := cluster(counts...)
		byOSD := map[uint64]policy.Disk{}
		for i := range disks {
			d := &disks[i]
			d.Used = rng.Uint64N(d.Capacity + 1)
			d.Load = rng.Uint32N(100)
			d.Failing = rng.IntN(10) == 0
			byOSD[d.OSD] = *d
		}
		rng.Shuffle(len(disks), func(i, j int) { disks[i], disks[j] = disks[j], disks[i] })
		p := policy.Policy{K: uint8(1 + rng.IntN(8)), M: uint8(rng.IntN(5)), X: uint8(1 + rng.IntN(4))}
		p.C = p.K
		placed := policy.Place(p, disks, nil, rng)
		check(t, p, placed, byOSD)
		_, width, _ := policy.Choose([]policy.Policy{{K: 1, M: uint8(p.Width() - 1), C: 1, X: p.X}}, disks)
		if got := count(placed); got != width {
			t.Fatalf("round %d: %v on %v has %d fragments, not %d", round, p, counts, got, width)
		}
		if i := slices.Index(placed, policy.None); i >= 0 && count(placed[i:]) != 0 {
			t.Fatalf("a parity fragment was placed before a data fragment: %v", placed)
		}
		// Lose some and repair.
		have := slices.Clone(placed)
		for i := range have {
			if rng.IntN(3) == 0 {
				have[i] = policy.None
			}
		}
		repaired := policy.Place(p, disks, have, rng)
		check(t, p, repaired, byOSD)
		for i, osd := range have {
			if osd != policy.None && repaired[i] != osd {
				t.Fatalf("fragment %d moved from %d to %d", i, osd, repaired[i])
			}
		}
		if count(repaired) != width {
			t.Fatalf("repair: %d fragments, not %d", count(repaired), width)
		}
	}
}

func count(osds []uint64) (n int) {
	for _, o := range osds {
		if o != policy.None {
			n++
		}
	}
	return n
}

func check(t *testing.T, p policy.Policy, placed []uint64, disks map[uint64]policy.Disk) {
	t.Helper()
	seen := map[uint64]bool{}
	perNode := map[string]int{}
	if len(placed) != p.Width() {
		t.Fatalf("%v has %d fragments", p, len(placed))
	}
	for _, osd := range placed {
		if osd == policy.None {
			continue
		}
		d, known := disks[osd]
		if perNode[d.Node]++; seen[osd] || !known || !d.Usable() || perNode[d.Node] > int(p.X) {
			t.Fatalf("%v: %v breaks a rule at %d", p, placed, osd)
		}
		seen[osd] = true
	}
}

// 80 equal disks on 8 nodes each get their share, of data fragments too.
func TestPlaceUsesEveryDisk(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	disks := cluster(10, 10, 10, 10, 10, 10, 10, 10)
	p := parse(t, "4,2,5,2")[0]
	const rounds = 20000
	var all, first [81]int
	for range rounds {
		placed := policy.Place(p, disks, nil, rng)
		first[placed[0]]++
		for _, osd := range placed {
			all[osd]++
		}
	}
	for osd := 1; osd <= 80; osd++ {
		if want := rounds * 6 / 80; all[osd] < want*9/10 || all[osd] > want*11/10 {
			t.Errorf("disk %d got %d fragments, its share is %d", osd, all[osd], want)
		}
		if want := rounds / 80; first[osd] < want*7/10 || first[osd] > want*13/10 {
			t.Errorf("disk %d got %d first fragments, its share is %d", osd, first[osd], want)
		}
	}
}

// Emptier and idler disks get more, in proportion; full ones still something.
func TestPlaceIsBiased(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	disks := cluster(4)
	disks[0].Used = 0
	disks[1].Used = disks[1].Capacity / 2
	disks[2].Used, disks[2].Load = 0, 24
	disks[3].Used = disks[3].Capacity - 1
	p := parse(t, "1,0,1,1")[0]
	var got [5]int
	const rounds = 100000
	for range rounds {
		got[policy.Place(p, disks, nil, rng)[0]]++
	}
	for i, want := range []float64{1, 0.5, 0.25, 1.0 / 256} {
		share := float64(got[i+1]) / rounds * (1.75 + 1.0/256)
		if share < want*0.8 || share > want*1.2 {
			t.Errorf("disk %d: %.4f, not %.4f", i+1, share, want)
		}
	}
}

func TestPlaceIsAFunction(t *testing.T) {
	disks := cluster(3, 5, 2)
	p := parse(t, "4,2,5,3")[0]
	want := policy.Place(p, disks, nil, rand.New(rand.NewPCG(9, 9)))
	slices.Reverse(disks)
	if got := policy.Place(p, disks, nil, rand.New(rand.NewPCG(9, 9))); !slices.Equal(got, want) {
		t.Errorf("%v, then %v", want, got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("2,1,2,3")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := policy.Parse(s)
		if err != nil {
			return
		}
		if again, err := policy.Parse(p.String()); err != nil || again != p {
			t.Errorf("%q is %v, which is %v, %v", s, p, again, err)
		}
	})
}

func BenchmarkPlace(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	disks := cluster(10, 10, 10, 10, 10, 10, 10, 10)
	for b.Loop() {
		policy.Place(policy.Policy{K: 4, M: 2, C: 5, X: 2}, disks, nil, rng)
	}
}
