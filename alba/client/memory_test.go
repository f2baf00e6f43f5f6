package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"openvstorage/alba/policy"
	"openvstorage/internal/chance"
)

// A buffer that was given back is taken again, by whoever wants as much; one that is
// in use is nobody else's.
func TestBuffers(t *testing.T) {
	var b buffers
	for _, n := range []int{0, 1, 4095, 4096, 4097, 1 << 16, 1<<16 + 1, 1 << 24, 1<<24 + 1} {
		p := b.take(n)
		if len(p) != n {
			t.Fatalf("%d bytes for %d", len(p), n)
		}
		b.give(p)
		if n > 1<<bufferMax {
			continue // not kept
		}
		q, r := b.take(n), b.take(n)
		if &p[:1][0] != &q[:1][0] || &q[:1][0] == &r[:1][0] {
			t.Errorf("%d bytes: not the one that was given back, or twice the same", n)
		}
	}
	b.give(make([]byte, 5000)) // not ours
	b.give(nil)
	for class, list := range b.free {
		for _, p := range list {
			if cap(p) != 1<<class {
				t.Errorf("a buffer of %d bytes among those of %d", cap(p), 1<<class)
			}
		}
	}
}

// What is kept of one size is bounded, and dropped when it is asked for.
func TestBuffersAreBounded(t *testing.T) {
	var b buffers
	const n = 1 << 20
	var all [][]byte
	for range 20 {
		all = append(all, b.take(n))
	}
	for _, p := range all {
		b.give(p)
	}
	if kept := len(b.free[20]); kept != bufferBytes/n {
		t.Errorf("%d are kept", kept)
	}
	b.drop()
	for class := range b.free {
		if len(b.free[class]) != 0 {
			t.Errorf("of %d bytes %d are left", 1<<class, len(b.free[class]))
		}
	}
}

// Users of buffers, side by side, never see what another writes.
func TestBuffersSideBySide(t *testing.T) {
	var b buffers
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 51))
			for range 2000 {
				p := b.take(1 + r.IntN(20_000))
				for j := range p {
					p[j] = byte(i)
				}
				for j := range p {
					if p[j] != byte(i) {
						t.Errorf("a buffer of %d is written to by %d", i, p[j])
						return
					}
				}
				b.give(p)
			}
		})
	}
	all.Wait()
}

// A spare disk keeps the policy: the fragment that failed leaves room on its own node,
// and no node gets more than x, in whatever order disks fail.
func TestSparesKeepThePolicy(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 52))
		p := policy.Policy{K: 2, M: 2, C: 3, X: uint8(1 + r.IntN(4))}
		var disks []policy.Disk
		node := make(map[uint64]string)
		for i := range 4 + r.IntN(8) {
			d := policy.Disk{OSD: uint64(1 + i), Node: fmt.Sprint("node", r.IntN(4)), Capacity: 1 << 30, Failing: r.IntN(5) == 0}
			disks = append(disks, d)
			node[d.OSD] = d.Node
		}
		places := policy.Place(p, disks, nil, chance.Chance{})
		s := newSpares(p, disks, places)
		for range 10 {
			i := r.IntN(len(places))
			if places[i] == policy.None {
				continue
			}
			failed := places[i]
			places[i] = s.take(i)
			seen, perNode := make(map[uint64]bool), make(map[string]int)
			for _, n := range places {
				if n == policy.None {
					continue
				}
				if seen[n] || n == failed {
					t.Fatalf("seed %d: disk %d twice: %v", seed, n, places)
				}
				seen[n] = true
				if perNode[node[n]]++; perNode[node[n]] > int(p.X) {
					t.Fatalf("seed %d: more than %d on %s: %v", seed, p.X, node[n], places)
				}
			}
			if places[i] != policy.None && disks[places[i]-1].Failing {
				t.Fatalf("seed %d: disk %d fails, and is a spare", seed, places[i])
			}
		}
	}
}

// A spare disk keeps what is wished for zones where it can: the zone of the disk that failed
// before one that would have more than m, and that before none.
func TestSpareInItsZone(t *testing.T) {
	var disks []policy.Disk
	for i := range 5 {
		disks = append(disks, policy.Disk{OSD: uint64(1 + i), Node: fmt.Sprint("node", i), Zone: fmt.Sprint("zone", i%3), Capacity: 1 << 30})
	}
	for range 20 {
		s := newSpares(policy.Policy{K: 2, M: 1, C: 2, X: 1}, disks, []uint64{1, 2, 3})
		for i, want := range []uint64{4, 5} {
			if n := s.take(i); n != want {
				t.Fatalf("fragment %d goes to disk %d, not %d", i, n, want)
			}
		}
		if n := s.take(2); n != policy.None {
			t.Fatalf("disk %d is taken though all have failed", n)
		}
	}
	s := newSpares(policy.Policy{K: 2, M: 1, C: 2, X: 1}, disks, []uint64{1, 2, 3})
	s.take(2) // of the lone disk of its zone
	if s.places[2] == policy.None {
		t.Error("no spare is taken, as its zone would have more than m")
	}
}

// All disks on one node, as many fragments as the node may have: the disk that fails
// makes room for another.
func TestSpareOnTheOnlyNode(t *testing.T) {
	var disks []policy.Disk
	for i := range 4 {
		disks = append(disks, policy.Disk{OSD: uint64(1 + i), Node: "node", Capacity: 1 << 30})
	}
	s := newSpares(policy.Policy{K: 2, M: 1, C: 2, X: 3}, disks, []uint64{1, 2, 3})
	if n := s.take(1); n != 4 {
		t.Errorf("the spare disk is %d", n)
	}
	if n := s.take(0); n != policy.None {
		t.Errorf("another spare disk is %d", n)
	}
}

// Whoever waits for the memory of an upload gets it when one ends, or ends with its
// context; memory that is idle is given up when it is asked for.
func TestCoders(t *testing.T) {
	c := &Client{}
	c.writer.chunks.init(1, 1<<20)
	m := &c.writer.chunks
	x, err := m.coder(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithCancel(context.Background())
	waits := make(chan error, 1)
	go func() {
		_, err := m.coder(short)
		waits <- err
	}()
	cancel()
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	u, err := m.take(context.Background(), x)
	if err != nil {
		t.Fatal(err)
	}
	c.Trim() // what is in use stays
	got := make(chan *coder, 1)
	go func() {
		y, _ := m.coder(context.Background())
		got <- y
	}()
	m.release(u)
	m.end(x)
	y := <-got
	if y != x || len(y.free) != 1 || y.free[0] != u {
		t.Error("the memory is not that of the upload that ended")
	}
	m.end(y)
	c.Trim()
	if z, _ := m.coder(context.Background()); z == x || len(z.free) != 0 {
		t.Error("memory that was idle is kept")
	}
}

// A manifest that was asked for before a change is not kept after it.
func TestChanges(t *testing.T) {
	var c changes
	key := objectKey{1, "o"}
	kept := 0
	seen := c.seen(key)
	c.unless(key, seen, func() { kept++ })
	c.note(key, func() {})
	c.unless(key, seen, func() { t.Error("kept after a change") })
	c.unless(key, c.seen(key), func() { kept++ })
	if kept != 2 {
		t.Errorf("kept %d times", kept)
	}
}
