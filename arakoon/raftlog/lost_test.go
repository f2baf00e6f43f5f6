package raftlog

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
)

const testMarks = testDir + ".marks"

// appendSome appends n entries of a kilobyte, one round each.
func appendSome(t testing.TB, l *Log, n int) {
	t.Helper()
	for range n {
		last, _ := l.LastIndex()
		if err := l.Append(Round{Entries: []*pb.Entry{entry(last+1, 1, strings.Repeat("z", 1000))}}); err != nil {
			t.Fatal(err)
		}
	}
}

// used returns a disk with a log of several segments, and the newest one's name
// and how far it is written.
func used(t testing.TB) (d *crashdisk.FS, newest string, end int64) {
	t.Helper()
	d = newDisk(t)
	l := open(t, d)
	appendSome(t, l, 30)
	newest, end = l.current.path, l.pos
	if l.current.number < 3 {
		t.Fatalf("only %d segments", l.current.number)
	}
	return d.Kill(), newest, end
}

func change(t testing.TB, d disk.FS, name string, do func(disk.File) error) {
	t.Helper()
	f, err := d.OpenFile(name, disk.Write, 0)
	if err == nil {
		err = errors.Join(do(f), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, d disk.FS, name string) []byte {
	t.Helper()
	f, err := d.OpenFile(name, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t testing.TB, d disk.FS, name string, b []byte) {
	t.Helper()
	f, err := d.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o600)
	if err == nil {
		_, err = f.WriteAt(b, 0)
		err = errors.Join(err, f.Datasync(), f.Close(), d.SyncDir(path.Dir(name)))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// refused demands that a log does not open, and that the error names what is
// wrong. What made it so taken back, it holds all.
func refused(t *testing.T, d *crashdisk.FS, want error, text string) {
	t.Helper()
	l, err := Open(testOptions(d))
	if err == nil {
		_ = l.Close()
		t.Fatalf("it was opened, with %d segments", len(l.segments))
	}
	if !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Fatalf("%v; want %v and %s", err, want, text)
	}
}

// A log of which something is missing is refused, whatever is missing: the end of
// a log does not look otherwise than one that was cut.
func TestLost(t *testing.T) {
	d, newest, end := used(t)
	remove := func(image *crashdisk.FS, names ...string) {
		for _, name := range names {
			if err := image.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	segments := func(image *crashdisk.FS) (names []string) {
		all, _ := image.ReadDir(testDir)
		for _, name := range all {
			if _, ok := parseName(name); ok {
				names = append(names, path.Join(testDir, name))
			}
		}
		return names
	}
	t.Run("newest segment", func(t *testing.T) {
		image := d.Kill()
		remove(image, newest)
		refused(t, image, ErrDamaged, path.Base(newest))
	})
	t.Run("two newest segments", func(t *testing.T) {
		image := d.Kill()
		list := segments(image)
		remove(image, list[len(list)-2:]...)
		refused(t, image, ErrDamaged, path.Base(newest))
	})
	t.Run("all segments", func(t *testing.T) {
		image := d.Kill()
		remove(image, segments(image)...)
		refused(t, image, ErrMissing, testDir)
	})
	t.Run("the directory", func(t *testing.T) {
		image := d.Kill()
		if err := image.RemoveAll(testDir); err != nil {
			t.Fatal(err)
		}
		refused(t, image, ErrMissing, testDir)
	})
	t.Run("the directory and its marks", func(t *testing.T) {
		image := d.Kill()
		if err := errors.Join(image.RemoveAll(testDir), image.Remove(testMarks)); err != nil {
			t.Fatal(err)
		}
		o := testOptions(image)
		o.Begin = Marker{} // the caller knows that there was one
		if _, err := Open(o); !errors.Is(err, ErrMissing) {
			t.Fatal(err)
		}
		if _, err := image.Stat(testDir); err == nil {
			t.Error("it was made again")
		}
	})
	t.Run("the marks", func(t *testing.T) {
		image := d.Kill()
		remove(image, testMarks)
		refused(t, image, ErrDamaged, testMarks)
	})
	t.Run("half of the marks", func(t *testing.T) {
		image := d.Kill()
		change(t, image, testMarks, func(f disk.File) error { return f.Truncate(5000) })
		refused(t, image, ErrDamaged, testMarks)
	})
	for size := int64(0); size < 32<<10; size += 4096 - 511 {
		t.Run(fmt.Sprintf("all behind %d bytes", size), func(t *testing.T) {
			image := d.Kill()
			change(t, image, newest, func(f disk.File) error { return f.Truncate(size) })
			refused(t, image, ErrDamaged, newest)
		})
	}
	// The same bytes as zeros, as of a file system that lost its blocks. The last
	// block holds an unsynced mark alone.
	for from := int64(0); from < end-blockSize; from += blockSize {
		t.Run(fmt.Sprintf("zeros from %d", from), func(t *testing.T) {
			image := d.Kill()
			change(t, image, newest, func(f disk.File) error {
				_, err := f.WriteAt(make([]byte, 32<<10-from), from)
				return err
			})
			refused(t, image, ErrDamaged, newest)
		})
	}
}

// An older copy of a part of it is refused too, by what the rest knows.
func TestOlder(t *testing.T) {
	d := newDisk(t)
	l := open(t, d)
	appendSome(t, l, 10)
	then, name := d.Kill(), l.current.path
	marks := read(t, d, testMarks)
	appendSome(t, l, 1)
	for l.current.path == name { // to the last round of the same segment
		now := d.Kill()
		put(t, now, name, read(t, then, name))
		refused(t, now, ErrDamaged, name)
		appendSome(t, l, 1)
	}
	appendSome(t, l, 20)
	t.Run("directory", func(t *testing.T) {
		now := d.Kill()
		if err := now.RemoveAll(testDir); err != nil {
			t.Fatal(err)
		}
		if err := now.MkdirAll(testDir, 0o700); err != nil {
			t.Fatal(err)
		}
		names, _ := then.ReadDir(testDir)
		for _, name := range names {
			put(t, now, path.Join(testDir, name), read(t, then, path.Join(testDir, name)))
		}
		refused(t, now, ErrDamaged, path.Base(l.current.path))
	})
	t.Run("segment under the newest name", func(t *testing.T) {
		now := d.Kill()
		b := read(t, then, name)
		h, err := decodeHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		h.Number = l.current.number
		put(t, now, l.current.path, append(appendHeader(nil, h), b[blockSize:]...))
		refused(t, now, ErrDamaged, testDir)
	})
	t.Run("marks", func(t *testing.T) { // they promise less, and nothing is lost
		now := d.Kill()
		put(t, now, testMarks, marks)
		check(t, now, []model{contents(t, l)})
	})
}

// A log of version 1 has no marks and does not say how long it is. It opens, and
// is then as good as any.
func TestUpgrade(t *testing.T) {
	d, newest, _ := used(t)
	want := contents(t, open(t, d.Kill()))
	names, _ := d.ReadDir(testDir)
	for _, name := range names {
		if _, ok := parseName(name); !ok {
			continue
		}
		change(t, d, path.Join(testDir, name), func(f disk.File) error {
			var b [blockSize]byte
			_, err := f.ReadAt(b[:], 0)
			if err != nil {
				return err
			}
			h, err := decodeHeader(b[:])
			if err != nil {
				return err
			}
			_, err = f.WriteAt(oldHeader(h), 0)
			return err
		})
	}
	if err := d.Remove(testMarks); err != nil {
		t.Fatal(err)
	}
	short := d.Kill()
	change(t, short, newest, func(f disk.File) error { return f.Truncate(24740) })
	refused(t, short, ErrDamaged, newest)
	l := open(t, d)
	if got := contents(t, l); !got.equal(want) {
		t.Fatal("version 1 holds something else")
	}
	appendSome(t, l, 1)
	image := d.Kill()
	if err := image.Remove(testMarks); err != nil {
		t.Fatal(err)
	}
	refused(t, image, ErrDamaged, testMarks)
}

// A file that grew holds no more than was written to it.
func TestGrown(t *testing.T) {
	d, newest, _ := used(t)
	want := contents(t, open(t, d.Kill()))
	change(t, d, newest, func(f disk.File) error { return f.Truncate(6 << 30) })
	check(t, d, []model{want})
}

func TestNoteGolden(t *testing.T) {
	o := Options{Cluster: testCluster, Member: 7}
	want := note{number: 3, incarnation: testIncarnation, seq: 40}
	b := o.appendNote(nil, want)
	const golden = "4f5653544f5245311000010001000000" + "00000000000000006ba7b8109dad41d1" + "80b400c04fd430c80300000000000000" + "181716151413121100000000"
	if got := hex.EncodeToString(b[:60]); got != golden || len(b) != blockSize {
		t.Errorf("%d bytes:\n got %s\nwant %s", len(b), got, golden)
	}
	if got := hex.EncodeToString(b[64:80]); got != "07000000000000002800000000000000" {
		t.Error(got)
	}
	if n, err := o.decodeNote(b); err != nil || n != want {
		t.Errorf("%+v, %v", n, err)
	}
	for i := range 84 {
		torn := append([]byte(nil), b...)
		torn[i] ^= 4
		if n, err := o.decodeNote(torn); n != (note{}) {
			t.Errorf("with a bit of byte %d flipped it says %+v, %v", i, n, err)
		}
	}
	o.Cluster = uuid.Nil
	if _, err := o.decodeNote(b); !errors.Is(err, ErrIdentity) {
		t.Error(err)
	}
	newer := format.AppendHeader(nil, format.Header{Kind: format.KindRaftMarks, Version: 9, MinReader: 9})
	if _, err := o.decodeNote(append(newer, b[len(newer):]...)); !errors.Is(err, format.ErrNewer) {
		t.Error(err)
	}
}

func FuzzNote(f *testing.F) {
	o := Options{Cluster: testCluster, Member: 7}
	f.Add(o.appendNote(nil, note{3, testIncarnation, 40}))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := o.decodeNote(b)
		if err != nil || n.number == 0 {
			return
		}
		if again, err := o.decodeNote(o.appendNote(nil, n)); err != nil || again != n {
			t.Fatalf("%+v reads back as %+v, %v", n, again, err)
		}
	})
}
