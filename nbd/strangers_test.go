package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"openvstorage/device"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// crowded is a server all of whose memory strangers hold, in requests that do
// not end before the gate is open, and whose other export waits for nothing but
// what dev's hook says.
func crowded(t *testing.T, dev *nbdtest.Memory) (s *served, open func()) {
	t.Helper()
	stuck := nbdtest.NewMemory(64 << 20)
	gate, _ := gated(stuck, nbdtest.OpRead)
	limits := nbd.Limits{RequestBytes: 33 << 20, ServerBytes: 33 << 20}
	s = serveExports(t, nbdtest.Exports{"stuck": stuck, "disk": dev}, limits)
	var waits []func() error
	// Each gets what is left free, down to what is always there.
	for n := 16 << 20; n >= 1<<20; n /= 2 {
		c := s.client(nbdclient.Options{Export: "stuck"})
		waits = append(waits, startAll(c, 1, func(int) *nbdclient.Request {
			return &nbdclient.Request{Type: nbd.CmdRead, Data: make([]byte, n)}
		}))
	}
	for s.Stats().RequestBytes < 31<<20 {
		runtime.Gosched()
	}
	return s, func() {
		gate.Open()
		for _, wait := range waits {
			if err := wait(); err != nil {
				t.Error(err)
			}
		}
	}
}

// blocking has all of a device's requests wait in workers.
func blocking(dev *nbdtest.Memory, then func(op nbdtest.Op, off int64) error) {
	dev.Hook = func(_ context.Context, op nbdtest.Op, off, _ int64) error {
		if op == nbdtest.OpTryRead || op == nbdtest.OpTryWrite {
			return device.ErrWouldBlock
		}
		if then != nil {
			return then(op, off)
		}
		return nil
	}
}

// TestRequestsDoNotWaitForStrangers: with all memory in strangers' hands, every
// request of every size is served, many at once.
func TestRequestsDoNotWaitForStrangers(t *testing.T) {
	dev := nbdtest.NewMemory(40 << 20)
	blocking(dev, nil)
	s, open := crowded(t, dev)
	modes(t, func(t *testing.T, m mode) {
		c := s.client(m.client())
		for _, n := range []int{1, 4096, 64 << 10, 64<<10 + 1, 1 << 20, 1<<20 + 1, 3<<20 + 77, nbd.MaxPayload} {
			for _, off := range []uint64{0, 4096, 12345} {
				w := &nbdclient.Request{Type: nbd.CmdWrite, Flags: nbd.FlagFUA, Offset: off, Data: bytes.Repeat([]byte{byte(n), byte(off), 3}, n/3+1)[:n]}
				if err := c.Do(w); err != nil {
					t.Fatalf("write of %d at %d: %v", n, off, err)
				}
				for _, flags := range []nbd.CommandFlags{0, nbd.FlagDF} {
					if m == simple && flags != 0 {
						continue
					}
					r := &nbdclient.Request{Type: nbd.CmdRead, Flags: flags, Offset: off, Data: make([]byte, n)}
					if err := c.Do(r); err != nil || !bytes.Equal(r.Data, w.Data) {
						t.Fatalf("read of %d at %d, flags %#x: %v", n, off, flags, err)
					}
				}
			}
		}
		for _, typ := range []nbd.Command{nbd.CmdRead, nbd.CmdWrite} {
			wait := startAll(c, 40, func(i int) *nbdclient.Request {
				return &nbdclient.Request{Type: typ, Offset: uint64(i) * 4096, Data: make([]byte, []int{4096, 200 << 10, 5 << 20}[i%3])}
			})
			if err := wait(); err != nil {
				t.Fatal(err)
			}
		}
	})
	open()
}

// TestNarrowReadThatFails: in the middle of a reply of several chunks the client
// is told; in the middle of any other it is hung up on.
func TestNarrowReadThatFails(t *testing.T) {
	dev := nbdtest.NewMemory(40 << 20)
	blocking(dev, func(op nbdtest.Op, off int64) error {
		if op == nbdtest.OpRead && off >= 3<<20 {
			return syscall.EIO
		}
		return nil
	})
	s, open := crowded(t, dev)
	modes(t, func(t *testing.T, m mode) {
		for _, flags := range []nbd.CommandFlags{0, nbd.FlagDF} {
			if m == simple && flags != 0 {
				continue
			}
			r := s.transmit(m)
			r.request(nbd.CmdRead, flags, 3<<20, 16<<20) // fails at once
			if e := r.errno(); e != nbd.EIO {
				t.Fatal(e)
			}
			r.request(nbd.CmdRead, flags, 0, 16<<20)
			if m == simple || flags == nbd.FlagDF {
				if n, err := io.Copy(io.Discard, r.Conn); err != nil || n < 3<<20 || n > 3<<20+64 {
					t.Errorf("%d bytes, %v", n, err)
				}
				continue
			}
			size := nbd.ChunkLen
			if m == extended {
				size = nbd.ExtendedChunkLen
			}
			for at := uint64(0); ; {
				head := r.read(size)
				n := binary.BigEndian.Uint64(append(make([]byte, 4), head[16:20]...))
				if m == extended {
					n = binary.BigEndian.Uint64(head[24:])
				}
				p := r.read(int(n))
				if typ := nbd.ChunkType(binary.BigEndian.Uint16(head[6:])); typ == nbd.ChunkError {
					if at != 3<<20 || binary.BigEndian.Uint16(head[4:]) != nbd.ChunkDone {
						t.Errorf("an error after %d bytes, flags %x", at, head[4:6])
					}
					break
				}
				if binary.BigEndian.Uint64(p) != at || binary.BigEndian.Uint16(head[4:]) != 0 {
					t.Fatalf("chunk of offset %d, want %d; flags %x", binary.BigEndian.Uint64(p), at, head[4:6])
				}
				at += n - 8
			}
			r.request(nbd.CmdFlush, 0, 0, 0)
			if e := r.errno(); e != nbd.OK {
				t.Error(e)
			}
		}
	})
	open()
}

