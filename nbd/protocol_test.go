package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"

	"openvstorage/device"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// The tests follow the sections of the protocol's specification.

// Handshake phase.

func TestHandshakeGreeting(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).dial()
	want := append([]byte("NBDMAGICIHAVEOPT"), 0, 3)
	if got := r.read(18); !bytes.Equal(got, want) {
		t.Fatalf("greeting is %q, want %q", got, want)
	}
}

func TestHandshakeUnknownClientFlagsClose(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).dial()
	r.read(18)
	r.send(0, 0, 0, 7)
	r.closed()
}

func TestHandshakeWithoutFixedNewstyle(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{})
	r := s.dial()
	r.Start(0)
	r.Send(nbd.OptExportName, []byte("disk"))
	b := r.read(8 + 2 + 124)
	if binary.BigEndian.Uint64(b) != testSize || !bytes.Equal(b[10:], make([]byte, 124)) {
		t.Fatalf("reply to EXPORT_NAME: %x", b)
	}
	r.request(nbd.CmdFlush, 0, 0, 0)
	if e := r.simple(); e != nbd.OK {
		t.Fatal(e)
	}
	r = s.dial()
	r.Start(0)
	r.Send(nbd.OptList, nil)
	r.closed()
}

func TestHandshakeBadOptionMagicCloses(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).options()
	r.send([]byte("IHAVEOPXaaaabbbb")...)
	r.closed()
}

func TestHandshakeSlowClientIsHungUpOn(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{HandshakeTimeout: 1}).dial()
	io.Copy(io.Discard, r.Conn) // ends, at the server's will
}

// Option types.

func TestOptionExportName(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{})
	for _, name := range []string{"disk", ""} {
		r := s.options()
		r.Send(nbd.OptExportName, []byte(name))
		b := r.read(10) // NO_ZEROES: nothing more
		if binary.BigEndian.Uint64(b) != testSize {
			t.Fatalf("size: %x", b)
		}
		want := nbd.HasFlags | nbd.SendFlush | nbd.SendFUA | nbd.SendTrim | nbd.SendWriteZeroes | nbd.SendFastZero | nbd.CanMultiConn | nbd.SendCache
		if got := nbd.TransmissionFlags(binary.BigEndian.Uint16(b[8:])); got != want {
			t.Fatalf("transmission flags are %#x, want %#x", got, want)
		}
		r.request(nbd.CmdRead, 0, 0, 5)
		if e := r.simple(); e != nbd.OK {
			t.Fatal(e)
		}
		r.read(5)
	}
	for _, name := range []string{"other", strings.Repeat("x", 4097)} {
		r := s.options()
		r.Send(nbd.OptExportName, []byte(name))
		r.closed()
	}
}

func TestOptionAbort(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).options()
	if typ := r.last(nbd.OptAbort, nil); typ != nbd.RepAck {
		t.Fatalf("reply %#x", typ)
	}
	r.closed()
}

func TestOptionList(t *testing.T) {
	exports := nbdtest.Exports{"b": nbdtest.NewMemory(1), "a": nbdtest.NewMemory(2)}
	r := serveExports(t, exports, nbd.Limits{}).options()
	rs, err := r.Option(nbd.OptList, nil)
	if err != nil || len(rs) != 3 {
		t.Fatal(rs, err)
	}
	for i, name := range []string{"a", "b"} {
		want := "\x00\x00\x00\x01" + name + "memory"
		if rs[i].Type != nbd.RepServer || string(rs[i].Payload) != want {
			t.Fatalf("reply %d: %#x %q, want %q", i, rs[i].Type, rs[i].Payload, want)
		}
	}
	if typ := r.last(nbd.OptList, []byte("x")); typ != nbd.RepErrInvalid {
		t.Fatalf("LIST with a payload: %#x", typ)
	}
}

