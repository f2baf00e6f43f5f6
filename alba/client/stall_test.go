package client_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/albatest"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"
	"openvstorage/internal/gate"
)

// putters puts objects with so many writers for some time, and returns how long each put took, in
// order of length, and what was put.
func putters(t *testing.T, b *albatest.Backend, n int, span time.Duration, seed uint64) (took []time.Duration, put map[string][]byte) {
	var mu sync.Mutex
	put = make(map[string][]byte)
	var all sync.WaitGroup
	until := time.Now().Add(span)
	for i := range n {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for j := 0; time.Now().Before(until); j++ {
				name, want := fmt.Sprintf("%d-%d-%d", seed, i, j), dense(32<<10+r.IntN(150<<10), seed+uint64(j))
				begun := time.Now()
				if err := b.Namespace("ns").Put(ctx, name, want); err != nil {
					t.Errorf("put %s: %v", name, err)
					return
				}
				mu.Lock()
				took, put[name] = append(took, time.Since(begun)), want
				mu.Unlock()
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	all.Wait()
	slices.Sort(took)
	return took, put
}

// stubborn is an OSD that hangs with what it has begun to write, whatever becomes of the caller.
type stubborn struct {
	osd.OSD
	door *gate.Gate
}

func (s *stubborn) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	if err := s.door.Hold(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	return s.OSD.Apply(ctx, asserts, updates)
}

// A disk begins to hang under writers. No put takes two seconds, with c below full width and with
// c at it, where spare disks take the fragments; and only those puts wait that had given it
// something. What it hung on for a while leaves nothing behind.
func TestNoPutWaitsForAHangingDisk(t *testing.T) {
	for _, p := range []policy.Policy{{K: 4, M: 2, C: 5, X: 12}, {K: 4, M: 2, C: 6, X: 12}, {K: 1, M: 1, C: 2, X: 12}, {K: 1, M: 0, C: 1, X: 12}} {
		for _, begun := range []bool{false, true} { // whether the disk has begun with what it hangs on
			t.Run(fmt.Sprint(p, " begun ", begun), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b, _, end := pacedBackend(t, 12, p)
					putters(t, b, 4, time.Second, 1)
					before := b.Stats()
					door := gate.New()
					if begun { // it cannot be given up any more
						d := b.Fleet.Disk(3)
						d.Attach(&stubborn{b.Faults[3], door})
						check(t, d.Refresh(ctx))
					}
					rule := b.Faults[3].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Gate: door})
					took, put := putters(t, b, 4, 6*time.Second, 2)
					longest, slow := took[len(took)-1], 0
					for _, d := range took {
						if d > 200*time.Millisecond {
							slow++
						}
					}
					t.Logf("%d puts, the longest %v, %d over 200 ms; %d fragments moved", len(took), longest, slow, b.Stats().Moved-before.Moved)
					if longest > 2*time.Second {
						t.Errorf("a put took %v", longest)
					}
					if slow > 16 { // of four writers, one object each, and what is tried anew
						t.Errorf("%d puts of %d waited", slow, len(took))
					}
					rule.Remove()
					door.Open()
					end()
					b.Settle()
					if n := b.Stats().LateBytes; n != 0 {
						t.Errorf("nothing is late, and %d bytes are kept", n)
					}
					n := 0
					for name, want := range put { // any fifty
						if n++; n <= 50 {
							same(t, b.Namespace("ns"), name, want)
						}
					}
					time.Sleep(time.Minute) // of the bubble: what was hedged comes back
					check(t, b.Work.Survey(ctx))
					check(t, b.Work.Collect(ctx, 0))
					check(t, b.Work.Collect(ctx, 0))
					b.Check()
				})
			})
		}
	}
}

// All disks become slow. Fragments are not moved from one slow disk to another but for what is
// allowed, and objects have their full width.
func TestAllDisksSlowIsNoReasonToMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, times, end := pacedBackend(t, 12, policy.Policy{K: 4, M: 2, C: 5, X: 12})
		putters(t, b, 4, 3*time.Second, 1)
		for _, n := range times {
			n.Store(60) // half a second and more
		}
		before := b.Stats()
		took, _ := putters(t, b, 4, time.Minute, 2)
		after := b.Stats()
		t.Logf("%d puts, %d narrow at first, %d fragments moved", len(took), after.Narrow-before.Narrow, after.Moved-before.Moved)
		if n := after.Narrow - before.Narrow; n*2 > uint64(len(took)) {
			t.Errorf("%d of %d objects are narrow at first", n, len(took))
		}
		if n := after.Moved - before.Moved; n > 64 {
			t.Errorf("%d fragments were moved", n)
		}
		end()
		synctest.Wait()
	})
}

// A disk is known not to answer while a put is under way whose c needs the fragment that it has
// begun to write: a spare disk takes it, and the put does not fail. Without a spare it does.
func TestSpareForWhatASilentDiskHas(t *testing.T) {
	for _, spare := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := 3
			if spare {
				n = 4
			}
			b := albatest.New(t, n, albatest.Small(policy.Policy{K: 2, M: 1, C: 3, X: 12}), patient)
			check(t, b.CreateNamespace(ctx, "ns"))
			watching, stop := context.WithCancel(ctx)
			go b.Fleet.Watch(watching, nil)
			door := gate.New()
			rule := b.Faults[1].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Gate: door, After: true, Count: 1})
			want := data(60_000, 7)
			var err error
			for i := range 8 { // until disk 1 has a part
				if err = b.Namespace("ns").Put(ctx, fmt.Sprint("o", i), want); err != nil {
					break
				}
				same(t, b.Namespace("ns"), fmt.Sprint("o", i), want)
			}
			if (err == nil) != spare {
				t.Errorf("spare %v: %v", spare, err)
			}
			rule.Remove()
			door.Open()
			stop()
			b.Settle()
			time.Sleep(time.Minute)
		})
	}
}
