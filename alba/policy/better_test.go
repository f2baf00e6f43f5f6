package policy_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"openvstorage/alba/policy"
)

func TestBetter(t *testing.T) {
	list := []string{"4,2,5,1", "2,1,2,1", "1,1,1,2"}
	for _, c := range []struct {
		is    string
		nodes []int
		index int // -1: none
	}{
		{"1,1,1,2", []int{1, 1, 1, 1, 1, 1}, 0},
		{"1,1,1,2", []int{1, 1, 1, 1, 1}, 1}, // five of six fragments: 4,2 would be narrow
		{"1,1,1,2", []int{1, 1, 1}, 1},
		{"1,1,1,2", []int{1, 1}, -1},
		{"2,1,2,1", []int{1, 1, 1, 1, 1, 1}, 0},
		{"2,1,2,1", []int{1, 1, 1, 1, 1}, -1},
		{"4,2,5,1", []int{1, 1, 1}, -1}, // it was stored when there were more
		{"8,2,9,1", []int{1, 1, 1}, 1},  // the preset has changed
		{"8,2,9,1", []int{1}, -1},
		{"8,2,9,1", nil, -1},
	} {
		index, better := policy.Better(parse(t, list...), parse(t, c.is)[0], cluster(c.nodes...))
		if better != (c.index >= 0) || better && index != c.index {
			t.Errorf("%s on %v: %d, %v", c.is, c.nodes, index, better)
		}
	}
	if _, better := policy.Better(nil, policy.Default, cluster(3)); better {
		t.Error("no list has a better policy")
	}
}

// Disks come and go at random, and an object is stored anew whenever that is better: it
// never goes back to what it was, and is never made narrow.
func TestBetterEnds(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 3))
	for round := range 500 {
		var list []policy.Policy
		for range 1 + rng.IntN(5) {
			p := policy.Policy{K: uint8(1 + rng.IntN(5)), M: uint8(rng.IntN(4)), X: uint8(1 + rng.IntN(3))}
			if p.C = p.K; !slices.Contains(list, p) {
				list = append(list, p)
			}
		}
		disks := cluster(1+rng.IntN(4), rng.IntN(4), rng.IntN(4))
		is, at := policy.Policy{K: 6, M: 1, C: 6, X: 9}, len(list)
		for range 40 {
			for i := range disks {
				disks[i].Failing = rng.IntN(3) == 0
			}
			i, better := policy.Better(list, is, disks)
			if !better {
				continue
			}
			if i >= at {
				t.Fatalf("round %d: from %d to %d of %v", round, at, i, list)
			}
			is, at = list[i], i
			if got := count(policy.Place(is, disks, nil, rng)); got != is.Width() {
				t.Fatalf("round %d: %v has %d fragments", round, is, got)
			}
		}
	}
}
