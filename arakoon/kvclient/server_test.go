package kvclient

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/arakoon/state"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// Bad input hurts that request alone: the connection, the server and the member go on.
func TestBadInput(t *testing.T) {
	n := openNode(t)
	h := newHost(t, 3, n, kv.Options{})
	o := h.member().Dial
	o.Service, o.Group = kv.Service, testGroup
	c, err := wire.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := func(op uint16, header, body []byte) error {
		r := wire.Request{Op: op, Header: header}
		if body != nil {
			r.Body = wire.Wrap(nil, body)
		}
		reply, err := c.Call(t.Context(), r)
		if err != nil {
			return err
		}
		defer reply.Release()
		if reply.Status == 0 {
			return nil
		}
		f, err := kv.ReadFailure(reply.Status, reply.Header)
		if err == nil {
			err = f.Err()
		}
		return err
	}
	read := kv.AppendRead(nil, arakoon.Consistent)
	step := func(b ...byte) []byte { return b }
	set := func(key, value int) []byte { // of so many bytes
		b := binary.LittleEndian.AppendUint32([]byte{1}, uint32(key))
		b = binary.LittleEndian.AppendUint32(append(b, make([]byte, key)...), uint32(value))
		return append(b, make([]byte, value)...)
	}
	for name, tc := range map[string]struct {
		op           uint16
		header, body []byte
		is           error
	}{
		"no operation":        {60, nil, nil, wire.ErrUnknownOp},
		"far off":             {60000, nil, nil, wire.ErrUnknownOp},
		"no header":           {kv.OpGet, nil, nil, kv.ErrBadInput},
		"version":             {kv.OpStatus, []byte{9}, nil, kv.ErrBadInput},
		"consistency":         {kv.OpGetLocal, append(read[:12:12], 'k'), nil, kv.ErrBadInput},
		"a page too long":     {kv.OpRange, kv.AppendScan(read[:12:12], &kv.Scan{Bytes: kv.PageMax + 1}), nil, kv.ErrBadInput},
		"keys that are none":  {kv.OpMultiGet, append(read[:12:12], 0xff, 0xff, 0xff, 0xff), []byte("x"), kv.ErrBadInput},
		"half a step":         {kv.OpWrite, kv.AppendWrite(nil, uuid.Nil, 0), step(1, 0xff, 0xff, 0, 0), kv.ErrBadInput},
		"a step from afar":    {kv.OpWrite, kv.AppendWrite(nil, uuid.Nil, 0), step(0xee, 0, 0, 0, 0), kv.ErrBadInput},
		"an empty key":        {kv.OpWrite, kv.AppendWrite(nil, uuid.Nil, 0), set(0, 1), &arakoon.Error{Code: state.CodeBadCommand}},
		"a huge key":          {kv.OpWrite, kv.AppendWrite(nil, uuid.Nil, 0), set(state.KeyMax+1, 1), &arakoon.Error{Code: state.CodeTooLarge}},
		"a huge value":        {kv.OpWrite, kv.AppendWrite(nil, uuid.Nil, 0), set(1, state.ValueMax+1), &arakoon.Error{Code: state.CodeTooLarge}},
		"a huge sequence":     {kv.OpWrite, kv.AppendWrite(nil, uuid.Nil, 0), bytes.Repeat(set(1, state.ValueMax/2), 5), &arakoon.Error{Code: state.CodeTooLarge}},
		"a member's own step": {kv.OpWrite, kv.AppendWrite(nil, uuid.Nil, 0), step(17, 0, 0, 0, 0), &arakoon.Error{Code: state.CodeBadCommand}},
		"request of no one":   {kv.OpWrite, kv.AppendWrite(nil, uuid.Nil, 7), nil, kv.ErrBadInput},
		"session of no one":   {kv.OpWrite, kv.AppendWrite(nil, uuid.New(), 1), nil, &arakoon.Error{Code: 5}},
		"a watch for ever":    {kv.OpWatch, kv.AppendWatch(nil, 1, time.Hour, 0, nil), nil, kv.ErrBadInput},
		"transfer by one":     {kv.OpTransfer, kv.AppendTransfer(nil, 0), nil, arakoon.ErrTransfer},
		"an even number":      {kv.OpChangeMembers, kv.AppendMembers(nil, []uint64{1, 2}, nil), nil, kv.ErrBadInput},
		"members, half":       {kv.OpChangeMembers, kv.AppendMembers(nil, []uint64{1}, nil)[:15], nil, kv.ErrBadInput},
		"too many members":    {kv.OpChangeMembers, []byte{1, 0, 0, 0, 0xff, 0xff, 0, 0}, nil, kv.ErrBadInput},
		"the same members":    {kv.OpChangeMembers, kv.AppendMembers(nil, []uint64{3}, nil), nil, nil},
		"a level, half":       {kv.OpRaiseLevel, kv.AppendRaise(nil, 2)[:7], nil, kv.ErrBadInput},
		"a level of tomorrow": {kv.OpRaiseLevel, kv.AppendRaise(nil, 99), nil, kv.ErrBadInput},
		"zones, half":         {kv.OpRequireZones, kv.AppendRequireZones(nil, 2, false)[:7], nil, kv.ErrBadInput},
		"no zones":            {kv.OpRequireZones, kv.AppendRequireZones(nil, 0, false), nil, &arakoon.Error{Code: state.CodeBadCommand}},
		"too many zones":      {kv.OpRequireZones, kv.AppendRequireZones(nil, 1<<31, false), nil, &arakoon.Error{Code: state.CodeBadCommand}},
		"the level it has":    {kv.OpRaiseLevel, kv.AppendRaise(nil, 1), nil, nil},
		"level with extra":    {kv.OpLevel, []byte{kv.Version, 0}, nil, kv.ErrBadInput},
		"transfer with extra": {kv.OpTransfer, append(kv.AppendTransfer(nil, 0), 1), nil, kv.ErrBadInput},
	} {
		if err := m(tc.op, tc.header, tc.body); !errors.Is(err, tc.is) || errors.Is(err, arakoon.ErrUnknownOutcome) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m(kv.OpWrite, kv.AppendWrite(nil, uuid.Nil, 0), nil); err != nil || n.Err() != nil {
		t.Errorf("afterwards: %v, %v", err, n.Err())
	}
	o.Group = "other"
	if _, err := wire.Dial(t.Context(), o); !errors.Is(err, wire.ErrGroup) {
		t.Errorf("another group: %v", err)
	}
	h.setNode(nil)
	if err := m(kv.OpGet, append(read[:12:12], 'k'), nil); !errors.Is(err, arakoon.ErrClosed) {
		t.Errorf("a member that is not open: %v", err)
	}
}

// A connection of an older life of the group brings nothing any more. A client that hears of the
// new life connects anew, and goes on.
func TestAnOlderLifeIsRefused(t *testing.T) {
	h := newHost(t, 3, openNode(t), kv.Options{})
	o := h.member().Dial
	o.Service, o.Group = kv.Service, testGroup
	old, err := wire.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	client := newClient(t, Options{}, h)
	if _, err := client.Set(t.Context(), b("k"), b("1")); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.life = 2
	h.mu.Unlock()
	reply, err := old.Call(t.Context(), wire.Request{Op: kv.OpWrite, Header: kv.AppendWrite(nil, uuid.Nil, 0)})
	if err != nil || reply.Status != kv.StatusLife {
		t.Fatalf("%+v, %v", reply, err)
	}
	if f, err := kv.ReadFailure(reply.Status, reply.Header); err != nil || !errors.Is(f.Err(), wire.ErrLife) {
		t.Errorf("%+v, %v", f, err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if _, err := client.Set(ctx, b("k"), b("2")); err != nil {
		t.Errorf("in the new life: %v", err)
	}
}

// Answers that nobody takes do not fill the memory: reads are refused, and go on later.
func TestAnswersAreBounded(t *testing.T) {
	n := openNode(t)
	h := newHost(t, 3, n, kv.Options{Answers: 1 << 20, Reads: 1})
	client := newClient(t, Options{Busy: time.Nanosecond}, h)
	if _, err := client.Set(t.Context(), b("big"), make([]byte, 7<<20)); err != nil {
		t.Fatal(err)
	}
	// The windows of one connection take more than the socket: a reply that is not released
	// keeps the next ones back, on the server's side.
	o := h.member().Dial
	o.Service, o.Group = kv.Service, testGroup
	c, err := wire.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	big := append(kv.AppendRead(nil, arakoon.Local), "big"...)
	replies := make(chan *wire.Reply, 16)
	for range 16 {
		go func() {
			r, err := c.Call(t.Context(), wire.Request{Op: kv.OpGetLocal, Header: big})
			if err != nil {
				r = nil
			}
			replies <- r
		}()
	}
	var held []*wire.Reply
	busy := 0
	for len(held)+busy < 10 { // all that fit the window, or were refused
		r := <-replies
		switch {
		case r == nil:
			t.Fatal("a call failed")
		case r.Status == kv.StatusBusy:
			busy++
		default:
			held = append(held, r)
		}
	}
	if s := h.server.Statistics(); s.Held > (1<<20)+(7<<20) {
		t.Errorf("%d bytes are held", s.Held)
	}
	for _, r := range held {
		r.Release()
	}
	for range 16 - len(held) - busy {
		if r := <-replies; r != nil {
			r.Release()
		}
	}
	if _, err := client.Get(t.Context(), arakoon.Local, b("big")); err != nil && !errors.Is(err, arakoon.ErrBusy) {
		t.Error(err)
	}
}

// A member is reached by IPv6 as by IPv4.
func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6: ", err)
	}
	l.Close()
	h := &host{id: 3, node: openNode(t), loopback: "[::1]:0"}
	serve(t, h, kv.Options{})
	client := newClient(t, Options{}, h)
	if _, err := client.Set(t.Context(), b("k"), b("v")); err != nil {
		t.Fatal(err)
	}
	if v, err := client.Get(t.Context(), arakoon.Consistent, b("k")); err != nil || string(v) != "v" || !strings.HasPrefix(h.addr, "[::1]:") {
		t.Errorf("%q, %v, by %s", v, err, h.addr)
	}
}

// Figures count what was done.
func TestStatistics(t *testing.T) {
	h := newHost(t, 3, openNode(t), kv.Options{})
	client := newClient(t, Options{}, h)
	for range 3 {
		if _, err := client.Call(t.Context(), "add", 1, binary.BigEndian.AppendUint64(nil, 1)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Get(t.Context(), arakoon.Local, b("none")); err == nil {
			t.Fatal("none is there")
		}
	}
	s, err := client.Statistics(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, o := range s.Ops {
		if o.Op == kv.OpWrite && o.Count == 3 && o.Failed == 0 && o.Most > 0 && o.Total >= o.Most || o.Op == kv.OpGetLocal && o.Count == 3 && o.Failed == 3 {
			got += kv.OpName(o.Op) + " "
		}
	}
	if strings.TrimSpace(got) != "get-local write" {
		t.Errorf("%+v", s.Ops)
	}
}

// A read says how old what it has seen may be: at a member that is alone no older than the read.
func TestReadsTellTheirAge(t *testing.T) {
	h := newHost(t, 3, openNode(t), kv.Options{})
	client := newClient(t, Options{}, h)
	index, err := client.Set(t.Context(), b("k"), b("v"))
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []arakoon.Consistency{arakoon.Consistent, arakoon.Local, arakoon.AtLeast(index)} {
		began := time.Now()
		v, seen, err := client.GetSeen(t.Context(), how, b("k"))
		if err != nil || string(v) != "v" || !seen.Aged || seen.Age > time.Since(began)+time.Millisecond || seen.Revision < index {
			t.Errorf("%q, %+v, %v", v, seen, err)
		}
	}
}
