package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"openvstorage/internal/format"
)

// Each reason to refuse a connection has a name at the side that dialled.
func TestRefusalsAreNamed(t *testing.T) {
	listeners(t, func(t *testing.T, l net.Listener, so ServerOptions, do DialOptions) {
		so.MinLevel = 3
		so.Services = map[string]*Service{
			"ovs-kv": {Handler: HandlerFunc(echo), Life: func(g string) (uint64, bool) { return 5, g == "abm" },
				Admit: func(_ context.Context, p *Peer) error {
					if p.Generation < 7 {
						return errors.New("an older copy of the host")
					}
					return nil
				}},
		}
		var refused atomic.Int64
		so.Refused = func(net.Addr, error) { refused.Add(1) }
		serve(t, l, so, nil)
		do.Group, do.Life = "abm", 5
		for name, c := range map[string]struct {
			change func(*DialOptions)
			want   error
			words  string
		}{
			"cluster":    {func(o *DialOptions) { o.Identity.Cluster = uuid.New() }, ErrCluster, testCluster.String()},
			"older life": {func(o *DialOptions) { o.Life = 4 }, ErrLife, "life 4 there, 5 here"},
			"newer life": {func(o *DialOptions) { o.Life = 6 }, ErrLife, "life 6 there, 5 here"},
			"level":      {func(o *DialOptions) { o.Identity.Level = 2 }, ErrLevel, "level 2"},
			"min level":  {func(o *DialOptions) { o.MinLevel = 4; o.Identity.Level = 4 }, ErrLevel, "level 3 here"},
			"service":    {func(o *DialOptions) { o.Service = "ovs-none" }, ErrService, "ovs-none"},
			"group":      {func(o *DialOptions) { o.Group = "nsm-9" }, ErrGroup, "nsm-9"},
			"admission":  {func(o *DialOptions) { o.Identity.Generation = 6 }, ErrDenied, "an older copy"},
		} {
			o := do
			c.change(&o)
			before := refused.Load()
			_, err := Dial(t.Context(), o)
			if !errors.Is(err, c.want) || !errors.Is(err, ErrNotSent) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%s: %v", name, err)
			}
			if refused.Load() == before && name == "" {
				t.Errorf("%s: nobody was told", name)
			}
		}
		c := dial(t, do)
		if p := c.Peer(); p.Level != 3 || p.Life != 5 || p.Group != "abm" || p.Cluster != testCluster || (p.TLS != nil) != (do.TLS != nil) {
			t.Errorf("peer %+v", p)
		}
		r, err := c.Call(t.Context(), Request{Op: 1})
		if err != nil {
			t.Fatal(err)
		}
		r.Release()
	})
}

// A later version of the framing is refused by name, from either side.
func TestVersionsAreRefused(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	s, err := NewServer(ServerOptions{Identity: testIdentity})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := s.greet(b)
		b.Close()
		done <- err
	}()
	p := preface{kind: hello, newest: 9, oldest: 8, text: "ovs-kv\x00"}
	if _, err := a.Write(p.append(nil)); err != nil {
		t.Fatal(err)
	}
	got, err := readPreface(a)
	if err != nil || got.kind != refusal || got.code != CodeVersion || !strings.Contains(got.text, "8-9") {
		t.Errorf("%+v, %v", got, err)
	}
	if err := <-done; !errors.Is(err, ErrVersion) {
		t.Error(err)
	}
}

// stranger is a peer that says hello and then what it likes.
func stranger(t *testing.T, l *pipes) net.Conn {
	t.Helper()
	c, err := l.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	limits, _ := Limits{}.withDefaults()
	p := preface{kind: hello, id: testIdentity(), text: "ovs-kv\x00"}
	limits.announce(&p)
	if _, err := c.Write(p.append(nil)); err != nil {
		t.Fatal(err)
	}
	if w, err := readPreface(c); err != nil || w.kind != welcome {
		t.Fatalf("%+v, %v", w, err)
	}
	return c
}

