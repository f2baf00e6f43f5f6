package nbd_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// script is a connection whose client has said all it will ever say.
type script struct {
	in  *bytes.Reader
	out bytes.Buffer // written by one goroutine at a time, as the server promises
}

func (s *script) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return nil }
func (s *script) RemoteAddr() net.Addr             { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// play gives the bytes to a server and returns what it answered.
func play(t *testing.T, in []byte) []byte {
	s, err := nbd.NewServer(nbdtest.Exports{"disk": nbdtest.NewMemory(64 << 10)}, nbd.Options{
		Limits: nbd.Limits{DrainTimeout: time.Hour}, // a request that is never answered hangs the test
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &script{in: bytes.NewReader(in)}
	s.ServeConn(c) // any error but no panic
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.InFlight != 0 || st.BufferBytes != 0 || st.Connections != 0 {
		t.Fatalf("leaked: %+v", st)
	}
	return c.out.Bytes()
}

var hello = binary.BigEndian.AppendUint32(nil, uint32(nbd.FlagFixedNewstyle|nbd.FlagNoZeroes))

func FuzzHandshake(f *testing.F) {
	opt := func(opt nbd.Option, payload []byte) []byte { return nbd.AppendOption(nil, opt, payload) }
	f.Add(bytes.Join([][]byte{hello, opt(nbd.OptGo, nbdclient.InfoPayload("disk", 1, 2, 3))}, nil))
	f.Add(bytes.Join([][]byte{
		hello, opt(nbd.OptStructuredReply, nil), opt(nbd.OptSetMetaContext, nbdclient.MetaPayload("disk", nbd.BaseAllocation)),
		opt(nbd.OptListMetaContext, nbdclient.MetaPayload("", "base:")), opt(nbd.OptInfo, nbdclient.InfoPayload("")),
		opt(nbd.OptExportName, []byte("disk")),
	}, nil))
	f.Add(bytes.Join([][]byte{
		hello, opt(nbd.OptExtendedHeaders, nil), opt(nbd.OptStructuredReply, nil), opt(nbd.OptExtendedHeaders, []byte("x")),
		opt(nbd.OptSetMetaContext, nbdclient.MetaPayload("disk", nbd.BaseAllocation)), opt(nbd.OptGo, nbdclient.InfoPayload("disk")),
		nbd.AppendExtendedRequest(nil, nbd.Request{Type: nbd.CmdTrim, Length: 65536}),
	}, nil))
	f.Add(bytes.Join([][]byte{hello, opt(nbd.OptExtendedHeaders, nil), opt(nbd.OptExportName, []byte("disk"))}, nil))
	f.Add(bytes.Join([][]byte{hello, opt(nbd.OptList, nil), opt(nbd.OptStartTLS, nil), opt(99, []byte("x")), opt(nbd.OptAbort, nil)}, nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		out := play(t, in)
		if len(out) < 18 {
			t.Fatal("no greeting")
		}
		// Option replies are whole, until the client may be in transmission.
		for out = out[18:]; len(out) >= nbd.OptionReplyHeaderLen && binary.BigEndian.Uint64(out) == nbd.OptionReplyMagic; {
			n := nbd.OptionReplyHeaderLen + int(binary.BigEndian.Uint32(out[16:]))
			if n > len(out) {
				t.Fatalf("option reply of %d bytes in %d", n, len(out))
			}
			out = out[n:]
		}
	})
}

func FuzzTransmission(f *testing.F) {
	req := func(m mode, typ nbd.Command, flags nbd.CommandFlags, off uint64, payload int) []byte {
		r := nbd.Request{Type: typ, Flags: flags, Cookie: off, Offset: off, Length: uint64(payload)}
		b := nbd.AppendRequest(nil, r)
		if m == extended {
			b = nbd.AppendExtendedRequest(nil, r)
		}
		if typ == nbd.CmdWrite {
			b = append(b, make([]byte, payload)...)
		}
		return b
	}
	for m := simple; m <= extended; m++ {
		var flag nbd.CommandFlags
		if m == extended {
			flag = nbd.FlagPayloadLen
		}
		f.Add(uint8(m), bytes.Join([][]byte{
			req(m, nbd.CmdWrite, flag, 0, 4096), req(m, nbd.CmdRead, 0, 0, 4096), req(m, nbd.CmdWrite, flag|nbd.FlagFUA, 1, 3),
			req(m, nbd.CmdFlush, 0, 0, 0), req(m, nbd.CmdTrim, 0, 0, 4096), req(m, nbd.CmdBlockStatus, nbd.FlagReqOne, 0, 65536), req(m, nbd.CmdDisc, 0, 0, 0),
		}, nil))
		f.Add(uint8(m), bytes.Join([][]byte{
			req(m, nbd.CmdWrite, flag, 1<<40, 100), req(m, 99, 1, 2, 3), req(m, nbd.CmdWriteZeroes, 2, 0, 9), req(m, nbd.CmdCache, 0, 0, 1),
			req(m, nbd.CmdRead, 0, 60000, 60000),
		}, nil))
		f.Add(uint8(m), req(m, nbd.CmdWrite, flag, 0, 65536))
	}
	f.Add(uint8(extended), bytes.Join([][]byte{
		req(extended, nbd.CmdBlockStatus, nbd.FlagPayloadLen, 0, 12), {0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 1},
		req(extended, nbd.CmdBlockStatus, nbd.FlagPayloadLen, 1, 12), {0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 2},
		req(extended, nbd.CmdBlockStatus, nbd.FlagPayloadLen, 2, 8), make([]byte, 8),
		req(extended, nbd.CmdTrim, nbd.FlagPayloadLen, 3, 5), make([]byte, 5),
		req(extended, 99, nbd.FlagPayloadLen, 4, 1), {0},
		req(extended, nbd.CmdWrite, 0, 5, 0), req(extended, nbd.CmdTrim, 0, 6, 1<<62), req(extended, nbd.CmdBlockStatus, 0, 0, 65536),
		req(extended, nbd.CmdRead, nbd.FlagPayloadLen, 7, 1<<40),
	}, nil))
	f.Fuzz(func(t *testing.T, form uint8, in []byte) {
		m := mode(form % 3)
		head := bytes.Clone(hello)
		if m != simple {
			head = nbd.AppendOption(head, map[mode]nbd.Option{structured: nbd.OptStructuredReply, extended: nbd.OptExtendedHeaders}[m], nil)
			head = nbd.AppendOption(head, nbd.OptSetMetaContext, nbdclient.MetaPayload("disk", nbd.BaseAllocation))
		}
		if m == extended {
			head = nbd.AppendOption(head, nbd.OptGo, nbdclient.InfoPayload("disk"))
		} else {
			head = nbd.AppendOption(head, nbd.OptExportName, []byte("disk"))
		}
		start := len(play(t, head))
		out := play(t, append(head, in...))[start:]
		if want, got := expect(m, in), replies(t, m, out, in); got > want {
			t.Fatalf("%d replies to %d requests", got, want)
		}
	})
}

// next takes a request with its payload off the stream, as a reader of the
// protocol does.
func (m mode) next(in []byte) (req nbd.Request, rest []byte, ok bool) {
	size, decode := nbd.RequestLen, nbd.DecodeRequest
	if m == extended {
		size, decode = nbd.ExtendedRequestLen, nbd.DecodeExtendedRequest
	}
	if len(in) < size {
		return req, nil, false
	}
	req, err := decode(in)
	if err != nil {
		return req, nil, false
	}
	rest = in[size:]
	if m == extended && req.Flags&nbd.FlagPayloadLen != 0 || req.Type == nbd.CmdWrite {
		rest = rest[min(uint64(len(rest)), req.Length):]
	}
	return req, rest, true
}

// expect counts the requests that a reader of the protocol sees in the stream.
func expect(m mode, in []byte) (n int) {
	for {
		req, rest, ok := m.next(in)
		if !ok || req.Type == nbd.CmdDisc {
			return n
		}
		n, in = n+1, rest
	}
}

// replies checks that the answers are whole messages. A simple reply to a READ
// has as many bytes as the READ of its cookie asked for: with the cookie in use
// twice the length is not known, and the check ends.
func replies(t *testing.T, m mode, out, in []byte) (n int) {
	requests := map[uint64]nbd.Request{}
	for {
		req, rest, ok := m.next(in)
		if !ok {
			break
		}
		if _, twice := requests[req.Cookie]; twice {
			return 0
		}
		requests[req.Cookie], in = req, rest
	}
	for len(out) > 0 {
		var size int
		switch {
		case len(out) < nbd.SimpleReplyLen:
			t.Fatalf("%d bytes at the end of the replies", len(out))
		case m == extended:
			if len(out) < nbd.ExtendedChunkLen || binary.BigEndian.Uint32(out) != nbd.ExtendedReplyMagic {
				t.Fatalf("not an extended reply: %x", out[:min(len(out), nbd.ExtendedChunkLen)])
			}
			req, known := requests[binary.BigEndian.Uint64(out[8:])]
			if off := binary.BigEndian.Uint64(out[16:]); !known || off != req.Offset {
				t.Fatalf("reply to offset %d, request %+v, known %v", off, req, known)
			}
			size = nbd.ExtendedChunkLen + int(binary.BigEndian.Uint64(out[24:]))
		case binary.BigEndian.Uint32(out) == nbd.SimpleReplyMagic:
			size = nbd.SimpleReplyLen
			req := requests[binary.BigEndian.Uint64(out[8:])]
			if req.Type == nbd.CmdRead && binary.BigEndian.Uint32(out[4:]) == 0 {
				size += int(req.Length)
			}
		case m == structured && binary.BigEndian.Uint32(out) == nbd.StructuredReplyMagic && len(out) >= nbd.ChunkLen:
			size = nbd.ChunkLen + int(binary.BigEndian.Uint32(out[16:]))
		default:
			t.Fatalf("reply with magic %x", out[:4])
		}
		if size > len(out) {
			t.Fatalf("reply of %d bytes in %d", size, len(out))
		}
		out = out[size:]
		n++
	}
	return n
}

// FuzzClient gives the bytes to a client with requests in flight. Each must
// end once, and none may touch what is beside its data.
func FuzzClient(f *testing.F) {
	chunk := func(typ nbd.ChunkType, cookie, off uint64, payload ...byte) []byte {
		return append(nbd.AppendExtendedChunk(nil, nbd.ChunkDone, typ, cookie, off, uint64(len(payload))), payload...)
	}
	read := append([]byte{0, 0, 0, 0, 0, 0, 16, 0}, make([]byte, 64)...)
	status := []byte{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3}
	f.Add(uint8(extended), bytes.Join([][]byte{
		chunk(nbd.ChunkOffsetData, 0, 4096, read...), chunk(nbd.ChunkBlockStatusExt, 1, 0, status...), chunk(nbd.ChunkNone, 2, 1<<40),
	}, nil))
	f.Add(uint8(extended), chunk(nbd.ChunkBlockStatusExt, 1, 0, bytes.Replace(status, []byte{1, 0, 0, 0, 1}, []byte{1, 0, 0, 0, 0}, 1)...))
	f.Add(uint8(extended), chunk(nbd.ChunkBlockStatus, 1, 0, 0, 0, 0, 1, 0, 0, 16, 0, 0, 0, 0, 3))
	f.Add(uint8(extended), chunk(nbd.ChunkOffsetHole, 0, 4096, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 64))
	f.Add(uint8(extended), chunk(nbd.ChunkError, 2, 1<<40, 0, 0, 0, 22, 0, 2, 'n', 'o'))
	f.Add(uint8(extended), chunk(nbd.ChunkNone, 2, 0)) // another offset
	f.Add(uint8(structured), append(nbd.AppendChunk(nil, nbd.ChunkDone, nbd.ChunkOffsetData, 0, uint32(len(read))), read...))
	f.Add(uint8(simple), append(nbd.AppendSimpleReply(nil, 0, nbd.OK), make([]byte, 64)...))
	f.Fuzz(func(t *testing.T, form uint8, in []byte) { converse(t, mode(form%3), in) })
}

// converse gives the bytes to a client that waits for a READ of 64 bytes at
// 4096, a BLOCK_STATUS and a TRIM at 1 TiB, with the cookies 0, 1 and 2.
func converse(t *testing.T, m mode, in []byte) (read, status, trim *nbdclient.Request) {
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		answer(far, m)
		size := nbd.RequestLen
		if m == extended {
			size = nbd.ExtendedRequestLen
		}
		io.ReadFull(far, make([]byte, 3*size)) // the requests
		far.Write(in)                          // a client that has had enough hangs up
	}()
	c, err := nbdclient.New(t.Context(), near, m.client())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	guarded := make([]byte, 4096)
	done := make(chan *nbdclient.Request, 3) // one more would block the client
	end := func(r *nbdclient.Request) { done <- r }
	read = &nbdclient.Request{Type: nbd.CmdRead, Offset: 4096, Data: guarded[1024:][:64], Done: end}
	status = &nbdclient.Request{Type: nbd.CmdBlockStatus, Length: 4096, Done: end}
	trim = &nbdclient.Request{Type: nbd.CmdTrim, Offset: 1 << 40, Length: 4096, Done: end}
	c.Start(read, status, trim)
	for range 3 {
		<-done
	}
	if !bytes.Equal(guarded[:1024], make([]byte, 1024)) || !bytes.Equal(guarded[1024+64:], make([]byte, 4096-1024-64)) {
		t.Fatal("the client wrote beside the data of a read")
	}
	for _, e := range status.Extents {
		if e.Length < 0 {
			t.Fatalf("extent %+v", e)
		}
	}
	return read, status, trim
}

// answer is the server's side of a client's handshake.
func answer(conn net.Conn, m mode) {
	b := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, nbd.Magic), nbd.OptionMagic)
	conn.Write(binary.BigEndian.AppendUint16(b, nbd.FlagFixedNewstyle|nbd.FlagNoZeroes))
	io.ReadFull(conn, make([]byte, 4))
	for {
		head := make([]byte, nbd.OptionHeaderLen)
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		opt := nbd.Option(binary.BigEndian.Uint32(head[8:]))
		io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head[12:])))
		var b []byte
		switch opt {
		case nbd.OptSetMetaContext:
			b = nbd.AppendOptionReply(b, opt, nbd.RepMetaContext, append([]byte{0, 0, 0, 1}, nbd.BaseAllocation...))
		case nbd.OptGo:
			b = nbd.AppendOptionReply(b, opt, nbd.RepInfo, []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1})
		}
		conn.Write(nbd.AppendOptionReply(b, opt, nbd.RepAck, nil))
		if opt == nbd.OptGo {
			return
		}
	}
}
