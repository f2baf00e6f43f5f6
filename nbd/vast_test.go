package nbd_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"openvstorage/device"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// Requests of more than 32 bits of length.

const (
	gib  = 1 << 30
	tib  = 1 << 40
	vast = 16 * tib
)

// calls checks what the device was asked since the last time.
func calls(t *testing.T, what string, dev *nbdtest.Vast, want ...nbdtest.Call) {
	t.Helper()
	if got := dev.Calls(); !slices.Equal(got, want) {
		t.Fatalf("%s: the device got %v, want %v", what, got, want)
	}
}

// TestVastRequests: each is one call of the device, with all 64 bits.
func TestVastRequests(t *testing.T) {
	for _, size := range []int64{vast, 1<<62 + 12345} {
		dev := nbdtest.NewVast(size)
		c := serve(t, dev, nbd.Limits{}).client(nbdclient.Options{})
		if c.Size() != size || !c.Extended() {
			t.Fatalf("size %d, extended %v", c.Size(), c.Extended())
		}
		for _, at := range [][2]int64{{0, size}, {1, size - 1}, {size - 1<<32, 1 << 32}, {1<<32 - 1, 1<<32 + 1}, {5 * gib, 8 * tib}} {
			off, n := at[0], at[1]
			if err := c.Trim(off, n); err != nil {
				t.Fatal(err)
			}
			calls(t, "trim", dev, nbdtest.Call{Op: nbdtest.OpTrim, Off: off, N: n})
			if err := c.Zero(off, n, nbd.FlagNoHole|nbd.FlagFastZero|nbd.FlagFUA); err != nil {
				t.Fatal(err)
			}
			calls(t, "zero", dev, nbdtest.Call{Op: nbdtest.OpZero, Off: off, N: n})
		}
	}
}

func TestVastRequestsBeyondTheEnd(t *testing.T) {
	dev := nbdtest.NewVast(vast)
	r := serve(t, dev, nbd.Limits{}).transmit(extended)
	for _, test := range []struct {
		typ    nbd.Command
		off, n uint64
		flags  nbd.CommandFlags
		want   nbd.Errno
	}{
		{nbd.CmdTrim, 0, vast + 1, 0, nbd.EINVAL},
		{nbd.CmdTrim, 1, vast, 0, nbd.EINVAL},
		{nbd.CmdTrim, vast, 1, 0, nbd.EINVAL},
		{nbd.CmdTrim, 1 << 63, 1 << 63, 0, nbd.EINVAL},
		{nbd.CmdTrim, 0, 1<<64 - 1, 0, nbd.EINVAL},
		{nbd.CmdTrim, 1<<64 - 1, 1<<64 - 1, 0, nbd.EINVAL},
		{nbd.CmdTrim, 1<<64 - 1, 2, 0, nbd.EINVAL}, // 1 in 64 bits
		{nbd.CmdWriteZeroes, 1, vast, 0, nbd.ENOSPC},
		{nbd.CmdWriteZeroes, 1<<64 - 1, 2, 0, nbd.ENOSPC},
		{nbd.CmdCache, 1, vast, 0, nbd.EINVAL},
		{nbd.CmdCache, 1<<64 - 1, 2, 0, nbd.EINVAL},
		{nbd.CmdBlockStatus, 1, vast, 0, nbd.EINVAL},
		{nbd.CmdBlockStatus, 0, 0, 0, nbd.EINVAL},
		{nbd.CmdFlush, 0, 1 << 32, 0, nbd.EINVAL}, // 0 in 32 bits
		{nbd.CmdRead, 0, nbd.MaxPayload + 1, 0, nbd.EINVAL},
		{nbd.CmdRead, 0, 1 << 32, 0, nbd.EINVAL}, // 0 in 32 bits
		{nbd.CmdRead, 0, 1<<32 + 512, 0, nbd.EINVAL},
		{nbd.CmdRead, 0, 1 << 63, 0, nbd.EINVAL},
		{nbd.CmdRead, 0, nbd.MaxPayload + 1, nbd.FlagDF, nbd.EOVERFLOW},
		{nbd.CmdRead, 0, 1<<32 + 512, nbd.FlagDF, nbd.EOVERFLOW},
		{nbd.CmdRead, 0, 1<<64 - 1, nbd.FlagDF, nbd.EOVERFLOW},
	} {
		r.request(test.typ, test.flags, test.off, test.n)
		if got := r.errno(); got != test.want {
			t.Errorf("%v [%d, +%d): %v, want %v", test.typ, test.off, test.n, got, test.want)
		}
	}
	calls(t, "refused requests", dev)
}

