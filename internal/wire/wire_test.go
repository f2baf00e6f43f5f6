package wire

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testCluster = uuid.MustParse("11111111-2222-3333-4444-555555555555")

func testIdentity() Identity {
	return Identity{Cluster: testCluster, Host: uuid.New(), Generation: 7, Level: 3}
}

// echo answers with what it got.
func echo(_ context.Context, r *Incoming) Answer {
	body, header := r.Body, r.Header
	buf := r.Take()
	return Answer{Header: bytes.Clone(header), Body: Wrap(buf.Release, body), Sum: true}
}

// serve starts a server over a listener; the test ends it.
func serve(t testing.TB, l net.Listener, o ServerOptions, h HandlerFunc) *Server {
	t.Helper()
	if o.Services == nil {
		o.Services = map[string]*Service{"ovs-kv": {Handler: h}}
	}
	if o.Identity == nil {
		o.Identity = testIdentity
	}
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Close(ctx)
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

func options(l net.Listener) DialOptions {
	return DialOptions{Network: l.Addr().Network(), Address: l.Addr().String(), Service: "ovs-kv", Identity: testIdentity()}
}

func dial(t testing.TB, o DialOptions) *Conn {
	t.Helper()
	c, err := Dial(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// listeners are the transports that everything is tried on.
func listeners(t *testing.T, f func(t *testing.T, l net.Listener, so ServerOptions, do DialOptions)) {
	t.Run("unix", func(t *testing.T) {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		f(t, l, ServerOptions{}, options(l))
	})
	t.Run("tls", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server, client := testTLS(t)
		o := options(l)
		o.TLS = client
		f(t, l, ServerOptions{TLS: server}, o)
	})
	t.Run("pipe", func(t *testing.T) {
		l := newPipes()
		o := options(l)
		o.Dial = l.dial
		f(t, l, ServerOptions{}, o)
	})
}

func TestCallsOfAllSizes(t *testing.T) {
	listeners(t, func(t *testing.T, l net.Listener, so ServerOptions, do DialOptions) {
		s := serve(t, l, so, echo)
		c := dial(t, do)
		var all sync.WaitGroup
		for i, n := range []int{0, 1, 63, 4096, copyMax, copyMax + 1, 65536, pieceMax, pieceMax + 1, 1 << 20, 5<<20 + 7, BodyMax} {
			all.Go(func() {
				body := make([]byte, n)
				rand.Read(body[:min(n, 70000)])
				for at := 70000; at < n; at *= 2 {
					copy(body[at:], body[:at])
				}
				header := bytes.Repeat([]byte{byte(i)}, i*5957)
				cut := n / 3
				for range max(1, min(2, 1<<20/max(n, 1))) {
					r, err := c.Call(t.Context(), Request{Op: 1, Priority: Priority(i % 2), Header: header, Body: Wrap(nil, body[:cut], body[cut:]), Sum: i%3 > 0})
					if err != nil {
						t.Errorf("%d bytes: %v", n, err)
						return
					}
					if !bytes.Equal(r.Body, body) || !bytes.Equal(r.Header, header) {
						t.Errorf("%d bytes came back as others", n)
					}
					r.Release()
				}
			})
		}
		all.Wait()
		if st := s.Stats(); st.Requests != 0 || st.Conns != 1 {
			t.Errorf("%+v is left", st)
		}
	})
}

func TestManyAtOnceInAnyOrder(t *testing.T) {
	listeners(t, func(t *testing.T, l net.Listener, so ServerOptions, do DialOptions) {
		const n = 200
		got := make(chan struct{}, n)
		free := make(chan struct{})
		serve(t, l, so, func(ctx context.Context, r *Incoming) Answer {
			if r.Op == 1 {
				got <- struct{}{}
				<-free
			}
			return echo(ctx, r)
		})
		c := dial(t, do)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				r, err := c.Call(t.Context(), Request{Op: 1, Header: fmt.Appendf(nil, "%d", i)})
				if err != nil || string(r.Header) != fmt.Sprint(i) {
					t.Errorf("%v, %v", r, err)
					return
				}
				r.Release()
			})
		}
		for range n {
			<-got
		}
		if r, err := c.Call(t.Context(), Request{Op: 2, Header: []byte("later")}); err != nil || string(r.Header) != "later" {
			t.Errorf("%v, %v", r, err)
		}
		close(free)
		all.Wait()
	})
}

