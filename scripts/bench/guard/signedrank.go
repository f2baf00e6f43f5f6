package guard

import (
	"cmp"
	"math"
	"slices"
)

// tail is the error that an interval may make at each of its ends: together
// the two leave 90 %.
const tail = 0.05

// Interval is where a ratio lies: the middle of what was seen, and two ends. Chance
// puts the truth beyond each end at most once in twenty times.
type Interval struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// interval finds the interval of the ratios of pairs. If there are fewer than MinPairs,
// there is none, and ok is false.
//
// It is the exact interval of Wilcoxon's signed-rank test, over the logarithms. The
// logarithm of a ratio is the difference of two measurements that are disturbed in the
// same way. So it lies symmetrically around the truth, whatever disturbs them, and the
// test assumes no more than that. Other methods do worse with five to twenty pairs of a
// shared machine:
//
//   - Student's t assumes a normal distribution. One run that lost its CPU for half a
//     second makes its interval so wide that it says nothing; here such a run is one
//     rank.
//   - A bootstrap draws again from the pairs that there are, and five pairs do not hold
//     the tails: what it calls 90 % is 75-80 %.
//   - The sign test assumes still less, but with ten pairs its interval is a quarter
//     wider, and with five it is the same.
func interval(ratios []float64) (i Interval, ok bool) {
	logs := logs(ratios)
	cut := ranksCut(len(logs))
	if cut == 0 {
		return Interval{}, false
	}
	// The means of every two, and of each with itself: the ends of the interval
	// are so many of them away from the outermost.
	var means []float64
	for a := range logs {
		for b := range a + 1 {
			means = append(means, (logs[a]+logs[b])/2)
		}
	}
	slices.Sort(means)
	return Interval{
		Median: math.Exp(median(logs)),
		Low:    math.Exp(means[cut-1]),
		High:   math.Exp(means[len(means)-cut]),
	}, true
}

// ranksCut says which mean from the outside is the end of an interval of n
// ratios, the outermost being 1; 0 if n is too small for an interval.
func ranksCut(n int) int {
	cut, sum := 0, 0.0
	for _, p := range rankSums(n) {
		if sum += p; sum > tail {
			break
		}
		cut++
	}
	return cut
}

// rankSums returns the probability of each sum of ranks. If the truth were a given
// ratio, each of the ranks 1..n would be above or below it with equal chance. The sum
// of the ranks above it is w with probability p[w].
func rankSums(n int) []float64 {
	p := make([]float64, n*(n+1)/2+1)
	p[0] = 1
	for rank := 1; rank <= n; rank++ {
		for w := len(p) - 1; w >= 0; w-- {
			p[w] /= 2
			if w >= rank {
				p[w] += p[w-rank] / 2
			}
		}
	}
	return p
}

// chance is how probable ratios as small as these are, or smaller ones, if both
// builds are equally fast: the same test, one-sided.
func chance(ratios []float64) float64 {
	logs := logs(ratios)
	// Of two that are equally far from 1 the better one gets the higher rank: it
	// takes more to be an alarm.
	slices.SortFunc(logs, func(a, b float64) int {
		return cmp.Or(cmp.Compare(math.Abs(a), math.Abs(b)), cmp.Compare(a, b))
	})
	above := 0
	for i, x := range logs {
		if x >= 0 {
			above += i + 1
		}
	}
	sum := 0.0
	for _, p := range rankSums(len(logs))[:above+1] {
		sum += p
	}
	return sum
}

func logs(ratios []float64) []float64 {
	l := make([]float64, len(ratios))
	for i, r := range ratios {
		l[i] = math.Log(r)
	}
	return l
}

// median of xs, which it does not change; NaN if there are none.
func median(xs []float64) float64 {
	s := slices.Sorted(slices.Values(xs))
	switch n := len(s); {
	case n == 0:
		return math.NaN()
	case n%2 == 0:
		return (s[n/2-1] + s[n/2]) / 2
	default:
		return s[n/2]
	}
}
