package local

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"openvstorage/backend"
	"openvstorage/backend/backendtest"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/osdisk"
	"openvstorage/internal/format"
)

var (
	ctx    = context.Background()
	update = flag.Bool("update", false, "write golden files that are absent")
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7+i>>8) ^ seed
	}
	return b
}

// open returns a store with one namespace, "ns".
func open(t testing.TB, fsys disk.FS, dir string, o Options) (*Store, backend.Namespace) {
	t.Helper()
	s, err := Open(fsys, dir, o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	if err := s.CreateNamespace(ctx, "ns"); err != nil && !errors.Is(err, backend.ErrNamespaceExists) {
		t.Fatal(err)
	}
	return s, s.Namespace("ns")
}

func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name string
		fsys disk.FS
		o    Options
	}{
		{"osdisk", osdisk.New(), Options{}},
		{"crashdisk with a tiny cache", crashdisk.New(), Options{Files: 1, TableBytes: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			backendtest.TestStore(t, func(t *testing.T) backend.Store {
				s, err := Open(c.fsys, t.TempDir(), c.o)
				must(t, err)
				t.Cleanup(func() { must(t, s.Close()) })
				return s
			})
		})
	}
}

// Every flipped bit and every cut is found, and named.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	data := pattern(9000, 1)
	s, ns := open(t, osdisk.New(), dir, Options{})
	must(t, ns.Put(ctx, "o", data))
	must(t, s.Close())
	file := filepath.Join(dir, "ns", "o")
	good, err := os.ReadFile(file)
	must(t, err)
	s, ns = open(t, osdisk.New(), dir, Options{})
	p := make([]byte, len(data))
	damaged := func(what string, content []byte) {
		t.Helper()
		must(t, os.WriteFile(file, content, 0o644))
		s.cache.drop(objectKey{s.spaces.m["ns"], "o"})
		n, err := ns.Get(ctx, "o", p, 0)
		if !errors.Is(err, backend.ErrCorrupt) || n != 0 || !strings.Contains(err.Error(), file) {
			t.Fatalf("%s: %d bytes, %v", what, n, err)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		damaged(fmt.Sprint("flip at ", i), bad)
	}
	for i := 0; i < len(good); i += 37 {
		damaged(fmt.Sprint("cut at ", i), good[:i])
	}
	damaged("longer", append(bytes.Clone(good), 0))

	// Only the block that is damaged fails, and all of it does.
	bad := bytes.Clone(good)
	bad[5000] ^= 1
	damaged("block 1", bad)
	for off, ok := range map[int64]bool{0: true, 4095: true, 4096: false, 8191: false, 8192: true} {
		if _, err := ns.Get(ctx, "o", p[:1], off); (err == nil) != ok {
			t.Errorf("offset %d: %v", off, err)
		} else if err != nil && !strings.Contains(err.Error(), "offset 4096") {
			t.Errorf("the error does not name the block: %v", err)
		}
	}
	// A put does not take a damaged object for an equal one.
	if err := ns.Put(ctx, "o", data); !errors.Is(err, backend.ErrCorrupt) {
		t.Errorf("put over a damaged object: %v", err)
	}
	// Another object's file, whole as it is, is not this object.
	must(t, ns.Put(ctx, "other", data))
	other, err := os.ReadFile(filepath.Join(dir, "ns", "other"))
	must(t, err)
	damaged("swapped", other)
	newer := append(bytes.Clone(good[:len(good)-trailerSize]), format.AppendHeader(nil, format.Header{Kind: format.KindObject, Version: 2, MinReader: 2})...)
	must(t, os.WriteFile(file, append(newer, good[len(good)-16:]...), 0o644))
	s.cache.drop(objectKey{s.spaces.m["ns"], "o"})
	if _, err := ns.Get(ctx, "o", p, 0); !errors.Is(err, format.ErrNewer) || errors.Is(err, backend.ErrCorrupt) {
		t.Errorf("newer: %v", err)
	}
}