func TestOptionInfoAndGo(t *testing.T) {
	exports := nbdtest.Exports{"rw": nbdtest.NewMemory(12345), "ro": nbdtest.ReadOnly(nbdtest.Holding(make([]byte, 99)))}
	s := serveExports(t, exports, nbd.Limits{})
	r := s.options()
	e, err := r.Info("ro")
	want := nbdclient.ExportInfo{
		Size: 99, Flags: nbd.HasFlags | nbd.SendFlush | nbd.SendFUA | nbd.CanMultiConn | nbd.SendCache | nbd.ReadOnly,
		MinBlock: 1, PreferredBlock: 4096, Most: 32 << 20, Name: "ro", Description: "memory",
	}
	if err != nil || e != want {
		t.Fatalf("INFO: %+v %v, want %+v", e, err, want)
	}
	for _, test := range []struct {
		payload []byte
		want    nbd.OptionReply
	}{
		{nbdclient.InfoPayload("none"), nbd.RepErrUnknown},
		{nbdclient.InfoPayload(""), nbd.RepErrUnknown}, // there are two
		{nbdclient.InfoPayload(strings.Repeat("x", 4097)), nbd.RepErrTooBig},
		{nil, nbd.RepErrInvalid},
		{nbdclient.InfoPayload("rw")[:4], nbd.RepErrInvalid},
		{append(nbdclient.InfoPayload("rw"), 0), nbd.RepErrInvalid},
		{[]byte{255, 255, 255, 255, 'r', 'w', 0, 0}, nbd.RepErrInvalid},
		{[]byte{0, 0, 0, 2, 'r', 'w', 0, 1}, nbd.RepErrInvalid},
	} {
		for _, opt := range []nbd.Option{nbd.OptInfo, nbd.OptGo} {
			if got := r.last(opt, test.payload); got != test.want {
				t.Errorf("option %d, payload %.20x: reply %#x, want %#x", opt, test.payload, got, test.want)
			}
		}
	}
	if e, err := r.Go("rw"); err != nil || e.Size != 12345 {
		t.Fatal(e, err)
	}
	r.request(nbd.CmdFlush, 0, 0, 0)
	r.simple()
}

func TestOptionStructuredReplyOffersDF(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).options()
	if typ := r.last(nbd.OptStructuredReply, []byte{1}); typ != nbd.RepErrInvalid {
		t.Fatalf("STRUCTURED_REPLY with a payload: %#x", typ)
	}
	if e, _ := r.Info("disk"); e.Flags&nbd.SendDF != 0 {
		t.Fatal("DF without structured replies")
	}
	r.StructuredReply()
	if e, _ := r.Info("disk"); e.Flags&nbd.SendDF == 0 {
		t.Fatal("no DF with structured replies")
	}
}

