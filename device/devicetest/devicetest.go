// Package devicetest is the conformance suite of package device. It compares a device with a slice of
// bytes, with one caller and with many.
package devicetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"openvstorage/device"
)

// cluster is the likeliest unit of allocation, in bytes.
const cluster = 4096

// Odd is a size whose last cluster is short, Even one that is whole clusters.
const (
	Odd  = 1<<20 + 512
	Even = 1 << 20
)

// Run checks that a device keeps the contract of package device. newDevice returns a device of zeros
// with so many bytes, Odd or Even, and closes it by t.Cleanup.
func Run(t *testing.T, bytes int64, newDevice func(t testing.TB, size int64) device.Device) {
	size := int(bytes)
	run := func(name string, test func(t *testing.T, d *checked)) {
		t.Run(name, func(t *testing.T) {
			dev := newDevice(t, bytes)
			test(t, &checked{t: t, r: dev, dev: dev, model: make([]byte, size)})
		})
	}
	run("Empty", func(t *testing.T, d *checked) {
		if got := d.r.Size(); got != bytes {
			t.Fatalf("size is %d, want %d", got, bytes)
		}
		d.check()
		d.extents(0, bytes)
	})
	run("Unaligned", func(t *testing.T, d *checked) {
		for _, at := range []struct{ off, n int }{
			{0, 1}, {1, 4095}, {4095, 2}, {4096, 4096}, {5000, 10000}, {511, 513}, {size - 1, 1}, {size - 513, 513}, {size - 5000, 5000},
		} {
			d.write(span(at.off, at.n))
			d.check()
		}
	})
	run("Overlapping", func(t *testing.T, d *checked) {
		d.write(span(0, 8192), span(4096, 8192), span(100, 50), span(0, 1), span(4000, 200))
		d.check()
		d.write(span(4096, 4096), span(4096, 4096))
		d.check()
	})
	run("WholeDevice", func(t *testing.T, d *checked) {
		d.write(span(0, size))
		d.check()
		d.trim(0, bytes)
		d.check()
		d.extents(0, bytes)
	})
	run("ZeroLength", func(t *testing.T, d *checked) {
		d.write(span(0, 4096))
		d.read(0, 0)
		d.read(bytes, 0)
		d.check()
	})
	run("TrimAndZero", func(t *testing.T, d *checked) {
		d.holeless = !d.extents(0, bytes)[0].Hole
		d.write(span(0, 64<<10))
		d.trim(4096, 8192)
		d.check()
		d.mustBe(4096, 8192, true)
		d.trim(20000, 10) // inside a cluster: zeros, allocated still
		d.check()
		d.zero(32<<10, 8192, true)
		d.check()
		d.mustBe(32<<10, 8192, false)
		d.zero(48<<10, 8192, false)
		d.zero(50001, 9999, false)
		d.check()
		d.write(span(4096, 512))
		d.check()
	})
	run("Random", func(t *testing.T, d *checked) { d.random(400) })
	run("Flush", func(t *testing.T, d *checked) {
		d.write(span(4096, 4096))
		for range 3 {
			if err := d.dev.Flush(t.Context()); err != nil {
				t.Fatalf("flush: %v", err)
			}
		}
		if err := d.r.Prefetch(t.Context(), 0, bytes); err != nil {
			t.Fatalf("prefetch: %v", err)
		}
		d.check()
	})
	run("Concurrent", func(t *testing.T, d *checked) { d.concurrent() })
}

// Read checks a device that can only be read. The device holds the given bytes.
func Read(t *testing.T, r device.Reader, holds []byte) {
	d := &checked{t: t, r: r, model: holds}
	size := int64(len(holds))
	if r.Size() != size {
		t.Fatalf("size is %d, want %d", r.Size(), size)
	}
	if err := r.Prefetch(t.Context(), 0, size); err != nil {
		t.Fatalf("prefetch: %v", err)
	}
	d.check()
	d.extents(0, size)
	d.extents(size/3, size/3)
	if _, is := r.(device.Device); is {
		t.Error("it can be written")
	}
}

func span(off, n int) device.Span {
	p := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(off), uint64(n)))
	for i := range p {
		p[i] = byte(r.Uint32()) | 1
	}
	return device.Span{Off: int64(off), Data: p}
}

// checked is a device beside its model.
type checked struct {
	t     testing.TB
	r     device.Reader
	dev   device.Device // nil: it can only be read
	model []byte
	tries int

	holeless bool
}

// write tries TryWrite first, and Write if that would block, as a server does. It overwrites the
// buffers afterwards, as the device must not keep them.
func (d *checked) write(batch ...device.Span) {
	d.t.Helper()
	for _, s := range batch {
		copy(d.model[s.Off:], s.Data)
	}
	d.tries++
	var err error = device.ErrWouldBlock
	if d.tries%3 != 0 { // the blocking way must work by itself too
		err = d.dev.TryWrite(batch)
	}
	if err == device.ErrWouldBlock {
		err = d.dev.Write(d.t.Context(), batch)
	}
	if err != nil {
		d.t.Fatalf("write of %d spans at %d: %v", len(batch), batch[0].Off, err)
	}
	for _, s := range batch {
		for i := range s.Data {
			s.Data[i] = 0xee
		}
	}
}

func (d *checked) read(off, n int64) []byte {
	d.t.Helper()
	p := bytes.Repeat([]byte{0xdd}, int(n))
	d.tries++
	var err error = device.ErrWouldBlock
	if d.tries%2 == 0 {
		err = d.r.TryRead(p, off)
	}
	if err == device.ErrWouldBlock || err == device.ErrUnderWay {
		err = d.r.Read(d.t.Context(), p, off)
	}
	if err != nil {
		d.t.Fatalf("read of %d at %d: %v", n, off, err)
	}
	return p
}

