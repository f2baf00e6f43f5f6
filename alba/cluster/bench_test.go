package cluster_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/alba/cluster"
	"openvstorage/alba/nsm"
	"openvstorage/arakoon"
	"openvstorage/internal/disk/osdisk"
)

// manifestSize is about that of the manifest of an object of 64 MiB in four
// chunks of 2+1 fragments, with its checksums.
const manifestSize = 1 << 10

var manifest [manifestSize]byte

// commit is an object of 64 MiB on nine OSDs.
func commit(n uint64) *nsm.Object {
	o := &nsm.Object{
		Name: fmt.Sprintf("sco-%016x", n), ID: id(n), Epoch: 1, Size: 64 << 20, Manifest: manifest[:],
		Policy: nsm.Policy{K: 2, M: 1, C: 2, X: 1}, Chunks: make([]nsm.Chunk, 4),
	}
	binary.LittleEndian.PutUint64(o.Hash[:], n)
	for i := range o.Chunks {
		o.Chunks[i].Length = 8 << 20
		for j := range uint64(3) { // OSDs 1 to 9 are on three nodes
			o.Chunks[i].Fragments = append(o.Chunks[i].Fragments, nsm.Fragment{OSD: 1 + 3*(n%3) + j})
		}
	}
	return o
}

// setSize is about what a commit sends: the manifest, and the object for which
// it stands.
const setSize = manifestSize + 350

// BenchmarkCommits compares commits of manifests with bare sets of the same size
// and of 256 bytes, each from 64 goroutines, in turns, the sets on a node of
// their own. Each turn of commits is compared with the sets before and after it;
// the ratios are medians.
func BenchmarkCommits(b *testing.B) {
	const clients, slice = 64, 400 * time.Millisecond
	dir := b.TempDir()
	if d := os.Getenv("OVS_BENCH_DIR"); d != "" {
		dir = filepath.Join(d, fmt.Sprint(time.Now().UnixNano()))
		b.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	open := func(name string) *arakoon.Node {
		n, err := arakoon.Open(arakoon.Options{
			FS: osdisk.New(), Dir: filepath.Join(dir, name), Cluster: testCluster, Member: 1, Functions: cluster.Functions(nsm.Functions()),
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = n.Close() })
		return n
	}
	node, bare := open("nsm"), open("bare")
	c := cluster.NewClient(node)
	host := nsm.NewClient(c, c)
	link(b, host)
	var next atomic.Uint64
	// turn returns how often do ran in a second.
	turn := func(do func(ctx context.Context, n uint64) error) float64 {
		ctx, cancel := context.WithTimeout(context.Background(), slice)
		defer cancel()
		var done atomic.Uint64
		var all sync.WaitGroup
		start := time.Now()
		for range clients {
			all.Go(func() {
				for ctx.Err() == nil {
					if err := do(context.Background(), next.Add(1)); err != nil {
						b.Error(err)
						return
					}
					done.Add(1)
				}
			})
		}
		all.Wait()
		return float64(done.Load()) / time.Since(start).Seconds()
	}
	set := func(size int) func(context.Context, uint64) error {
		value := make([]byte, size)
		return func(ctx context.Context, n uint64) error {
			_, err := bare.Do(ctx, new(arakoon.Sequence).Set(fmt.Appendf(nil, "bare/%016x", n), value))
			return err
		}
	}
	small, large := set(256), set(setSize)
	var commits, smalls, larges, toSmall, toLarge []float64
	turn(small)
	for b.Loop() {
		s, l := turn(small), turn(large)
		m := turn(func(ctx context.Context, n uint64) error {
			_, err := host.Put(ctx, 1, nsm.Create, 0, commit(n))
			return err
		})
		l = (l + turn(large)) / 2
		s = (s + turn(small)) / 2
		commits, smalls, larges = append(commits, m), append(smalls, s), append(larges, l)
		toSmall, toLarge = append(toSmall, m/s), append(toLarge, m/l)
	}
	median := func(v []float64) float64 {
		slices.Sort(v)
		return v[len(v)/2]
	}
	b.ReportMetric(median(commits), "commits/s")
	b.ReportMetric(median(smalls), "sets256/s")
	b.ReportMetric(median(larges), "sets1.4K/s")
	b.ReportMetric(median(toSmall), "ratio256")
	b.ReportMetric(median(toLarge), "ratio1.4K")
	b.ReportMetric(0, "ns/op")
}
