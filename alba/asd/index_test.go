package asd

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

func TestIndexModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var x index
	model := map[string]place{}
	key := func() []byte {
		if rng.IntN(2) == 0 {
			return fmt.Append(nil, rng.IntN(3000))
		}
		return bytes.Repeat([]byte{byte(rng.IntN(200))}, 1+rng.IntN(255))
	}
	for step := range 60000 {
		k := key()
		if rng.IntN(20000) < 10000+step/6-5000*(step/30000) {
			p := place{rng.Uint32(), rng.Uint32(), rng.Uint32(), rng.Uint32(), rng.Uint64(), rng.Uint64()}
			old, had := x.put(k, p)
			if want, ok := model[string(k)]; had != ok || old != want {
				t.Fatal("put", step)
			}
			model[string(k)] = p
		} else {
			old, had := x.remove(k)
			if want, ok := model[string(k)]; had != ok || old != want {
				t.Fatal("remove", step)
			}
			delete(model, string(k))
		}
		if k := key(); true {
			got, ok := x.get(k)
			if want, there := model[string(k)]; ok != there || got != want {
				t.Fatal("get", step)
			}
		}
		if x.keys != len(model) {
			t.Fatal("keys", step)
		}
		if step%3000 == 0 {
			checkOrder(t, &x, model, key())
		}
		if step%20000 == 19999 { // down to nothing
			for k := range model {
				x.remove([]byte(k))
			}
			clear(model)
			if len(x.leaves) != 0 || x.bytes != 0 {
				t.Fatal(len(x.leaves), "leaves,", x.bytes, "bytes")
			}
		}
	}
}

func checkOrder(t *testing.T, x *index, model map[string]place, first []byte) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(model))
	i, _ := slices.BinarySearch(keys, string(first))
	keys = keys[i:]
	x.from(first, func(key []byte, p place) bool {
		if len(keys) == 0 || string(key) != keys[0] || model[keys[0]] != p {
			t.Fatalf("%x", key)
		}
		keys = keys[1:]
		return true
	})
	if len(keys) > 0 {
		t.Fatal(len(keys), "keys were left out")
	}
	cost := 0
	for _, l := range x.leaves {
		cost += l.cost()
	}
	if cost != x.bytes {
		t.Fatal(x.bytes, "bytes, not", cost)
	}
}

// Keys of fragments cost less than 120 bytes each, whatever order they come in.
func TestIndexMemory(t *testing.T) {
	const n = 200_000
	for _, order := range []string{"random", "sorted"} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		x := &index{}
		rng := rand.New(rand.NewPCG(1, 3))
		key := make([]byte, 34)
		for i := range n {
			for j := 9; j < 25; j++ {
				key[j] = byte(rng.Uint32())
			}
			if order == "sorted" {
				copy(key[9:], fmt.Sprintf("%016d", i))
			}
			x.put(key, place{size: 1 << 20})
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		heap := float64(after.HeapAlloc-before.HeapAlloc) / n
		own := float64(x.bytes) / n
		t.Logf("%s: %.1f bytes a key, %.1f by its own count", order, heap, own)
		if own > 110 || heap > 120 {
			t.Errorf("%s: %.1f bytes a key, %.1f by its own count", order, heap, own)
		}
		runtime.KeepAlive(x)
	}
}

func TestTables(t *testing.T) {
	var c tables
	c.init(4 * tableWays * blockSize)
	var crcs [2]uint32
	block := make([]byte, blockSize)
	for i := range uint32(1000) {
		putTable(block[8:], []uint32{i, i + 1})
		c.put(1+i%3, i, block)
		if !c.get(1+i%3, i, 8, crcs[:]) || crcs != [2]uint32{i, i + 1} {
			t.Fatal(i, crcs)
		}
		if c.get(9, i, 8, crcs[:]) {
			t.Fatal("a block that was not put")
		}
	}
	hits := 0
	for i := range uint32(1000) {
		if c.get(1+i%3, i, 8, crcs[:]) {
			hits++
			if crcs[0] != i {
				t.Fatal(i, crcs)
			}
		}
	}
	if hits == 0 || hits > 4*tableWays {
		t.Fatal(hits)
	}
}
