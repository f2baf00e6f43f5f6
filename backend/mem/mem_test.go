package mem

import (
	"context"
	"errors"
	"testing"

	"openvstorage/backend"
	"openvstorage/backend/backendtest"
)

func TestConformance(t *testing.T) {
	backendtest.TestStore(t, func(*testing.T) backend.Store { return New(0) })
	backendtest.TestStore(t, func(*testing.T) backend.Store { return New(64 << 20) })
}

func TestNoSpace(t *testing.T) {
	ctx := context.Background()
	s := New(100)
	if err := s.CreateNamespace(ctx, "ns"); err != nil {
		t.Fatal(err)
	}
	ns := s.Namespace("ns")
	if err := ns.Put(ctx, "a", make([]byte, 60)); err != nil {
		t.Fatal(err)
	}
	if err := ns.Put(ctx, "b", make([]byte, 60)); !errors.Is(err, backend.ErrNoSpace) {
		t.Errorf("got %v", err)
	}
	if err := ns.Delete(ctx, []string{"a"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := ns.Put(ctx, "b", make([]byte, 60)); err != nil {
		t.Error(err)
	}
}
