package ec_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"openvstorage/alba/ec"
)

func code(t testing.TB, k, m int) *ec.Code {
	t.Helper()
	c, err := ec.New(ec.Vandermonde, k, m)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func random(c *ec.Code, each int, seed uint64) [][]byte {
	rng := rand.NewChaCha8([32]byte{byte(seed)})
	shards := ec.Alloc(c.Width(), each)
	for _, s := range shards[:c.Data()] {
		rng.Read(s)
	}
	return shards
}

// The matrix is a format: these parity bytes never change. Data byte j of
// shard i is 37(i+1)(i+3) + 11j^2.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		k, m   int
		parity []string
	}{
		{2, 1, []string{"e1e818608ced6505"}},
		{4, 2, []string{"e51128057c7ca0b3", "da6a6f7403eddd32"}},
		{8, 4, []string{"d8211830e3be8732", "87f164c59577512b", "35d09a9a5c28762f", "6dc906562bd8691f"}},
		{1, 2, []string{"6f7a9bd21f82fb8a", "6f7a9bd21f82fb8a"}},
	} {
		shards := ec.Alloc(c.k+c.m, 8)
		for i := range c.k {
			for j := range shards[i] {
				shards[i][j] = byte(37*(i+1)*(i+3) + 11*j*j)
			}
		}
		if err := code(t, c.k, c.m).Encode(shards); err != nil {
			t.Fatal(err)
		}
		for i, want := range c.parity {
			if got := hex.EncodeToString(shards[c.k+i]); got != want {
				t.Errorf("%d+%d: parity %d is %s, not %s", c.k, c.m, i, got, want)
			}
		}
	}
}

// mul multiplies in GF(2^8) with 0x11d, the slow way.
func mul(a, b byte) (p byte) {
	for ; b != 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		high := a & 0x80
		if a <<= 1; high != 0 {
			a ^= 0x1d
		}
	}
	return p
}

// matrix builds code 1 from its definition in doc.go.
func matrix(k, m int) [][]byte {
	power := make([][]byte, k+m)
	for r := range power {
		power[r] = make([]byte, k)
		for c, v := 0, byte(1); c < k; c, v = c+1, mul(v, byte(r)) {
			power[r][c] = v
		}
	}
	// Column operations that make the first k rows the unit matrix multiply
	// the whole by the inverse of those rows.
	for i := range k {
		for c := i; c < k; c++ {
			if power[i][c] != 0 {
				for r := range power {
					power[r][i], power[r][c] = power[r][c], power[r][i]
				}
				break
			}
		}
		inverse := byte(1)
		for mul(inverse, power[i][i]) != 1 {
			inverse++
		}
		for r := range power {
			power[r][i] = mul(power[r][i], inverse)
		}
		for c := range k {
			if f := power[i][c]; c != i && f != 0 {
				for r := range power {
					power[r][c] ^= mul(f, power[r][i])
				}
			}
		}
	}
	return power
}

// The library's parity is that of the definition.
func TestDefinition(t *testing.T) {
	for _, w := range [][2]int{{1, 1}, {1, 3}, {2, 1}, {3, 3}, {4, 2}, {8, 4}, {16, 4}, {40, 24}} {
		c := code(t, w[0], w[1])
		shards := random(c, 33, 7)
		if err := c.Encode(shards); err != nil {
			t.Fatal(err)
		}
		for r, row := range matrix(w[0], w[1]) {
			for at := range shards[r] {
				var sum byte
				for i, f := range row {
					sum ^= mul(f, shards[i][at])
				}
				if sum != shards[r][at] {
					t.Fatalf("%d+%d: byte %d of shard %d is %02x, not %02x", w[0], w[1], at, r, shards[r][at], sum)
				}
			}
		}
	}
}