func TestOptionMetaContext(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).options()
	for _, opt := range []nbd.Option{nbd.OptListMetaContext, nbd.OptSetMetaContext} {
		if typ := r.last(opt, nbdclient.MetaPayload("disk", nbd.BaseAllocation)); typ != nbd.RepErrInvalid {
			t.Fatalf("without structured replies: %#x", typ)
		}
	}
	r.StructuredReply()
	for _, test := range []struct {
		opt     nbd.Option
		payload []byte
		want    []nbd.OptionReply
	}{
		{nbd.OptListMetaContext, nbdclient.MetaPayload("disk"), []nbd.OptionReply{nbd.RepMetaContext, nbd.RepAck}},
		{nbd.OptListMetaContext, nbdclient.MetaPayload("", "base:"), []nbd.OptionReply{nbd.RepMetaContext, nbd.RepAck}},
		{nbd.OptListMetaContext, nbdclient.MetaPayload("disk", "qemu:", "base:allocation"), []nbd.OptionReply{nbd.RepMetaContext, nbd.RepAck}},
		{nbd.OptListMetaContext, nbdclient.MetaPayload("disk", "qemu:"), []nbd.OptionReply{nbd.RepAck}},
		{nbd.OptListMetaContext, nbdclient.MetaPayload("none"), []nbd.OptionReply{nbd.RepErrUnknown}},
		{nbd.OptSetMetaContext, nbdclient.MetaPayload("disk"), []nbd.OptionReply{nbd.RepAck}},
		{nbd.OptSetMetaContext, nbdclient.MetaPayload("disk", "base:"), []nbd.OptionReply{nbd.RepAck}},
		{nbd.OptSetMetaContext, nbdclient.MetaPayload("none", nbd.BaseAllocation), []nbd.OptionReply{nbd.RepErrUnknown}},
		{nbd.OptSetMetaContext, nbdclient.MetaPayload("disk", nbd.BaseAllocation)[:20], []nbd.OptionReply{nbd.RepErrInvalid}},
		{nbd.OptSetMetaContext, append(nbdclient.MetaPayload("disk"), 0), []nbd.OptionReply{nbd.RepErrInvalid}},
		{nbd.OptSetMetaContext, []byte{0, 0, 0, 0, 0, 0}, []nbd.OptionReply{nbd.RepErrInvalid}},
		{nbd.OptSetMetaContext, []byte{0, 0, 0, 0, 0, 1, 0, 0}, []nbd.OptionReply{nbd.RepErrTooBig}},
		{nbd.OptSetMetaContext, nbdclient.MetaPayload("disk", nbd.BaseAllocation), []nbd.OptionReply{nbd.RepMetaContext, nbd.RepAck}},
	} {
		rs, err := r.Option(test.opt, test.payload)
		if err != nil {
			t.Fatal(err)
		}
		var got []nbd.OptionReply
		for _, reply := range rs {
			got = append(got, reply.Type)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("option %d %.40q: %#x, want %#x", test.opt, test.payload, got, test.want)
		}
	}
}

func TestOptionMetaContextIsOfItsExport(t *testing.T) {
	exports := nbdtest.Exports{"a": nbdtest.NewMemory(testSize), "b": nbdtest.NewMemory(testSize)}
	s := serveExports(t, exports, nbd.Limits{})
	for _, test := range []struct {
		select2 string // after a was selected
		enter   string
		want    nbd.Errno
	}{{"", "a", nbd.OK}, {"", "b", nbd.EINVAL}, {"none", "a", nbd.EINVAL}, {"b", "b", nbd.OK}} {
		r := s.options()
		r.StructuredReply()
		r.SetMetaContext("a", nbd.BaseAllocation)
		if test.select2 != "" {
			r.SetMetaContext(test.select2, nbd.BaseAllocation)
		}
		r.Go(test.enter)
		r.request(nbd.CmdBlockStatus, 0, 0, 4096)
		typ, p := r.chunk()
		if got := typ == nbd.ChunkBlockStatus; got != (test.want == nbd.OK) {
			t.Errorf("%+v: chunk %#x %x", test, typ, p)
		}
	}
}

func TestOptionUnsupported(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).options()
	for _, opt := range []nbd.Option{nbd.OptStartTLS, 4, 12, 0xffffffff} {
		if typ := r.last(opt, []byte("some payload")); typ != nbd.RepErrUnsup {
			t.Errorf("option %d: reply %#x", opt, typ)
		}
	}
	if _, err := r.Go("disk"); err != nil {
		t.Fatal(err)
	}
}

func TestOptionTooLong(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{})
	r := s.options()
	if typ := r.last(nbd.OptGo, make([]byte, 64<<10+1)); typ != nbd.RepErrTooBig {
		t.Fatalf("reply %#x", typ)
	}
	if typ := r.last(nbd.OptAbort, nil); typ != nbd.RepAck {
		t.Fatalf("reply %#x", typ)
	}
	r = s.options()
	r.send(append(binary.BigEndian.AppendUint64(nil, nbd.OptionMagic), 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff)...)
	r.closed()
}

// Transmission phase: requests.

