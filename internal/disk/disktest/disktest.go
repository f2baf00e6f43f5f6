// Package disktest is the conformance suite of disk.FS. It holds what every
// implementation must do alike, so that a test on the crash model says something about
// the real disk.
package disktest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
)

// Run runs the suite. open is called once for each test and returns a file
// system and an empty directory on it.
func Run(t *testing.T, open func(t *testing.T) (fsys disk.FS, dir string)) {
	tests := []struct {
		name string
		test func(t *testing.T, d *env)
	}{
		{"OpenFlags", testOpenFlags},
		{"ReadWrite", testReadWrite},
		{"SparseAndTruncate", testSparseAndTruncate},
		{"Vectors", testVectors},
		{"RandomAgainstModel", testRandom},
		{"TryRead", testTryRead},
		{"Prewrite", testPrewrite},
		{"Closed", testClosed},
		{"ReadOnly", testReadOnly},
		{"BadArguments", testBadArguments},
		{"Rename", testRename},
		{"Link", testLink},
		{"Remove", testRemove},
		{"Directories", testDirectories},
		{"RemovedButOpen", testRemovedButOpen},
		{"Lock", testLock},
		{"Stat", testStat},
		{"Private", testPrivate},
		{"Concurrent", testConcurrent},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fsys, dir := open(t)
			test.test(t, &env{t: t, FS: fsys, dir: dir})
		})
	}
}

// env is a file system with calls that fail the test.
type env struct {
	disk.FS
	t   *testing.T
	dir string
}

func (d *env) path(name string) string { return path.Join(d.dir, name) }

func (d *env) ok(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *env) is(err, want error) {
	d.t.Helper()
	if !errors.Is(err, want) {
		d.t.Errorf("got error %v, want %v", err, want)
	}
}

func (d *env) open(name string, flag disk.Flag) disk.File {
	d.t.Helper()
	f, err := d.OpenFile(d.path(name), flag, 0o644)
	d.ok(err)
	d.t.Cleanup(func() { f.Close() })
	return f
}

func (d *env) create(name, content string) disk.File {
	d.t.Helper()
	f := d.open(name, disk.Write|disk.Create|disk.Truncate)
	d.write(f, 0, content)
	return f
}

func (d *env) write(f disk.File, off int64, content string) {
	d.t.Helper()
	if n, err := f.WriteAt([]byte(content), off); err != nil || n != len(content) {
		d.t.Fatalf("WriteAt = %d, %v", n, err)
	}
}

func (d *env) holds(f disk.File, want string) {
	d.t.Helper()
	got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	d.ok(err)
	if string(got) != want {
		d.t.Errorf("%s holds %.80q, want %.80q", f.Name(), got, want)
	}
	size, err := f.Size()
	d.ok(err)
	if size != int64(len(want)) {
		d.t.Errorf("%s: Size = %d, want %d", f.Name(), size, len(want))
	}
}

func (d *env) nameHolds(name, want string) {
	d.t.Helper()
	f, err := d.OpenFile(d.path(name), 0, 0)
	d.ok(err)
	defer f.Close()
	d.holds(f, want)
}

func (d *env) names(name string, want ...string) {
	d.t.Helper()
	got, err := d.ReadDir(d.path(name))
	d.ok(err)
	if !slices.Equal(got, want) {
		d.t.Errorf("%s holds names %q, want %q", name, got, want)
	}
}

func testOpenFlags(t *testing.T, d *env) {
	_, err := d.OpenFile(d.path("a"), disk.Write, 0)
	d.is(err, fs.ErrNotExist)
	var pe *fs.PathError
	if !errors.As(err, &pe) || pe.Path != d.path("a") {
		t.Errorf("error %v does not name the path", err)
	}
	f := d.create("a", "hello")
	if f.Name() != d.path("a") {
		t.Errorf("Name = %q", f.Name())
	}
	_, err = d.OpenFile(d.path("a"), disk.Write|disk.Create|disk.Exclusive, 0o644)
	d.is(err, fs.ErrExist)
	d.holds(d.open("a", disk.Write|disk.Create), "hello")
	d.holds(d.open("a", disk.Write|disk.Truncate), "")
	d.holds(d.open("b", disk.Write|disk.Create|disk.Exclusive), "")
	_, err = d.OpenFile(d.path("a"), disk.Truncate, 0)
	d.is(err, unix.EINVAL)
	_, err = d.OpenFile(d.path("no/a"), disk.Write|disk.Create, 0o644)
	d.is(err, fs.ErrNotExist)
	_, err = d.OpenFile(d.path("a/b"), disk.Write|disk.Create, 0o644)
	d.is(err, unix.ENOTDIR)
}