// raw is a frame as h says, with sums that are right.
func raw(h head, rest ...byte) []byte {
	b := make([]byte, headSize)
	if h.header > 0 && int(h.header) <= len(rest) {
		h.headerSum = format.CRC(rest[:h.header])
	}
	h.put(b)
	return append(b, rest...)
}

// Whatever breaks the protocol is told why and sent away, and others go on.
func TestBadFramesEndTheirConnectionOnly(t *testing.T) {
	request := head{kind: kindRequest, id: 1, op: 1}
	with := func(change func(*head)) head { h := request; change(&h); return h }
	flip := func(b []byte, at int) []byte { b[at] ^= 1; return b }
	for name, c := range map[string]struct {
		bytes []byte
		code  Code
	}{
		"no magic":       {make([]byte, headSize), CodeProtocol},
		"head CRC":       {flip(raw(request), 9), CodeChecksum},
		"header CRC":     {flip(raw(with(func(h *head) { h.header = 4 }), 1, 2, 3, 4), headSize+2), CodeChecksum},
		"body CRC":       {raw(with(func(h *head) { h.body, h.piece, h.flags = 1, 1, flagSummed }), 1), CodeChecksum},
		"huge header":    {raw(with(func(h *head) { h.header = HeaderMax + 1 })), CodeProtocol},
		"huge body":      {raw(with(func(h *head) { h.body, h.piece = BodyMax+1, 1 })), CodeProtocol},
		"long piece":     {raw(with(func(h *head) { h.body, h.piece = 10, 11 })), CodeProtocol},
		"unknown kind":   {raw(with(func(h *head) { h.kind = 9 })), CodeProtocol},
		"priority":       {raw(with(func(h *head) { h.priority = 2 })), CodeProtocol},
		"unknown flags":  {raw(with(func(h *head) { h.flags = 2 })), CodeProtocol},
		"a reply":        {raw(with(func(h *head) { h.kind = kindReply })), CodeProtocol},
		"stray piece":    {raw(with(func(h *head) { h.kind, h.body, h.piece = kindPiece, 2, 1 }), 1), CodeProtocol},
		"too much room":  {raw(head{kind: kindWindow, op: 0, word: 1}), CodeProtocol},
		"unknown window": {raw(head{kind: kindWindow, op: 4, word: 0}), CodeProtocol},
		"same id twice":  {append(raw(with(func(h *head) { h.body, h.piece = 2, 1 }), 1), raw(request)...), CodeProtocol},
		"empty piece":    {raw(with(func(h *head) { h.body = 2 })), CodeProtocol},
		"other version":  {version2(raw(request)), CodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				s := serve(t, l, ServerOptions{}, echo)
				o := options(l)
				o.Dial = l.dial
				good := dial(t, o)
				bad := stranger(t, l)
				go bad.Write(c.bytes)
				b := make([]byte, headSize)
				if _, err := io.ReadFull(bad, b); err != nil {
					t.Fatal(err)
				}
				h, err := decodeHead(b)
				if err != nil || h.kind != kindGoodbye || Code(h.op) != c.code {
					t.Fatalf("%+v, %v", h, err)
				}
				words, _ := io.ReadAll(bad)
				if len(words) != int(h.header) || len(words) < 10 {
					t.Errorf("%q", words)
				}
				if _, err := good.Call(t.Context(), Request{Op: 1}); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if st := s.Stats(); st.Conns != 1 || st.Requests != 0 || st.Memory != 0 {
					t.Errorf("%+v is left", st)
				}
			})
		})
	}
}

func version2(b []byte) []byte {
	b[2] = 2
	binary.LittleEndian.PutUint32(b[44:], format.CRC(b[:44]))
	return b
}