func TestReadAndWrite(t *testing.T) {
	modes(t, func(t *testing.T, m mode) {
		s := serve(t, nbdtest.NewMemory(40<<20), nbd.Limits{})
		c := s.client(m.client())
		off := int64(3)
		for _, n := range []int{1, 4096, 64<<10 - 1, 64 << 10, 64<<10 + 1, 300 << 10, 1 << 20, 5<<20 + 1, nbd.MaxPayload} {
			p := make([]byte, n)
			for i := range p {
				p[i] = byte(i*7 + n + i>>8)
			}
			if _, err := c.WriteAt(p, off); err != nil {
				t.Fatalf("write %d: %v", n, err)
			}
			q := make([]byte, n)
			if _, err := c.ReadAt(q, off); err != nil || !bytes.Equal(p, q) {
				t.Fatalf("read %d: %v, equal: %v", n, err, bytes.Equal(p, q))
			}
		}
	})
}

func TestPipelinedMixOfSizes(t *testing.T) {
	modes(t, func(t *testing.T, m mode) {
		const slot, n = 256 << 10, 64
		s := serve(t, nbdtest.NewMemory(n*slot), nbd.Limits{})
		c := s.client(m.client())
		sizes := []int{1, 512, 4096, 100 << 10, 7, slot, 65536, 0}
		rs := make([]*nbdclient.Request, n)
		done := make(chan *nbdclient.Request, n)
		for pass, typ := range []nbd.Command{nbd.CmdWrite, nbd.CmdRead} {
			for i := range rs {
				p := make([]byte, sizes[i%len(sizes)])
				if pass == 0 {
					for j := range p {
						p[j] = byte(i + j)
					}
				}
				rs[i] = &nbdclient.Request{Type: typ, Offset: uint64(i * slot), Data: p, Done: func(r *nbdclient.Request) { done <- r }}
			}
			c.Start(rs...)
			for range rs {
				if r := <-done; r.Err != nil {
					t.Fatal(r.Err)
				}
			}
		}
		for i, r := range rs {
			for j, b := range r.Data {
				if b != byte(i+j) {
					t.Fatalf("request %d byte %d is %d", i, j, b)
				}
			}
		}
	})
}

func TestReadReplyShapes(t *testing.T) {
	s := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{})
	r := s.transmit(extended)
	r.request(nbd.CmdRead, nbd.FlagDF, 4096, 100)
	if typ, p := r.chunk(); typ != nbd.ChunkOffsetData || len(p) != 108 || binary.BigEndian.Uint64(p) != 4096 {
		t.Fatalf("extended: chunk %#x of %d", typ, len(p))
	}
	r = s.transmit(structured)
	for _, flags := range []nbd.CommandFlags{0, nbd.FlagDF, nbd.FlagFUA} {
		r.request(nbd.CmdRead, flags, 4096, 100)
		typ, p := r.chunk()
		if typ != nbd.ChunkOffsetData || len(p) != 108 || binary.BigEndian.Uint64(p) != 4096 {
			t.Fatalf("chunk %#x of %d", typ, len(p))
		}
	}
	r.request(nbd.CmdRead, 0, 4096, 0)
	if typ, p := r.chunk(); typ != nbd.ChunkNone || len(p) != 0 {
		t.Fatalf("empty read: chunk %#x of %d", typ, len(p))
	}
	r = s.transmit(simple)
	r.request(nbd.CmdRead, nbd.FlagDF, 0, 1)
	if e := r.simple(); e != nbd.EINVAL {
		t.Fatalf("DF without structured replies: %v", e)
	}
}

