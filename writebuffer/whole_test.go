package writebuffer

import (
	"errors"
	"math/rand/v2"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

// nearlyFull is a rig whose open SCO has room for left clusters, or a few less.
func nearlyFull(t *testing.T, left int) *rig {
	t.Helper()
	r := newRig(t)
	r.write(0, 1, 1)
	r.untilReady()
	for addr := uint64(1000); ; {
		a := r.log.section.enter()
		space := a.space(a.open, 4096)
		a.leave()
		if space <= left {
			return r
		}
		n := min(space-left, r.log.BatchMax())
		r.write(addr, n, 1)
		addr += uint64(n)
	}
}

// A batch that does not fit into what is left of an SCO is tried as a whole: in the
// next SCO if little is left, else by an append that can wait.
func TestTryAppendIsWhole(t *testing.T) {
	for _, left := range []int{1, 5, 20, 200} {
		r := nearlyFull(t, left)
		n := min(left+20, r.log.BatchMax())
		if left == 200 {
			n = 250
		}
		a := r.log.section.enter()
		share, room, open := r.log.room/wasteShare, a.space(a.open, 4096), a.open.name
		a.leave()
		before := r.log.Written()
		// A second SCO that cannot be written: nothing of the batch may be there.
		rule := r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: "sco-*", Err: unix.EIO, Where: func(name string) bool {
			return name != open
		}})
		err := r.log.TryAppend(batch(5000, n, 2))
		rule.Remove()
		if err == nil {
			t.Fatalf("%d left: a failed write is none", left)
		}
		r.absent(5000)
		if r.log.Written() != before || r.log.Err() != nil {
			t.Fatalf("%d left: written to %d, not %d: %v", left, r.log.Written(), before, r.log.Err())
		}
		if want := room > share; errors.Is(err, disk.ErrWouldBlock) != want {
			t.Errorf("%d left, of which at most %d are given up: %v", room, share, err)
		}
		r.restarts(func(_ string, r *rig) { r.absent(5000) })
		// From here on it is written by an append that can wait.
		r.write(5000, n, 3)
		r.check(5000, n, 3)
	}
}

// Whatever fails, a batch that is tried is applied as a whole or not at all, now and
// after a kill.
func TestTryAppendAtRandom(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 9))
		r := newRig(t)
		type wrote struct {
			addr    uint64
			n       int
			version uint64
		}
		var done []wrote
		for i := range uint64(40) {
			b := &Batch{}
			addr, n := 1000*i, 0
			for k := range 1 + rng.IntN(4) { // several spans, apart
				m := 1 + rng.IntN(60)
				b.Spans = append(b.Spans, Span{addr + uint64(100*k), data(addr+uint64(100*k), m, i)})
				n += m
			}
			rule := r.disk.Inject(faultdisk.Rule{
				Ops: faultdisk.Write, Path: []string{"sco-*", "tlog-*"}[rng.IntN(2)],
				Err: unix.EIO, Short: rng.Int64N(100_000), Skip: rng.IntN(6), Times: 1,
			})
			before := r.log.Written()
			err := r.log.TryAppend(b)
			rule.Remove()
			switch {
			case err == nil:
				first, _ := r.vol.at(b.Spans[0].Addr)
				for _, s := range b.Spans {
					loc, ok := r.vol.at(s.Addr)
					if !ok || loc.Number() != first.Number() {
						t.Fatalf("seed %d: span at %d is at %v, the first one at %v", seed, s.Addr, loc, first)
					}
					done = append(done, wrote{s.Addr, len(s.Data) / clusterSize, i})
				}
			default:
				if r.log.Written() != before {
					t.Fatalf("seed %d: a refused batch moved the log from %d to %d: %v", seed, before, r.log.Written(), err)
				}
				for _, s := range b.Spans {
					r.absent(s.Addr)
				}
			}
			if errors.Is(err, disk.ErrWouldBlock) {
				r.write(500_000+i, 1, i) // an append that can wait goes on
				r.untilReady()
			}
		}
		if len(done) == 0 {
			t.Fatalf("seed %d: nothing went through", seed)
		}
		r.commit()
		for _, r := range []*rig{r, r.kill()} {
			for _, w := range done {
				r.check(w.addr, w.n, w.version)
			}
		}
	}
}