func testReadWrite(t *testing.T, d *env) {
	f := d.create("a", "hello, world")
	d.write(f, 7, "there")
	d.holds(f, "hello, there")
	buf := make([]byte, 8)
	n, err := f.ReadAt(buf, 7)
	if n != 5 || err != io.EOF {
		t.Errorf("ReadAt over the end = %d, %v", n, err)
	}
	n, err = f.ReadAt(buf, 100)
	if n != 0 || err != io.EOF {
		t.Errorf("ReadAt behind the end = %d, %v", n, err)
	}
	n, err = f.ReadAt(buf[:5], 7)
	if n != 5 || err != nil && err != io.EOF {
		t.Errorf("ReadAt up to the end = %d, %v", n, err)
	}
	n, err = f.ReadAt(nil, 100)
	if n != 0 || err != nil {
		t.Errorf("ReadAt of nothing = %d, %v", n, err)
	}
	n, err = f.WriteAt(nil, 100)
	if n != 0 || err != nil {
		t.Errorf("WriteAt of nothing = %d, %v", n, err)
	}
	d.holds(f, "hello, there")
	d.ok(f.Datasync())
	d.ok(f.Sync())
	d.ok(f.Writeback(0, 5))
	d.ok(f.Writeback(0, 0))
	d.holds(d.open("a", 0), "hello, there")
}

func testSparseAndTruncate(t *testing.T, d *env) {
	f := d.create("a", "head")
	d.write(f, 100_000, "tail")
	want := append(make([]byte, 100_000), "tail"...)
	copy(want, "head")
	d.holds(f, string(want))
	d.ok(f.Truncate(100_002))
	d.ok(f.Truncate(100_004))
	d.holds(f, string(want[:100_002])+"\x00\x00")
	d.ok(f.Truncate(2))
	d.holds(f, "he")
	d.write(f, 6, "!")
	d.holds(f, "he\x00\x00\x00\x00!")
	d.ok(f.Truncate(0))
	d.ok(f.Truncate(3))
	d.holds(f, "\x00\x00\x00")
}

func testVectors(t *testing.T, d *env) {
	f := d.create("a", "....")
	var bufs [][]byte
	want := []byte("..")
	for i := range 3000 {
		b := bytes.Repeat([]byte{byte('a' + i%26)}, i%5)
		bufs = append(bufs, b)
		want = append(want, b...)
	}
	n, err := f.WritevAt(bufs, 2)
	if n != len(want)-2 || err != nil {
		t.Fatalf("WritevAt = %d, %v", n, err)
	}
	d.holds(f, string(want))
	n, err = f.WritevAt(nil, 2)
	if n != 0 || err != nil {
		t.Errorf("WritevAt of nothing = %d, %v", n, err)
	}
	n, err = f.WritevAt([][]byte{[]byte("XY")}, 0)
	if n != 2 || err != nil {
		t.Errorf("WritevAt of one = %d, %v", n, err)
	}
	copy(want, "XY")
	d.holds(f, string(want))
}

func testRandom(t *testing.T, d *env) {
	f := d.create("a", "")
	rng := rand.New(rand.NewPCG(1, 2))
	var model []byte
	for range 400 {
		off, n := rng.IntN(80_000), rng.IntN(20_000)
		switch rng.IntN(6) {
		case 0:
			d.ok(f.Truncate(int64(off)))
			model = append(model, make([]byte, max(0, off-len(model)))...)[:off]
		case 1:
			d.ok(f.Datasync())
		case 2:
			d.ok(f.Prewrite(int64(off), int64(n)))
			model = overwrite(model, make([]byte, n), off)
		default:
			p := bytes.Repeat([]byte{byte(rng.IntN(256))}, n)
			k := rng.IntN(n + 1)
			if _, err := f.WritevAt([][]byte{p[:k], p[k:]}, int64(off)); err != nil {
				t.Fatal(err)
			}
			model = overwrite(model, p, off)
		}
		from := rng.IntN(len(model) + 1)
		got := make([]byte, len(model)-from)
		if n, err := f.ReadAt(got, int64(from)); n != len(got) || err != nil && err != io.EOF {
			t.Fatalf("ReadAt = %d, %v", n, err)
		}
		if !bytes.Equal(got, model[from:]) {
			t.Fatal("file and model differ")
		}
	}
	d.holds(f, string(model))
}

