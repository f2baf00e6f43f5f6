package abm_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
)

func longOf(n byte) [16]byte { return [16]byte{n} }

var errCut = errors.New("cut")

// cutter is a manager as a mover sees it: between any two calls something else happens, and any
// call may be the last one that the mover makes, with effect or without.
type cutter struct {
	*nsmtest.Store
	m *moving
}

func (c cutter) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	return c.m.before(func() ([]byte, error) { return c.Store.Call(ctx, name, version, arg) })
}

// moving is a namespace that moves between two NSM hosts while it is used.
type moving struct {
	t       *testing.T
	rng     *rand.Rand
	abm     *abm.Client
	stores  map[uint64]*nsmtest.Store
	objects map[string][32]byte // what each holds
	ns      uint64
	ids     uint64
	mover   *abm.Mover
	other   bool // another mover is at work between two calls of the first one
	left    int  // calls until the cut
	effect  bool // the last call has its effect
	served  bool // something was served during the run
}

func (m *moving) host(n uint64) *nsm.Client { return nsm.NewClient(m.stores[n], m.stores[n]) }

func (m *moving) before(call func() ([]byte, error)) ([]byte, error) {
	m.use()
	if !m.other && m.rng.IntN(25) == 0 {
		m.another()
	}
	if m.left--; m.left > 0 {
		return call()
	}
	if m.effect {
		_, _ = call()
	}
	return nil, errCut
}

// another has a second mover do some steps of the same move, or cancel it.
func (m *moving) another() {
	left, effect := m.left, m.effect
	m.other, m.left, m.effect = true, 1+m.rng.IntN(30), m.rng.IntN(2) == 0
	var err error
	if m.rng.IntN(4) == 0 {
		err = m.mover.Cancel(ctx, m.ns)
	} else {
		err = m.mover.Move(ctx, m.ns)
	}
	if err != nil && !errors.Is(err, errCut) && !errors.Is(err, abm.ErrConflict) && !errors.Is(err, nsm.ErrConflict) {
		m.t.Fatal(err)
	}
	m.other, m.left, m.effect = false, left, effect
}

// use is what clients do meanwhile. At most one host serves.
func (m *moving) use() {
	var serve []uint64
	for n := range m.stores {
		_, err := m.host(n).List(ctx, m.ns, "", "", 1, userfn.Consistent)
		switch {
		case err == nil:
			serve = append(serve, n)
		case !errors.Is(err, nsm.ErrMoved) && !errors.Is(err, nsm.ErrMoving) && !errors.Is(err, nsm.ErrNamespaceNotFound):
			m.t.Fatal(err)
		}
	}
	if len(serve) > 1 {
		m.t.Fatalf("hosts %v both serve", serve)
	}
	for range m.rng.IntN(3) {
		m.change()
	}
}

var errWait = errors.New("not now")

// change puts or deletes an object wherever the namespace is, and gives up while it is nowhere.
func (m *moving) change() {
	name := fmt.Sprintf("n%d", m.rng.IntN(12))
	tries := 0
	follow := func(do func(c *nsm.Client) error) error {
		return m.abm.Follow(ctx, m.ns, func(host uint64) error { return do(m.host(host)) }, func(context.Context) error {
			if tries++; tries > 2 {
				return errWait
			}
			return nil
		})
	}
	var err error
	var after func()
	if m.rng.IntN(4) == 0 {
		err = follow(func(c *nsm.Client) error { _, err := c.Delete(ctx, m.ns, []string{name}, nil); return err })
		after = func() { delete(m.objects, name) }
	} else {
		m.ids++
		id, sum := [16]byte{byte(m.ids), byte(m.ids >> 8)}, sha256.Sum256(fmt.Append(nil, m.ids))
		err = follow(func(c *nsm.Client) error {
			e, err := c.Epochs(ctx, m.ns, userfn.Consistent)
			if err != nil {
				return err
			}
			o := &nsm.Object{
				Name: name, ID: id, Epoch: e.Next - 1, Size: 5, Hash: sum, Manifest: []byte("m"), Policy: nsm.Policy{K: 1, M: 1, C: 1, X: 3},
				Chunks: []nsm.Chunk{{Length: 4096, Fragments: []nsm.Fragment{{OSD: 1}, {OSD: 2}}}},
			}
			_, err = c.Put(ctx, m.ns, nsm.Replace, 0, o)
			return err
		})
		after = func() { m.objects[name] = sum }
	}
	switch {
	case err == nil, errors.Is(err, nsm.ErrNotFound):
		m.served = true
		after()
	case !errors.Is(err, errWait):
		m.t.Fatalf("%s: %v", name, err)
	}
}

