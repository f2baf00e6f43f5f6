package asd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"sync"
	"testing"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/disk/osdisk"

	"github.com/google/uuid"
)

var testID = Identity{ID: uuid.UUID{1, 2, 3}, Node: "node-a"}

var ctx = context.Background()

// small are options with which everything happens soon.
func small(fsys disk.FS) Options {
	return Options{FS: fsys, Dir: "disk", SegmentBytes: 256 << 10, CompactRate: -1, TableCacheBytes: 64 << 10}
}

func openNew(t testing.TB, opt Options) *ASD {
	t.Helper()
	if err := Create(opt.FS, opt.Dir, testID); err != nil {
		t.Fatal(err)
	}
	return reopen(t, opt)
}

func reopen(t testing.TB, opt Options) *ASD {
	t.Helper()
	a, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func value(data []byte, seed uint64) osd.Value {
	return osd.Value{Data: data, CRCs: osd.AppendCRCs(nil, seed, 0, data), Seed: seed, Epoch: seed + 1}
}

func put(key string, data []byte, seed uint64) osd.Update {
	return osd.Update{Key: []byte(key), Value: value(data, seed)}
}

func del(key string) osd.Update { return osd.Update{Key: []byte(key), Delete: true} }

func apply(t testing.TB, a *ASD, updates ...osd.Update) {
	t.Helper()
	if err := a.Apply(ctx, nil, updates); err != nil {
		t.Fatal(err)
	}
}

// get reads a value whole.
func get(a *ASD, key string) ([]byte, error) {
	list, err := a.Stat(ctx, [][]byte{[]byte(key)})
	if err != nil {
		return nil, err
	}
	if !list[0].Found {
		return nil, osd.ErrNotFound
	}
	p := make([]byte, list[0].Size)
	crcs := make([]uint32, osd.Blocks(len(p)))
	return p, a.Read(ctx, []byte(key), 0, p, crcs)
}

func random(rng *rand.Rand, n int) []byte {
	p := make([]byte, 0, n+8)
	for len(p) < n {
		p = binary.LittleEndian.AppendUint64(p, rng.Uint64())
	}
	return p[:n]
}

func mustGet(t testing.TB, a *ASD, key string, want []byte) {
	t.Helper()
	got, err := get(a, key)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s: %d bytes of %d, %v", key, len(got), len(want), err)
	}
}

// Values of every shape, before and after restarts with and without a
// checkpoint.
func TestShapes(t *testing.T) {
	for name, fsys := range map[string]disk.FS{"memory": crashdisk.New(), "real": osdisk.New()} {
		t.Run(name, func(t *testing.T) {
			opt := small(fsys)
			if name == "real" {
				opt.Dir = path.Join(t.TempDir(), "disk")
			}
			a := openNew(t, opt)
			rng := rand.New(rand.NewPCG(1, 1))
			want := map[string][]byte{}
			var all []osd.Update
			for i, n := range []int{0, 1, 7, 8, 4095, 4096, 4097, 8192, 10000, 65536, 300000, 1 << 20, 1<<20 + 5} {
				key := string(rune('a' + i))
				want[key] = random(rng, n)
				u := put(key, want[key], uint64(i)*77)
				apply(t, a, u)
				all = append(all, u)
			}
			for key := range want {
				mustGet(t, a, key, want[key])
			}
			again := want
			for i := range all {
				all[i].Key = append([]byte("again-"), all[i].Key...)
			}
			apply(t, a, all...)
			check := func() {
				t.Helper()
				for key, data := range again {
					mustGet(t, a, key, data)
					mustGet(t, a, "again-"+key, data)
				}
				if bad, next, err := a.Verify(ctx, nil, 1000); len(bad) > 0 || next != nil || err != nil {
					t.Fatal(bad, next, err)
				}
				if d := a.Damage(); len(d) > 0 {
					t.Fatal(d)
				}
			}
			check()
			for range 2 {
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				a = reopen(t, opt)
				check()
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				if err := fsys.Remove(path.Join(opt.Dir, indexName)); err != nil {
					t.Fatal(err)
				}
				a = reopen(t, opt)
				check()
			}
		})
	}
}

