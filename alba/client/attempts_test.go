package client

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"openvstorage/alba/policy"
	"openvstorage/internal/chance"
)

// A fragment is late after twice what its disk usually takes, or the others took: at least
// a quarter of the client's patience, and at most the client's patience once k are stored.
func TestLateAfterModel(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct{ usual, kth, most, want time.Duration }{
		{0, 0, time.Second, time.Second},
		{10 * ms, 0, time.Second, time.Second},
		{3 * time.Second, 0, time.Second, 6 * time.Second}, // all may take their time
		{0, ms, time.Second, time.Second / leastShare},
		{10 * ms, 10 * ms, time.Second, time.Second / leastShare},
		{200 * ms, 10 * ms, time.Second, 400 * ms}, // this disk is no fast one
		{10 * ms, 300 * ms, time.Second, 600 * ms}, // nor are the others now
		{5 * time.Second, 10 * ms, time.Second, 1010 * ms},
		{10 * ms, 5 * time.Second, time.Second, 6 * time.Second},
		{0, ms, 1, ms + 1},
	} {
		if got := lateAfter(c.usual, c.kth, c.most); got != c.want {
			t.Errorf("usual %v, k stored after %v, patience %v: %v, not %v", c.usual, c.kth, c.most, got, c.want)
		}
	}
	for seed := range uint64(2000) { // whatever comes, a put waits no longer than it may
		r := rand.New(rand.NewPCG(seed, 101))
		usual, kth, most := time.Duration(r.Int64N(1e10)), 1+time.Duration(r.Int64N(1e10)), time.Duration(r.Int64N(1e10))
		if got := lateAfter(usual, kth, most); got > kth+most || got < min(most/leastShare, kth+most) {
			t.Fatalf("usual %v, k stored after %v, patience %v: %v", usual, kth, most, got)
		}
	}
}

// In whatever order fragments are taken from late disks, fail on spare ones and go back, no disk
// gets two and no node more than x.
func TestMovesKeepThePolicy(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 102))
		p := policy.Policy{K: 2, M: 2, C: 3, X: uint8(1 + r.IntN(3))}
		var disks []policy.Disk
		node := make(map[uint64]string)
		for i := range 4 + r.IntN(8) {
			d := policy.Disk{OSD: uint64(1 + i), Node: fmt.Sprint("node", r.IntN(4)), Capacity: 1 << 30, Failing: r.IntN(5) == 0}
			disks = append(disks, d)
			node[d.OSD] = d.Node
		}
		places := policy.Place(p, disks, nil, chance.Chance{})
		s := newSpares(p, disks, places)
		before := make([][]uint64, len(places)) // where each fragment has been
		for range 20 {
			i := r.IntN(len(places))
			if places[i] == policy.None {
				continue
			}
			switch was := places[i]; r.IntN(3) {
			case 0:
				places[i] = s.take(i)
				before[i] = append(before[i], was)
			case 1:
				if n := s.move(i); n != policy.None {
					places[i] = n
					before[i] = append(before[i], was)
				}
			case 2:
				if len(before[i]) == 0 {
					continue
				}
				if n := before[i][r.IntN(len(before[i]))]; s.back(i, n) {
					places[i] = n
				}
			}
			seen, perNode := make(map[uint64]bool), make(map[string]int)
			for _, n := range places {
				if n == policy.None {
					continue
				}
				if seen[n] {
					t.Fatalf("seed %d: disk %d twice: %v", seed, n, places)
				}
				seen[n] = true
				if perNode[node[n]]++; perNode[node[n]] > int(p.X) {
					t.Fatalf("seed %d: %d on one node, policy %v: %v", seed, perNode[node[n]], p, places)
				}
			}
		}
	}
}