func TestRefusedRequestsKeepTheStream(t *testing.T) {
	type test struct {
		typ   nbd.Command
		flags nbd.CommandFlags
		off   uint64
		n     uint64
		want  nbd.Errno
	}
	const end = testSize
	rw := []test{
		{nbd.CmdRead, 0, end, 1, nbd.EINVAL},
		{nbd.CmdRead, 0, end - 1, 2, nbd.EINVAL},
		{nbd.CmdRead, 0, 1 << 63, 1, nbd.EINVAL},
		{nbd.CmdRead, 0, ^uint64(0), 1, nbd.EINVAL},
		{nbd.CmdRead, 0, end + 1, 0, nbd.EINVAL},
		{nbd.CmdRead, 0, 0, 32<<20 + 1, nbd.EINVAL},
		{nbd.CmdRead, 0, 0, 1<<32 - 1, nbd.EINVAL},
		{nbd.CmdRead, nbd.FlagNoHole, 0, 1, nbd.EINVAL},
		{nbd.CmdRead, 1 << 15, 0, 1, nbd.EINVAL},
		{nbd.CmdWrite, 0, end, 1, nbd.ENOSPC},
		{nbd.CmdWrite, 0, end - 4095, 4096, nbd.ENOSPC},
		{nbd.CmdWrite, 0, end - 4095, 200 << 10, nbd.ENOSPC},
		{nbd.CmdWrite, nbd.FlagDF, 0, 4096, nbd.EINVAL},
		{nbd.CmdWrite, nbd.FlagReqOne, 0, 3 << 20, nbd.EINVAL},
		{nbd.CmdWrite, 0, 0, 32<<20 + 1, nbd.EINVAL},
		{nbd.CmdWrite, 0, 0, 0, nbd.OK},
		{nbd.CmdWrite, nbd.FlagFUA, end, 0, nbd.OK},
		{nbd.CmdFlush, 0, 1, 0, nbd.EINVAL},
		{nbd.CmdFlush, 0, 0, 1, nbd.EINVAL},
		{nbd.CmdFlush, nbd.FlagDF, 0, 0, nbd.EINVAL},
		{nbd.CmdFlush, nbd.FlagFUA, 0, 0, nbd.OK},
		{nbd.CmdTrim, 0, end, 1, nbd.EINVAL},
		{nbd.CmdTrim, 0, 0, 1<<32 - 1, nbd.EINVAL},
		{nbd.CmdTrim, nbd.FlagNoHole, 0, 1, nbd.EINVAL},
		{nbd.CmdTrim, 0, 0, 0, nbd.OK},
		{nbd.CmdTrim, nbd.FlagFUA, 0, end, nbd.OK},
		{nbd.CmdWriteZeroes, 0, end, 1, nbd.ENOSPC},
		{nbd.CmdWriteZeroes, 0, 0, 0, nbd.OK},
		{nbd.CmdWriteZeroes, nbd.FlagFUA | nbd.FlagNoHole | nbd.FlagFastZero, 1, end - 2, nbd.OK},
		{nbd.CmdWriteZeroes, nbd.FlagReqOne, 0, 1, nbd.EINVAL},
		{nbd.CmdCache, 0, end, 1, nbd.EINVAL},
		{nbd.CmdCache, 0, 0, end, nbd.OK},
		{nbd.CmdCache, nbd.FlagFUA, 0, 0, nbd.OK},
		{8, 0, 0, 0, nbd.EINVAL},
		{0xffff, 0xffff, 1, 100, nbd.EINVAL},
	}
	ro := []test{
		{nbd.CmdWrite, 0, 0, 4096, nbd.EPERM},
		{nbd.CmdWrite, 0, 0, 0, nbd.EPERM},
		{nbd.CmdTrim, 0, 0, 4096, nbd.EPERM},
		{nbd.CmdWriteZeroes, 0, 0, 4096, nbd.EPERM},
		{nbd.CmdFlush, 0, 0, 0, nbd.OK},
		{nbd.CmdCache, 0, 0, 1, nbd.OK},
	}
	modes(t, func(t *testing.T, m mode) {
		for name, tests := range map[string][]test{"rw": rw, "ro": ro} {
			var dev device.Reader = nbdtest.NewMemory(testSize)
			if name == "ro" {
				dev = nbdtest.ReadOnly(nbdtest.Holding(make([]byte, testSize)))
			}
			r := serve(t, dev, nbd.Limits{}).transmit(m)
			for _, test := range tests {
				if m == extended && test.typ == nbd.CmdWrite && test.n > nbd.MaxPayload {
					continue // closes: TestPayloadBeyondTheMostCloses
				}
				var payload []byte
				if test.typ == nbd.CmdWrite || m == extended && test.flags&nbd.FlagPayloadLen != 0 {
					payload = make([]byte, test.n)
				}
				go r.send(r.frame(test.typ, test.flags, test.off, test.n, payload...)...)
				if got := r.errno(); got != test.want {
					t.Errorf("%s: %v flags %#x [%d, +%d): %v, want %v", name, test.typ, test.flags, test.off, test.n, got, test.want)
				}
			}
			r.request(nbd.CmdFlush, 0, 0, 0)
			if e := r.errno(); e != nbd.OK {
				t.Fatal(e)
			}
		}
	})
}

