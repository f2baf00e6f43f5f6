package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// figures is one contender's runs of a case.
type figures struct {
	Name   string    `json:"name"`
	Runs   []float64 `json:"runs"` // in order, in the case's unit
	P50us  float64   `json:"p50_us,omitempty"`
	P99us  float64   `json:"p99_us,omitempty"`
	Detail string    `json:"detail,omitempty"`
}

// median of the runs.
func (f figures) median() float64 {
	if len(f.Runs) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(f.Runs))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// String is "median [least..most]".
func (f figures) String() string {
	if len(f.Runs) == 0 {
		return ""
	}
	if len(f.Runs) == 1 {
		return number(f.Runs[0])
	}
	return fmt.Sprintf("%s [%s..%s]", number(f.median()), number(slices.Min(f.Runs)), number(slices.Max(f.Runs)))
}

// number prints three digits.
func number(x float64) string {
	switch {
	case math.Abs(x) >= 100:
		return fmt.Sprintf("%.0f", x)
	case math.Abs(x) >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// row is one line of the table: a figure of ours beside a peer's, or beside
// a limit.
type row struct {
	Case  string   `json:"case"`
	Unit  string   `json:"unit,omitempty"`
	Ours  figures  `json:"ours"`
	Peer  *figures `json:"peer,omitempty"`
	Least float64  `json:"least_ratio,omitempty"` // ours/peer must be at least this
	Most  float64  `json:"most,omitempty"`        // without a peer: ours must be at most this
	Note  string   `json:"note,omitempty"`

	Ratio  float64 `json:"ratio,omitempty"`
	Passed *bool   `json:"passed,omitempty"` // absent where there is no bar
}

// judge fills in ratio and verdict.
func (r *row) judge() {
	var passed bool
	switch {
	case len(r.Ours.Runs) == 0 || r.Passed != nil:
		return
	case r.Peer != nil && len(r.Peer.Runs) > 0:
		r.Ratio = r.Ours.median() / r.Peer.median()
		if r.Least == 0 {
			return
		}
		passed = r.Ratio >= r.Least
	case r.Most > 0:
		passed = r.Ours.median() <= r.Most
	default:
		return
	}
	r.Passed = &passed
}

// result is the whole bench.
type result struct {
	When     time.Time `json:"when"`
	HaltPoll string    `json:"guest_halt_poll_ns"`
	FUSERing string    `json:"fuse_enable_uring"`
	CPUs     int       `json:"cpus"`
	Busy     float64   `json:"busy_before"` // share of the CPUs in use before the start
	Steal    float64   `json:"steal"`       // share of the time
	Rounds   int       `json:"rounds"`
	Seconds  float64   `json:"seconds"`
	Quick    bool      `json:"quick,omitempty"`
	StandIn  bool      `json:"standin,omitempty"`
	Rows     []row     `json:"rows"`
}

func newResult(o options) *result {
	return &result{
		When: time.Now().UTC().Truncate(time.Second), HaltPoll: parameter(haltPollFile), FUSERing: parameter(fuseRingFile),
		CPUs: runtime.NumCPU(), Busy: idleBusy(),
		Rounds: o.rounds, Seconds: o.time.Seconds(), Quick: o.quick, StandIn: o.standIn,
	}
}

const tableLine = "%-34s %-10s %-22s %-22s %-22s %7s %7s  %-5s %s\n"

func (r *result) printHead(w io.Writer) {
	fmt.Fprintf(w, "%s, %d CPUs, guest_halt_poll_ns %s, FUSE's enable_uring %s, %d rounds of %g s, working set %d MiB, %.0f %% of the CPUs busy before the start\n",
		r.When.Format(time.RFC3339), r.CPUs, r.HaltPoll, r.FUSERing, r.Rounds, r.Seconds, int64(workingSet/mib), 100*r.Busy)
	if r.Busy > 0.1 {
		fmt.Fprintln(w, "WARNING: something else is running here; the figures are worth little")
	}
	if r.Quick || r.StandIn {
		fmt.Fprintln(w, "WARNING: -quick and -standin check the bench; they measure nothing")
	}
	fmt.Fprintf(w, "\n"+tableLine, "case", "unit", "ovs", "peer", "peer's figure", "ratio", "bar", "", "p50/p99 in us, ours and peer's; notes")
}

// add judges a row, prints it and keeps it.
func (r *result) add(w io.Writer, line row) {
	line.judge()
	r.Rows = append(r.Rows, line)
	var peer, theirs, ratio, bar, verdict string
	if line.Peer != nil {
		peer, theirs = line.Peer.Name, line.Peer.String()
	}
	if line.Ratio != 0 {
		ratio = number(line.Ratio)
	}
	switch {
	case line.Least > 0:
		bar = fmt.Sprintf(">=%g", line.Least)
	case line.Most > 0:
		bar = fmt.Sprintf("<=%g", line.Most)
	}
	if line.Passed != nil {
		verdict = map[bool]string{true: "pass", false: "MISS"}[*line.Passed]
	}
	fmt.Fprintf(w, tableLine, line.Case, line.Unit, line.Ours, peer, theirs, ratio, bar, verdict, line.notes())
}

func (r row) notes() string {
	var parts []string
	latency := func(f figures) string { return fmt.Sprintf("%.0f/%.0f", f.P50us, f.P99us) }
	if r.Ours.P50us > 0 {
		text := latency(r.Ours)
		if r.Peer != nil && r.Peer.P50us > 0 {
			text += " " + latency(*r.Peer)
		}
		parts = append(parts, text)
	}
	for _, text := range []string{r.Ours.Detail, r.Note} {
		if text != "" {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, "; ")
}

func (r *result) printFoot(w io.Writer) {
	var passed, missed int
	for _, line := range r.Rows {
		switch {
		case line.Passed == nil:
		case *line.Passed:
			passed++
		default:
			missed++
		}
	}
	fmt.Fprintf(w, "\n%d passed, %d missed; %.2f %% of the time was stolen\n", passed, missed, 100*r.Steal)
}

func (r *result) write(name string) error {
	if name == "" {
		return nil
	}
	p, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(p, '\n'), 0o644)
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
