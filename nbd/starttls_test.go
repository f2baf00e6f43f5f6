package nbd_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// secured is a server with TLS on a TCP socket of loopback.
type secured struct {
	*served
	ca *nbdtest.CA
}

// all is an Access to everything.
func all(string) nbd.Right { return nbd.WriteAccess }

// whoever authorizes every certificate.
func whoever(*tls.ConnectionState) (nbd.Access, error) { return all, nil }

func serveTLS(t testing.TB, exports nbd.Exports, mode nbd.TLSMode, limits nbd.Limits, change func(*nbd.TLS, *nbdtest.CA)) *secured {
	t.Helper()
	ca := nbdtest.NewCA(t)
	config := ca.ServerTLS()
	o := nbd.TLS{Config: func() (*tls.Config, error) { return config, nil }, Authorize: whoever}
	if change != nil {
		change(&o, ca)
	}
	s, err := nbd.NewServer(exports, nbd.Options{Limits: limits, TLS: o})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.ServeTLS(context.Background(), ln, mode) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-ended; !errors.Is(err, nbd.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
		if st := s.Stats(); st.Held != st.IdleBytes || st.Stacks != 0 || st.InFlight != 0 || st.BufferBytes != 0 {
			t.Errorf("leaked: %+v", st)
		}
	})
	return &secured{&served{s, t, ln.Addr().String()}, ca}
}

func one(dev *nbdtest.Memory) nbd.Exports { return nbdtest.Exports{"disk": dev} }

// open opens an export with a certificate of that name.
func (s *secured) open(export, name string) (*nbdclient.Client, error) {
	return s.dial(nbdclient.Options{Export: export, TLS: s.ca.ClientTLS(s.ca.Client(name))})
}

func (s *secured) dial(opts nbdclient.Options) (*nbdclient.Client, error) {
	c, err := nbdclient.Dial(context.Background(), "tcp", s.addr, opts)
	if err == nil {
		s.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// raw begins a handshake in plain text.
func (s *secured) raw() (net.Conn, *nbdclient.Handshake) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	h := nbdclient.NewHandshake(conn)
	if err := h.Start(nbd.FlagFixedNewstyle | nbd.FlagNoZeroes); err != nil {
		s.t.Fatal(err)
	}
	return conn, h
}

// last is the type of the last reply to an option.
func last(t *testing.T, h *nbdclient.Handshake, opt nbd.Option, payload []byte) nbd.OptionReply {
	t.Helper()
	rs, err := h.Option(opt, payload)
	if err != nil {
		t.Fatalf("option %d: %v", opt, err)
	}
	return rs[len(rs)-1].Type
}

// ends fails the test unless the server ends the connection.
func ends(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Fatal(err)
	}
}