func overwrite(model, p []byte, off int) []byte {
	if len(p) == 0 {
		return model
	}
	model = append(model, make([]byte, max(0, off+len(p)-len(model)))...)
	copy(model[off:], p)
	return model
}

func testTryRead(t *testing.T, d *env) {
	f := d.create("a", "hello")
	buf := make([]byte, 8)
	n, err := f.TryReadAt(buf[:5], 0)
	if err != disk.ErrWouldBlock && (n != 5 || err != nil || string(buf[:5]) != "hello") {
		t.Errorf("TryReadAt = %d, %v", n, err)
	}
	n, err = f.TryReadAt(buf, 0)
	if err != disk.ErrWouldBlock && (n != 5 || err != io.EOF) {
		t.Errorf("TryReadAt over the end = %d, %v", n, err)
	}
}

func testPrewrite(t *testing.T, d *env) {
	f := d.create("a", "hello, world")
	d.ok(f.Prewrite(5, 3<<20))
	d.holds(f, "hello"+string(make([]byte, 3<<20)))
	d.ok(f.Prewrite(1, 2))
	d.write(f, 3<<20, "x")
	size, err := f.Size()
	d.ok(err)
	if size != 3<<20+5 {
		t.Errorf("Size = %d", size)
	}
	d.ok(f.Prewrite(0, 0))
}

func testClosed(t *testing.T, d *env) {
	f := d.create("a", "hello")
	d.ok(f.Close())
	buf := make([]byte, 1)
	_, err := f.ReadAt(buf, 0)
	d.is(err, fs.ErrClosed)
	_, err = f.TryReadAt(buf, 0)
	d.is(err, fs.ErrClosed)
	_, err = f.WriteAt(buf, 0)
	d.is(err, fs.ErrClosed)
	_, err = f.WritevAt([][]byte{buf, buf}, 0)
	d.is(err, fs.ErrClosed)
	_, err = f.Size()
	d.is(err, fs.ErrClosed)
	d.is(f.Datasync(), fs.ErrClosed)
	d.is(f.Sync(), fs.ErrClosed)
	d.is(f.Prewrite(0, 1), fs.ErrClosed)
	d.is(f.Writeback(0, 1), fs.ErrClosed)
	d.is(f.Truncate(0), fs.ErrClosed)
	d.is(f.Close(), fs.ErrClosed)
	d.nameHolds("a", "hello")
}

func testReadOnly(t *testing.T, d *env) {
	d.create("a", "hello")
	f := d.open("a", 0)
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("WriteAt on a file opened for reading")
	}
	if _, err := f.WritevAt([][]byte{{1}, {2}}, 0); err == nil {
		t.Error("WritevAt on a file opened for reading")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("Truncate on a file opened for reading")
	}
	d.holds(f, "hello")
}

func testBadArguments(t *testing.T, d *env) {
	f := d.create("a", "hello")
	_, err := f.ReadAt(make([]byte, 1), -1)
	d.is(err, unix.EINVAL)
	_, err = f.TryReadAt(make([]byte, 1), -1)
	if err != disk.ErrWouldBlock {
		d.is(err, unix.EINVAL)
	}
	_, err = f.WriteAt(make([]byte, 1), -1)
	d.is(err, unix.EINVAL)
	_, err = f.WritevAt([][]byte{{1}, {2}}, -1)
	d.is(err, unix.EINVAL)
	d.is(f.Truncate(-1), unix.EINVAL)
	d.is(f.Prewrite(-1, 1), unix.EINVAL)
	d.is(f.Prewrite(0, -1), unix.EINVAL)
	d.holds(f, "hello")
}

func testConcurrent(t *testing.T, d *env) {
	f := d.create("a", "")
	d.ok(f.Prewrite(0, 8*64<<10))
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			base := int64(w) * 64 << 10
			want, got := make([]byte, 5000), make([]byte, 5000)
			for i := range 30 {
				for j := range want {
					want[j] = byte(w*31 + i)
				}
				if _, err := f.WritevAt([][]byte{want[:999], want[999:]}, base+int64(i)*2000); err != nil {
					t.Error(err)
				}
				if i%10 == 0 {
					if err := f.Datasync(); err != nil {
						t.Error(err)
					}
				}
				if _, err := f.ReadAt(got, base+int64(i)*2000); err != nil || !bytes.Equal(got, want) {
					t.Errorf("read not what was written: %v", err)
				}
			}
		})
	}
	wg.Wait()
}