func TestReadRanges(t *testing.T) {
	a := openNew(t, small(crashdisk.New()))
	data := random(rand.New(rand.NewPCG(2, 2)), 100_000)
	u := put("k", data, 5)
	apply(t, a, u)
	for off := 0; off < len(data); off += blockSize {
		for n := blockSize; off+n <= len(data); n += 3 * blockSize {
			p, crcs := make([]byte, n), make([]uint32, n/blockSize)
			if err := a.Read(ctx, []byte("k"), uint32(off), p, crcs); err != nil || !bytes.Equal(p, data[off:off+n]) {
				t.Fatal(off, n, err)
			}
			for i := range crcs {
				if crcs[i] != u.Value.CRCs[off/blockSize+i] {
					t.Fatal("CRC", off, i)
				}
			}
		}
	}
	for _, bad := range []struct{ off, n, crcs int }{{1, 4096, 1}, {0, 100, 1}, {0, 4096, 2}, {98304, 4096, 1}, {1 << 20, 0, 0}} {
		err := a.Read(ctx, []byte("k"), uint32(bad.off), make([]byte, bad.n), make([]uint32, bad.crcs))
		if !errors.Is(err, osd.ErrInvalid) {
			t.Error(bad, err)
		}
	}
	if err := a.Read(ctx, []byte("x"), 0, nil, nil); !errors.Is(err, osd.ErrNotFound) {
		t.Error(err)
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	opt := small(osdisk.New())
	opt.Dir = path.Join(t.TempDir(), "disk")
	a := openNew(t, opt)
	apply(t, a, put("large", make([]byte, 1<<20), 1), put("small", make([]byte, 100), 1))
	p, crcs := make([]byte, blockSize), make([]uint32, 1)
	large, tiny := []byte("large"), []byte("small")
	n := testing.AllocsPerRun(100, func() {
		if err := a.Read(ctx, large, 8*blockSize, p, crcs); err != nil {
			t.Fatal(err)
		}
		if err := a.Read(ctx, tiny, 0, p[:100], crcs); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestIdentity(t *testing.T) {
	fsys := crashdisk.New()
	if _, err := Open(small(fsys)); !errors.Is(err, ErrNoASD) {
		t.Fatal(err)
	}
	if names, _ := fsys.ReadDir("/"); len(names) > 0 {
		t.Fatal("Open made", names)
	}
	fsys.MkdirAll("disk", 0o700)
	if _, err := Open(small(fsys)); !errors.Is(err, ErrNoASD) {
		t.Fatal(err)
	}
	if names, _ := fsys.ReadDir("disk"); len(names) > 0 {
		t.Fatal("Open made", names)
	}
	a := openNew(t, small(fsys))
	if err := Create(fsys, "disk", testID); err == nil {
		t.Fatal("an ASD was made over another")
	}
	if _, err := Open(small(fsys)); !errors.Is(err, disk.ErrLocked) {
		t.Fatal(err)
	}
	one, two := uuid.UUID{9}, uuid.UUID{8}
	if err := a.Claim(ctx, one); err != nil {
		t.Fatal(err)
	}
	if err := a.Claim(ctx, one); err != nil {
		t.Fatal(err)
	}
	if err := a.Claim(ctx, two); !errors.Is(err, ErrClaimed) {
		t.Fatal(err)
	}
	a.Close()
	image := fsys.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
	b := reopen(t, small(image))
	if id := b.Identity(); id.Owner != one || id.ID != testID.ID || id.Node != testID.Node {
		t.Fatal(id)
	}
}

func TestFullDisk(t *testing.T) {
	mem := crashdisk.New()
	fsys := faultdisk.New(mem)
	a := openNew(t, small(fsys))
	keys := []string{}
	quota := fsys.Limit("disk", 2<<20)
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range 1000 {
		key := string(rune('a'+i%26)) + string(rune('a'+i/26))
		err := a.Apply(ctx, nil, []osd.Update{put(key, random(rng, 20000), 1)})
		if err != nil {
			if !errors.Is(err, osd.ErrFull) {
				t.Fatal(err)
			}
			break
		}
		keys = append(keys, key)
	}
	if len(keys) < 50 {
		t.Fatal(len(keys), "values fit")
	}
	// Not a byte is left, and others take what compaction gives back.
	quota.Grow(-quota.Left())
	if u, err := a.Usage(ctx); err != nil || !u.Full || u.Keys != uint64(len(keys)) {
		t.Fatal(u, err)
	}
	for rest := keys[:len(keys)-1]; len(rest) > 0; {
		n := min(len(rest), 10)
		var updates []osd.Update
		for _, key := range rest[:n] {
			updates = append(updates, del(key))
		}
		if err := a.Apply(ctx, []osd.Assert{{Kind: osd.Exists, Key: updates[0].Key}}, updates); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if _, err := get(a, keys[len(keys)-1]); err != nil {
		t.Fatal(err)
	}
	a.Close()
	quota.Remove()
	b := reopen(t, small(fsys))
	list, err := b.Range(ctx, nil, nil, 100)
	if err != nil || len(list) != 1 {
		t.Fatal(len(list), err)
	}
	apply(t, b, put("after", random(rng, 50000), 1))
}

// An ASD fills up to its limit again and again: what is deleted comes back, and
// it never takes more than its capacity.
func TestCapacity(t *testing.T) {
	fsys := crashdisk.New()
	opt := small(fsys)
	opt.Capacity = 4 << 20
	a := openNew(t, opt)
	quiet(a)
	rng := rand.New(rand.NewPCG(4, 4))
	live := map[string][]byte{}
	for round := range 5 {
		for i := 0; ; i++ {
			key, data := fmt.Sprintf("%d-%d", round, i), random(rng, 5000+rng.IntN(30000))
			if err := a.Apply(ctx, nil, []osd.Update{put(key, data, 1)}); err != nil {
				if !errors.Is(err, osd.ErrFull) {
					t.Fatal(err)
				}
				break
			}
			live[key] = data
			if u, err := a.Usage(ctx); err != nil || u.Used > u.Capacity || u.Capacity != opt.Capacity {
				t.Fatal(u, err)
			}
		}
		if sum := sizes(live); sum < int(opt.Capacity)/2 {
			t.Fatalf("round %d: full with %d bytes", round, sum)
		}
		for key := range live {
			if rng.IntN(3) == 0 {
				continue
			}
			apply(t, a, del(key))
			delete(live, key)
		}
		if err := a.upkeep.pass(ctx); err != nil {
			t.Fatal(err)
		}
		if u, _ := a.Usage(ctx); u.Full || u.Used > u.Capacity {
			t.Fatal(u)
		}
	}
	for key, data := range live {
		mustGet(t, a, key, data)
	}
}

func sizes(m map[string][]byte) (n int) {
	for _, data := range m {
		n += len(data)
	}
	return n
}

// Applys, reads, scrubbing and compaction at the same time.
func TestConcurrent(t *testing.T) {
	opt := small(crashdisk.New())
	a := openNew(t, opt)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 5))
			mine := map[string][]byte{}
			for i := range 150 {
				key := fmt.Sprintf("%d-%d", g, rng.IntN(20))
				u := del(key)
				delete(mine, key)
				if rng.IntN(3) > 0 {
					mine[key] = random(rng, rng.IntN(20000))
					u = put(key, mine[key], uint64(i))
				}
				if err := a.Apply(ctx, nil, []osd.Update{u}); err != nil {
					t.Error(err)
				}
				for key, data := range mine {
					if got, err := get(a, key); err != nil || !bytes.Equal(got, data) {
						t.Error(key, err)
					}
					break
				}
			}
		})
	}
	for range 5 {
		if bad, _, err := a.Verify(ctx, nil, 100); len(bad) > 0 || err != nil {
			t.Error(bad, err)
		}
		if _, err := a.Range(ctx, nil, nil, 100); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

// After Close everything says so, and what waits is answered.
func TestClosed(t *testing.T) {
	a := openNew(t, small(crashdisk.New()))
	apply(t, a, put("k", make([]byte, 5000), 1))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			err := a.Apply(ctx, nil, []osd.Update{put(fmt.Sprint(i), make([]byte, 5000), 1)})
			if err != nil && !errors.Is(err, osd.ErrClosed) {
				t.Error(err)
			}
		})
	}
	a.Close()
	wg.Wait()
	_, err1 := a.Stat(ctx, nil)
	_, err2 := a.Range(ctx, nil, nil, 1)
	_, _, err3 := a.Verify(ctx, nil, 1)
	_, err4 := a.Usage(ctx)
	for i, err := range []error{
		err1, err2, err3, err4, a.Close(), a.Claim(ctx, testID.ID),
		a.Read(ctx, []byte("k"), 0, nil, nil), a.Apply(ctx, nil, []osd.Update{del("k")}),
	} {
		if !errors.Is(err, osd.ErrClosed) {
			t.Error(i, err)
		}
	}
}
