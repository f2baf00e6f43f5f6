package asd

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/osdisk"

	"github.com/google/uuid"
)

func realASD(b testing.TB, opt Options) *ASD {
	opt.FS = osdisk.New()
	if opt.Dir == "" {
		opt.Dir = path.Join(b.TempDir(), "disk")
	}
	return openNew(b, opt)
}

func benchKey(i int) []byte {
	id := uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i))
	return fmt.Appendf(nil, "o1234567%s%09d", id[:], i)
}

// BenchmarkPut is puts from 8 goroutines; BenchmarkRawWrite is what the disk
// does with as much in one stream.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20, 4 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			a := realASD(b, Options{SegmentBytes: 64 << 20})
			data := aligned(nil, size)
			for i := range data {
				data[i] = byte(i * 7)
			}
			v := value(data, 1)
			var n atomic.Int64
			b.SetBytes(int64(size))
			b.ResetTimer()
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for {
						i := int(n.Add(1))
						if i > b.N {
							return
						}
						if err := a.Apply(ctx, nil, []osd.Update{{Key: benchKey(i), Value: v}}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			s := a.Stats()
			b.ReportMetric(float64(s.Applies)/float64(s.Syncs), "puts/sync")
			b.ReportMetric(float64(s.HeadBytes)/float64(s.ValueBytes), "overhead")
		})
	}
}

func BenchmarkRawWrite(b *testing.B) {
	f, err := osdisk.New().OpenFile(path.Join(b.TempDir(), "f"), disk.Write|disk.Create|disk.Direct, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	data := aligned(nil, 4<<20)
	for i := range data {
		data[i] = byte(i * 7)
	}
	b.SetBytes(int64(len(data)))
	b.ResetTimer()
	for i := range b.N {
		if _, err := f.WriteAt(data, int64(i)*int64(len(data))); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Datasync(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRead4K reads blocks of 128 values of 4 MiB at random, 32 at a time:
// from the disk, and from the page cache.
func BenchmarkRead4K(b *testing.B) {
	const values, size = 128, 4 << 20
	a := realASD(b, Options{})
	v := value(aligned(nil, size), 1)
	keys := make([][]byte, values)
	for i := range keys {
		keys[i] = benchKey(i)
		apply(b, a, osd.Update{Key: keys[i], Value: v}) // past the page cache
	}
	read := func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			p, crcs := aligned(nil, blockSize), make([]uint32, 1)
			rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
			for pb.Next() {
				if err := a.Read(ctx, keys[rng.IntN(values)], uint32(rng.IntN(size/blockSize))*blockSize, p, crcs); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.Run("cold", read)
	all, crcs := aligned(nil, size), make([]uint32, size/blockSize)
	for _, key := range keys {
		if err := a.Read(ctx, key, 0, all, crcs); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("warm", read)
}

// BenchmarkOpen opens an ASD with 100,000 values of 4 KiB: after a clean stop,
// after a kill, and without a checkpoint.
func BenchmarkOpen(b *testing.B) {
	opt := Options{FS: osdisk.New(), Dir: path.Join(b.TempDir(), "disk"), SegmentBytes: 64 << 20}
	a := openNew(b, opt)
	v := value(aligned(nil, blockSize), 1)
	for i := 0; i < 100_000; {
		var updates []osd.Update
		for range 250 {
			updates = append(updates, osd.Update{Key: benchKey(i), Value: v})
			i++
		}
		apply(b, a, updates...)
	}
	index := path.Join(opt.Dir, indexName)
	last, err := os.ReadFile(index)
	if err != nil {
		b.Fatal(err)
	}
	a.Close()
	clean, err := os.ReadFile(index)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		index []byte
	}{{"clean", clean}, {"killed", last}, {"scan", nil}} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				os.Remove(index)
				if c.index != nil {
					os.WriteFile(index, c.index, 0o600)
				}
				start := time.Now()
				a, err := Open(opt)
				if err != nil || a.Stats().Keys != 100_000 {
					b.Fatal(err)
				}
				b.ReportMetric(float64(time.Since(start).Microseconds())/1000, "ms/open")
				a.cancel()
				a.Close()
			}
		})
	}
}

// BenchmarkUpload puts six fragments of 4 MiB at a time, one on each of six
// ASDs on one disk, from four
// goroutines.
func BenchmarkUpload(b *testing.B) {
	dir := b.TempDir()
	var asds []*ASD
	for i := range 6 {
		asds = append(asds, realASD(b, Options{Dir: path.Join(dir, fmt.Sprint(i)), SegmentBytes: 64 << 20}))
	}
	v := value(aligned(nil, 4<<20), 1)
	var n atomic.Int64
	b.SetBytes(int64(6 * len(v.Data)))
	b.ResetTimer()
	var uploads sync.WaitGroup
	for range 4 {
		uploads.Go(func() {
			for i := int(n.Add(1)); i <= b.N; i = int(n.Add(1)) {
				var puts sync.WaitGroup
				for _, a := range asds {
					puts.Go(func() {
						if err := a.Apply(ctx, nil, []osd.Update{{Key: benchKey(i), Value: v}}); err != nil {
							b.Error(err)
						}
					})
				}
				puts.Wait()
			}
		})
	}
	uploads.Wait()
}