// TestVastBlockStatus: one request tells all of a device of few extents.
func TestVastBlockStatus(t *testing.T) {
	dev := nbdtest.NewVast(vast)
	s := serve(t, dev, nbd.Limits{RangeTime: time.Hour})
	c := s.client(nbdclient.Options{})
	hole := device.Extent{Length: vast, Hole: true, Zero: true}
	status := func(what string, r nbdclient.Request, want ...device.Extent) {
		t.Helper()
		r.Type = nbd.CmdBlockStatus
		if err := c.Do(&r); err != nil || !slices.Equal(r.Extents, want) {
			t.Fatalf("%s: %+v %v, want %+v", what, r.Extents, err, want)
		}
	}
	status("empty", nbdclient.Request{Length: vast}, hole)
	c.WriteAt([]byte("x"), 9*tib)
	c.Zero(10*tib, 5*tib, nbd.FlagNoHole)
	want := []device.Extent{
		{Length: 9 * tib, Hole: true, Zero: true}, {Length: 1}, {Length: tib - 1, Hole: true, Zero: true},
		{Length: 5 * tib, Zero: true}, {Length: tib, Hole: true, Zero: true},
	}
	status("all", nbdclient.Request{Length: vast}, want...)
	status("all of its context", nbdclient.Request{Length: vast, Contexts: []uint32{nbd.BaseAllocationID}}, want...)
	status("one", nbdclient.Request{Length: vast, Flags: nbd.FlagReqOne}, want[0])
	status("one of its context", nbdclient.Request{Length: vast, Flags: nbd.FlagReqOne, Contexts: []uint32{nbd.BaseAllocationID}}, want[0])
	status("a part", nbdclient.Request{Offset: 9*tib - 1, Length: 5 * gib},
		device.Extent{Length: 1, Hole: true, Zero: true}, device.Extent{Length: 1}, device.Extent{Length: 5*gib - 2, Hole: true, Zero: true})
	if es, err := c.BlockStatus(8*tib, 8*tib); err != nil || !slices.Equal(es[1:], want[1:]) || es[0].Length != tib {
		t.Fatalf("the upper half: %+v, %v", es, err)
	}
	compact := s.client(nbdclient.Options{Compact: true})
	if es, err := compact.BlockStatus(0, vast); err != nil || len(es) != 1 || es[0].Length != 4*gib-4096 {
		t.Fatalf("without extended headers: %+v, %v", es, err)
	}
}

// TestVastRangesTakeBoundedTime: with no time at all, each request gets one
// window of 4 GiB further. That is enough for BLOCK_STATUS, and CACHE is a hint.
func TestVastRangesTakeBoundedTime(t *testing.T) {
	dev := nbdtest.NewVast(vast)
	c := serve(t, dev, nbd.Limits{RangeTime: 1}).client(nbdclient.Options{})
	for off := int64(0); off < 5; off++ {
		es, err := c.BlockStatus(off, vast-off)
		if err != nil || len(es) != 1 || es[0].Length != 4*gib {
			t.Fatalf("%+v, %v", es, err)
		}
		calls(t, "block status", dev, nbdtest.Call{Op: nbdtest.OpExtents, Off: off, N: 4 * gib})
	}
	if err := c.Cache(1, vast-1); err != nil {
		t.Fatal(err)
	}
	calls(t, "cache", dev, nbdtest.Call{Op: nbdtest.OpPrefetch, Off: 1, N: 4 * gib})

	c = serve(t, dev, nbd.Limits{RangeTime: time.Hour}).client(nbdclient.Options{})
	if err := c.Cache(1, 9*gib); err != nil {
		t.Fatal(err)
	}
	calls(t, "cache with time", dev, nbdtest.Call{Op: nbdtest.OpPrefetch, Off: 1, N: 4 * gib},
		nbdtest.Call{Op: nbdtest.OpPrefetch, Off: 1 + 4*gib, N: 4 * gib}, nbdtest.Call{Op: nbdtest.OpPrefetch, Off: 1 + 8*gib, N: gib})
}