// A caller whose context ends is gone at once, and its request's handler hears of it.
func TestCancelReachesTheHandler(t *testing.T) {
	listeners(t, func(t *testing.T, l net.Listener, so ServerOptions, do DialOptions) {
		in, out := make(chan struct{}), make(chan error)
		serve(t, l, so, func(ctx context.Context, r *Incoming) Answer {
			if r.Op == 1 {
				in <- struct{}{}
				<-ctx.Done()
				out <- ctx.Err()
			}
			return Answer{}
		})
		c := dial(t, do)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-in; cancel() }()
		_, err := c.Call(ctx, Request{Op: 1})
		if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%v", err)
		}
		if err := <-out; !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context: %v", err)
		}
		if _, err := c.Call(t.Context(), Request{Op: 2}); err != nil {
			t.Error(err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		go func() { <-in }()
		go c.Call(ctx, Request{Op: 1})
		if err := <-out; !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context: %v", err)
		}
		if _, err := c.Call(t.Context(), Request{Op: 2}); err != nil {
			t.Error(err)
		}
	})
}

// What fails with the connection says whether the request may have been done.
func TestBrokenConnectionTellsWhatWasSent(t *testing.T) {
	listeners(t, func(t *testing.T, l net.Listener, so ServerOptions, do DialOptions) {
		in := make(chan *Peer, 1)
		s := serve(t, l, so, func(ctx context.Context, r *Incoming) Answer {
			in <- r.Peer
			<-ctx.Done()
			return Answer{}
		})
		c := dial(t, do)
		go func() { <-in; s.Disconnect(func(*Peer) bool { return true }, errors.New("revoked")) }()
		_, err := c.Call(t.Context(), Request{Op: 1})
		if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrDenied) {
			t.Errorf("%v", err)
		}
		<-c.Done()
		released := false
		_, err = c.Call(t.Context(), Request{Op: 1, Body: Wrap(func() { released = true }, []byte("x"))})
		if !errors.Is(err, ErrNotSent) || !errors.Is(err, ErrDenied) || !released {
			t.Errorf("%v, %v", err, released)
		}
	})
}

func TestCloseAnswersWhatIsInFlight(t *testing.T) {
	listeners(t, func(t *testing.T, l net.Listener, so ServerOptions, do DialOptions) {
		in, free := make(chan struct{}), make(chan struct{})
		s := serve(t, l, so, func(_ context.Context, r *Incoming) Answer {
			if r.Op == 1 {
				in <- struct{}{}
				<-free
			}
			return Answer{Header: []byte("done")}
		})
		c := dial(t, do)
		answered := make(chan error, 1)
		go func() {
			r, err := c.Call(t.Context(), Request{Op: 1})
			if err == nil && string(r.Header) != "done" {
				err = fmt.Errorf("answer %q", r.Header)
			}
			answered <- err
		}()
		<-in
		closed := make(chan error, 1)
		go func() { closed <- s.Close(context.Background()) }()
		for {
			_, err := c.Call(t.Context(), Request{Op: 2, Body: nil})
			if errors.Is(err, ErrClosing) && errors.Is(err, ErrNotSent) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		close(free)
		if err := <-answered; err != nil {
			t.Error(err)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		<-c.Done()
	})
}

// A certificate that is missing, or of another CA, is refused, and the client hears why.
func TestCertificatesAreChecked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, client := testTLS(t)
	serve(t, l, ServerOptions{TLS: server}, echo)
	_, stranger := testTLS(t)
	none := client.Clone()
	none.Certificates = nil
	other := client.Clone()
	other.Certificates = stranger.Certificates
	for name, c := range map[string]struct {
		config *tls.Config
		words  string
	}{"none": {none, "certificate required"}, "of another CA": {other, "certificate"}, "server of another CA": {stranger, "unknown authority"}} {
		o := options(l)
		o.TLS = c.config
		if _, err := Dial(t.Context(), o); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := options(l)
	o.TLS = client
	c := dial(t, o)
	r, err := c.Call(t.Context(), Request{})
	if err != nil || c.Peer().TLS == nil || len(c.Peer().TLS.PeerCertificates) == 0 {
		t.Fatalf("%v, %+v", err, c.Peer().TLS)
	}
	r.Release()
}

// One listener serves other protocols by ALPN, whose connections hold no place of a
// handshake.
func TestForeignProtocols(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, client := testTLS(t)
	s := serve(t, l, ServerOptions{TLS: server, Handshakes: 1, Foreign: map[string]func(*tls.Conn){"h2": func(c *tls.Conn) {
		fmt.Fprint(c, "not wire")
		c.Read(make([]byte, 1))
	}}}, echo)
	config := client.Clone()
	config.NextProtos = []string{"h2"}
	c, err := tls.Dial("tcp", l.Addr().String(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 8)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "not wire" {
		t.Fatalf("%q, %v", b, err)
	}
	if st := s.Stats(); st.Handshakes != 0 || st.Conns != 1 {
		t.Errorf("%+v", st)
	}
	o := options(l)
	o.TLS = client
	dial(t, o)
}