// Each step of a put that fails leaves nothing behind; after a failed sync of
// the directory the store takes no changes and still reads.
func TestFaults(t *testing.T) {
	broken := errors.New("broken")
	for _, op := range []string{"open", "write", "datasync", "link", "syncdir"} {
		t.Run(op, func(t *testing.T) {
			d := crashdisk.New()
			fsys := newStepFS(d)
			s, ns := open(t, fsys, "objects", Options{})
			must(t, ns.Put(ctx, "old", pattern(100, 1)))
			fsys.step = func(o, name string) error {
				if o == op {
					return broken
				}
				return nil
			}
			if err := ns.Put(ctx, "new", pattern(5000, 2)); !errors.Is(err, broken) {
				t.Fatalf("put: %v", err)
			}
			fsys.step = func(string, string) error { return nil }
			if left, _ := d.ReadDir("objects/.tmp"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			if op != "syncdir" {
				if whole(t, ns, "new") != nil {
					t.Error("a failed put made the object")
				}
				must(t, ns.Put(ctx, "new", pattern(5000, 2)))
				return
			}
			for _, err := range []error{
				ns.Put(ctx, "new", pattern(5000, 2)), ns.Put(ctx, "newer", nil), ns.Delete(ctx, []string{"old"}, nil),
				s.CreateNamespace(ctx, "x"), s.DeleteNamespace(ctx, "ns"),
			} {
				if !errors.Is(err, broken) || !errors.Is(err, backend.ErrFailed) || backend.Unknown(err) {
					t.Errorf("a change after a failed sync: %v", err)
				}
			}
			if whole(t, ns, "old") == nil {
				t.Error("reads ended")
			}
		})
	}
}

func TestNoSpace(t *testing.T) {
	for _, op := range []string{"open", "write", "datasync", "link"} {
		fsys := newStepFS(crashdisk.New())
		_, ns := open(t, fsys, "objects", Options{})
		v, err := ns.PutIf(ctx, "c", []byte("1"), 0)
		must(t, err)
		fsys.step = func(o, name string) error {
			if o == op {
				return &os.PathError{Op: o, Path: name, Err: syscall.ENOSPC}
			}
			return nil
		}
		if err := ns.Put(ctx, "o", pattern(5000, 1)); !errors.Is(err, backend.ErrNoSpace) {
			t.Errorf("put: %s: %v", op, err)
		}
		if op != "link" {
			if _, err := ns.PutIf(ctx, "c", pattern(5000, 1), v); !errors.Is(err, backend.ErrNoSpace) {
				t.Errorf("put if: %s: %v", op, err)
			}
		}
		if whole(t, ns, "o") != nil || string(whole(t, ns, "c")) != "1" {
			t.Errorf("%s: something changed", op)
		}
		must(t, ns.Delete(ctx, []string{"c"}, nil)) // which makes room
		fsys.step = func(string, string) error { return nil }
	}
}

// The cache keeps its bounds, closes what it lets go of, and a get on a
// cached object is one read.
func TestCache(t *testing.T) {
	fsys := newStepFS(crashdisk.New())
	s, ns := open(t, fsys, "objects", Options{Files: 4, TableBytes: 5 * 40})
	p := make([]byte, 40960)
	for i := range 10 {
		must(t, ns.Put(ctx, fmt.Sprint("small", i), pattern(4096, byte(i))))
		must(t, ns.Put(ctx, fmt.Sprint("large", i), pattern(40960, byte(i))))
	}
	for i := range 10 {
		_, err := ns.Get(ctx, fmt.Sprint("small", i), p[:4096], 0)
		must(t, err)
		if n := fsys.files.Load(); n > 4 {
			t.Fatalf("%d files are open", n)
		}
	}
	for i := range 10 {
		_, err := ns.Get(ctx, fmt.Sprint("large", i), p, 0)
		must(t, err)
	}
	if st := s.Stats(); st.TableBytes > 200 || st.Files != int(fsys.files.Load()) || st.Misses < 20 {
		t.Errorf("%+v, %d files", st, fsys.files.Load())
	}
	before := fsys.reads.Load()
	for _, r := range []struct{ off, n int }{{0, 40960}, {4096, 8192}, {100, 30000}, {40000, 960}} {
		_, err := ns.Get(ctx, "large9", p[:r.n], int64(r.off))
		must(t, err)
	}
	if n := fsys.reads.Load() - before; n != 4 {
		t.Errorf("4 gets took %d reads", n)
	}
	must(t, s.DeleteNamespace(ctx, "ns"))
	if n := fsys.files.Load(); n != 0 {
		t.Errorf("%d files are open in a deleted namespace", n)
	}
}

func TestCacheRace(t *testing.T) {
	fsys := newStepFS(crashdisk.New())
	_, ns := open(t, fsys, "objects", Options{Files: 2})
	for i := range 5 {
		must(t, ns.Put(ctx, fmt.Sprint("o", i), pattern(9000, byte(i))))
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			p := make([]byte, 9000)
			for i := range 200 {
				n := (i*7 + w) % 5
				if _, err := ns.Get(ctx, fmt.Sprint("o", n), p, 0); err != nil || !bytes.Equal(p, pattern(9000, byte(n))) {
					t.Errorf("o%d: wrong bytes or %v", n, err)
				}
			}
		})
	}
	wg.Wait()
	if n := fsys.files.Load(); n > 2 {
		t.Errorf("%d files are open", n)
	}
}

