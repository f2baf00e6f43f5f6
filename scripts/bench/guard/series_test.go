package guard

import (
	"errors"
	"slices"
	"testing"
)

// series has pairs of these ratios.
func series(ratios ...float64) *Series {
	s := &Series{Figure: Figure{Name: "a", Unit: "kIOPS", Setting: "0"}, alarm: FalseAlarm / 30}
	for _, r := range ratios {
		s.Pairs = append(s.Pairs, Pair{Base: 50, New: 50 * r})
	}
	return s
}

// times repeats ratios.
func times(n int, ratios ...float64) []float64 { return slices.Repeat(ratios, n) }

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		name   string
		ratios []float64
		want   Verdict
	}{
		{"nothing", nil, TooFew},
		{"four that agree", times(4, 0.5), TooFew},
		{"five that agree", times(5, 1), OK},
		{"a little slower", times(5, 0.951), OK},
		{"five are no alarm among thirty, whatever they are", times(5, 0.5), Doubtful},
		{"nor are eleven", times(11, 0.5), Doubtful},
		{"twelve are", times(12, 0.5), Worse},
		{"by 6 %", times(12, 0.94), Worse},
		{"by 4 % is certain, and allowed", times(12, 0.96), OK},
		{"worse and better", times(4, 0.5, 0.94, 1.2), Doubtful},
		{"a low end that one could not see", []float64{0.7, 1, 1, 1, 1}, TooNoisy},
		{"a low end that one could", []float64{0.85, 1, 1, 1, 1}, NoSign},
		{"the outlier was one", append([]float64{0.7}, times(11, 1)...), OK},
		{"better", times(5, 2), OK},
	} {
		if got := series(tt.ratios...).Verdict(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	failed := series(times(11, 1)...)
	if failed.Err = errors.New("it hangs"); failed.Verdict() != Failed {
		t.Errorf("what could not be measured is %s", failed.Verdict())
	}
}

// Of what costs, more is worse.
func TestVerdictOfACost(t *testing.T) {
	more, less := series(times(12, 1.1)...), series(times(12, 0.9)...)
	more.Cost, less.Cost = true, true
	if more.Verdict() != Worse || less.Verdict() != OK {
		t.Errorf("a tenth more is %s, a tenth less is %s", more.Verdict(), less.Verdict())
	}
}

// What is beyond doubt depends on how many figures there are, and on how many of them
// look bad.
func TestAssess(t *testing.T) {
	for _, tt := range []struct {
		name        string
		bad, pairs  int // so many figures, with so many pairs that agree
		good        int
		beyondDoubt bool
	}{
		{"alone, six", 1, 6, 0, false},
		{"alone, seven", 1, 7, 0, true},
		{"one of thirty, eleven", 1, 11, 29, false},
		{"one of thirty, twelve", 1, 12, 29, true},
		{"five of thirty, nine", 5, 9, 25, false},
		{"five of thirty, ten", 5, 10, 25, true},
		{"all thirty, six", 30, 6, 0, false},
		{"all thirty, seven", 30, 7, 0, true},
	} {
		var all []*Series
		for range tt.bad {
			all = append(all, series(times(tt.pairs, 0.9)...))
		}
		for range tt.good {
			all = append(all, series(times(tt.pairs, 1)...))
		}
		if assess(all); (all[0].Verdict() == Worse) != tt.beyondDoubt {
			t.Errorf("%s: %s", tt.name, all[0].Verdict())
		}
	}
}

func TestJudge(t *testing.T) {
	ok, worse, doubtful := series(times(5, 1)...), series(times(12, 0.8)...), series(times(5, 0.8)...)
	noSign, noisy, few := series(0.85, 1, 1, 1, 1), series(0.5, 1, 1, 1, 1), series()
	failed := series()
	failed.Err = errors.New("it hangs")
	for _, tt := range []struct {
		all  []*Series
		want Outcome
	}{
		{[]*Series{ok, noSign}, Passed},
		{[]*Series{ok, doubtful}, Undecided},
		{[]*Series{noisy, ok}, Undecided},
		{[]*Series{few, ok}, Undecided},
		{[]*Series{doubtful, worse}, Worsened},
		{[]*Series{ok, failed}, Worsened},
		{nil, Undecided},
	} {
		if got := Judge(tt.all); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
}
