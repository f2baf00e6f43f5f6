package delay

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"openvstorage/backend"
	"openvstorage/backend/backendtest"
	"openvstorage/backend/mem"
)

func TestConformance(t *testing.T) {
	backendtest.TestStore(t, func(*testing.T) backend.Store {
		return New(mem.New(0), Options{ReadLatency: time.Nanosecond, WriteLatency: time.Nanosecond, BytesPerSecond: 1 << 50})
	})
}

func TestLatencyAndBandwidth(t *testing.T) {
	ctx := context.Background()
	now := time.Unix(1000, 0)
	var slept []time.Duration
	s := New(mem.New(0), Options{
		ReadLatency: time.Millisecond, WriteLatency: 2 * time.Millisecond, BytesPerSecond: 1000,
		Now:   func() time.Time { return now },
		Sleep: func(_ context.Context, d time.Duration) error { slept = append(slept, d); return nil },
	})
	ns := s.Namespace("ns")
	for _, err := range []error{s.CreateNamespace(ctx, "ns"), ns.Put(ctx, "a", make([]byte, 100)), ns.Put(ctx, "b", make([]byte, 100))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(150 * time.Millisecond) // the line is busy for 50 ms more
	if _, err := ns.Get(ctx, "a", make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	if _, err := ns.PutIf(ctx, "c", make([]byte, 1000), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := ns.Stat(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	ms := time.Millisecond
	if want := []time.Duration{2 * ms, 102 * ms, 202 * ms, 61 * ms, 1002 * ms, ms}; !slices.Equal(slept, want) {
		t.Errorf("slept %v, want %v", slept, want)
	}
}

func TestCancelledWait(t *testing.T) {
	s := New(mem.New(0), Options{WriteLatency: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.CreateNamespace(ctx, "ns"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
