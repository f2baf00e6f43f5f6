// Package guard says whether one build is slower than another, from pairs of measurements of both on a
// noisy machine. A Bench measures. The package decides what is measured next, how often, and what the
// figures mean.
package guard

import (
	"math"
	"slices"
)

// Of the rule. The ratio is one of speeds: over 1 the new build is faster.
const (
	// Limit is the ratio under which a figure is worse than it may be.
	Limit = 0.95
	// Blind is the ratio down to which the interval of a figure must not reach. If it
	// does, a loss of that size could be there and not be seen.
	Blind = 0.8
	// MinPairs is how many pairs an interval needs. With four pairs, chance alone puts
	// all on one side of the truth once in sixteen times.
	MinPairs = 5
	// FalseAlarm is how often a run of equal builds may call a figure worse.
	FalseAlarm = 0.01
)

// Pair is a figure of both builds, measured one right after the other.
type Pair struct {
	Base float64 `json:"base"`
	New  float64 `json:"new"`
	// Others is the share of the CPUs that something else used meanwhile, in the
	// worse of the two runs. It is for people who read the file.
	Others float64 `json:"others"`
}

// Figure is what is measured, under one setting of the machine.
type Figure struct {
	Name    string `json:"name"`
	Unit    string `json:"unit"`
	Setting string `json:"setting"`
	Cost    bool   `json:"cost,omitempty"` // less of it is better
}

// Verdict is what the pairs of a figure say.
type Verdict string

// The verdicts. See Series.Verdict for the rule.
const (
	OK       Verdict = "ok"            // not worse by 5 %, with certainty
	NoSign   Verdict = "no sign"       // it does not look worse, but might be by a little over 5 %
	Worse    Verdict = "WORSE"         // by 5 % or more, and that is not noise
	Doubtful Verdict = "doubtful"      // it looks worse by 5 % or more; it may be noise
	TooNoisy Verdict = "too noisy"     // it does not look worse, but a fifth could be missing
	TooFew   Verdict = "too few pairs" // no interval
	Failed   Verdict = "FAILED"        // it could not be measured
)

// Series is a figure and the pairs that were measured of it.
type Series struct {
	Figure
	Pairs []Pair
	Err   error // why it could not be measured

	// alarm is how small a chance must be to be an alarm; assess sets it.
	alarm float64
}

// ratios of speeds, new over base.
func (s *Series) ratios() []float64 {
	r := make([]float64, len(s.Pairs))
	for i, p := range s.Pairs {
		if r[i] = p.New / p.Base; s.Cost {
			r[i] = p.Base / p.New
		}
	}
	return r
}

// Interval is where the ratio lies, if there are enough pairs to say.
func (s *Series) Interval() (Interval, bool) { return interval(s.ratios()) }

// Ratio is the median of the pairs' ratios. If two are in the middle it is their
// geometric mean, as in the interval.
func (s *Series) Ratio() float64 { return math.Exp(median(logs(s.ratios()))) }

// Verdict is what is known of the figure now.
//
// A figure is worse if its median lies under the limit and it is slower beyond doubt. What is beyond doubt
// depends on the other figures: see assess. The whole interval need not lie under the limit. If it had to,
// a loss of 7 % would be doubtful for ever, as an interval that narrow takes more pairs than there is time
// for.
func (s *Series) Verdict() Verdict {
	if s.Err != nil {
		return Failed
	}
	i, ok := s.Interval()
	switch {
	case !ok:
		return TooFew
	case i.Median < Limit && chance(s.ratios()) <= s.alarm:
		return Worse
	case i.Median < Limit:
		return Doubtful
	case i.Low >= Limit:
		return OK
	case i.Low >= Blind:
		return NoSign
	}
	return TooNoisy
}

// assess decides which figures are worse beyond doubt. Among thirty figures of equal
// builds one or two lie below their interval by chance, and people look at the worst
// one. So assess sorts the figures, the least probable first. The k-th must be less
// probable than k parts of FalseAlarm, which all figures share (the procedure of
// Benjamini and Hochberg). One figure that alone is worse among thirty then needs
// twelve pairs, whatever its values. If all are worse, seven pairs of each are enough;
// there would be no time for more.
//
// Equal builds raise an alarm in the share FalseAlarm of the runs. Figures that are
// measured with the same servers err together; that does not raise the share.
func assess(all []*Series) {
	var chances []float64
	for _, s := range all {
		chances = append(chances, chance(s.ratios()))
	}
	slices.Sort(chances)
	part := FalseAlarm / float64(len(all))
	alarm := part
	for i, c := range chances {
		if most := part * float64(i+1); c <= most {
			alarm = most
		}
	}
	for _, s := range all {
		s.alarm = alarm
	}
}

// settled reports whether more pairs would change nothing.
func (s *Series) settled() bool {
	switch s.Verdict() {
	case OK, Worse, Failed:
		return true
	}
	return false
}

// Outcome is what a whole run says.
type Outcome string

// The outcomes. If the time is up and a figure is still doubtful or too noisy, it was seen neither to be
// worse nor to be right. To let it pass would make the guard worthless, and to call it worse would be a
// false alarm. So it has an outcome of its own, which is no success. A run that measures only those figures
// can decide them, as they then have all of the time.
const (
	Passed    Outcome = "passed"
	Undecided Outcome = "undecided"
	Worsened  Outcome = "failed"
)

// Judge is the outcome of all figures.
func Judge(all []*Series) Outcome {
	assess(all)
	outcome := Passed
	if len(all) == 0 {
		outcome = Undecided
	}
	for _, s := range all {
		switch s.Verdict() {
		case Worse, Failed:
			return Worsened
		case Doubtful, TooNoisy, TooFew:
			outcome = Undecided
		}
	}
	return outcome
}