func TestReadTooLongWithDFIsEOVERFLOW(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).transmit(structured)
	r.request(nbd.CmdRead, nbd.FlagDF, 0, 33<<20)
	if e := r.errno(); e != nbd.EOVERFLOW {
		t.Fatal(e)
	}
}

func TestWriteBeyondAllBoundsCloses(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).transmit(simple)
	r.request(nbd.CmdWrite, 0, 0, 1<<32-1)
	r.closed()
}

func TestBadRequestMagicCloses(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).transmit(simple)
	r.request(nbd.CmdFlush, 0, 0, 0) // is answered all the same
	r.simple()
	r.send(make([]byte, nbd.RequestLen)...)
	r.closed()
}

func TestDisconnectAnswersWhatCameBefore(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	gate := nbdtest.NewGate()
	dev.Hook = func(ctx context.Context, op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.OpFlush {
			return gate.Wait(ctx)
		}
		return nil
	}
	r := serve(t, dev, nbd.Limits{}).transmit(simple)
	r.request(nbd.CmdFlush, 0, 0, 0)
	r.request(nbd.CmdDisc, 0, 0, 0)
	gate.Arrived(1)
	gate.Open()
	if e := r.simple(); e != nbd.OK {
		t.Fatal(e)
	}
	r.closed()
}

func TestHalfClosedClientGetsItsReplies(t *testing.T) {
	r := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).transmit(simple)
	r.request(nbd.CmdRead, 0, 0, 512<<10)
	r.Conn.(*net.UnixConn).CloseWrite()
	if e := r.simple(); e != nbd.OK {
		t.Fatal(e)
	}
	r.read(512 << 10)
	r.closed()
}

// So does one whose last request was cut off in the middle.
func TestHalfClosedInMidRequest(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	gate, _ := gated(dev, nbdtest.OpFlush)
	r := serve(t, dev, nbd.Limits{}).transmit(simple)
	r.request(nbd.CmdFlush, 0, 0, 0)
	gate.Arrived(1)
	r.request(nbd.CmdWrite, 0, 0, 1<<20, make([]byte, 5000)...)
	r.Conn.(*net.UnixConn).CloseWrite()
	gate.Open()
	if e := r.simple(); e != nbd.OK {
		t.Fatal(e)
	}
	r.closed()
	if n := dev.Count(nbdtest.OpWrite); n != 0 {
		t.Errorf("%d writes of one that was cut off", n)
	}
}

// Durability: FLUSH and FUA.

