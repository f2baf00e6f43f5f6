package fragmentcache

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/internal/disk/osdisk"
)

// filled returns a cache on the host's disk with 256 MiB in extents of size
// bytes, one in each page.
func filled(b *testing.B, size int) *Cache {
	c := open(b, Options{FS: osdisk.New(), Dir: b.TempDir(), Bytes: 512 << 20, AdmitFirst: true})
	p := make([]byte, size)
	for i := range 256 << 20 / size {
		k, off := extentKey(i)
		c.Put(k, off, p, osd.AppendCRCs(nil, seed(k), off/blockSize, p))
		if i%128 == 0 {
			c.Flush()
		}
	}
	c.Flush()
	return c
}

// extentKey places 32 extents in each fragment.
func extentKey(i int) (manifest.Key, uint32) { return key(i/32, 0), uint32(i%32) * 32 << 10 }

// BenchmarkGet reads at random with two goroutines, and checks what it reads.
func BenchmarkGet(b *testing.B) {
	for name, size := range map[string]int{"4KiB": 4096, "32KiB": 32 << 10} {
		b.Run(name, func(b *testing.B) {
			c := filled(b, size)
			n := 256 << 20 / size
			seeds := make([]uint64, n)
			for i := range seeds {
				k, _ := extentKey(i)
				seeds[i] = seed(k)
			}
			var goroutine atomic.Uint64
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				rng := rand.New(rand.NewPCG(goroutine.Add(1), 0))
				p, crcs := make([]byte, size), make([]uint32, size/blockSize)
				for pb.Next() {
					i := rng.IntN(n)
					k, off := extentKey(i)
					if !c.Get(k, off, p, crcs) {
						b.Error("miss")
						return
					}
					for j, crc := range crcs {
						if osd.BlockCRC(seeds[i], off/blockSize+uint32(j), p[j*blockSize:][:blockSize]) != crc {
							b.Error("bad bytes")
							return
						}
					}
				}
			})
			s := c.Stats()
			b.ReportMetric(float64(s.IndexBytes)*1024/float64(s.Written), "index-MiB/GiB")
		})
	}
}

// BenchmarkPut puts what was not there, as fast as the file system takes it.
func BenchmarkPut(b *testing.B) {
	c := open(b, Options{FS: osdisk.New(), Dir: b.TempDir(), Bytes: 256 << 20, AdmitFirst: true})
	p, crcs := make([]byte, 32<<10), make([]uint32, 8)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		k, off := extentKey(i)
		c.Put(k, off, p, crcs)
		if i%128 == 0 {
			c.Flush()
		}
	}
	c.Flush()
	if s := c.Stats(); s.Off || s.Dropped > 0 {
		b.Errorf("%+v", s)
	}
}
