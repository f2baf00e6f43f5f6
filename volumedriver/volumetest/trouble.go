package volumetest

import (
	"context"
	"math/rand/v2"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

// Trouble works on a vDisk while what it rests on is in trouble that a vDisk must survive.
// begin begins the trouble, and returns the function that ends it. Work goes on meanwhile,
// and a kill or a power cut during the trouble or after it loses nothing. stuck says that
// the backend accepts nothing during the trouble.
func Trouble(t *testing.T, open Opener, steps int, stuck bool, begin func(fs *faultdisk.FS, mem *crashdisk.FS) (end func())) {
	rng := rand.New(rand.NewPCG(Seed(t), 2))
	mem := crashdisk.New()
	fs := faultdisk.New(mem)
	s, err := open(fs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Host.Create(context.Background(), "v", diskSize); err != nil {
		t.Fatal(err)
	}
	hist := newHistory(diskSize)
	w := &worker{t: t, rng: rng, host: s.Host, h: hist}
	work := func() {
		for range steps {
			w.step()
		}
	}
	work()
	end := begin(fs, mem)
	w.stuck = stuck
	work()
	killed, cut := mem.Kill(), mem.Crash(rng, crashdisk.Mixed)
	then := hist.until(len(hist.ops))
	end()
	w.stuck = false
	work()
	if n := prefix(t, s.Host, hist, len(hist.ops)); n != len(hist.ops) {
		t.Fatalf("%d operations of %d", n, len(hist.ops))
	}
	if err := s.Host.Sync(context.Background(), "v", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	reopen(t, open, mem, hist, len(hist.ops))
	reopen(t, open, killed, then, len(then.ops))
	reopen(t, open, cut, then, then.flushed)
}

// reopen opens what is left, and demands that it holds at least so many operations.
func reopen(t *testing.T, open Opener, fs disk.FS, hist *history, least int) {
	t.Helper()
	s, err := open(fs)
	if err != nil {
		t.Fatal(err)
	}
	prefix(t, s.Host, hist, least)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