func TestFUAOnEveryCommandThatWrites(t *testing.T) {
	modes(t, func(t *testing.T, m mode) {
		dev := nbdtest.NewMemory(4 << 20)
		c := serve(t, dev, nbd.Limits{}).client(m.client())
		for _, r := range []*nbdclient.Request{
			{Type: nbd.CmdWrite, Data: make([]byte, 4096)},
			{Type: nbd.CmdWrite, Data: make([]byte, 1<<20)},
			{Type: nbd.CmdTrim, Length: 8192},
			{Type: nbd.CmdWriteZeroes, Length: 8192},
			{Type: nbd.CmdWriteZeroes, Length: 8192, Flags: nbd.FlagNoHole | nbd.FlagFastZero},
		} {
			if err := c.Do(r); err != nil || dev.Unflushed() == 0 {
				t.Fatalf("%v without FUA: %v, %d changes not durable", r.Type, err, dev.Unflushed())
			}
			r.Flags |= nbd.FlagFUA
			if err := c.Do(r); err != nil || dev.Unflushed() != 0 {
				t.Fatalf("%v with FUA: %v, %d changes not durable", r.Type, err, dev.Unflushed())
			}
		}
	})
}

func TestBatchOfFUAWritesIsOneWriteAndOneFlush(t *testing.T) {
	for i, m := range []mode{simple, simple, structured, structured, extended, extended} {
		blocked := i%2 == 1
		dev := nbdtest.NewMemory(testSize)
		dev.Hook = func(_ context.Context, op nbdtest.Op, _, _ int64) error {
			if op == nbdtest.OpTryWrite && blocked {
				return device.ErrWouldBlock
			}
			return nil
		}
		r := serve(t, dev, nbd.Limits{}).transmit(m)
		var b []byte
		for range 16 {
			b = append(b, r.frame(nbd.CmdWrite, nbd.FlagFUA, 0, 512, make([]byte, 512)...)...)
		}
		b = append(b, r.frame(nbd.CmdFlush, 0, 0, 0)...)
		r.send(b...) // a unix socket takes it whole, so the server gets it whole
		for range 17 {
			if e := r.errno(); e != nbd.OK {
				t.Fatal(e)
			}
		}
		if tries, writes, flushes := dev.Count(nbdtest.OpTryWrite), dev.Count(nbdtest.OpWrite), dev.Count(nbdtest.OpFlush); tries != 1 ||
			flushes != 1 || writes == 1 != blocked {
			t.Errorf("blocked %v: %d tries, %d writes, %d flushes", blocked, tries, writes, flushes)
		}
		if dev.Unflushed() != 0 {
			t.Errorf("%d changes not durable", dev.Unflushed())
		}
	}
}

func TestFlushDelaysNothing(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	gate := nbdtest.NewGate()
	dev.Hook = func(ctx context.Context, op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.OpFlush {
			return gate.Wait(ctx)
		}
		return nil
	}
	c := serve(t, dev, nbd.Limits{}).client(nbdclient.Options{})
	done := make(chan error, 1)
	c.Start(&nbdclient.Request{Type: nbd.CmdFlush, Done: func(r *nbdclient.Request) { done <- r.Err }})
	gate.Arrived(1)
	p := make([]byte, 4096)
	if _, err := c.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Trim(0, 4096); err != nil {
		t.Fatal(err)
	}
	gate.Open()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestFailedFlushFailsTheFUAWrite(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	dev.Hook = func(_ context.Context, op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.OpFlush {
			return fmt.Errorf("sync of disk: %w", syscall.EIO)
		}
		return nil
	}
	c := serve(t, dev, nbd.Limits{}).client(nbdclient.Options{})
	err := c.Do(&nbdclient.Request{Type: nbd.CmdWrite, Flags: nbd.FlagFUA, Data: make([]byte, 512)})
	if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "sync of disk") {
		t.Fatalf("error is %v", err)
	}
	if err := c.Flush(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("error is %v", err)
	}
}

// Device errors, of each operation, inline and not.

