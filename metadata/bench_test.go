package metadata_test

import (
	"math/rand/v2"
	"testing"

	"openvstorage/metadata"
	"openvstorage/metadata/memstore"
	"openvstorage/sco"

	"github.com/google/uuid"
)

const tib = 1 << 40 / sco.ClusterSize

func newMap(t testing.TB, clusters uint64, budget int64) *metadata.Map {
	id := uuid.UUID{1}
	m, err := metadata.New(metadata.Options{Volume: id, Origins: []uuid.UUID{id}, Clusters: clusters,
		Cache: metadata.NewCache(budget), Store: memstore.New()})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// mapped returns a 1 TiB map with 4 GiB written in the middle.
func mapped(t testing.TB) (m *metadata.Map, from, n uint64) {
	m, from, n = newMap(t, tib, 256<<20), tib/2+12345, 1<<20
	const perSCO = 8191
	for i := uint64(0); i < n; i += perSCO {
		if err := m.Set(i+1, from+i, int(min(perSCO, n-i)), sco.At(0, sco.Number(1+i/perSCO), 1)); err != nil {
			t.Fatal(err)
		}
	}
	return m, from, n
}

func BenchmarkLookup(b *testing.B) {
	m, from, n := mapped(b)
	v := m.View()
	for _, c := range []struct {
		name   string
		run    int
		region uint64
	}{{"1in4GiB", 1, n}, {"1in64MiB", 1, n / 64}, {"256in4GiB", 256, n}} {
		b.Run(c.name, func(b *testing.B) {
			dst := make([]sco.Location, c.run)
			r := rand.New(rand.NewPCG(1, 1))
			b.ReportAllocs()
			for b.Loop() {
				if !v.Lookup(from+r.Uint64N(c.region-256), dst) {
					b.Fatal("not in memory")
				}
			}
		})
	}
}

func BenchmarkSet(b *testing.B) {
	m, from, n := mapped(b)
	b.Run("1in4GiB", func(b *testing.B) { benchmarkSet(b, m, from, n) })
	b.Run("1in64MiB", func(b *testing.B) { benchmarkSet(b, m, from, n/64) })
}

func benchmarkSet(b *testing.B, m *metadata.Map, from, n uint64) {
	r := rand.New(rand.NewPCG(1, 1))
	seq, number, index := m.Seq(), sco.Number(1000+m.Seq()>>13), 1
	b.ReportAllocs()
	for b.Loop() {
		seq++
		if index++; index > 8191 {
			number, index = number+1, 1
		}
		if err := m.Set(seq, from+r.Uint64N(n), 1, sco.At(0, number, index)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSetSequential256(b *testing.B) {
	m, from, n := mapped(b)
	seq, number, at := uint64(1<<21), sco.Number(1000), uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		seq++
		number++
		if err := m.Set(seq, from+at, 256, sco.At(0, number, 1)); err != nil {
			b.Fatal(err)
		}
		at = (at + 256) % (n - 256)
	}
}