func TestGetAllocatesNothing(t *testing.T) {
	_, ns := open(t, osdisk.New(), t.TempDir(), Options{})
	must(t, ns.Put(ctx, "o", pattern(1<<20, 1)))
	p := make([]byte, 100_000)
	for _, r := range []struct{ off, n int }{{0, 4096}, {8192, 65536}, {77, 100_000}} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := ns.Get(ctx, "o", p[:r.n], int64(r.off)); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("[%d, +%d): %v allocations", r.off, r.n, n)
		}
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	s, ns := open(t, osdisk.New(), dir, Options{})
	if _, err := Open(osdisk.New(), dir, Options{}); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("second open: %v", err)
	}
	must(t, ns.Put(ctx, "o", pattern(100_000, 1)))
	v, err := ns.PutIf(ctx, "c", []byte("one"), 0)
	must(t, err)
	used, _, err := s.Usage(ctx)
	must(t, err)
	must(t, s.Close())
	if err := ns.Put(ctx, "p", nil); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	// A crash may leave objects half written and namespaces half removed.
	must(t, os.WriteFile(filepath.Join(dir, tmpName, "1"), pattern(100, 1), 0o644))
	must(t, os.MkdirAll(filepath.Join(dir, trashPrefix+"1"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, trashPrefix+"1", "o"), pattern(100, 1), 0o644))
	s, ns = open(t, osdisk.New(), dir, Options{})
	s.sweeps.Wait()
	for name, count := range map[string]int{".": 4, tmpName: 0, "ns": 2} {
		if left, err := os.ReadDir(filepath.Join(dir, name)); err != nil || len(left) != count {
			t.Errorf("%s: %v, %v", name, left, err)
		}
	}
	if n, _, err := s.Usage(ctx); err != nil || n != used {
		t.Errorf("used %d, was %d, %v", n, used, err)
	}
	if !bytes.Equal(whole(t, ns, "o"), pattern(100_000, 1)) {
		t.Error("other bytes after reopening")
	}
	_, err = ns.PutIf(ctx, "c", []byte("two"), v)
	must(t, err)
	must(t, s.Close())
	must(t, os.Remove(filepath.Join(dir, storeName)))
	if _, err := Open(osdisk.New(), dir, Options{}); err == nil {
		t.Error("a directory that is no store was opened as one")
	}
}

func TestSizes(t *testing.T) {
	sizeOf := map[int64]int64{}
	for size := range int64(3 * 4200) {
		sizeOf[fileSize(size)] = size
	}
	for file := int64(-5); file < fileSize(3*4200-1); file++ {
		size, table, ok := sizes(file)
		want, there := sizeOf[file]
		if ok != there || ok && (size != want || table != 4*((size+4095)/4096)) {
			t.Fatalf("file of %d bytes: %d, %d, %v", file, size, table, ok)
		}
	}
}

