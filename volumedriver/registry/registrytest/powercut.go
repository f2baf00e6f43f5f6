package registrytest

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/volumedriver/registry"
)

// testPowerCut cuts the power, or kills the process, before each step of a change. What
// was acknowledged is left, or what was about to be acknowledged; and once an open has
// shown one of the two, it stays.
func testPowerCut(t *testing.T, open Opener) {
	var mu sync.Mutex // one image at a time
	rng := rand.New(rand.NewPCG(7, 7))
	d := crashdisk.New()
	var acked atomic.Int64 // epoch; -1: it is not registered
	acked.Store(-1)
	images := 0
	changes := faultdisk.Write | faultdisk.Datasync | faultdisk.Sync | faultdisk.Truncate | faultdisk.Rename | faultdisk.Remove | faultdisk.SyncDir
	hooked := faultdisk.New(d)
	hooked.Inject(faultdisk.Rule{Ops: changes, Before: func(faultdisk.Op, string) {
		mu.Lock()
		defer mu.Unlock()
		if t.Failed() {
			return
		}
		images++
		low := acked.Load()
		image := d.Kill()
		if how := rng.IntN(5); how > 0 {
			image = d.Crash(rng, [...]crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}[how-1])
		}
		first := epoch(t, open, image)
		if high := acked.Load() + 1; first < low || first > high {
			t.Errorf("epoch %d was acknowledged, %d is left", low, first)
		}
		if second := epoch(t, open, image.Crash(rng, crashdisk.LoseAll)); second != first {
			t.Errorf("epoch %d was served, then %d", first, second)
		}
	}})
	r, _, _ := start(t, open, hooked)
	must(t, r.Register(ctx, registry.Record{ID: id(1), Name: "a"}))
	acked.Store(0)
	for range 25 {
		e, err := r.Claim(ctx, id(1), claimant(1), 0)
		if must(t, err); int64(e) != acked.Load()+1 {
			t.Fatalf("epoch %d after %d", e, acked.Load())
		}
		acked.Add(1)
	}
	if images < 50 {
		t.Errorf("only %d images", images)
	}
}

// epoch opens the registry on an image and returns the epoch it finds, -1 if
// there is no vDisk.
func epoch(t *testing.T, open Opener, image disk.FS) int64 {
	keys, stop, err := open(image)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := registry.Check(ctx, keys); err != nil {
		t.Error(err)
	}
	r, err := registry.Open(ctx, keys)
	if err != nil {
		t.Error(err)
		return 0
	}
	rec, err := r.Lookup(ctx, "a")
	if errors.Is(err, registry.ErrNotFound) {
		return -1
	}
	if err != nil {
		t.Error(err)
	}
	return int64(rec.Epoch)
}
