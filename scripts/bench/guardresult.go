package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"openvstorage/scripts/bench/guard"
)

// guardResult is what is printed, and written as JSON.
type guardResult struct {
	When      time.Time       `json:"when"`
	Base      build           `json:"base"`
	New       build           `json:"new"`
	FUSERing  string          `json:"fuse_enable_uring"`
	Busy      float64         `json:"busy_before"` // share of the CPUs in use before the start
	Steal     float64         `json:"steal"`       // share of the time
	Seconds   float64         `json:"seconds"`
	Measured  int             `json:"measured_pairs"`
	Disturbed int             `json:"disturbed_pairs"` // do not count: something else was running
	Outcome   guard.Outcome   `json:"outcome"`
	Figures   []*guard.Series `json:"figures"`
}

// build builds both programs.
func (r *guardResult) build(ctx context.Context, base, dir string) error {
	repo, err := git(ctx, ".", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	if r.Base, err = buildBase(ctx, repo, base, dir); err != nil {
		return err
	}
	r.New, err = buildPresent(ctx, repo, dir)
	return err
}

func (r *guardResult) printHead(out io.Writer, without string, others float64) {
	fmt.Fprintf(out, "; FUSE's enable_uring %s; %.0f %% of the CPUs busy before the start\n", r.FUSERing, 100*r.Busy)
	fmt.Fprintf(out, "base: %v\nnew:  %v\n", r.Base, r.New)
	if equal, err := same(r.Base.bin, r.New.bin); err == nil && equal {
		fmt.Fprintln(out, "The two programs are the same, byte for byte: what differs is noise.")
	}
	if without != "" {
		fmt.Fprintln(out, "left out:", without)
	}
	if r.Busy > others {
		fmt.Fprintln(out, "WARNING: something else is running here; pairs that it disturbs do not count")
	}
}

// finish prints and writes what was found.
func (r *guardResult) finish(out io.Writer, file string, jobs []*guard.Job) error {
	r.Figures = byFigure(jobs)
	fmt.Fprintf(out, "\n%.0f s; %.1f %% of the time stolen; %d pairs, and %d that do not count, as something else was running\n",
		r.Seconds, 100*r.Steal, r.Measured, r.Disturbed)
	fmt.Fprint(out, "The ratio is one of speeds, over 1 is faster: new over base, and base over new for what costs.\n\n")
	guard.Print(out, r.Figures)
	fmt.Fprintln(out)
	r.Outcome = guard.Summary(out, r.Figures, r.Measured, r.Disturbed)
	if file == "" {
		return nil
	}
	p, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(p, '\n'), 0o644)
}

// byFigure puts the settings of a figure beside each other.
func byFigure(jobs []*guard.Job) []*guard.Series {
	var all []*guard.Series
	place := map[string]int{}
	for _, j := range jobs {
		for _, s := range j.Series {
			if _, ok := place[s.Name]; !ok {
				place[s.Name] = len(place)
			}
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b *guard.Series) int { return place[a.Name] - place[b.Name] })
	return all
}