// The golden file holds version 1. It is never edited.
func TestGolden(t *testing.T) {
	const file = "testdata/object-v1.hex"
	data := pattern(4100, 3)
	inc := incarnation("ns", "golden")
	image := bytes.Clone(data)
	table := appendTable(nil, seedState(inc), data)
	image = append(image, appendTrailer(table, inc, 7, 4100, table)...)
	if _, err := os.Stat(file); err != nil && *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(file, annotate(image[4096:]), 0o644))
	}
	text, err := os.ReadFile(file)
	must(t, err)
	golden := bytes.Clone(data[:4096])
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		part, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		must(t, err)
		golden = append(golden, part...)
	}
	if !bytes.Equal(golden, image) {
		t.Error("version 1 is written with other bytes")
	}
	dir := t.TempDir()
	_, ns := open(t, osdisk.New(), dir, Options{})
	must(t, os.WriteFile(filepath.Join(dir, "ns", "golden"), golden, 0o644))
	fi, err := ns.Stat(ctx, "golden")
	if err != nil || fi.Version != 7 || !bytes.Equal(whole(t, ns, "golden"), data) {
		t.Errorf("version 1 does not open: %+v, %v", fi, err)
	}
}

func annotate(b []byte) []byte {
	var out bytes.Buffer
	out.WriteString("# object ns/golden, version 1: 4100 bytes of pattern(4100, 3), from offset 4096 on\n")
	for _, f := range []struct {
		n    int
		name string
	}{
		{4, "the object's last 4 bytes"}, {8, "CRCs of both blocks"},
		{8, "magic"}, {16, "kind, version, minimum reader, zero, features"}, {16, "no owner"}, {8, "object version"},
		{8, "incarnation: SHA-256 of ns/golden"}, {8, "zero, header CRC"}, {8, "size"}, {4, "CRC of the table"}, {4, "CRC of the trailer"},
	} {
		fmt.Fprintf(&out, "%-48s # %s\n", fmt.Sprintf("% x", b[:f.n]), f.name)
		b = b[f.n:]
	}
	return out.Bytes()
}

// FuzzTail changes whatever it likes in table and trailer behind good CRCs.
func FuzzTail(f *testing.F) {
	inc := incarnation("ns", "o")
	f.Add([]byte("data"), uint64(1), int64(4), inc)
	f.Add(pattern(5000, 1), uint64(9), int64(5001), uint64(3))
	f.Fuzz(func(t *testing.T, data []byte, v uint64, size int64, seed uint64) {
		table := appendTable(nil, seedState(seed), data)
		tail := appendTrailer(bytes.Clone(table), seed, backend.Version(v), size, table)
		got, err := decodeTail(tail, inc, int64(len(data)))
		if ok := seed == inc && size == int64(len(data)) && v != 0; ok != (err == nil) || ok && uint64(got) != v {
			t.Fatalf("version %d of %d bytes: %d, %v", v, size, got, err)
		}
		decodeTail(append(bytes.Clone(data), make([]byte, trailerSize)...), inc, int64(len(data)))
	})
}

func BenchmarkGet4K(b *testing.B) {
	_, ns := open(b, osdisk.New(), b.TempDir(), Options{})
	must(b, ns.Put(ctx, "o", pattern(16<<20, 1)))
	p := make([]byte, 4096)
	b.SetBytes(4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := ns.Get(ctx, "o", p, int64(i*37%4096)*4096); err != nil && err != io.EOF {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut16M(b *testing.B) {
	_, ns := open(b, osdisk.New(), b.TempDir(), Options{})
	data := pattern(16<<20, 1)
	b.SetBytes(16 << 20)
	for i := 0; b.Loop(); i++ {
		must(b, ns.Put(ctx, "o", data))
		b.StopTimer()
		must(b, ns.Delete(ctx, []string{"o"}, nil))
		b.StartTimer()
	}
}