// compare reads all that the namespace has, and checks every index of every manager.
func (m *moving) compare() {
	m.t.Helper()
	n, err := m.abm.NamespaceByNumber(ctx, m.ns, userfn.Consistent)
	if err != nil || n.State != abm.NamespaceActive {
		m.t.Fatalf("%+v, %v", n, err)
	}
	list, err := m.host(n.Host).List(ctx, m.ns, "", "", 100, userfn.Consistent)
	if err != nil {
		m.t.Fatal(err)
	}
	got := map[string][32]byte{}
	for _, o := range list {
		got[o.Name] = o.Hash
	}
	if !maps.Equal(got, m.objects) {
		m.t.Fatalf("host %d has %v, the model %v", n.Host, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(m.objects)))
	}
	for n, s := range m.stores {
		if err := s.View(nsm.Check); err != nil {
			m.t.Fatalf("host %d: %v", n, err)
		}
	}
}

// A namespace moves to and fro while it is used, the mover is cut at any call, others go on or
// cancel: nothing is lost, nothing comes back, and never two hosts serve.
func TestMoveCutAnywhere(t *testing.T) {
	moves, cuts, cancelled := 0, 0, 0
	for seed := range uint64(150) {
		s, c := manager(t)
		if _, err := c.PutHost(ctx, "host2", []byte("there"), false); err != nil {
			t.Fatal(err)
		}
		m := &moving{
			t: t, rng: rand.New(rand.NewPCG(seed, 1)), abm: c, objects: map[string][32]byte{},
			stores: map[uint64]*nsmtest.Store{1: nsmtest.New(nsm.Functions()...), 2: nsmtest.New(nsm.Functions()...)},
		}
		for n := byte(1); n <= 2; n++ {
			if err := c.RegisterOSD(ctx, abm.OSD{LongID: longOf(n), Node: "a", Endpoint: []byte{n}, Health: abm.Health{Capacity: 100}}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.ClaimOSD(ctx, longOf(n)); err != nil {
				t.Fatal(err)
			}
		}
		ns, err := c.CreateNamespace(ctx, "vdisk", "")
		if err != nil {
			t.Fatal(err)
		}
		m.ns = ns.Number
		carry := func() {
			for n := range m.stores {
				if err := c.Carry(ctx, n, m.host(n)); err != nil {
					t.Fatal(err)
				}
			}
		}
		carry()
		cut := cutter{s, m}
		m.mover = &abm.Mover{ABM: abm.NewClient(cut, s), Host: func(n uint64) (*nsm.Client, error) {
			return nsm.NewClient(cutter{m.stores[n], m}, m.stores[n]), nil
		}}
		for range 4 {
			for range m.rng.IntN(20) {
				m.change()
			}
			now, err := c.NamespaceByNumber(ctx, m.ns, userfn.Consistent)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := (abm.Moves{Client: c}).BeginMove(ctx, now, 3-now.Host); err != nil {
				t.Fatal(err)
			}
			for done := false; !done; {
				m.left, m.effect = 1+m.rng.IntN(25), m.rng.IntN(2) == 0
				if m.rng.IntN(6) == 0 {
					err = m.mover.Cancel(ctx, m.ns)
					if err == nil {
						cancelled++
					}
				} else {
					err = m.mover.Move(ctx, m.ns)
				}
				switch {
				case err == nil:
					n, err := c.NamespaceByNumber(ctx, m.ns, userfn.Consistent)
					if err != nil {
						t.Fatal(err)
					}
					if done = n.State != abm.NamespaceMoving; done && n.Host != now.Host {
						moves++
					}
				case errors.Is(err, errCut):
					cuts++
				case !errors.Is(err, abm.ErrConflict) && !errors.Is(err, nsm.ErrConflict):
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			carry()
			m.compare()
		}
		check(t, s)
	}
	if moves < 300 || cuts < 300 || cancelled < 20 {
		t.Errorf("%d moves, %d cuts, %d cancelled", moves, cuts, cancelled)
	}
}
