package fault

import (
	"context"
	"errors"
	"testing"

	"openvstorage/backend"
	"openvstorage/backend/backendtest"
	"openvstorage/backend/mem"
	"openvstorage/internal/gate"
)

var (
	ctx     = context.Background()
	errTest = errors.New("injected")
)

func TestConformance(t *testing.T) {
	backendtest.TestStore(t, func(*testing.T) backend.Store { return New(mem.New(0)) })
}

func setup(t *testing.T) (*Store, backend.Namespace) {
	t.Helper()
	s := New(mem.New(0))
	if err := s.CreateNamespace(ctx, "ns"); err != nil {
		t.Fatal(err)
	}
	return s, s.Namespace("ns")
}

func TestBeforeAndAfter(t *testing.T) {
	s, ns := setup(t)
	before := s.Add(Rule{Ops: []Op{Put}, Object: "sco-*", Err: errTest, Count: 1})
	if err := ns.Put(ctx, "sco-1", []byte("x")); err != errTest {
		t.Errorf("got %v", err)
	}
	if _, err := ns.Stat(ctx, "sco-1"); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("an error before had an effect: %v", err)
	}
	if err := ns.Put(ctx, "sco-1", []byte("x")); err != nil || before.Hits() != 1 {
		t.Errorf("%v after %d hits", err, before.Hits())
	}
	s.Add(Rule{Ops: []Op{PutIf}, Err: errTest, After: true, Count: 1})
	if _, err := ns.PutIf(ctx, "c", []byte("x"), 0); err != errTest {
		t.Errorf("got %v", err)
	}
	if _, err := ns.Stat(ctx, "c"); err != nil {
		t.Errorf("an error after had no effect: %v", err)
	}
	// A call that fails by itself says so.
	s.Add(Rule{Err: errTest, After: true})
	if _, err := ns.PutIf(ctx, "c", nil, 0); !errors.Is(err, backend.ErrConflict) {
		t.Errorf("got %v", err)
	}
}

func TestSkipCountAndMatch(t *testing.T) {
	s, ns := setup(t)
	r := s.Add(Rule{Ops: []Op{Stat, Get, Delete}, Namespace: "n?", Object: "b*", Skip: 1, Count: 2, Err: errTest})
	var got []bool
	for _, name := range []string{"a", "b1", "a", "b2", "b1", "b1", "a"} {
		_, err := ns.Stat(ctx, name)
		got = append(got, err == errTest)
	}
	for i, want := range []bool{false, false, false, true, true, false, false} {
		if got[i] != want {
			t.Errorf("call %d: hit is %v", i, got[i])
		}
	}
	r.Remove()
	s.Add(Rule{Ops: []Op{Delete}, Object: "b*", Err: errTest})
	if ns.Delete(ctx, []string{"a", "b"}, nil) != errTest || ns.Delete(ctx, []string{"a"}, nil) != nil {
		t.Error("delete does not match by any name")
	}
	if err := s.CreateNamespace(ctx, "other"); err != nil {
		t.Error(err)
	}
}

func TestGate(t *testing.T) {
	s, ns := setup(t)
	g := gate.New()
	s.Add(Rule{Ops: []Op{Put}, Gate: g, Err: errTest, After: true})
	done := make(chan error)
	go func() { done <- ns.Put(ctx, "o", nil) }()
	if err := g.Arrived(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := ns.Stat(ctx, "o"); err != nil {
		t.Errorf("the call is held behind its effect, which does not show: %v", err)
	}
	c, cancel := context.WithCancel(ctx)
	go func() { done <- ns.Put(c, "p", nil) }()
	if err := g.Arrived(ctx, 2); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("a held call that is cancelled returns %v", err)
	}
	g.Open()
	g.Open()
	if err := <-done; err != errTest {
		t.Errorf("got %v", err)
	}
	if err := g.Arrived(c, 3); err != context.Canceled {
		t.Errorf("got %v", err)
	}
}