// TestVastBlockStatusUpToDamage: what can be told is told. Whoever asks for
// the rest gets the error.
func TestVastBlockStatusUpToDamage(t *testing.T) {
	dev := nbdtest.NewVast(vast)
	dev.Hook = func(_ context.Context, _ nbdtest.Op, off, n int64) error {
		if off+n > 10*gib {
			return fmt.Errorf("map page: %w", syscall.EIO)
		}
		return nil
	}
	c := serve(t, dev, nbd.Limits{}).client(nbdclient.Options{})
	es, err := c.BlockStatus(0, vast)
	if err != nil || len(es) != 1 || es[0].Length != 8*gib {
		t.Fatalf("%+v, %v", es, err)
	}
	if _, err := c.BlockStatus(8*gib, vast-8*gib); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "map page") {
		t.Fatal(err)
	}
	if err := c.Cache(0, vast); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
}

// TestVastRequestsNeedExtendedHeaders: a client without sends nothing.
func TestVastRequestsNeedExtendedHeaders(t *testing.T) {
	dev := nbdtest.NewVast(vast)
	s := serve(t, dev, nbd.Limits{})
	for _, m := range []mode{simple, structured} {
		c := s.client(m.client())
		if c.Extended() {
			t.Fatalf("%v client has extended headers", m)
		}
		refused := []*nbdclient.Request{
			{Type: nbd.CmdTrim, Length: 8 * tib},
			{Type: nbd.CmdWriteZeroes, Length: 1 << 32},
			{Type: nbd.CmdBlockStatus, Length: 4096, Contexts: []uint32{1}},
		}
		var wg sync.WaitGroup
		fine := &nbdclient.Request{Type: nbd.CmdTrim, Offset: vast - 4096, Length: 4096}
		all := append(slices.Clone(refused), fine)
		for _, r := range all {
			wg.Add(1)
			r.Done = func(*nbdclient.Request) { wg.Done() }
		}
		c.Start(all...)
		wg.Wait()
		for _, r := range refused {
			if r.Err == nil || !strings.Contains(r.Err.Error(), "extended headers") {
				t.Errorf("%v %v of %d: %v", m, r.Type, r.Length, r.Err)
			}
		}
		if fine.Err != nil {
			t.Errorf("%v: the request behind them: %v", m, fine.Err)
		}
		calls(t, m.String(), dev, nbdtest.Call{Op: nbdtest.OpTrim, Off: vast - 4096, N: 4096})
	}
}

// TestVastModel runs random requests of any size against a second device that
// gets them directly.
func TestVastModel(t *testing.T) {
	dev, model := nbdtest.NewVast(vast), nbdtest.NewVast(vast)
	c := serve(t, dev, nbd.Limits{}).client(nbdclient.Options{})
	r := rand.New(rand.NewPCG(5, 6))
	for step := range 400 {
		off := r.Int64N(vast)
		n := 1 + r.Int64N(min(vast-off, 1<<r.IntN(45)))
		var err error
		switch r.IntN(6) {
		case 0, 1:
			err = errors.Join(c.Trim(off, n), model.Trim(t.Context(), off, n))
		case 2:
			err = errors.Join(c.Zero(off, n, nbd.FlagNoHole), model.Zero(t.Context(), off, n, true))
		case 3:
			err = errors.Join(c.Zero(off, n, 0), model.Zero(t.Context(), off, n, false))
		default:
			p := make([]byte, min(n, 9000))
			_, err = c.WriteAt(p, off)
			err = errors.Join(err, model.TryWrite([]device.Span{{Off: off, Data: p}}))
		}
		if err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		if step%20 == 0 {
			if got, want := extents(t, c, off), modelExtents(t, model, off); !slices.Equal(got, want) {
				t.Fatalf("step %d, from %d: extents are\n%+v, want\n%+v", step, off, got, want)
			}
		}
	}
}

// extents asks for all from off on.
func extents(t *testing.T, c *nbdclient.Client, off int64) (all []device.Extent) {
	t.Helper()
	for off < c.Size() {
		es, err := c.BlockStatus(off, c.Size()-off)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			off += e.Length
			if last := len(all) - 1; last >= 0 && all[last].Hole == e.Hole && all[last].Zero == e.Zero {
				all[last].Length += e.Length
				continue
			}
			all = append(all, e)
		}
	}
	return all
}

func modelExtents(t *testing.T, dev device.Reader, off int64) (all []device.Extent) {
	t.Helper()
	err := dev.Extents(t.Context(), off, dev.Size()-off, func(e device.Extent) bool {
		all = append(all, e)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
