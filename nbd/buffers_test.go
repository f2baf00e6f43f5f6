package nbd

import "testing"

// What clients of long requests have left behind keeps nothing out that is in use
// now, and no more than may be is kept.
func TestBuffersInUseAreKept(t *testing.T) {
	const small, large = 64 << 10, 1 << 20
	var m memory
	p := buffers{idleMax: 4 * large, memory: &m}
	var held []*buffer
	take := func(n, size int) {
		for range n {
			held = append(held, p.get(size))
		}
	}
	give := func() {
		for _, b := range held {
			p.put(b)
		}
		held = held[:0]
	}
	take(6, large)
	give()
	if p.idle != 4*large {
		t.Fatalf("%d bytes are kept of 6 long buffers, not %d", p.idle, 4*large)
	}
	take(8, small)
	give()
	if n := testing.AllocsPerRun(100, func() { take(8, small); give() }); n > 0 {
		t.Errorf("%v allocations to take eight short buffers again", n)
	}
	if n := len(p.free[classOf(small)]); n != 8 || p.idle > p.idleMax || p.idle <= p.idleMax-large {
		t.Errorf("%d short ones are kept, %d bytes", n, p.idle)
	}
	// One that is longer than all that may be kept puts out nothing that is in use.
	take(1, 8*large)
	give()
	if n := len(p.free[classOf(small)]); n != 8 {
		t.Errorf("%d short ones are left", n)
	}
	if m.buffers.Load() != 0 {
		t.Errorf("%d bytes are counted as in use", m.buffers.Load())
	}
}
