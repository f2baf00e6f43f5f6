package guard

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
)

const line = "%-44s %-8s %-6s %10s %10s %7s  %-15s %6v  %s\n"

// Print prints a table of all figures.
func Print(w io.Writer, all []*Series) {
	fmt.Fprintf(w, line, "figure", "haltpoll", "unit", "base", "new", "ratio", "90 % interval", "pairs", "")
	for _, s := range all {
		var base, now, ratio, between string
		if len(s.Pairs) > 0 {
			b, n := medians(s.Pairs)
			base, now, ratio = number(b), number(n), fmt.Sprintf("%.3f", s.Ratio())
		}
		if i, ok := s.Interval(); ok {
			between = fmt.Sprintf("[%.3f..%.3f]", i.Low, i.High)
		}
		verdict := string(s.Verdict())
		if s.Err != nil {
			first, _, _ := strings.Cut(s.Err.Error(), "\n")
			verdict += ": " + first
		}
		fmt.Fprintf(w, line, s.Name, s.Setting, s.Unit, base, now, ratio, between, len(s.Pairs), verdict)
	}
}

// Summary writes the result of a run: which figures are to blame, and what to do about
// those that are undecided. measured is how many pairs were measured, disturbed how
// many more were discarded.
func Summary(w io.Writer, all []*Series, measured, disturbed int) Outcome {
	by := map[Verdict][]string{}
	for _, s := range all {
		text := s.Name + " (" + s.Setting + ")"
		if i, ok := s.Interval(); ok {
			text += fmt.Sprintf(" %.3f [%.3f..%.3f]", i.Median, i.Low, i.High)
		}
		by[s.Verdict()] = append(by[s.Verdict()], text)
	}
	outcome := Judge(all)
	fmt.Fprintf(w, "%s: %d figures", strings.ToUpper(string(outcome)), len(all))
	for _, v := range []Verdict{OK, NoSign, Worse, Failed, Doubtful, TooNoisy, TooFew} {
		if n := len(by[v]); n > 0 {
			fmt.Fprintf(w, ", %d %s", n, v)
		}
	}
	fmt.Fprintln(w)
	for _, v := range []Verdict{Worse, Failed, Doubtful, TooNoisy} {
		for _, text := range by[v] {
			fmt.Fprintf(w, "  %s: %s\n", v, text)
		}
	}
	if disturbed > measured {
		fmt.Fprintln(w, "Something else was running most of the time. Try again when the machine is quiet.")
	} else if names := openNames(all); names != "" {
		fmt.Fprintf(w, "There was not enough time for some, or too much noise. They get all of the time with FIGURES='%s'\n", names)
	}
	return outcome
}

// openNames is a regular expression for the figures that are undecided; "" if all of them are.
func openNames(all []*Series) string {
	var names []string
	open, others := map[string]bool{}, false
	for _, s := range all {
		switch s.Verdict() {
		case Doubtful, TooNoisy, TooFew:
			if !open[s.Name] {
				open[s.Name] = true
				names = append(names, regexp.QuoteMeta(s.Name))
			}
		}
	}
	for _, s := range all {
		others = others || !open[s.Name]
	}
	if len(names) == 0 || !others {
		return ""
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

// medians of both builds.
func medians(pairs []Pair) (base, now float64) {
	var bs, ns []float64
	for _, p := range pairs {
		bs, ns = append(bs, p.Base), append(ns, p.New)
	}
	return median(bs), median(ns)
}

// number prints three digits.
func number(x float64) string {
	switch a := math.Abs(x); {
	case a >= 100:
		return fmt.Sprintf("%.0f", x)
	case a >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// MarshalJSON writes the pairs with what they were judged to be.
func (s *Series) MarshalJSON() ([]byte, error) {
	v := struct {
		Figure
		Pairs   []Pair    `json:"pairs"`
		Ratio   *Interval `json:"ratio,omitempty"`
		Verdict Verdict   `json:"verdict"`
		Error   string    `json:"error,omitempty"`
	}{Figure: s.Figure, Pairs: s.Pairs, Verdict: s.Verdict()}
	if i, ok := s.Interval(); ok {
		v.Ratio = &i
	}
	if s.Err != nil {
		v.Error = s.Err.Error()
	}
	return json.Marshal(v)
}
