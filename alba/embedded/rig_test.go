package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"testing"

	"openvstorage/alba/preset"
	"openvstorage/backend"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"github.com/google/uuid"
)

var (
	ctx    = context.Background()
	testID = uuid.MustParse("7c7d6e1f-4d4f-4a0e-9b53-0d6f0f1f2a11")
)

// small is a preset of which a small object has several chunks, stored as it is.
func small() *preset.Preset {
	p := preset.Default(DefaultASD)
	p.Scheme.BlockLog2, p.Scheme.Compression = 12, preset.CompressionNone
	p.ChunkSize, p.InlineMax, p.ObjectMax = 64<<10, 4<<10, 16<<20
	return &p
}

// options are those of a backend whose maintenance the test does by hand.
func options(fs disk.FS) Options {
	o := Options{
		FS: fs, Dir: "/data", ID: testID, Preset: small(), CacheBytes: 64 << 20, SegmentBytes: 1 << 20,
		Maintain: Maintain{ByHand: true, RebuildAfter: -1},
	}
	if os.Getenv("OVS_TEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return o
}

// newDisk returns a disk with an empty data directory.
func newDisk(t testing.TB) *crashdisk.FS {
	t.Helper()
	fs := crashdisk.New()
	must(t, errors.Join(fs.MkdirAll("/data", 0o700), fs.SyncDir("/")))
	return fs
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, fs disk.FS) *Backend {
	t.Helper()
	b, err := Open(ctx, options(fs))
	must(t, err)
	return b
}

// data is what object i holds: some are in their manifests, some have several
// chunks.
func data(i int) []byte {
	rng := rand.New(rand.NewPCG(uint64(i), 1))
	b := make([]byte, []int{100, 5000, 70_000, 200_000}[i%4]+rng.IntN(100))
	for j := range b {
		b[j] = byte(rng.Uint32())
	}
	return b
}

func name(i int) string { return fmt.Sprintf("o%03d", i) }

// fill puts objects [from, to) into a namespace, which it makes.
func fill(t testing.TB, b *Backend, namespace string, from, to int) {
	t.Helper()
	if err := b.CreateNamespace(ctx, namespace); err != nil && !errors.Is(err, backend.ErrNamespaceExists) {
		t.Fatal(err)
	}
	for i := from; i < to; i++ {
		must(t, b.Namespace(namespace).Put(ctx, name(i), data(i)))
	}
}

// get reads an object whole.
func get(b *Backend, namespace string, i int) ([]byte, error) {
	p := make([]byte, len(data(i)))
	n, err := b.Namespace(namespace).Get(ctx, name(i), p, 0)
	return p[:n], err
}

// holds demands objects [0, n) of a namespace.
func holds(t testing.TB, b *Backend, namespace string, n int) {
	t.Helper()
	for i := range n {
		p, err := get(b, namespace, i)
		if err != nil {
			t.Fatalf("object %d: %v", i, err)
		}
		if !bytes.Equal(p, data(i)) {
			t.Fatalf("object %d has other bytes", i)
		}
	}
}

// settled does all the maintenance that there is to do, and demands that every
// object has full width, and every disk what objects name and nothing else.
func settled(t testing.TB, b *Backend) {
	t.Helper()
	must(t, settledErr(b))
}

func settledErr(b *Backend) error {
	w := b.Maintenance()
	// Twice: what the first forgets, the second may delete.
	err := errors.Join(w.Repair(ctx), w.Survey(ctx), w.Collect(ctx, 0), w.Survey(ctx), w.Audit(ctx))
	if err != nil {
		return err
	}
	s, err := b.Status(ctx)
	if err != nil {
		return err
	}
	if s.Narrow != 0 || s.Missing != 0 || s.Health != HealthOK {
		return fmt.Errorf("not settled: %+v", s)
	}
	for _, d := range b.fleet.All() {
		bad, next, err := d.Verify(ctx, nil, 10_000)
		if err != nil || len(bad) > 0 || next != nil {
			return fmt.Errorf("disk %d: %v bad, next %x: %w", d.Number, bad, next, err)
		}
	}
	return nil
}

// changing are the operations on files that change something.
const changing = faultdisk.Write | faultdisk.Datasync | faultdisk.Sync | faultdisk.Prewrite | faultdisk.Truncate |
	faultdisk.Rename | faultdisk.Link | faultdisk.Remove | faultdisk.RemoveAll | faultdisk.Mkdir | faultdisk.SyncDir

var kinds = []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}

// cutDuring does something on a copy of a disk and cuts the power before so many
// of its operations on files, anywhere from the first to the last. It returns
// what the cuts left.
func cutDuring(rng *rand.Rand, mem *crashdisk.FS, cuts int, do func(fs disk.FS)) (images []*crashdisk.FS) {
	var total atomic.Int64
	during(mem.Kill(), func() { total.Add(1) }, do)
	chance := float64(cuts) / float64(total.Load())
	copied := mem.Kill()
	var mu sync.Mutex
	during(copied, func() {
		mu.Lock()
		defer mu.Unlock()
		if rng.Float64() < chance {
			images = append(images, copied.Crash(rng, kinds[rng.IntN(len(kinds))]))
		}
	}, do)
	return images
}

// during does something on a disk, and calls before ahead of each operation that
// changes a file.
func during(mem *crashdisk.FS, before func(), do func(fs disk.FS)) {
	fs := faultdisk.New(mem)
	fs.Inject(faultdisk.Rule{Ops: changing, Before: func(faultdisk.Op, string) { before() }})
	do(fs)
	fs.Clear()
}

// take moves the directory of disk i away, and back.
func take(t testing.TB, fs disk.FS, i int) { move(t, fs, asdDir(i), awayDir(i)) }
func back(t testing.TB, fs disk.FS, i int) { move(t, fs, awayDir(i), asdDir(i)) }

func asdDir(i int) string  { return fmt.Sprintf("/data/asd/%d", i) }
func awayDir(i int) string { return fmt.Sprintf("/away-%d", i) }

func move(t testing.TB, fs disk.FS, from, to string) {
	t.Helper()
	must(t, errors.Join(fs.Rename(from, to), fs.SyncDir(path.Dir(from)), fs.SyncDir(path.Dir(to))))
}