// Any k shards give back any others, and nothing else is touched.
func TestReconstruct(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, w := range [][2]int{{1, 0}, {1, 1}, {1, 4}, {2, 1}, {4, 2}, {8, 4}, {5, 0}, {30, 10}} {
		c := code(t, w[0], w[1])
		for round := range 30 {
			each := []int{1, 100, 4096, 400 << 10}[round%4]
			if each > 4096 && (round > 8 || c.Width() > 20) {
				each = 4096
			}
			shards := random(c, each, uint64(round))
			if err := c.Encode(shards); err != nil {
				t.Fatal(err)
			}
			if ok, err := c.Verify(shards); !ok || err != nil {
				t.Fatalf("%d+%d does not verify: %v", w[0], w[1], err)
			}
			lost := rng.Perm(c.Width())[:rng.IntN(c.Parity()+1)]
			wanted := lost[:rng.IntN(len(lost)+1)]
			have := slices.Clone(shards)
			for i, at := range lost {
				have[at] = nil
				if i%2 == 0 {
					have[at] = make([]byte, 0, each) // room that is used
				}
			}
			if err := c.Reconstruct(have, wanted); err != nil {
				t.Fatalf("%d+%d without %v: %v", w[0], w[1], lost, err)
			}
			for i := range shards {
				switch {
				case !slices.Contains(lost, i) || slices.Contains(wanted, i):
					if !bytes.Equal(have[i], shards[i]) {
						t.Fatalf("%d+%d without %v: shard %d differs", w[0], w[1], lost, i)
					}
				case len(have[i]) != 0:
					t.Fatalf("%d+%d: shard %d was not wanted", w[0], w[1], i)
				}
			}
		}
	}
}

func TestVerifySees(t *testing.T) {
	for _, w := range [][2]int{{1, 1}, {2, 1}, {4, 2}} {
		c := code(t, w[0], w[1])
		shards := random(c, 5000, 1)
		if err := c.Encode(shards); err != nil {
			t.Fatal(err)
		}
		for i := range shards {
			shards[i][4999] ^= 1
			if ok, err := c.Verify(shards); ok || err != nil {
				t.Errorf("%d+%d: a flipped bit of shard %d: %v, %v", w[0], w[1], i, ok, err)
			}
			shards[i][4999] ^= 1
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		id   ec.ID
		k, m int
	}{{0, 2, 1}, {2, 2, 1}, {1, 0, 1}, {1, -1, 3}, {1, 2, -1}, {1, 64, 1}, {1, 1 << 62, 1 << 62}} {
		if _, err := ec.New(c.id, c.k, c.m); !errors.Is(err, ec.ErrCode) {
			t.Errorf("code %d, %d+%d: %v", c.id, c.k, c.m, err)
		}
	}
	c := code(t, 4, 2)
	shards := random(c, 64, 1)
	if err := c.Encode(shards[:5]); !errors.Is(err, ec.ErrShards) {
		t.Error(err)
	}
	if err := c.Encode(append(slices.Clone(shards[:5]), nil)); !errors.Is(err, ec.ErrShards) {
		t.Error(err)
	}
	if err := c.Encode(append(slices.Clone(shards[:5]), make([]byte, 63))); !errors.Is(err, ec.ErrShards) {
		t.Error(err)
	}
	if err := c.Reconstruct([][]byte{shards[0], shards[1], shards[2], nil, nil, nil}, []int{3}); !errors.Is(err, ec.ErrTooFew) {
		t.Error(err)
	}
	if err := c.Reconstruct(make([][]byte, 6), []int{3}); !errors.Is(err, ec.ErrTooFew) {
		t.Error(err)
	}
	if err := c.Reconstruct(shards, []int{6}); !errors.Is(err, ec.ErrShards) {
		t.Error(err)
	}
	if _, err := c.Verify(make([][]byte, 6)); !errors.Is(err, ec.ErrTooFew) {
		t.Error(err)
	}
}

func TestAlloc(t *testing.T) {
	for _, each := range []int{0, 1, 4095, 4096, 4097, 100000} {
		for i, s := range ec.Alloc(5, each) {
			if len(s) != each || cap(s) != each {
				t.Errorf("shard %d has %d bytes of %d", i, len(s), cap(s))
			}
			if each > 0 && uintptr(unsafe.Pointer(&s[0]))%ec.Align != 0 {
				t.Errorf("shard %d of %d bytes is not aligned", i, each)
			}
		}
	}
}

func TestCacheIsBoundedAndShared(t *testing.T) {
	first := code(t, 3, 2)
	if code(t, 3, 2) != first {
		t.Error("not shared")
	}
	for k := range 60 { // more than are kept
		for m := range 3 {
			code(t, k+1, m)
		}
	}
	if c := code(t, 3, 2); c.Data() != 3 || c.Parity() != 2 || c.ID() != ec.Vandermonde {
		t.Error(c)
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, w := range [][3]int{{2, 1, 32 << 10}, {4, 2, 64 << 10}, {4, 2, 4 << 20}, {8, 4, 2 << 20}} {
		b.Run(fmt.Sprintf("%d+%d/%dKiB", w[0], w[1], w[2]>>10), func(b *testing.B) {
			c := code(b, w[0], w[1])
			shards := random(c, w[2], 1)
			b.SetBytes(int64(w[0] * w[2]))
			for b.Loop() {
				if err := c.Encode(shards); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
