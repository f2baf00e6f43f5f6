package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"openvstorage/device"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testSize = 1 << 20

// served is a server for one test, closed and checked for leaks at its end.
type served struct {
	*nbd.Server
	t    testing.TB
	addr string
}

// serve serves dev as "disk" on a unix socket.
func serve(t testing.TB, dev device.Reader, limits nbd.Limits) *served {
	return serveExports(t, nbdtest.Exports{"disk": dev}, limits)
}

func serveExports(t testing.TB, exports nbd.Exports, limits nbd.Limits) *served {
	t.Helper()
	s, err := nbd.NewServer(exports, nbd.Options{Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	addr := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(context.Background(), ln) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-ended; !errors.Is(err, nbd.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
		if st := s.Stats(); st.InFlight != 0 || st.BufferBytes != 0 {
			t.Errorf("leaked: %d tasks, %d bytes of buffers", st.InFlight, st.BufferBytes)
		}
	})
	return &served{s, t, addr}
}

// client opens "disk".
func (s *served) client(opts nbdclient.Options) *nbdclient.Client {
	s.t.Helper()
	if opts.Export == "" {
		opts.Export = "disk"
	}
	c, err := nbdclient.Dial(context.Background(), "unix", s.addr, opts)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// mode is the form of requests and replies that the two ends agree on.
type mode int

const (
	simple mode = iota
	structured
	extended
)

func (m mode) String() string { return [...]string{"simple", "structured", "extended"}[m] }

// client are the options that lead to it.
func (m mode) client() nbdclient.Options {
	return nbdclient.Options{Simple: m == simple, Compact: m == structured}
}

// modes runs a test in each.
func modes(t *testing.T, test func(t *testing.T, m mode)) {
	for _, m := range []mode{simple, structured, extended} {
		t.Run(m.String(), func(t *testing.T) { test(t, m) })
	}
}

// raw is a connection that speaks bytes.
type raw struct {
	net.Conn
	*nbdclient.Handshake
	t      testing.TB
	mode   mode
	offset uint64 // of the last request
}

func (s *served) dial() *raw {
	s.t.Helper()
	c, err := net.Dial("unix", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second)) // a hung test fails by itself
	return &raw{Conn: c, Handshake: nbdclient.NewHandshake(c), t: s.t}
}

// options begins a handshake.
func (s *served) options() *raw {
	r := s.dial()
	if err := r.Start(nbd.FlagFixedNewstyle | nbd.FlagNoZeroes); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// transmit enters the transmission phase.
func (s *served) transmit(m mode) *raw {
	s.t.Helper()
	r := s.options()
	r.mode = m
	if m != simple {
		ask := r.StructuredReply
		if m == extended {
			ask = r.ExtendedHeaders
		}
		if ok, err := ask(); !ok || err != nil {
			s.t.Fatal(ok, err)
		}
		if ok, err := r.SetMetaContext("disk", nbd.BaseAllocation); !ok || err != nil {
			s.t.Fatal(ok, err)
		}
	}
	if _, err := r.Go("disk"); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// last is the type of the last reply to an option.
func (r *raw) last(opt nbd.Option, payload []byte) nbd.OptionReply {
	r.t.Helper()
	rs, err := r.Option(opt, payload)
	if err != nil {
		r.t.Fatalf("option %d: %v", opt, err)
	}
	return rs[len(rs)-1].Type
}

func (r *raw) send(b ...byte) {
	r.t.Helper()
	if _, err := r.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) read(n int) []byte {
	r.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(r.Conn, b); err != nil {
		r.t.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

// closed checks that the server hangs up without another byte.
func (r *raw) closed() {
	r.t.Helper()
	b, err := io.ReadAll(r.Conn)
	var timeout net.Error
	if len(b) > 0 || errors.As(err, &timeout) && timeout.Timeout() {
		r.t.Fatalf("server sent %d bytes (%v); want the connection closed", len(b), err)
	}
}

// request sends a request with its payload, with the flag for that of a write.
func (r *raw) request(typ nbd.Command, flags nbd.CommandFlags, off, n uint64, payload ...byte) {
	r.t.Helper()
	r.send(r.frame(typ, flags, off, n, payload...)...)
}

// frame is what request sends.
func (r *raw) frame(typ nbd.Command, flags nbd.CommandFlags, off, n uint64, payload ...byte) []byte {
	req := nbd.Request{Type: typ, Flags: flags, Cookie: 7, Offset: off, Length: n}
	if r.mode != extended {
		return append(nbd.AppendRequest(nil, req), payload...)
	}
	if typ == nbd.CmdWrite {
		req.Flags |= nbd.FlagPayloadLen
	}
	r.offset = off
	return append(nbd.AppendExtendedRequest(nil, req), payload...)
}

// simple reads a simple reply to cookie 7.
func (r *raw) simple() nbd.Errno {
	r.t.Helper()
	b := r.read(nbd.SimpleReplyLen)
	if binary.BigEndian.Uint32(b) != nbd.SimpleReplyMagic || binary.BigEndian.Uint64(b[8:]) != 7 {
		r.t.Fatalf("not a simple reply to cookie 7: %x", b)
	}
	return nbd.Errno(binary.BigEndian.Uint32(b[4:]))
}

// chunk reads a chunk that ends the reply to cookie 7.
func (r *raw) chunk() (nbd.ChunkType, []byte) {
	r.t.Helper()
	magic, size := nbd.StructuredReplyMagic, nbd.ChunkLen
	if r.mode == extended {
		magic, size = nbd.ExtendedReplyMagic, nbd.ExtendedChunkLen
	}
	b := r.read(size)
	if binary.BigEndian.Uint32(b) != magic || binary.BigEndian.Uint16(b[4:]) != nbd.ChunkDone || binary.BigEndian.Uint64(b[8:]) != 7 {
		r.t.Fatalf("not the last chunk for cookie 7: %x", b)
	}
	typ, n := nbd.ChunkType(binary.BigEndian.Uint16(b[6:])), uint64(binary.BigEndian.Uint32(b[16:]))
	if r.mode == extended {
		if off := binary.BigEndian.Uint64(b[16:]); off != r.offset {
			r.t.Fatalf("chunk for offset %d, want %d", off, r.offset)
		}
		n = binary.BigEndian.Uint64(b[24:])
	}
	return typ, r.read(int(n))
}

// errno reads the reply to a request that is not a READ or BLOCK_STATUS that
// succeeds.
func (r *raw) errno() nbd.Errno {
	r.t.Helper()
	if r.mode == simple {
		return r.simple()
	}
	first := r.read(4)
	if r.mode == structured && binary.BigEndian.Uint32(first) == nbd.SimpleReplyMagic {
		if rest := r.read(12); binary.BigEndian.Uint32(rest) != 0 {
			r.t.Fatal("error in a simple reply")
		}
		return nbd.OK
	}
	rest := &raw{Conn: unread{r.Conn, bytes.NewReader(first)}, t: r.t, mode: r.mode, offset: r.offset}
	switch typ, payload := rest.chunk(); typ {
	case nbd.ChunkNone:
		return nbd.OK
	case nbd.ChunkError:
		if n := int(binary.BigEndian.Uint16(payload[4:])); n == 0 || n != len(payload)-6 {
			r.t.Fatalf("error message of %d bytes in a payload of %d", n, len(payload))
		}
		return nbd.Errno(binary.BigEndian.Uint32(payload))
	default:
		r.t.Fatalf("chunk of type %#x", typ)
		return 0
	}
}

// unread is a connection of which some bytes were read already.
type unread struct {
	net.Conn
	first *bytes.Reader
}

func (u unread) Read(p []byte) (int, error) {
	if u.first.Len() > 0 {
		return u.first.Read(p)
	}
	return u.Conn.Read(p)
}
