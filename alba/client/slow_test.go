package client_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/albatest"
	"openvstorage/alba/client"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
)

// paced is an OSD whose calls take the time that a disk takes: most are quick, some are not.
type paced struct {
	osd.OSD
	times *atomic.Int64 // as slow as usual

	mu sync.Mutex
	r  *rand.Rand
}

func (p *paced) wait(mean time.Duration) {
	p.mu.Lock()
	took := mean/2 + time.Duration(p.r.ExpFloat64()*float64(mean)/2)
	p.mu.Unlock()
	time.Sleep(took * time.Duration(p.times.Load()))
}

func (p *paced) Read(ctx context.Context, key []byte, off uint32, b []byte, crcs []uint32) error {
	p.wait(4 * time.Millisecond)
	return p.OSD.Read(ctx, key, off, b, crcs)
}

func (p *paced) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	p.wait(8 * time.Millisecond)
	return p.OSD.Apply(ctx, asserts, updates)
}

// pacedBackend is a backend on n disks with paces, which is watched; the times of the disks are
// by number.
func pacedBackend(t *testing.T, n int, p policy.Policy) (b *albatest.Backend, times map[uint64]*atomic.Int64, end func()) {
	b = albatest.New(t, n, plainPreset(p), func(*client.Options) {})
	check(t, b.CreateNamespace(ctx, "ns"))
	times = make(map[uint64]*atomic.Int64)
	for number, f := range b.Faults {
		times[number] = new(atomic.Int64)
		times[number].Store(1)
		b.Fleet.Disk(number).Attach(&paced{OSD: f, times: times[number], r: rand.New(rand.NewPCG(number, 81))})
		check(t, b.Fleet.Disk(number).Refresh(ctx))
	}
	watching, stop := context.WithCancel(ctx)
	go b.Fleet.Watch(watching, nil)
	return b, times, func() {
		stop()
		time.Sleep(time.Minute) // of the bubble: what is late comes back
	}
}

// readers reads 4 KiB at a time with so many readers for some time, and returns how long each
// read took, in order of length.
func readers(t *testing.T, b *albatest.Backend, n int, objects [][]byte, span time.Duration, seed uint64) []time.Duration {
	var mu sync.Mutex
	var took []time.Duration
	var all sync.WaitGroup
	until := time.Now().Add(span)
	for i := range n {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			got := make([]byte, 4096)
			for time.Now().Before(until) {
				o := r.IntN(len(objects))
				off := 4096 * r.IntN(len(objects[o])/4096)
				begun := time.Now()
				if _, err := b.Namespace("ns").Get(ctx, fmt.Sprint("o", o), got, int64(off)); err != nil || !bytes.Equal(got, objects[o][off:off+4096]) {
					t.Errorf("4 KiB of o%d at %d: %v", o, off, err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(begun))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	slices.Sort(took)
	return took
}

func p99(took []time.Duration) time.Duration { return took[len(took)*99/100] }

// One of twelve disks becomes a hundred times as slow. Readers hardly see it: the 99th percentile
// of reads stays within three times of what it was, from the first moments on, and reads of
// hedges are few. When the disk is well again it is read from.
func TestOneSlowDiskOfTwelve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, times, end := pacedBackend(t, 12, policy.Policy{K: 4, M: 2, C: 6, X: 12})
		objects := make([][]byte, 16)
		for i := range objects {
			objects[i] = dense(8*64<<10, uint64(i))
			check(t, b.Namespace("ns").Put(ctx, fmt.Sprint("o", i), objects[i]))
		}
		readers(t, b, 8, objects, 2*time.Second, 1) // what is usual becomes known
		before := b.Stats()
		usual := p99(readers(t, b, 8, objects, 3*time.Second, 2))
		after := b.Stats()
		if extra := after.HedgeReads - before.HedgeReads; extra*20 > after.Asked-before.Asked+20*64 {
			t.Errorf("with all disks well, %d reads of hedges beside %d", extra, after.Asked-before.Asked)
		}
		t.Logf("usual: p99 %v, %d asked, %d of hedges", usual, after.Asked-before.Asked, after.HedgeReads-before.HedgeReads)

		times[3].Store(100)
		for i, phase := range []struct {
			name string
			span time.Duration
		}{{"the first 300 ms", 300 * time.Millisecond}, {"the next 700 ms", 700 * time.Millisecond}, {"the next 4 s", 4 * time.Second}} {
			before := b.Stats()
			took := readers(t, b, 8, objects, phase.span, uint64(3+i))
			after := b.Stats()
			asked, extra := after.Asked-before.Asked, after.HedgeReads-before.HedgeReads
			t.Logf("%s: p99 %v of %d reads, longest %v, %d of hedges", phase.name, p99(took), len(took), took[len(took)-1], extra)
			if p99(took) > 3*usual {
				t.Errorf("%s with a slow disk: p99 is %v, and was %v", phase.name, p99(took), usual)
			}
			if extra*20 > asked+20*64 {
				t.Errorf("%s: %d reads of hedges beside %d", phase.name, extra, asked)
			}
		}

		times[3].Store(1)
		readers(t, b, 8, objects, 10*time.Second, 9)
		reads := b.Fleet.Disk(3).Counts().Reads
		took := readers(t, b, 8, objects, time.Second, 10)
		if n := b.Fleet.Disk(3).Counts().Reads - reads; n*24 < uint64(len(took)) {
			t.Errorf("the disk is well again, and has %d of %d reads", n, len(took))
		}
		end()
		synctest.Wait()
	})
}

