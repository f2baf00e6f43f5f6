package wire

import (
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"openvstorage/internal/format"
)

// A server's least level may rise while it serves: peers that are there go on, and those that
// come later and do not know the level are refused by name.
func TestTheLeastLevelRises(t *testing.T) {
	listeners(t, func(t *testing.T, l net.Listener, so ServerOptions, do DialOptions) {
		var least atomic.Uint32
		so.Least = least.Load
		serve(t, l, so, echo)
		before := dial(t, do)
		least.Store(do.Identity.Level + 1)
		if _, err := Dial(t.Context(), do); !errors.Is(err, ErrLevel) || !errors.Is(err, ErrNotSent) {
			t.Errorf("an older peer: %v", err)
		}
		newer := do
		newer.Identity.Level = least.Load()
		_ = dial(t, newer)
		r, err := before.Call(t.Context(), Request{Op: 1})
		if err != nil {
			t.Fatal(err)
		}
		r.Release()
	})
}

// The release behind this one may speak a later framing besides this one, say more in its
// preface, and know a higher level: the two speak what both know.
func TestANewerNeighbourIsTaken(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	s, err := NewServer(ServerOptions{Identity: testIdentity, Services: map[string]*Service{"ovs-kv": {Handler: HandlerFunc(echo)}}})
	if err != nil {
		t.Fatal(err)
	}
	level := make(chan uint32, 1)
	go func() {
		defer b.Close()
		c, _, err := s.greet(b)
		if err != nil {
			t.Error(err)
			level <- 0
			return
		}
		level <- c.peer.Level
		c.end(ErrClosed)
	}()
	limits, _ := Limits{}.withDefaults()
	p := preface{kind: hello, newest: 2, oldest: 1, id: testIdentity(), text: "ovs-kv\x00"}
	p.id.Level = testIdentity().Level + 1
	limits.announce(&p)
	raw := p.append(nil)
	raw[102] = 0xff // what this version ignores
	binary.LittleEndian.PutUint32(raw[prefaceSize-4:], format.CRC(raw[:prefaceSize-4]))
	if _, err := a.Write(raw); err != nil {
		t.Fatal(err)
	}
	got, err := readPreface(a)
	if err != nil || got.kind != welcome {
		t.Errorf("%+v, %v", got, err)
	}
	if l := <-level; l != testIdentity().Level {
		t.Errorf("level %d", l)
	}
}
