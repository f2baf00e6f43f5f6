package volumedriver

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"openvstorage/internal/disk/crashdisk"
)

// powerCuts is how many crash images TestPowerCut takes. The bar is 500.
func powerCuts() int {
	if n, err := strconv.Atoi(os.Getenv("OVS_POWER_CUTS")); err == nil {
		return n
	}
	return 500
}

// TestPowerCut cuts the power at random moments, uploads, checkpoints and
// collection under way, and demands of what is left (P1): nothing flushed is
// missing, and it is a prefix of the order of writing. Each image is worked
// on and cut a second time.
func TestPowerCut(t *testing.T) {
	seed := seeds(t)
	cuts := powerCuts()
	const lanes = 4
	for lane := range lanes {
		t.Run(strconv.Itoa(lane), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, uint64(lane)))
			for done := 0; done < cuts/lanes; {
				done += cutSession(t, rng, min(cuts/lanes-done, 25))
			}
		})
	}
}

// cutSession works on one vDisk and cuts the power up to n times.
func cutSession(t *testing.T, rng *rand.Rand, n int) int {
	fs := crashdisk.New()
	r, err := openRig(fs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.host.Create(context.Background(), "v", modelDisk); err != nil {
		t.Fatal(err)
	}
	hist := newHistory(modelDisk)
	w := &worker{t: t, rng: rng, host: r.host, h: hist}
	cuts := 0
	for cuts < n {
		for range 1 + rng.IntN(30) {
			w.step()
		}
		kind := []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}[rng.IntN(4)]
		image := fs.Crash(rng, kind)
		cuts++
		reopened, err := openRig(image, nil)
		if err != nil {
			t.Fatalf("cut %d: %v", cuts, err)
		}
		reached := prefix(t, reopened.host, hist, hist.flushed)
		if rng.IntN(4) == 0 && cuts < n {
			cuts++
			cutAgain(t, rng, image, reopened, hist, reached)
		}
		if err := reopened.close(); err != nil {
			t.Fatalf("cut %d: close: %v", cuts, err)
		}
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	return cuts
}

// cutAgain goes on with what a cut left and cuts the power once more: what the
// first cut dropped must not come back (O11).
func cutAgain(t *testing.T, rng *rand.Rand, fs *crashdisk.FS, r *rig, hist *history, reached int) {
	next := &history{size: hist.size, ops: hist.ops[:reached:reached], flushed: reached, deleted: maps.Clone(hist.deleted)}
	w := &worker{t: t, rng: rng, host: r.host, h: next, n: 1 << 20}
	for range rng.IntN(25) {
		w.step()
	}
	again, err := openRig(fs.Crash(rng, crashdisk.Mixed), nil)
	if err != nil {
		t.Fatalf("second cut: %v", err)
	}
	prefix(t, again.host, next, next.flushed)
	if err := again.close(); err != nil {
		t.Fatalf("second cut: close: %v", err)
	}
}

// TestManyWriters: four users write and flush at once, and the power goes in
// the middle. What each was told is durable is there, and each one's writes
// are a prefix of its own order (O9).
func TestManyWriters(t *testing.T) {
	seed := seeds(t)
	for round := range 8 {
		rng := rand.New(rand.NewPCG(seed, uint64(round)))
		fs := crashdisk.New()
		r, err := openRig(fs, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.host.Create(context.Background(), "v", 4<<20); err != nil {
			t.Fatal(err)
		}
		d := open(t, r.host, "v")
		const writers, clusters = 4, 64
		var mu sync.Mutex
		durable := [writers]int{}
		var image *crashdisk.FS
		at := rng.IntN(2000)
		var all sync.WaitGroup
		total := 0
		for wr := range writers {
			all.Go(func() {
				for i := 1; ; i++ {
					data := bytes.Repeat([]byte(fmt.Sprintf("%07d.", i)), 512)
					off := int64(wr*clusters+i%clusters) * 4096
					if err := d.Write(context.Background(), []Span{{off, data}}); err != nil {
						t.Error(err)
						return
					}
					flushed := i%7 == wr
					if flushed {
						if err := d.Flush(context.Background()); err != nil {
							t.Error(err)
							return
						}
					}
					mu.Lock()
					stop := image != nil
					if !stop && flushed {
						durable[wr] = i
					}
					if total++; !stop && total >= at {
						image, stop = fs.Crash(rng, crashdisk.Mixed), true
					}
					mu.Unlock()
					if stop {
						return
					}
				}
			})
		}
		all.Wait()
		after, err := openRig(image, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := readAll(t, open(t, after.host, "v"))
		for wr := range writers {
			checkWriter(t, got[wr*clusters*4096:(wr+1)*clusters*4096], durable[wr], clusters)
		}
		for _, x := range []*rig{after, r} {
			if err := x.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// checkWriter: write i of one writer went to cluster i%n. The newest that is
// there says how far it came; all before it must be there.
func checkWriter(t *testing.T, b []byte, durable, n int) {
	t.Helper()
	seen := make([]int, n)
	newest := 0
	for c := range n {
		if part := b[c*4096 : (c+1)*4096]; part[0] != 0 {
			if _, err := fmt.Sscanf(string(part[:8]), "%07d.", &seen[c]); err != nil || !bytes.Equal(part, bytes.Repeat(part[:8], 512)) {
				t.Fatalf("cluster %d is torn", c)
			}
		}
		newest = max(newest, seen[c])
	}
	if newest < durable {
		t.Fatalf("write %d was flushed, the newest there is %d", durable, newest)
	}
	for i := max(1, newest-n+1); i <= newest; i++ {
		if seen[i%n] != i {
			t.Fatalf("write %d is there and write %d is not", newest, i)
		}
	}
}
