package main

import (
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		runs []float64
		want float64
		text string
	}{
		{[]float64{3}, 3, "3.00"},
		{[]float64{30, 10, 20}, 20, "20.0 [10.0..30.0]"},
		{[]float64{400, 100}, 250, "250 [100..400]"},
	} {
		f := figures{Runs: tt.runs}
		if f.median() != tt.want || f.String() != tt.text {
			t.Errorf("%v: %v, %q; want %v, %q", tt.runs, f.median(), f, tt.want, tt.text)
		}
	}
}

func TestJudge(t *testing.T) {
	yes, no := true, false
	of := func(x float64) figures { return figures{Runs: []float64{x}} }
	peer := of(100)
	for _, tt := range []struct {
		name string
		row  row
		want *bool
	}{
		{"at the bar", row{Ours: of(80), Peer: &peer, Least: 0.8}, &yes},
		{"below it", row{Ours: of(79), Peer: &peer, Least: 0.8}, &no},
		{"no bar", row{Ours: of(79), Peer: &peer}, nil},
		{"at the limit", row{Ours: of(8), Most: 8}, &yes},
		{"above it", row{Ours: of(8.1), Most: 8}, &no},
		{"did not run", row{Most: 8}, nil},
		{"judged already", row{Ours: of(1), Peer: &peer, Passed: &no}, &no},
	} {
		tt.row.judge()
		if got := tt.row.Passed; (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestTableSaysMiss(t *testing.T) {
	var out strings.Builder
	r := &result{}
	peer := figures{Name: nbdkitMemory, Runs: []float64{100}}
	r.add(&out, row{Case: "a", Unit: "kIOPS", Ours: figures{Runs: []float64{50}}, Peer: &peer, Least: 0.8})
	r.printFoot(&out)
	for _, want := range []string{"MISS", ">=0.8", "0.50", nbdkitMemory, "0 passed, 1 missed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
