package asd

import (
	"fmt"
	"math/rand/v2"
	"path"
	"sync"
	"sync/atomic"
	"testing"

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

func BenchmarkRead4K(b *testing.B) {
	a := realASD(b, Options{})
	const values, size = 64, 4 << 20
	v := value(aligned(nil, size), 1)
	for i := range values {
		apply(b, a, osd.Update{Key: benchKey(i), Value: v})
	}
	p, crcs := aligned(nil, blockSize), make([]uint32, 1)
	keys := make([][]byte, values)
	for i := range keys {
		keys[i] = benchKey(i)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		if err := a.Read(ctx, keys[rng.IntN(values)], uint32(rng.IntN(size/blockSize))*blockSize, p, crcs); err != nil {
			b.Fatal(err)
		}
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