// Half a preface, half a frame and a silent peer end by time, and hold nothing.
func TestSlowAndSilentPeersEnd(t *testing.T) {
	for name, c := range map[string]struct {
		bytes []byte
		hello bool
		after time.Duration
	}{
		"no preface":     {nil, false, 10 * time.Second},
		"half a preface": {(&preface{kind: hello}).append(nil)[:50], false, 10 * time.Second},
		"half a head":    {raw(head{kind: kindRequest, id: 1})[:20], true, 12 * time.Second},
		"half a body":    {raw(head{kind: kindRequest, id: 1, body: BodyMax, piece: pieceMax}, 1, 2, 3), true, 12 * time.Second},
		"silence":        {nil, true, 12 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				s := serve(t, l, ServerOptions{}, echo)
				var bad net.Conn
				if c.hello {
					bad = stranger(t, l)
				} else {
					bad, _ = l.dial(t.Context())
				}
				if _, err := bad.Write(c.bytes); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				_, err := io.Copy(io.Discard, bad) // pings, and the end
				if took := time.Since(began); err != nil || took > c.after {
					t.Errorf("%v, after %v", err, took)
				}
				synctest.Wait()
				if st := s.Stats(); st.Conns != 0 || st.Requests != 0 || st.Memory != 0 {
					t.Errorf("%+v is left", st)
				}
			})
		})
	}
}

// A peer that is cut off is noticed by calls that wait for it; an idle connection that is
// alive stays.
func TestKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		// The server looks more seldom, so that it does not find the client dead at the same time.
		serve(t, l, ServerOptions{Limits: Limits{Ping: 10 * time.Second}}, func(ctx context.Context, r *Incoming) Answer {
			if r.Op == 1 {
				<-ctx.Done()
			}
			return Answer{}
		})
		o := options(l)
		cut := &cutter{}
		o.Dial = func(ctx context.Context) (net.Conn, error) {
			c, err := l.dial(ctx)
			cut.Conn = c
			return cut, err
		}
		c := dial(t, o)
		time.Sleep(time.Hour)
		if err := c.Err(); err != nil {
			t.Fatalf("an idle connection: %v", err)
		}
		began := time.Now()
		time.AfterFunc(time.Second, func() { cut.off.Store(true) })
		_, err := c.Call(t.Context(), Request{Op: 1})
		if took := time.Since(began); !errors.Is(err, ErrDead) || !errors.Is(err, ErrOutcomeUnknown) || took > 14*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// cutter is a connection that can be cut without a sign to either side.
type cutter struct {
	net.Conn
	off atomic.Bool
}

func (c *cutter) Write(p []byte) (int, error) {
	if c.off.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *cutter) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.off.Load() {
			return n, err
		}
	}
}

// More connections than there is room for are turned away and do not hurt those that are
// there.
func TestConnectionsAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, l, ServerOptions{Conns: 8, Handshakes: 3, PerPeer: 4}, echo)
	o := options(l)
	first := dial(t, o)
	var idle []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
		defer c.Close()
	}
	if _, err := Dial(t.Context(), o); !errors.Is(err, ErrBusy) {
		t.Errorf("beyond the handshakes: %v", err)
	}
	for range 1000 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if _, err := first.Call(t.Context(), Request{Op: 1}); err != nil {
		t.Error(err)
	}
	for _, c := range idle {
		c.Close()
	}
	for range 3 {
		for { // until those that were closed are gone
			c, err := Dial(t.Context(), o)
			if err == nil {
				defer c.Close()
				break
			}
			if !errors.Is(err, ErrBusy) {
				t.Fatal(err)
			}
			runtime.Gosched()
		}
	}
	for {
		_, err := Dial(t.Context(), o)
		if !errors.Is(err, ErrBusy) {
			t.Fatalf("beyond those of one peer: %v", err)
		}
		if strings.Contains(err.Error(), "127.0.0.1 has 4") {
			break
		}
	}
	if st := s.Stats(); st.Refused == 0 {
		t.Errorf("%+v", st)
	}
}