func (d *checked) trim(off, n int64) {
	d.t.Helper()
	if err := d.dev.Trim(d.t.Context(), off, n); err != nil {
		d.t.Fatalf("trim of %d at %d: %v", n, off, err)
	}
	clear(d.model[off : off+n])
}

func (d *checked) zero(off, n int64, allocate bool) {
	d.t.Helper()
	if err := d.dev.Zero(d.t.Context(), off, n, allocate); err != nil {
		d.t.Fatalf("zero of %d at %d: %v", n, off, err)
	}
	clear(d.model[off : off+n])
}

// check compares all of the device with the model, in pieces of odd sizes.
func (d *checked) check() {
	d.t.Helper()
	for off, n := int64(0), int64(1); off < int64(len(d.model)); n = n*3 + 1 {
		n = min(n, int64(len(d.model))-off)
		if got, want := d.read(off, n), d.model[off:off+n]; !bytes.Equal(got, want) {
			for i := range got {
				if got[i] != want[i] {
					d.t.Fatalf("byte %d is %#x, want %#x (read of %d at %d)", off+int64(i), got[i], want[i], n, off)
				}
			}
		}
		off += n
	}
}

// extents checks that the extents of a range cover it and are merged, and that those which are said to
// be zero are.
func (d *checked) extents(off, n int64) []device.Extent {
	d.t.Helper()
	var all []device.Extent
	at := off
	err := d.r.Extents(d.t.Context(), off, n, func(e device.Extent) bool {
		if e.Length <= 0 || at+e.Length > off+n {
			d.t.Errorf("extent of %d at %d goes beyond [%d, %d)", e.Length, at, off, off+n)
			return false
		}
		if len(all) > 0 && all[len(all)-1].Hole == e.Hole && all[len(all)-1].Zero == e.Zero {
			d.t.Errorf("extent at %d is not merged with the one before", at)
			return false
		}
		if e.Zero {
			for i, b := range d.model[at : at+e.Length] {
				if b != 0 {
					d.t.Errorf("byte %d is in a zero extent but is %#x", at+int64(i), b)
					return false
				}
			}
		}
		all = append(all, e)
		at += e.Length
		return true
	})
	if err != nil {
		d.t.Fatalf("extents of [%d, %d): %v", off, off+n, err)
	}
	if !d.t.Failed() && at != off+n {
		d.t.Errorf("extents of [%d, %d) end at %d", off, off+n, at)
	}
	calls := 0
	if err := d.r.Extents(d.t.Context(), off, n, func(device.Extent) bool { calls++; return false }); err != nil || calls != 1 {
		d.t.Errorf("extents that were stopped after the first: %d calls, %v", calls, err)
	}
	return all
}

// mustBe checks the allocation of whole clusters that are zero. A new device shows whether it knows
// holes at all; if not, there are none here either.
func (d *checked) mustBe(off, n int64, hole bool) {
	d.t.Helper()
	es := d.extents(off, n)
	if d.holeless {
		hole = false
	}
	if len(es) != 1 || es[0].Hole != hole || hole && !es[0].Zero {
		d.t.Errorf("extents of [%d, %d) are %+v, want one with hole=%v", off, off+n, es, hole)
	}
}

func (d *checked) random(steps int) {
	r := rand.New(rand.NewPCG(1, 2))
	size := int64(len(d.model))
	at := func() (off, n int64) {
		off = r.Int64N(size)
		n = 1 + r.Int64N(min(size-off, 1<<(1+r.IntN(17))))
		if r.IntN(2) == 0 {
			off -= off % cluster
		}
		return off, min(n, size-off)
	}
	for i := range steps {
		off, n := at()
		switch r.IntN(8) {
		case 0:
			d.trim(off, n)
		case 1:
			d.zero(off, n, i%2 == 0)
		case 2:
			d.extents(off, n)
		case 3, 4:
			if got := d.read(off, n); !bytes.Equal(got, d.model[off:off+n]) {
				d.t.Fatalf("step %d: read of %d at %d differs", i, n, off)
			}
		default:
			var batch []device.Span
			for range 1 + r.IntN(6) {
				batch = append(batch, span(int(off), int(n)))
				off, n = at()
			}
			d.write(batch...)
		}
	}
	d.check()
	d.extents(0, size)
}

// concurrent lets writers with a region each and a flusher run side by side.
func (d *checked) concurrent() {
	const writers, region = 8, 64 << 10
	ctx, cancel := context.WithCancel(d.t.Context())
	defer cancel()
	errs := make(chan error, writers+1)
	var wg, flusher sync.WaitGroup
	flusher.Go(func() {
		for ctx.Err() == nil {
			if err := d.dev.Flush(ctx); err != nil && !errors.Is(err, context.Canceled) {
				errs <- fmt.Errorf("flush: %w", err)
				return
			}
		}
	})
	for w := range writers {
		wg.Go(func() {
			p := make([]byte, region)
			for i := range 20 {
				s := span(w*region+i*7, 5000+i)
				if err := d.dev.Write(ctx, []device.Span{s}); err != nil {
					errs <- fmt.Errorf("write: %w", err)
					return
				}
				copy(d.model[s.Off:], s.Data)
				if err := d.r.Read(ctx, p, int64(w*region)); err != nil {
					errs <- fmt.Errorf("read: %w", err)
					return
				}
				if !bytes.Equal(p, d.model[w*region:][:region]) {
					errs <- fmt.Errorf("writer %d does not read what it wrote", w)
					return
				}
			}
		})
	}
	wg.Wait()
	cancel()
	flusher.Wait()
	close(errs)
	for err := range errs {
		d.t.Error(err)
	}
	d.check()
}
