package client

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"openvstorage/alba/fleet"
)

// A budget never pays for more than a twentieth of what was asked and what was saved up, keeps
// half of that for reads that are very late, and saves up no more than its bound.
func TestBudgetModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 91))
		var b budget
		left := 100 * hedgeMost // the model
		asked, paid := 0, 0
		for range 5000 {
			if r.IntN(4) > 0 {
				n := 1 + r.IntN(3)
				b.asked(n)
				asked += n
				left = min(left+hedgeShare*n, 100*hedgeMost)
				continue
			}
			n, veryLate := 1+r.IntN(8), r.IntN(2) == 0
			keep := 100 * hedgeMost / 2
			if veryLate {
				keep = 0
			}
			want := left-100*n >= keep
			if got := b.take(n, veryLate); got != want {
				t.Fatalf("seed %d: with %d left, %d reads (very late: %v) are paid for: %v", seed, left, n, veryLate, got)
			}
			if want {
				left -= 100 * n
				paid += n
			}
		}
		if 100*paid > hedgeShare*asked+100*hedgeMost {
			t.Fatalf("seed %d: %d reads of hedges beside %d", seed, paid, asked)
		}
	}
}

// Callers side by side get no more than one of them would.
func TestBudgetSideBySide(t *testing.T) {
	var b budget
	var all sync.WaitGroup
	var paid [4]int
	for i := range paid {
		all.Go(func() {
			for range 20_000 {
				b.asked(1)
				if b.take(1, true) {
					paid[i]++
				}
			}
		})
	}
	all.Wait()
	sum := paid[0] + paid[1] + paid[2] + paid[3]
	if most := 4*20_000*hedgeShare/100 + hedgeMost; sum > most || sum < most/2 {
		t.Errorf("%d hedges, at most %d may be", sum, most)
	}
}

// A read waits, and then asks others: as soon as somebody pays for it once its patience is over,
// and after a second at the latest.
func TestHedgeNowModel(t *testing.T) {
	for _, patience := range []time.Duration{2 * time.Millisecond, 70 * time.Millisecond, time.Second} {
		for _, pays := range []int{0, 1, 2, 5, 1 << 30} { // at which look somebody pays
			at, looks, asked := patience, 0, false
			for !asked {
				paid := looks >= pays
				ask, wait := hedgeNow(at, patience, paid)
				if !ask && (wait <= 0 || wait > patience) {
					t.Fatalf("patience %v: after %v it looks again in %v", patience, at, wait)
				}
				if ask != (paid || at >= hedgeAnyway) {
					t.Fatalf("patience %v, paid %v: after %v it asks: %v", patience, paid, at, ask)
				}
				asked = ask
				at += wait
				looks++
			}
			if at > hedgeAnyway {
				t.Errorf("patience %v: it asks after %v", patience, at)
			}
		}
	}
}

// A disk is passed over only for k others that are better, and now and then it is asked all the
// same.
func TestPassOver(t *testing.T) {
	for _, own := range []standing{prompt, suspected, slow, silent} {
		for better := range 6 {
			for _, sample := range []bool{false, true} {
				want := (own == suspected || own == slow) && better >= 3 && !sample
				if got := passOver(own, better, 3, sample); got != want {
					t.Errorf("standing %d, %d better, sample %v: %v", own, better, sample, got)
				}
			}
		}
	}
}

// The order is one of whole lists: whatever comes first is as good as what comes after it in the
// first thing in which they differ.
func TestCandidatesModel(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 92))
		list := make([]candidate, 1+r.IntN(12))
		for i := range list {
			list[i] = candidate{fragment: i, standing: standing(r.IntN(4)), far: fleet.Distance(r.IntN(3)), pace: r.IntN(3), parity: i > len(list)/2}
		}
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		// The model: the best of each step, found by a number.
		weight := func(c candidate) int {
			n := ((int(c.standing)*10+int(c.far))*10 + c.pace) * 10
			if c.parity {
				n++
			}
			return n*100 + c.fragment
		}
		want := slices.Clone(list)
		for i := range want {
			for j := i + 1; j < len(want); j++ {
				if weight(want[j]) < weight(want[i]) {
					want[i], want[j] = want[j], want[i]
				}
			}
		}
		slices.SortFunc(list, compareCandidates)
		if !slices.Equal(list, want) {
			t.Fatalf("seed %d: %v, not %v", seed, list, want)
		}
	}
}
