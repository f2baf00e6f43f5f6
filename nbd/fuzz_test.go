package nbd_test

import (
	"bytes"
	"encoding/binary"
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
	req := func(typ nbd.Command, flags nbd.CommandFlags, off uint64, payload int) []byte {
		b := nbd.AppendRequest(nil, nbd.Request{Type: typ, Flags: flags, Cookie: off, Offset: off, Length: uint64(payload)})
		if typ == nbd.CmdWrite {
			b = append(b, make([]byte, payload)...)
		}
		return b
	}
	f.Add(true, bytes.Join([][]byte{
		req(nbd.CmdWrite, 0, 0, 4096), req(nbd.CmdRead, 0, 0, 4096), req(nbd.CmdWrite, nbd.FlagFUA, 1, 3),
		req(nbd.CmdFlush, 0, 0, 0), req(nbd.CmdTrim, 0, 0, 4096), req(nbd.CmdBlockStatus, nbd.FlagReqOne, 0, 65536), req(nbd.CmdDisc, 0, 0, 0),
	}, nil))
	f.Add(false, bytes.Join([][]byte{
		req(nbd.CmdWrite, 0, 1<<40, 100), req(99, 1, 2, 3), req(nbd.CmdWriteZeroes, 2, 0, 9), req(nbd.CmdCache, 0, 0, 1), req(nbd.CmdRead, 0, 60000, 60000),
	}, nil))
	f.Add(true, req(nbd.CmdWrite, 0, 0, 65536))
	f.Fuzz(func(t *testing.T, structured bool, in []byte) {
		head := bytes.Clone(hello)
		if structured {
			head = nbd.AppendOption(head, nbd.OptStructuredReply, nil)
			head = nbd.AppendOption(head, nbd.OptSetMetaContext, nbdclient.MetaPayload("disk", nbd.BaseAllocation))
		}
		head = nbd.AppendOption(head, nbd.OptExportName, []byte("disk"))
		start := len(play(t, head))
		out := play(t, append(head, in...))[start:]
		if want, got := expect(in), replies(t, out, in); got > want {
			t.Fatalf("%d replies to %d requests", got, want)
		}
	})
}

// expect counts the requests that a reader of the protocol sees in the stream.
func expect(in []byte) (n int) {
	for len(in) >= nbd.RequestLen {
		req, err := nbd.DecodeRequest(in)
		if err != nil || req.Type == nbd.CmdDisc {
			break
		}
		n++
		in = in[nbd.RequestLen:]
		if req.Type == nbd.CmdWrite {
			in = in[min(len(in), int(req.Length)):]
		}
	}
	return n
}

// replies checks that the answers are whole messages. A simple reply to a READ
// has as many bytes as the READ of its cookie asked for: with the cookie in use
// twice the length is not known, and the check ends.
func replies(t *testing.T, out, in []byte) (n int) {
	reads := map[uint64]int{}
	for rest := in; len(rest) >= nbd.RequestLen; {
		req, err := nbd.DecodeRequest(rest)
		if err != nil {
			break
		}
		rest = rest[nbd.RequestLen:]
		if _, twice := reads[req.Cookie]; twice {
			return 0
		}
		reads[req.Cookie] = 0
		switch req.Type {
		case nbd.CmdRead:
			reads[req.Cookie] = int(req.Length)
		case nbd.CmdWrite:
			rest = rest[min(len(rest), int(req.Length)):]
		}
	}
	for len(out) > 0 {
		size := nbd.SimpleReplyLen
		switch {
		case len(out) < nbd.SimpleReplyLen:
			t.Fatalf("%d bytes at the end of the replies", len(out))
		case binary.BigEndian.Uint32(out) == nbd.SimpleReplyMagic:
			if binary.BigEndian.Uint32(out[4:]) == 0 {
				size += reads[binary.BigEndian.Uint64(out[8:])]
			}
		case binary.BigEndian.Uint32(out) == nbd.StructuredReplyMagic && len(out) >= nbd.ChunkLen:
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