func TestDeviceErrors(t *testing.T) {
	for i, m := range []mode{simple, simple, structured, structured, extended, extended} {
		blocked := i%2 == 1
		dev := nbdtest.NewMemory(4 << 20)
		dev.Hook = func(_ context.Context, op nbdtest.Op, _, _ int64) error {
			if blocked && (op == nbdtest.OpTryRead || op == nbdtest.OpTryWrite) {
				return device.ErrWouldBlock
			}
			return fmt.Errorf("write buffer: %w", syscall.EDQUOT)
		}
		c := serve(t, dev, nbd.Limits{}).client(m.client())
		for _, r := range []*nbdclient.Request{
			{Type: nbd.CmdRead, Data: make([]byte, 512)},
			{Type: nbd.CmdRead, Data: make([]byte, 1<<20)},
			{Type: nbd.CmdWrite, Data: make([]byte, 512)},
			{Type: nbd.CmdWrite, Data: make([]byte, 1<<20)},
			{Type: nbd.CmdTrim, Length: 1},
			{Type: nbd.CmdWriteZeroes, Length: 1},
			{Type: nbd.CmdFlush},
			{Type: nbd.CmdCache, Length: 1},
			{Type: nbd.CmdBlockStatus, Length: 1},
		} {
			if r.Type == nbd.CmdBlockStatus && m == simple {
				continue
			}
			if err := c.Do(r); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%v, blocked %v: %v of %d: %v, want ENOSPC", m, blocked, r.Type, len(r.Data), err)
			}
		}
	}
}

// BLOCK_STATUS.

func TestBlockStatus(t *testing.T) {
	dev := nbdtest.NewMemory(testSize)
	s := serve(t, dev, nbd.Limits{})
	s.client(nbdclient.Options{}).WriteAt(make([]byte, 4096), 8192)
	for _, m := range []mode{structured, extended} {
		t.Run(m.String(), func(t *testing.T) { checkBlockStatus(t, s.client(m.client())) })
	}
	if _, err := s.client(simple.client()).BlockStatus(0, 1); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("without a context: %v", err)
	}
}

// checkBlockStatus knows that one cluster of the disk is used, at 8192.
func checkBlockStatus(t *testing.T, c *nbdclient.Client) {
	hole := device.Extent{Hole: true, Zero: true}
	ext := func(e device.Extent, n int64) device.Extent { e.Length = n; return e }
	for _, test := range []struct {
		off   int64
		n     uint64
		flags nbd.CommandFlags
		want  []device.Extent
	}{
		{0, testSize, 0, []device.Extent{ext(hole, 8192), {Length: 4096}, ext(hole, testSize-12288)}},
		{0, testSize, nbd.FlagReqOne, []device.Extent{ext(hole, 8192)}},
		{9000, 100, 0, []device.Extent{{Length: 100}}},
		{8191, 2, 0, []device.Extent{ext(hole, 1), {Length: 1}}},
		{testSize - 1, 1, nbd.FlagReqOne, []device.Extent{ext(hole, 1)}},
	} {
		r := &nbdclient.Request{Type: nbd.CmdBlockStatus, Flags: test.flags, Offset: uint64(test.off), Length: test.n}
		if err := c.Do(r); err != nil || !slices.Equal(r.Extents, test.want) {
			t.Errorf("[%d, +%d) %#x: %+v %v, want %+v", test.off, test.n, test.flags, r.Extents, err, test.want)
		}
	}
	if _, err := c.BlockStatus(0, 0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("length 0: %v", err)
	}
	if _, err := c.BlockStatus(testSize, 1); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("beyond: %v", err)
	}
}

func TestBlockStatusIsBounded(t *testing.T) {
	const clusters = 10000
	dev := nbdtest.NewMemory(clusters * 4096)
	s := serve(t, dev, nbd.Limits{})
	for i := int64(0); i < clusters; i += 2 {
		dev.Write(t.Context(), []device.Span{{Off: i * 4096, Data: []byte{1}}})
	}
	for m, want := range map[mode]int{structured: 4096, extended: 2048} { // the same in bytes
		es, err := s.client(m.client()).BlockStatus(0, clusters*4096)
		if err != nil || len(es) != want {
			t.Fatalf("%v: %d extents, %v", m, len(es), err)
		}
	}
}