// All disks become slow at once. Nobody asks others in their place beyond what is allowed: a
// slow system is not made slower.
func TestAllDisksSlowAreNotHedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, times, end := pacedBackend(t, 6, policy.Policy{K: 2, M: 2, C: 4, X: 12})
		objects := [][]byte{dense(16*64<<10, 1)}
		check(t, b.Namespace("ns").Put(ctx, "o0", objects[0]))
		readers(t, b, 8, objects, 2*time.Second, 1)
		for _, n := range times {
			n.Store(30)
		}
		before := b.Stats()
		readers(t, b, 8, objects, 20*time.Second, 2)
		after := b.Stats()
		asked := after.Asked - before.Asked
		t.Logf("%d asked, %d read from disks, %d of hedges", asked, after.Reads-before.Reads, after.HedgeReads-before.HedgeReads)
		if after.HedgeReads-before.HedgeReads > asked/20+64 || after.Reads-before.Reads > asked+asked/4+64 {
			t.Errorf("%d reads of %d, %d of hedges", after.Reads-before.Reads, asked, after.HedgeReads-before.HedgeReads)
		}
		end()
		synctest.Wait()
	})
}

// With copies on several nodes the near one is read, though it be the slower one.
func TestNearCopyIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, end := pacedBackend(t, 2, mirror)
		id := b.Fleet.Disk(2).UUID
		b.Fleet.Remove(2) // and on another node
		far := b.Fleet.Add(2, id, "far", "disk/2")
		far.Attach(b.Faults[2])
		check(t, far.Refresh(ctx))
		want := [][]byte{dense(64<<10, 1)}
		check(t, b.Namespace("ns").Put(ctx, "o0", want[0]))
		for _, node := range []string{"node", "far"} {
			b.Fleet.SetNode(node)
			before := [...]uint64{b.Fleet.Disk(1).Counts().Reads, far.Counts().Reads}
			for range 50 {
				same(t, b.Namespace("ns"), "o0", want[0])
			}
			after := [...]uint64{b.Fleet.Disk(1).Counts().Reads, far.Counts().Reads}
			one, two := after[0]-before[0], after[1]-before[1]
			if near := map[string]uint64{"node": one, "far": two}[node]; near < 50 || one+two > 60 {
				t.Errorf("on node %s: %d reads there and %d of the other", node, one, two)
			}
		}
		end()
		synctest.Wait()
	})
}