// TestWriteInPiecesFails: one piece fails, the client gets its error once and the
// stream goes on.
func TestWriteInPiecesFails(t *testing.T) {
	for _, inline := range []bool{false, true} {
		dev := nbdtest.NewMemory(16 << 20)
		dev.Hook = func(_ context.Context, op nbdtest.Op, off, _ int64) error {
			switch {
			case op == nbdtest.OpTryWrite && !inline:
				return device.ErrWouldBlock
			case (op == nbdtest.OpWrite || op == nbdtest.OpTryWrite) && off == 2<<20:
				return syscall.ENOSPC
			}
			return nil
		}
		c := serve(t, dev, nbd.Limits{}).client(nbdclient.Options{})
		for _, flags := range []nbd.CommandFlags{0, nbd.FlagFUA} {
			err := c.Do(&nbdclient.Request{Type: nbd.CmdWrite, Flags: flags, Data: make([]byte, 8<<20)})
			if nbd.ErrnoOf(err) != nbd.ENOSPC {
				t.Errorf("inline %v, flags %#x: %v", inline, flags, err)
			}
			err = c.Do(&nbdclient.Request{Type: nbd.CmdWrite, Flags: flags, Offset: 4 << 20, Data: make([]byte, 8<<20)})
			if err != nil {
				t.Errorf("the next one: %v", err)
			}
		}
	}
}

// TestPiecesCoverTheirWrite: a long write with FUA is flushed once, after all of
// its pieces, and the device gets no cluster in two parts.
func TestPiecesCoverTheirWrite(t *testing.T) {
	for _, off := range []int64{0, 1, 4095, 4096, 70000} {
		dev := nbdtest.NewMemory(16 << 20)
		var flushed, torn atomic.Int64
		blocking(dev, func(op nbdtest.Op, at int64) error {
			switch op {
			case nbdtest.OpFlush:
				flushed.Add(1)
			case nbdtest.OpWrite:
				if at != off && at%4096 != 0 {
					torn.Add(1)
				}
			}
			return nil
		})
		c := serve(t, dev, nbd.Limits{}).client(nbdclient.Options{})
		for _, n := range []int{1 << 20, 1<<20 + 1, 2<<20 - 1, 7<<20 + 123} {
			flushed.Store(0)
			data := bytes.Repeat([]byte("payload"), n/7+1)[:n]
			if err := c.Do(&nbdclient.Request{Type: nbd.CmdWrite, Flags: nbd.FlagFUA, Offset: uint64(off), Data: data}); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, n)
			if err := dev.Read(t.Context(), got, off); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes at %d: other data, %v", n, off, err)
			}
			if flushed.Load() != 1 || torn.Load() != 0 || dev.Unflushed() != 0 {
				t.Errorf("%d bytes at %d: %d flushes, %d pieces begin within a cluster, %d unflushed", n, off, flushed.Load(), torn.Load(), dev.Unflushed())
			}
		}
	}
}

// TestSlowClientsAreSentAway: one that sends, or takes, a byte now and then is no
// better than one that has stopped.
func TestSlowClientsAreSentAway(t *testing.T) {
	const stall = 50 * time.Millisecond
	limits := nbd.Limits{StallTimeout: stall, Rate: 1 << 30} // more than goes byte by byte
	s := serve(t, nbdtest.NewMemory(64<<20), limits)
	for _, begin := range map[string]func() *raw{
		"head":    func() *raw { r := s.transmit(simple); r.send(r.frame(nbd.CmdWrite, 0, 0, 32<<20)...); return r },
		"small":   func() *raw { r := s.transmit(simple); r.send(r.frame(nbd.CmdWrite, 0, 0, 60<<10)...); return r },
		"refused": func() *raw { r := s.transmit(simple); r.send(r.frame(nbd.CmdWrite, 0, 1<<40, 32<<20)...); return r },
	} {
		r := begin()
		for {
			if _, err := r.Write([]byte{0}); err != nil {
				break
			}
		}
	}
	r := s.transmit(simple)
	r.send(bytes.Repeat(r.frame(nbd.CmdRead, 0, 0, 16<<20), 2)...)
	for failed := s.Stats().Failed; s.Stats().Failed == failed; {
		if _, err := r.Conn.Read(make([]byte, 1)); err != nil {
			break
		}
	}
	for len(s.Connections()) > 0 { // the last one is about to go
		runtime.Gosched()
	}
}