func TestTLSCarriesEveryRequest(t *testing.T) {
	for _, m := range []nbdclient.Options{{Simple: true}, {Compact: true}, {}} {
		s := serveTLS(t, one(nbdtest.NewMemory(80<<20)), nbd.TLSRequired, nbd.Limits{}, nil)
		m.Export, m.TLS = "disk", s.ca.ClientTLS(s.ca.Client("vm"))
		c, err := s.dial(m)
		if err != nil {
			t.Fatal(err)
		}
		sizes := []int{1, 511, 4096, 16<<10 - 28, 16 << 10, 64 << 10, 100_001, 1 << 20}
		if m.Simple && !testing.Short() { // once is enough for the longest
			sizes = append(sizes, 32<<20)
		}
		rng := rand.NewChaCha8([32]byte{1})
		for _, n := range sizes {
			want, got := make([]byte, n), make([]byte, n)
			_, _ = rng.Read(want)
			if _, err := c.WriteAt(want, 4095); err != nil {
				t.Fatalf("write %d: %v", n, err)
			}
			if _, err := c.ReadAt(got, 4095); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("read %d: %v, equal %v", n, err, bytes.Equal(got, want))
			}
		}
		if err := errors.Join(c.Flush(), c.Trim(0, 4096), c.Zero(4096, 4096, 0), c.Cache(0, 1<<20)); err != nil {
			t.Fatal(err)
		}
		many(t, c)
		infos := s.Connections()
		if len(infos) != 1 || !infos[0].Secure || infos[0].Peer != "CN=vm" {
			t.Errorf("%+v", infos)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// many has requests of all sizes in flight together.
func many(t *testing.T, c *nbdclient.Client) {
	t.Helper()
	const depth, size = 64, 1 << 20
	done := make(chan *nbdclient.Request, depth)
	var rs []*nbdclient.Request
	for i := range depth {
		n := []int{512, 4096, 20000, size}[i%4]
		rs = append(rs, &nbdclient.Request{
			Type: nbd.CmdWrite, Offset: uint64(i * size), Data: bytes.Repeat([]byte{byte(i + 1)}, n),
			Done: func(r *nbdclient.Request) { done <- r },
		})
	}
	for _, typ := range []nbd.Command{nbd.CmdWrite, nbd.CmdRead} {
		for _, r := range rs {
			r.Type = typ
			if typ == nbd.CmdRead {
				clear(r.Data)
			}
		}
		c.Start(rs...)
		for range rs {
			if r := <-done; r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	for i, r := range rs {
		if !bytes.Equal(r.Data, bytes.Repeat([]byte{byte(i + 1)}, len(r.Data))) {
			t.Errorf("request %d of %d bytes: other data than was written", i, len(r.Data))
		}
	}
}

func TestTLSRequiredServesNothingInPlainText(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSRequired, nbd.Limits{}, nil)
	conn, h := s.raw()
	for opt, payload := range map[nbd.Option][]byte{
		nbd.OptList: nil, nbd.OptInfo: nbdclient.InfoPayload("disk"), nbd.OptGo: nbdclient.InfoPayload("disk"),
		nbd.OptStructuredReply: nil, nbd.OptExtendedHeaders: nil, nbd.OptListMetaContext: nbdclient.MetaPayload("disk"),
		nbd.OptSetMetaContext: nbdclient.MetaPayload("disk", nbd.BaseAllocation), 99: make([]byte, 100<<10),
	} {
		if got := last(t, h, opt, payload); got != nbd.RepErrTLSReqd {
			t.Errorf("option %d: %#x", opt, got)
		}
	}
	if got := last(t, h, nbd.OptStartTLS, []byte("x")); got != nbd.RepErrInvalid {
		t.Errorf("STARTTLS with a payload: %#x", got)
	}
	if got := last(t, h, nbd.OptAbort, nil); got != nbd.RepAck {
		t.Errorf("ABORT: %#x", got)
	}
	ends(t, conn)
	for name, b := range map[string][]byte{
		"EXPORT_NAME":       nbd.AppendOption(nil, nbd.OptExportName, []byte("disk")),
		"an endless option": append(nbd.AppendOption(nil, 99, nil)[:12], 0xff, 0xff, 0xff, 0xff),
	} {
		conn, _ := s.raw()
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		if n, _ := io.Copy(io.Discard, conn); n != 0 {
			t.Errorf("%s: answered with %d bytes", name, n)
		}
	}
	if _, err := s.dial(nbdclient.Options{Export: "disk"}); err == nil || !strings.Contains(err.Error(), "STARTTLS") {
		t.Errorf("a client without TLS: %v", err)
	}
}

func TestTLSOffRefusesIt(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSOff, nbd.Limits{}, nil)
	if _, err := s.open("disk", "vm"); err == nil || !strings.Contains(err.Error(), "TLS is off") {
		t.Error(err)
	}
	if _, err := s.dial(nbdclient.Options{Export: "disk"}); err != nil {
		t.Error(err)
	}
}

func TestTLSAllowedServesBoth(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSAllowed, nbd.Limits{}, nil)
	c, err := s.open("disk", "vm")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := s.dial(nbdclient.Options{Export: "disk"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plain.WriteAt([]byte("seen"), 7); err != nil {
		t.Fatal(err)
	}
	var p [4]byte
	if _, err := c.ReadAt(p[:], 7); err != nil || string(p[:]) != "seen" {
		t.Errorf("%q %v", p, err)
	}
}

// What was negotiated in plain text may have been put in by somebody between: it is dropped.
func TestTLSDropsWhatWasNegotiatedBefore(t *testing.T) {
	for name, before := range map[string]nbd.Option{"structured replies": nbd.OptStructuredReply, "extended headers": nbd.OptExtendedHeaders} {
		s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSAllowed, nbd.Limits{}, nil)
		conn, h := s.raw()
		if got := last(t, h, before, nil); got != nbd.RepAck {
			t.Fatalf("%s: %#x", name, got)
		}
		if ok, err := h.SetMetaContext("disk", nbd.BaseAllocation); !ok || err != nil {
			t.Fatal(ok, err)
		}
		tc, err := h.StartTLS(conn, s.ca.ClientTLS(s.ca.Client("vm")))
		if err != nil {
			t.Fatal(err)
		}
		if got := last(t, h, nbd.OptStartTLS, nil); got != nbd.RepErrInvalid {
			t.Errorf("STARTTLS twice: %#x", got)
		}
		if got := last(t, h, nbd.OptSetMetaContext, nbdclient.MetaPayload("disk", nbd.BaseAllocation)); got != nbd.RepErrInvalid {
			t.Errorf("a context, after %s in plain text: %#x", name, got)
		}
		if _, err := h.Go("disk"); err != nil {
			t.Fatal(err)
		}
		// A simple reply, as none of the others was asked for behind STARTTLS; and
		// block status has no context.
		for _, typ := range []nbd.Command{nbd.CmdRead, nbd.CmdBlockStatus} {
			if _, err := tc.Write(nbd.AppendRequest(nil, nbd.Request{Type: typ, Cookie: 5, Length: 512})); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, nbd.SimpleReplyLen)
			if _, err := io.ReadFull(tc, b); err != nil || binary.BigEndian.Uint32(b) != nbd.SimpleReplyMagic {
				t.Fatalf("%x %v", b, err)
			}
			if e := nbd.Errno(binary.BigEndian.Uint32(b[4:])); (typ == nbd.CmdBlockStatus) != (e == nbd.EINVAL) {
				t.Errorf("%v: %v", typ, e)
			}
			if typ == nbd.CmdRead {
				if _, err := io.CopyN(io.Discard, tc, 512); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// Bytes behind STARTTLS that were not told to come are not taken for the client's, as those
// of CVE-2021-3716 were: neither options nor the beginning of TLS.
func TestTLSRefusesWhatIsInjected(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSAllowed, nbd.Limits{}, nil)
	for name, injected := range map[string][]byte{
		"an option":     nbd.AppendOption(nil, nbd.OptStructuredReply, nil),
		"another":       nbd.AppendOption(nil, nbd.OptGo, nbdclient.InfoPayload("disk")),
		"garbage":       bytes.Repeat([]byte{0xa5}, 4096),
		"a TLS record":  append([]byte{22, 3, 1, 2, 0, 1}, make([]byte, 511)...),
		"an empty one":  {22, 3, 1, 0, 0},
		"an alert":      {21, 3, 3, 0, 2, 2, 40},
		"early data":    {23, 3, 3, 0, 1, 0},
		"a huge record": {22, 3, 1, 0xff, 0xff},
	} {
		conn, _ := s.raw()
		if _, err := conn.Write(append(nbd.AppendOption(nil, nbd.OptStartTLS, nil), injected...)); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil && !strings.Contains(err.Error(), "not connected") {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(conn)
		if bytes.Contains(got, nbd.AppendOptionReply(nil, nbd.OptStructuredReply, nbd.RepAck, nil)) || bytes.Contains(got, []byte("disk")) {
			t.Errorf("%s: served: %x", name, got)
		}
	}
	if n := len(s.Connections()); n != 0 {
		t.Errorf("%d connections got through", n)
	}
}
