package proxy

import (
	"testing"

	"openvstorage/backend"
	"openvstorage/backend/mem"
)

// BenchmarkGet reads ranges of an object in memory, by 4 readers: by a call in this process, over a unix
// socket, and over TCP. What memory gives is the bound that a cache of fragments has at best.
func BenchmarkGet(b *testing.B) {
	s := mem.New(0)
	if err := s.CreateNamespace(b.Context(), "n"); err != nil {
		b.Fatal(err)
	}
	if err := s.Namespace("n").Put(b.Context(), "o", pattern(16<<20)); err != nil {
		b.Fatal(err)
	}
	for _, size := range []struct {
		name string
		n    int
	}{{"4KiB", 4 << 10}, {"256KiB", 256 << 10}, {"1MiB", 1 << 20}} {
		for _, way := range []struct {
			name  string
			store func(b *testing.B) backend.Store
		}{
			{"call", func(*testing.B) backend.Store { return s }},
			{"unix", func(b *testing.B) backend.Store { return all(b, dial(b, nil, newRig(b, "unix", "", s, nil).target())) }},
			{"tcp", func(b *testing.B) backend.Store { return all(b, dial(b, nil, newRig(b, "tcp", "", s, nil).target())) }},
		} {
			b.Run(size.name+"/"+way.name, func(b *testing.B) {
				ns := way.store(b).Namespace("n")
				b.SetBytes(int64(size.n))
				b.SetParallelism(2)
				b.RunParallel(func(pb *testing.PB) {
					p := make([]byte, size.n)
					for off := int64(0); pb.Next(); off = (off + int64(size.n)) % (16 << 20) {
						if _, err := ns.Get(b.Context(), "o", p, off); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}
