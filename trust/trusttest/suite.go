package trusttest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"openvstorage/internal/keyswap"
	"openvstorage/trust"
)

// TestStore holds a store to what trust.Store says. open returns one that is empty.
func TestStore(t *testing.T, open func(t *testing.T) trust.Store) {
	t.Run("Get", func(t *testing.T) { testGet(t, open(t)) })
	t.Run("Range", func(t *testing.T) { testRange(t, open(t)) })
	t.Run("Swap", func(t *testing.T) { testSwap(t, open(t)) })
	t.Run("Slices", func(t *testing.T) { testSlices(t, open(t)) })
	t.Run("Concurrent", func(t *testing.T) { testConcurrent(t, open(t)) })
	t.Run("Context", func(t *testing.T) { testContext(t, open(t)) })
}

func swap(t *testing.T, s trust.Store, want bool, swaps ...keyswap.Swap) {
	t.Helper()
	if ok, err := s.Swap(t.Context(), swaps); err != nil || ok != want {
		t.Fatalf("swap %v: %v, %v", swaps, ok, err)
	}
}

func get(t *testing.T, s trust.Store, key string) []byte {
	t.Helper()
	b, err := s.Get(t.Context(), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func one(key, before, after string) keyswap.Swap {
	w := keyswap.Swap{Key: []byte(key)}
	if before != "" {
		w.Old = []byte(before)
	}
	if after != "" {
		w.New = []byte(after)
	}
	return w
}

func testGet(t *testing.T, s trust.Store) {
	if b := get(t, s, "a"); b != nil {
		t.Errorf("an absent key has %q", b)
	}
	swap(t, s, true, one("a", "", "1"))
	if b := get(t, s, "a"); string(b) != "1" {
		t.Errorf("a has %q", b)
	}
}

func testRange(t *testing.T, s trust.Store) {
	swap(t, s, true, one("p/b", "", "2"), one("p/a", "", "1"), one("q", "", "3"), one("p", "", "0"))
	var got []string
	walk := func(stop int) {
		got = nil
		if err := s.Range(t.Context(), []byte("p/"), func(k, v []byte) bool {
			got = append(got, string(k)+string(v))
			return len(got) != stop
		}); err != nil {
			t.Fatal(err)
		}
	}
	if walk(0); !slices.Equal(got, []string{"p/a1", "p/b2"}) {
		t.Errorf("range has %q", got)
	}
	if walk(1); !slices.Equal(got, []string{"p/a1"}) {
		t.Errorf("a range that was ended has %q", got)
	}
}

func testSwap(t *testing.T, s trust.Store) {
	swap(t, s, false, one("a", "1", "2"))
	swap(t, s, true, one("a", "", "1"), one("b", "", "1"))
	swap(t, s, false, one("a", "", "2"))
	swap(t, s, false, one("b", "1", "2"), one("a", "x", "2"))
	if b := get(t, s, "b"); string(b) != "1" {
		t.Errorf("a swap that was not made has set b to %q", b)
	}
	swap(t, s, true, one("a", "1", "1"), one("b", "1", "")) // one is asserted, one goes
	if b := get(t, s, "b"); b != nil {
		t.Errorf("b was removed, and has %q", b)
	}
	swap(t, s, true, one("b", "", "3"))
	swap(t, s, false, one("absent", "x", "x"))
	swap(t, s, true, keyswap.Swap{Key: []byte("absent")}, one("b", "3", "4")) // absent stays so
	if b := get(t, s, "absent"); b != nil {
		t.Errorf("a key that was to stay absent has %q", b)
	}
}

func testSlices(t *testing.T, s trust.Store) {
	w := one("a", "", "1")
	swap(t, s, true, w)
	w.New[0] = 'x'
	b := get(t, s, "a")
	if string(b) != "1" {
		t.Fatalf("the store kept a slice of a swap: %q", b)
	}
	b[0] = 'y'
	if b := get(t, s, "a"); string(b) != "1" {
		t.Errorf("the store gave away its own slice: %q", b)
	}
}

func testConcurrent(t *testing.T, s trust.Store) {
	const workers, each = 4, 10
	swap(t, s, true, one("n", "", "0"))
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for made := 0; made < each; {
				b, err := s.Get(t.Context(), []byte("n"))
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				if _, err := fmt.Sscan(string(b), &n); err != nil {
					t.Error(err)
					return
				}
				ok, err := s.Swap(t.Context(), []keyswap.Swap{one("n", string(b), fmt.Sprint(n+1))})
				if err != nil {
					t.Error(err)
					return
				}
				if ok {
					made++
				}
			}
		})
	}
	wg.Wait()
	if b := get(t, s, "n"); string(b) != fmt.Sprint(workers*each) {
		t.Errorf("%d swaps were answered, and the count is %s", workers*each, b)
	}
}

func testContext(t *testing.T, s trust.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ok, err := s.Swap(ctx, []keyswap.Swap{one("a", "", "1")}); ok || err == nil {
		t.Errorf("a swap under a context that has ended: %v, %v", ok, err)
	}
}
