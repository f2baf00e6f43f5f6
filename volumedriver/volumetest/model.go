package volumetest

import (
	"context"
	"math/rand/v2"
	"testing"

	"openvstorage/internal/disk/crashdisk"
)

// Model does random operations on a vDisk and on a byte slice, and compares them, with
// clean restarts and kills in between: so many rounds of so many steps.
func Model(t *testing.T, open Opener, rounds, steps int) {
	rng := rand.New(rand.NewPCG(Seed(t), 1))
	fs := crashdisk.New()
	s, err := open(fs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Host.Create(context.Background(), "v", diskSize); err != nil {
		t.Fatal(err)
	}
	hist := newHistory(diskSize)
	w := &worker{t: t, rng: rng, host: s.Host, h: hist}
	for round := range rounds {
		for range steps {
			w.step()
		}
		if rng.IntN(2) == 0 {
			if err := s.Close(); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		} else { // P1: killing the process loses no acknowledged write
			old := s
			fs = fs.Kill()
			if err := old.Close(); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		if s, err = open(fs); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		w.host = s.Host
		if n := prefix(t, s.Host, hist, len(hist.ops)); n != len(hist.ops) {
			t.Fatalf("round %d: %d operations of %d", round, n, len(hist.ops))
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
