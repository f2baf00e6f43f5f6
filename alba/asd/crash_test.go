package asd

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

// state is what an ASD should hold: sizes and seeds; the data follow from them.
type state map[string]osd.Update

// randomUpdates returns a few updates, that part of them deletes, and the state
// behind them.
func randomUpdates(rng *rand.Rand, now state, deletes float64) ([]osd.Update, state) {
	next := maps.Clone(now)
	var list []osd.Update
	for range 1 + rng.IntN(4) {
		key := fmt.Sprintf("key-%02d", rng.IntN(40))
		if rng.Float64() < deletes {
			list = append(list, del(key))
			delete(next, key)
			continue
		}
		n := []int{0, 10, 500, 4095, 4096, 5000, 20000, 70000}[rng.IntN(8)]
		u := put(key, random(rng, n), rng.Uint64())
		list = append(list, u)
		next[key] = u
	}
	return list, next
}

// differs says how an ASD differs from a state, "" if it does not.
func (s state) differs(a *ASD) string {
	list, err := a.Range(ctx, nil, nil, osd.RangeMax)
	if err != nil {
		return err.Error()
	}
	if len(list) != len(s) {
		return fmt.Sprintf("%d keys, not %d", len(list), len(s))
	}
	for _, have := range list {
		want, ok := s[string(have.Key)]
		if !ok || int(have.Size) != len(want.Value.Data) || have.Epoch != want.Value.Epoch {
			return fmt.Sprintf("%s: %d bytes, wanted %v with %d", have.Key, have.Size, ok, len(want.Value.Data))
		}
		p, crcs := make([]byte, have.Size), make([]uint32, osd.Blocks(int(have.Size)))
		if err := a.Read(ctx, have.Key, 0, p, crcs); err != nil {
			return err.Error()
		}
		if !bytes.Equal(p, want.Value.Data) {
			return fmt.Sprintf("%s: other bytes", have.Key)
		}
	}
	return ""
}

// Power cuts and kills at any write, sync or name, over several lives: what was
// acknowledged is there, what was not is whole or absent, nothing is reported
// as damage.
func TestPowerCuts(t *testing.T) {
	modes := []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}
	runs := 16
	if testing.Short() {
		runs = 4
	}
	for seed := range runs {
		rng := rand.New(rand.NewPCG(uint64(seed), 7))
		mem := crashdisk.New()
		opt := small(mem)
		if seed%2 == 1 {
			opt.Rest = time.Millisecond // it rests whenever nothing is written
		}
		opt.SegmentBytes = 128 << 10
		if err := Create(mem, opt.Dir, testID); err != nil {
			t.Fatal(err)
		}
		now := state{}
		for life := range 6 {
			fsys := faultdisk.New(mem)
			opt.FS = fsys
			var image *crashdisk.FS
			var states []state // behind each Apply; the first is that at the start
			var started, acked atomic.Int64
			var from, to int64
			states = append(states, now)
			cut := func(faultdisk.Op, string) {
				from = acked.Load()
				if rng := rand.New(rand.NewPCG(uint64(seed), uint64(life))); rng.IntN(5) == 0 {
					image = mem.Kill()
				} else {
					image = mem.Crash(rng, modes[rng.IntN(len(modes))])
				}
				to = started.Load()
			}
			fsys.Inject(faultdisk.Rule{
				Ops:  faultdisk.Write | faultdisk.Datasync | faultdisk.Rename | faultdisk.SyncDir | faultdisk.Remove,
				Skip: rng.IntN(200), Times: 1, Before: cut,
			})
			a, err := Open(opt)
			if err != nil {
				t.Fatalf("seed %d, life %d: %v", seed, life, err)
			}
			for i := range 60 {
				updates, next := randomUpdates(rng, now, []float64{0.3, 0.9}[i/20%2])
				states = append(states, next)
				started.Store(int64(i + 1))
				if err := a.Apply(ctx, nil, updates); err != nil {
					t.Fatalf("seed %d, life %d: %v", seed, life, err)
				}
				acked.Store(int64(i + 1))
				now = next
			}
			if why := now.differs(a); why != "" {
				t.Fatalf("seed %d, life %d: %s", seed, life, why)
			}
			clean := rng.IntN(3) == 0
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			if clean || image == nil {
				image, from, to = mem.Crash(rng, modes[rng.IntN(len(modes))]), acked.Load(), started.Load()
			}
			mem = image
			opt.FS = mem
			a, err = Open(opt)
			if err != nil {
				t.Fatalf("seed %d, life %d: after the cut: %v", seed, life, err)
			}
			why := ""
			found := false
			for n := from; n <= to && !found; n++ {
				why = states[n].differs(a)
				now, found = states[n], why == ""
			}
			if !found {
				t.Fatalf("seed %d, life %d: cut between %d and %d: %s", seed, life, from, to, why)
			}
			if d := a.Damage(); len(d) > 0 {
				t.Fatalf("seed %d, life %d: %v", seed, life, d)
			}
			if rng.IntN(2) == 0 {
				a.Close()
			} else {
				mem = mem.Kill() // while it is open
				defer a.Close()
			}
		}
	}
}

