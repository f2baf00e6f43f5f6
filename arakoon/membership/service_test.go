package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"openvstorage/arakoon/roster"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

var cluster = uuid.UUID{0: 0xc1, 15: 1}

// keeper is a host that notes what it is told.
type keeper struct {
	mu    sync.Mutex
	calls []string
	err   error
}

func (k *keeper) note(format string, args ...any) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, fmt.Sprintf(format, args...))
	return k.err
}

func (k *keeper) said() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.calls, ", ")
}

func (k *keeper) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

func (k *keeper) Make(_ context.Context, group string, member uint64, r *roster.Roster) error {
	return k.note("make %s %d by roster %d", group, member, r.Revision)
}

func (k *keeper) Drop(_ context.Context, group string, member uint64) error {
	return k.note("drop %s %d", group, member)
}

// hosts are two hosts: the one that asks, and one behind a socket.
func hosts(t *testing.T, k *keeper, admit func(context.Context, *wire.Peer) error) (*Remote, *roster.Roster, *keeper) {
	t.Helper()
	one, two := roster.Host{ID: uuid.UUID{15: 1}}, roster.Host{ID: uuid.UUID{15: 2}, Zone: "b"}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	who := func(id uuid.UUID) wire.Identity { return wire.Identity{Cluster: cluster, Host: id} }
	s, err := wire.NewServer(wire.ServerOptions{
		Services: map[string]*wire.Service{Service: NewService(cluster, k, admit)},
		Identity: func() wire.Identity { return who(two.ID) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	c, err := wire.NewRedialer(wire.RedialOptions{Target: func(context.Context) (wire.DialOptions, error) {
		return wire.DialOptions{Network: "tcp", Address: l.Addr().String(), Service: Service, Identity: who(one.ID)}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); _ = s.Close(context.Background()); serving.Wait() })
	r := &roster.Roster{Revision: 5, Hosts: []roster.Host{one, two, {ID: uuid.UUID{15: 3}}}, Groups: []roster.Group{{Name: "g", Next: 2}}}
	own := new(keeper)
	return &Remote{
		Cluster: cluster, Self: one.ID, Local: own, Roster: func() *roster.Roster { return r }, Patience: 10 * time.Second,
		Place: func(uuid.UUID) (bool, bool) { return true, false },
		Dial: func(h roster.Host) (Caller, error) {
			if h.ID != two.ID {
				return nil, errors.New("no address")
			}
			return c, nil
		},
	}, r, own
}

func TestRemoteHosts(t *testing.T) {
	k := new(keeper)
	h, r, own := hosts(t, k, nil)
	one, two, three := r.Hosts[0].ID, r.Hosts[1].ID, r.Hosts[2].ID
	places := h.Places(t.Context(), r)
	if !places[0].Alive || !places[1].Alive || places[2].Alive || places[1].Zone != "b" || !places[1].Holds {
		t.Errorf("%+v", places)
	}
	for _, err := range []error{
		h.Make(t.Context(), two, "g", 7), h.Drop(t.Context(), two, "g", 7),
		h.Make(t.Context(), one, "g", 8), h.Drop(t.Context(), one, "g", 8),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if got := k.said(); got != "make g 7 by roster 5, drop g 7" {
		t.Error(got)
	}
	if got := own.said(); got != "make g 8 by roster 5, drop g 8" {
		t.Error(got)
	}
	if h.Make(t.Context(), three, "g", 9) == nil || h.Drop(t.Context(), uuid.UUID{15: 9}, "g", 9) == nil {
		t.Error("a host without an address has answered")
	}
	k.fail(fmt.Errorf("number 7: %w", ErrUsed))
	if err := h.Make(t.Context(), two, "g", 7); !errors.Is(err, ErrUsed) || !strings.Contains(err.Error(), "number 7") {
		t.Error(err)
	}
	k.fail(errors.New("the disk is full"))
	if err := h.Make(t.Context(), two, "g", 7); err == nil || errors.Is(err, ErrUsed) || !strings.Contains(err.Error(), "the disk is full") {
		t.Error(err)
	}
}

func TestServiceRefusesStrangers(t *testing.T) {
	k := new(keeper)
	h, r, _ := hosts(t, k, func(context.Context, *wire.Peer) error { return errors.New("not a host with this role") })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := h.Make(ctx, r.Hosts[1].ID, "g", 7); err == nil {
		t.Error("it was served")
	}
	if got := k.said(); got != "" {
		t.Error(got)
	}
}

func TestRequestsThatNobodyMakes(t *testing.T) {
	good := appendRequest(nil, "g", 7)
	other := &roster.Roster{Revision: 1}
	for what, in := range map[string]*wire.Incoming{
		"no header":         {Op: opDrop},
		"cut":               {Op: opDrop, Header: good[:15]},
		"a later version":   {Op: opDrop, Header: append([]byte{2}, good[1:]...)},
		"a later field":     {Op: opDrop, Header: append([]byte{1, 0, 1}, good[3:]...)},
		"a long name":       {Op: opDrop, Header: append(good, make([]byte, 64)...)},
		"no group":          {Op: opDrop, Header: appendRequest(nil, "", 0)},
		"ask for a group":   {Op: opAsk, Header: good},
		"no roster":         {Op: opMake, Header: good},
		"another's roster":  {Op: opMake, Header: good, Body: other.Encode(uuid.UUID{1}, 1)},
		"a damaged roster":  {Op: opMake, Header: good, Body: append(other.Encode(cluster, 1), 0)},
		"unknown operation": {Op: 99, Header: good},
	} {
		k := new(keeper)
		if a := serve(t.Context(), cluster, k, in); a.Status == 0 || k.said() != "" {
			t.Errorf("%s: %+v, %s", what, a, k.said())
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(uint16(opMake), appendRequest(nil, "g", 7))
	f.Add(uint16(opAsk), appendRequest(nil, "", 0))
	f.Fuzz(func(t *testing.T, op uint16, b []byte) {
		group, member, err := decodeRequest(op, b)
		if err == nil && string(appendRequest(nil, group, member)) != string(b) {
			t.Errorf("%x is read as %q %d", b, group, member)
		}
	})
}
