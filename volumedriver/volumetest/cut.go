package volumetest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
)

// kinds are the power cuts that are drawn from.
var kinds = []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}

// PowerCuts cuts the power at random moments, while uploads, checkpoints and collection
// are under way. It demands that what is left is a prefix of the order of writing, with
// all that was flushed (P1). Work goes on with each image, and some are cut again.
func PowerCuts(t *testing.T, open Opener, cuts int) {
	seed := Seed(t)
	const lanes, session = 4, 25
	for lane := range lanes {
		t.Run(strconv.Itoa(lane), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, uint64(lane)))
			for done := 0; done < cuts/lanes; {
				done += cutSession(t, open, rng, min(cuts/lanes-done, session))
			}
		})
	}
}

// cutSession works on one vDisk and cuts the power up to n times.
func cutSession(t *testing.T, open Opener, rng *rand.Rand, n int) int {
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
	cuts := 0
	for cuts < n {
		for range 1 + rng.IntN(30) {
			w.step()
		}
		image := fs.Crash(rng, kinds[rng.IntN(len(kinds))])
		cuts++
		reopened, err := open(image)
		if err != nil {
			t.Fatalf("cut %d: %v", cuts, err)
		}
		reached := prefix(t, reopened.Host, hist, hist.flushed)
		if rng.IntN(4) == 0 && cuts < n {
			cuts++
			cutAgain(t, open, rng, image, reopened, hist, reached)
		}
		if err := reopened.Close(); err != nil {
			t.Fatalf("cut %d: close: %v", cuts, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return cuts
}

// cutAgain goes on with what a cut has left, and cuts the power once more. What the first
// cut dropped must not come back (O11).
func cutAgain(t *testing.T, open Opener, rng *rand.Rand, fs *crashdisk.FS, s *System, hist *history, reached int) {
	next := hist.until(reached)
	next.flushed = reached
	w := &worker{t: t, rng: rng, host: s.Host, h: next, n: 1 << 20}
	for range rng.IntN(25) {
		w.step()
	}
	again, err := open(fs.Crash(rng, crashdisk.Mixed))
	if err != nil {
		t.Fatalf("second cut: %v", err)
	}
	prefix(t, again.Host, next, next.flushed)
	if err := again.Close(); err != nil {
		t.Fatalf("second cut: close: %v", err)
	}
}

// ManyWriters cuts the power while four users write and flush at once. What was reported
// to a user as durable is there, and of each user's writes a prefix is left (O9).
func ManyWriters(t *testing.T, open Opener, rounds int) {
	seed := Seed(t)
	for round := range rounds {
		rng := rand.New(rand.NewPCG(seed, uint64(round)))
		fs := crashdisk.New()
		s, err := open(fs)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Host.Create(context.Background(), "v", 4<<20); err != nil {
			t.Fatal(err)
		}
		w := &writers{t: t, d: writable(t, s.Host, "v"), fs: fs, rng: rng, at: rng.IntN(2000)}
		var all sync.WaitGroup
		for i := range w.durable {
			all.Go(func() { w.write(i) })
		}
		all.Wait()
		if t.Failed() {
			t.FailNow()
		}
		after, err := open(w.image)
		if err != nil {
			t.Fatal(err)
		}
		got := readAll(t, opened(t, after.Host, "v"))
		for i, durable := range w.durable {
			checkWriter(t, got[i*clusters*4096:(i+1)*clusters*4096], durable, clusters)
		}
		for _, x := range []*System{after, s} {
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// clusters is how many each writer has to itself.
const clusters = 64

// writers are users of one vDisk at once. The power is cut after a number of writes of
// all of them together.
type writers struct {
	t   *testing.T
	d   device.Device
	fs  *crashdisk.FS
	rng *rand.Rand
	at  int

	mu      sync.Mutex
	total   int
	durable [4]int
	image   *crashdisk.FS
}

func (w *writers) write(me int) {
	ctx := context.Background()
	for i := 1; ; i++ {
		data := bytes.Repeat([]byte(fmt.Sprintf("%07d.", i)), 512)
		off := int64(me*clusters+i%clusters) * 4096
		if err := w.d.Write(ctx, []device.Span{{Off: off, Data: data}}); err != nil {
			w.t.Error(err)
			return
		}
		flushed := i%7 == me
		if flushed {
			if err := w.d.Flush(ctx); err != nil {
				w.t.Error(err)
				return
			}
		}
		if w.wrote(me, i, flushed) {
			return
		}
	}
}

// wrote notes a write, and reports whether the power is cut.
func (w *writers) wrote(me, i int, flushed bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.image != nil {
		return true
	}
	if flushed {
		w.durable[me] = i
	}
	if w.total++; w.total >= w.at {
		w.image = w.fs.Crash(w.rng, crashdisk.Mixed)
		return true
	}
	return false
}

// checkWriter checks what is left of one writer, whose write i went to cluster i%n. The
// newest write that is there says how far the writer came. All before it must be there.
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
