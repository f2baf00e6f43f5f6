package abm_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
)

var ctx = context.Background()

// manager is an ABM with a default preset and an NSM host.
func manager(t testing.TB) (*nsmtest.Store, *abm.Client) {
	t.Helper()
	s := nsmtest.New(abm.Functions()...)
	c := abm.NewClient(s, s)
	if err := c.Init(ctx, [16]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutPreset(ctx, "default", 0, []byte("p")); err != nil {
		t.Fatal(err)
	}
	if err := c.SetDefaultPreset(ctx, "default"); err != nil {
		t.Fatal(err)
	}
	if n, err := c.PutHost(ctx, "host1", []byte("here"), false); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	return s, c
}

func check(t testing.TB, s *nsmtest.Store) {
	t.Helper()
	if err := s.View(abm.Check); err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

func host() *nsm.Client {
	s := nsmtest.New(nsm.Functions()...)
	return nsm.NewClient(s, s)
}

func TestNamespaceLife(t *testing.T) {
	s, c := manager(t)
	h := host()
	n, err := c.CreateNamespace(ctx, "vdisk", "")
	if err != nil || n.Number != 1 || n.Host != 1 || n.Preset != "default" || n.State != abm.NamespaceCreating {
		t.Fatal(n, err)
	}
	_, err = c.CreateNamespace(ctx, "vdisk", "")
	want(t, "create twice", err, abm.ErrNamespaceExists)
	_, err = c.CreateNamespace(ctx, "other", "no such")
	want(t, "preset", err, abm.ErrNotFound)
	want(t, "a preset in use", c.DeletePreset(ctx, "default"), abm.ErrInUse)
	for range 2 {
		if err := c.Carry(ctx, 1, h); err != nil {
			t.Fatal(err)
		}
	}
	if n, err = c.Namespace(ctx, "vdisk", userfn.Consistent); err != nil || n.State != abm.NamespaceActive {
		t.Fatal(n, err)
	}
	if _, err := h.Namespace(ctx, 1, userfn.Consistent); err != nil {
		t.Fatal(err)
	}
	check(t, s)
	if n, err = c.DeleteNamespace(ctx, "vdisk"); err != nil || n.State != abm.NamespaceRemoving {
		t.Fatal(n, err)
	}
	_, err = c.DeleteNamespace(ctx, "vdisk")
	want(t, "delete twice", err, abm.ErrNamespaceNotFound)
	_, err = c.Namespace(ctx, "vdisk", userfn.Consistent)
	want(t, "one that is gone", err, abm.ErrNamespaceNotFound)
	// The name is free at once, for another number.
	if n, err = c.CreateNamespace(ctx, "vdisk", ""); err != nil || n.Number != 2 {
		t.Fatal(n, err)
	}
	check(t, s)
	if err := c.Carry(ctx, 1, h); err != nil {
		t.Fatal(err)
	}
	if list, err := c.Namespaces(ctx, 0, 10, userfn.Consistent); err != nil || len(list) != 1 || list[0].Number != 2 {
		t.Fatal(list, err)
	}
	if names, err := c.NamespaceNames(ctx, "", 10, userfn.Consistent); err != nil || !slices.Equal(names, []string{"vdisk"}) {
		t.Fatal(names, err)
	}
	if step, err := h.Cleanup(ctx, 1, 10); err != nil || !step.Done {
		t.Fatal(step, err)
	}
	check(t, s)
}

func TestOSDLife(t *testing.T) {
	s, c := manager(t)
	h := host()
	long := func(n byte) [16]byte { return [16]byte{n} }
	_, err := c.ClaimOSD(ctx, long(1))
	want(t, "claim of an unknown one", err, abm.ErrNotFound)
	for n := byte(1); n <= 3; n++ {
		if err := c.RegisterOSD(ctx, abm.OSD{LongID: long(n), Node: "a", Endpoint: []byte{n}, Health: abm.Health{Capacity: 100}}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // its retry
		if n, err := c.ClaimOSD(ctx, long(1)); err != nil || n != 1 {
			t.Fatal(n, err)
		}
	}
	if n, err := c.ClaimOSD(ctx, long(2)); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	want(t, "a claimed one moves", c.RegisterOSD(ctx, abm.OSD{LongID: long(1), Node: "b"}), abm.ErrConflict)
	want(t, "purge of an active one", c.PurgeOSD(ctx, 1), abm.ErrInUse)
	if err := c.UpdateHealth(ctx, []abm.HealthUpdate{
		{LongID: long(1), Health: abm.Health{Capacity: 200, Used: 50, LastRead: 5, Errors: 1}},
		{LongID: long(1), Health: abm.Health{LastRead: 4, LastWrite: 9, Errors: 2}},
		{LongID: long(9)},
	}); err != nil {
		t.Fatal(err)
	}
	o, err := c.OSD(ctx, long(1), userfn.Consistent)
	if err != nil || o.Health != (abm.Health{Capacity: 200, Used: 50, LastRead: 5, LastWrite: 9, Errors: 3}) {
		t.Fatal(o, err)
	}
	// One drains, one is lost and replaced; a host that comes late hears of
	// what is left.
	if err := c.DecommissionOSD(ctx, 1); err != nil {
		t.Fatal(err)
	}
	_, err = c.ClaimOSD(ctx, long(1))
	want(t, "claim of one that drains", err, abm.ErrConflict)
	if n, err := c.ReplaceOSD(ctx, 2, long(3)); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	if _, err := c.PutHost(ctx, "host2", nil, false); err != nil {
		t.Fatal(err)
	}
	if err := c.Carry(ctx, 1, h); err != nil {
		t.Fatal(err)
	}
	osds, err := h.OSDs(ctx, 0, 10, userfn.Consistent)
	if err != nil || len(osds) != 3 || osds[0].State != nsm.OSDDraining || osds[1].State != nsm.OSDLost || osds[2].State != nsm.OSDLinked {
		t.Fatal(osds, err)
	}
	if first, list, err := c.Messages(ctx, 2, userfn.Consistent); err != nil || first != 1 || len(list) != 1 || list[0].OSD != 3 {
		t.Fatal(first, list, err)
	}
	check(t, s)
	for _, n := range []uint64{1, 2, 2} {
		if err := c.PurgeOSD(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	// A device that comes back gets a number of its own.
	if err := c.RegisterOSD(ctx, abm.OSD{LongID: long(1), Node: "b"}); err != nil {
		t.Fatal(err)
	}
	if n, err := c.ClaimOSD(ctx, long(1)); err != nil || n != 4 {
		t.Fatal(n, err)
	}
	check(t, s)
}

func TestPresetsAndLeases(t *testing.T) {
	s, c := manager(t)
	for range 2 {
		if v, err := c.PutPreset(ctx, "p", 0, []byte("one")); err != nil || v != 1 {
			t.Fatal(v, err)
		}
	}
	_, err := c.PutPreset(ctx, "p", 0, []byte("two"))
	want(t, "other data", err, abm.ErrExists)
	_, err = c.PutPreset(ctx, "p", 2, []byte("two"))
	want(t, "stale version", err, abm.ErrConflict)
	if v, err := c.PutPreset(ctx, "p", 1, []byte("two")); err != nil || v != 2 {
		t.Fatal(v, err)
	}
	want(t, "the default", c.DeletePreset(ctx, "default"), abm.ErrInUse)
	if err := c.DeletePreset(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	want(t, "an absent default", c.SetDefaultPreset(ctx, "p"), abm.ErrNotFound)
	l, err := c.TakeLease(ctx, "maintenance", 0, "a")
	if err != nil || l.Counter != 1 {
		t.Fatal(l, err)
	}
	_, err = c.TakeLease(ctx, "maintenance", 0, "b")
	want(t, "a lease that moved", err, abm.ErrLease)
	if l, err = c.Lease(ctx, "maintenance", userfn.Consistent); err != nil || l.Holder != "a" {
		t.Fatal(l, err)
	}
	want(t, "another id", c.Init(ctx, [16]byte{2}), abm.ErrExists)
	check(t, s)
}

// Namespaces go to the host with the fewest; random calls keep every counter
// and leave the same bytes when they are repeated.
func TestRandomCalls(t *testing.T) {
	run := func(seed uint64) string {
		r := rand.New(rand.NewPCG(seed, 2))
		s, c := manager(t)
		hosts := map[uint64]*nsm.Client{1: host(), 2: host()}
		if _, err := c.PutHost(ctx, "host2", nil, false); err != nil {
			t.Fatal(err)
		}
		for step := range 300 {
			s.SetTime(int64(step))
			name := fmt.Sprint("n", r.IntN(10))
			long := [16]byte{byte(1 + r.IntN(6))}
			number := 1 + r.Uint64N(12)
			var err error
			switch r.IntN(10) {
			case 0, 1:
				_, err = c.CreateNamespace(ctx, name, "")
			case 2:
				_, err = c.DeleteNamespace(ctx, name)
			case 3:
				err = c.RegisterOSD(ctx, abm.OSD{LongID: long, Node: name})
			case 4:
				_, err = c.ClaimOSD(ctx, long)
			case 5:
				_, err = c.ReplaceOSD(ctx, number, long)
			case 6:
				err = c.DecommissionOSD(ctx, number)
			case 7:
				err = c.PurgeOSD(ctx, number)
			default:
				n := 1 + r.Uint64N(2)
				if err := c.Carry(ctx, n, hosts[n]); err != nil {
					t.Fatal(err)
				}
			}
			var known *userfn.Error
			if err != nil && (!errors.As(err, &known) || known.Code == userfn.CodeCorrupt || known.Code == userfn.CodeInvalid) {
				t.Fatal(err)
			}
			check(t, s)
		}
		list, err := c.Hosts(ctx, userfn.Consistent)
		if err != nil || len(list) != 2 || list[0].Namespaces > list[1].Namespaces+10 {
			t.Fatal(list, err)
		}
		for n, h := range hosts {
			if err := c.Carry(ctx, n, h); err != nil {
				t.Fatal(err)
			}
		}
		names, err := c.Namespaces(ctx, 0, abm.MaxPage, userfn.Consistent)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if _, err := hosts[n.Host].Namespace(ctx, n.Number, userfn.Consistent); n.State != abm.NamespaceActive || err != nil {
				t.Fatal(n, err)
			}
		}
		return string(s.Dump())
	}
	for seed := range uint64(6) {
		if run(seed) != run(seed) {
			t.Fatalf("seed %d: the same calls left other bytes", seed)
		}
	}
}

// No argument may panic, break a counter, or leave something behind an error.
func FuzzFunctions(f *testing.F) {
	for i := range abm.Functions() {
		f.Add(uint8(i), []byte{1, 1, 0, 0, 0, 'a', 0, 0, 0, 0})
	}
	f.Fuzz(func(t *testing.T, which uint8, arg []byte) {
		s, c := manager(t)
		if _, err := c.CreateNamespace(ctx, "a", ""); err != nil {
			t.Fatal(err)
		}
		before := s.Dump()
		fn := abm.Functions()[int(which)%len(abm.Functions())]
		if _, err := s.Call(ctx, fn.Name, fn.Version, arg); err != nil && string(s.Dump()) != string(before) {
			t.Fatal("an error left something")
		}
		check(t, s)
	})
}