// Whatever bits flip in whatever file: right bytes or an error, and values that
// the flip did not hit are there.
func TestBitFlips(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 11))
	mem := crashdisk.New()
	opt := small(mem)
	a := openNew(t, opt)
	now := state{}
	for range 25 {
		var updates []osd.Update
		updates, now = randomUpdates(rng, now, 0.3)
		apply(t, a, updates...)
	}
	a.Close()
	unclean := mem.Kill()
	unclean.Remove("disk/" + indexName)
	runs := 400
	if testing.Short() {
		runs = 50
	}
	for i := range runs {
		image := mem.Kill()
		if i%2 == 1 {
			image = unclean.Kill()
		}
		names, _ := image.ReadDir("disk")
		name := names[rng.IntN(len(names))]
		f, err := image.OpenFile("disk/"+name, disk.Write, 0)
		if err != nil {
			t.Fatal(err)
		}
		size, _ := f.Size()
		if size == 0 {
			continue
		}
		at := rng.Int64N(size)
		if i%3 == 0 {
			at = at / blockSize * blockSize
			at += rng.Int64N(min(200, size-at))
		}
		hit := hitBy(t, image, "disk/"+name, at)
		var b [1]byte
		f.ReadAt(b[:], at)
		b[0] ^= 1 << rng.IntN(8)
		f.WriteAt(b[:], at)
		f.Datasync()
		f.Close()
		opt.FS = image
		a, err := Open(opt)
		if err != nil {
			if name != identityName {
				t.Fatalf("run %d: %s at %d: %v", i, name, at, err)
			}
			continue
		}
		for key, want := range now {
			got, err := get(a, key)
			if err != nil {
				if !hit(key) {
					t.Fatalf("run %d: %s at %d: %s is lost, where the flip was not: %v", i, name, at, key, err)
				}
			} else if !bytes.Equal(got, want.Value.Data) && len(a.Damage()) == 0 {
				t.Fatalf("run %d: %s at %d: %s has other bytes, and no damage was reported", i, name, at, key)
			}
		}
		a.Close()
	}
}

// hitBy says which keys' values a flip in a file may cost: the one that it is in, and
// where it is in what a batch says of itself, all of that batch. What is in no segment
// costs none.
func hitBy(t *testing.T, fsys disk.FS, name string, at int64) func(key string) bool {
	t.Helper()
	hit := map[string]bool{}
	if _, ok := parseName(path.Base(name)); !ok {
		return func(string) bool { return false }
	}
	if at < blockSize {
		return func(string) bool { return true } // its header: of the whole segment
	}
	_, err := ScanSegment(fsys, name, func(r *Record) error {
		if at < r.Offset || at >= r.Offset+r.Length || r.Gap {
			return nil
		}
		for _, e := range r.Entries {
			if !e.Delete && at >= e.Offset && at < e.Offset+int64(e.Size) {
				hit = map[string]bool{string(e.Key): true}
				return nil
			}
			hit[string(e.Key)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(key string) bool { return hit[key] }
}
