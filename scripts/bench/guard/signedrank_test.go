package guard

import (
	"math"
	"math/rand/v2"
	"testing"
)

// From the tables of the test: the largest sum of ranks that is significant at 5 %,
// one-sided, and that sum plus one.
func TestCutIsThatOfTheTables(t *testing.T) {
	for n, want := range map[int]int{
		1: 0, 2: 0, 3: 0, 4: 0, 5: 1, 6: 3, 7: 4, 8: 6, 9: 9, 10: 11, 12: 18, 15: 31, 20: 61, 25: 101,
	} {
		if got := ranksCut(n); got != want {
			t.Errorf("%d pairs: %d, want %d", n, got, want)
		}
	}
	if ranksCut(MinPairs) == 0 || ranksCut(MinPairs-1) != 0 {
		t.Errorf("MinPairs is %d", MinPairs)
	}
}

func TestInterval(t *testing.T) {
	for _, tt := range []struct {
		name   string
		ratios []float64
		want   Interval
		none   bool
	}{
		{name: "nothing", none: true},
		{name: "four", ratios: []float64{1, 1, 1, 1}, none: true},
		{name: "five are all there is", ratios: []float64{0.9, 1.1, 1, 0.95, 1.05}, want: Interval{Median: 1, Low: 0.9, High: 1.1}},
		{name: "an outlier of eight is one rank", ratios: []float64{1, 1, 1, 1, 1, 1, 1, 0.01}, want: Interval{Median: 1, Low: 0.1, High: 1}},
		{name: "and of ten it is nothing", ratios: []float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 0.01}, want: Interval{Median: 1, Low: 1, High: 1}},
	} {
		got, ok := interval(tt.ratios)
		if ok == tt.none || math.Abs(got.Low-tt.want.Low)+math.Abs(got.High-tt.want.High)+math.Abs(got.Median-tt.want.Median) > 1e-9 {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, got, ok, tt.want)
		}
	}
}

// tooLow is the model. It counts, of all the ways in which the signs of the distances
// could have fallen, those that put the sum of the ranks above a ratio as low as it is,
// or lower.
func tooLow(ratios []float64, truth float64) float64 {
	n := len(ratios)
	distance := make([]float64, n)
	rank := make([]int, n)
	for i, r := range ratios {
		distance[i] = math.Log(r / truth)
	}
	sum := 0
	for i, d := range distance {
		rank[i] = 1
		for _, e := range distance {
			if math.Abs(e) < math.Abs(d) {
				rank[i]++
			}
		}
		if d >= 0 {
			sum += rank[i]
		}
	}
	low := 0
	for signs := range 1 << n {
		s := 0
		for i := range n {
			if signs>>i&1 == 1 {
				s += rank[i]
			}
		}
		if s <= sum {
			low++
		}
	}
	return float64(low) / float64(int(1)<<n)
}

func TestIntervalAndChanceAreThoseOfTheModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	const hair = 1e-6
	for range 200 {
		ratios := make([]float64, MinPairs+random.IntN(7))
		inverse := make([]float64, len(ratios))
		for i := range ratios {
			ratios[i] = math.Exp(0.1 * random.NormFloat64())
			inverse[i] = 1 / ratios[i]
		}
		if got, want := chance(ratios), tooLow(ratios, 1); math.Abs(got-want) > 1e-12 {
			t.Fatalf("chance of %v is %v, want %v", ratios, got, want)
		}
		i, ok := interval(ratios)
		if !ok {
			t.Fatal("no interval")
		}
		// What lies within an end is not refuted, and what lies beyond it is.
		for _, end := range []struct {
			ratios         []float64
			inside, beyond float64
		}{
			{ratios, i.High * (1 - hair), i.High * (1 + hair)},
			{inverse, 1 / i.Low * (1 - hair), 1 / i.Low * (1 + hair)},
		} {
			if p := tooLow(end.ratios, end.inside); p <= tail {
				t.Errorf("%v: %v is in %+v and refuted (%v)", end.ratios, end.inside, i, p)
			}
			if p := tooLow(end.ratios, end.beyond); p > tail {
				t.Errorf("%v: %v is not in %+v and not refuted (%v)", end.ratios, end.beyond, i, p)
			}
		}
	}
}

// Whatever disturbs the runs of both sides alike, the truth is in the interval
// as often as it says.
func TestIntervalHoldsTheTruth(t *testing.T) {
	noises := map[string]func(r *rand.Rand) float64{
		"a bell":             func(r *rand.Rand) float64 { return 0.05 * r.NormFloat64() },
		"a run of ten fails": func(r *rand.Rand) float64 { return 0.02*r.NormFloat64() - float64(r.IntN(10)/9) },
		"two modes":          func(r *rand.Rand) float64 { return 0.4*float64(r.IntN(2)) + 0.02*r.NormFloat64() },
		"a long tail":        func(r *rand.Rand) float64 { return -0.05 * r.ExpFloat64() },
	}
	const truth, tries = 0.9, 4000
	for name, noise := range noises {
		for _, n := range []int{5, 8, 12} {
			random := rand.New(rand.NewPCG(2, uint64(n)))
			held := 0
			for range tries {
				ratios := make([]float64, n)
				for i := range ratios {
					ratios[i] = truth * math.Exp(noise(random)-noise(random))
				}
				if i, ok := interval(ratios); ok && i.Low <= truth && truth <= i.High {
					held++
				}
			}
			// 90 % is the least: the test is in steps, and five pairs have the step 94 %.
			if share := float64(held) / tries; share < 0.885 {
				t.Errorf("%s, %d pairs: %.3f hold the truth", name, n, share)
			}
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		xs   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{30, 10, 20}, 20}, {[]float64{4, 1}, 2.5}} {
		if got := median(tt.xs); got != tt.want {
			t.Errorf("%v: %v", tt.xs, got)
		}
	}
	if !math.IsNaN(median(nil)) {
		t.Error("there is a median of nothing")
	}
}
