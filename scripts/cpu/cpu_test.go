package cpu

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	got, err := parse("cpu  1 2 3 1000 500 4 5 60 1 1\ncpu0 9 9 9 9 9 9 9 9 9 9\n")
	want := Times{Busy: 15 * Tick, Stolen: 60 * Tick, Total: 1575 * Tick}
	if err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if since := got.Sub(Times{Busy: 5 * Tick, Stolen: 10 * Tick, Total: 75 * Tick}); since != (Times{10 * Tick, 50 * Tick, 1500 * Tick}) {
		t.Errorf("%+v", since)
	}
	for _, bad := range []string{"", "intr 1 2 3 4 5 6 7 8 9", "cpu 1 2 3", "cpu 1 2 3 4 5 6 seven 8 9 10"} {
		if got, err := parse(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

// Figures of this machine are told, and move on.
func TestMachine(t *testing.T) {
	before, err := Machine()
	if err != nil {
		t.Fatal(err)
	}
	own, err := Own()
	for err == nil && own < 3*Tick { // until the kernel has counted a tick
		own, err = Own()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Children(); err != nil {
		t.Fatal(err)
	}
	if after, err := Machine(); err != nil || after.Busy < before.Busy || after.Total < before.Total || after.Total < time.Second {
		t.Errorf("%+v, then %+v, %v", before, after, err)
	}
}
