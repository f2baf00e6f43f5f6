package faultdisk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/disktest"
)

func TestConformance(t *testing.T) {
	disktest.Run(t, func(t *testing.T) (disk.FS, string) {
		d := New(crashdisk.New())
		if err := d.MkdirAll("/test", 0o755); err != nil {
			t.Fatal(err)
		}
		return d, "/test"
	})
}

func open(t *testing.T, d disk.FS, name string) disk.File {
	t.Helper()
	f, err := d.OpenFile(name, disk.Write|disk.Create, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func size(t *testing.T, f disk.File) int64 {
	t.Helper()
	n, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "/a/b", true},
		{"b", "/a/b", true},
		{"*.sco", "/a/00.sco", true},
		{"*.sco", "/a/00.tlog", false},
		{"/a/*", "/a/b", true},
		{"/a/*", "/a/b/c", false},
		{"/a/...", "/a/b/c", true},
		{"/a/...", "/a", true},
		{"/a/...", "/ab", false},
		{"/...", "/ab", true},
	} {
		if got := Match(c.pattern, c.name); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

func TestSkipAndTimes(t *testing.T) {
	d := New(crashdisk.New())
	f := open(t, d, "/a")
	i := d.Inject(Rule{Ops: Datasync, Path: "a", Skip: 2, Times: 2, Err: unix.EIO})
	var got []bool
	for range 6 {
		err := f.Datasync()
		if err != nil && !errors.Is(err, unix.EIO) {
			t.Fatal(err)
		}
		got = append(got, err != nil)
	}
	for n, want := range []bool{false, false, true, true, false, false} {
		if got[n] != want {
			t.Errorf("call %d failed: %v", n, got[n])
		}
	}
	if i.Fired() != 2 || d.Count(Datasync, "/a") != 6 || d.Count(Write, "/a") != 0 {
		t.Errorf("fired %d, counted %d", i.Fired(), d.Count(Datasync, "/a"))
	}
	i.Remove()
	d.ResetCounts()
	if d.Count(Any, "") != 0 {
		t.Error("counts after reset")
	}
}

func TestErrorNamesOperationAndPath(t *testing.T) {
	d := New(crashdisk.New())
	d.Inject(Rule{Ops: Rename, Path: "/b", Err: unix.EIO})
	open(t, d, "/a").Close()
	err := d.Rename("/a", "/b") // the rule names the new name
	var pe *fs.PathError
	if !errors.As(err, &pe) || pe.Op != "rename" || pe.Path != "/a" || pe.Err != unix.EIO {
		t.Errorf("got %v", err)
	}
	if (Read | Datasync).String() != "read|datasync" {
		t.Error((Read | Datasync).String())
	}
}

func TestShortWrite(t *testing.T) {
	d := New(crashdisk.New())
	f := open(t, d, "/a")
	d.Inject(Rule{Ops: Write, Times: 1, Err: unix.EIO, Short: 3})
	n, err := f.WritevAt([][]byte{[]byte("he"), []byte("llo")}, 0)
	if n != 3 || !errors.Is(err, unix.EIO) || size(t, f) != 3 {
		t.Errorf("WritevAt = %d, %v; size %d", n, err, size(t, f))
	}
	if n, err := f.WritevAt([][]byte{[]byte("he"), []byte("llo")}, 0); n != 5 || err != nil {
		t.Errorf("after the rule: %d, %v", n, err)
	}
	d.Inject(Rule{Ops: Read, Err: unix.EIO, Short: 2})
	buf := make([]byte, 5)
	if n, err := f.ReadAt(buf, 0); n != 2 || !errors.Is(err, unix.EIO) || string(buf[:2]) != "he" {
		t.Errorf("ReadAt = %d, %v", n, err)
	}
	if d.BytesWritten("a") != 8 || d.BytesRead("a") != 2 {
		t.Errorf("%d written, %d read", d.BytesWritten("a"), d.BytesRead("a"))
	}
}

func TestCorruptAndDrop(t *testing.T) {
	d := New(crashdisk.New())
	f := open(t, d, "/a")
	mine := []byte("hello")
	flip := func(p []byte) { p[0] ^= 0x20 }
	i := d.Inject(Rule{Ops: Write, Corrupt: flip})
	if _, err := f.WriteAt(mine, 0); err != nil || string(mine) != "hello" {
		t.Fatal("the caller's buffer changed", err)
	}
	i.Remove()
	buf := make([]byte, 5)
	f.ReadAt(buf, 0)
	if string(buf) != "Hello" {
		t.Errorf("stored %q", buf)
	}
	d.Inject(Rule{Ops: Read, Times: 1, Corrupt: flip})
	f.ReadAt(buf, 0)
	if string(buf) != "hello" {
		t.Errorf("read %q", buf)
	}
	d.Inject(Rule{Ops: Write, Drop: true})
	if n, err := f.WriteAt([]byte("lost!"), 0); n != 5 || err != nil {
		t.Error(n, err)
	}
	f.ReadAt(buf, 0)
	if string(buf) != "Hello" {
		t.Errorf("a dropped write changed it to %q", buf)
	}
	d.Inject(Rule{Ops: TryRead, Err: disk.ErrWouldBlock})
	if _, err := f.TryReadAt(buf, 0); err != disk.ErrWouldBlock {
		t.Error(err)
	}
}

// The trap of every fsync: after a failed one the next succeeds, and the data
// is gone all the same.
func TestFailedSyncLosesData(t *testing.T) {
	c := crashdisk.New()
	d := New(c)
	f := open(t, d, "/a")
	f.WriteAt(bytes.Repeat([]byte("A"), 512), 0)
	d.Inject(Rule{Ops: Datasync | Sync, Times: 1, Err: unix.EIO})
	if err := f.Datasync(); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	if err := f.Datasync(); err != nil {
		t.Fatal(err)
	}
	d.SyncDir("/")
	after := c.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
	g := open(t, after, "/a")
	got, _ := io.ReadAll(io.NewSectionReader(g, 0, 1<<20))
	if !bytes.Equal(got, make([]byte, 512)) {
		t.Errorf("%d bytes %.10q survived", len(got), got)
	}
}

func TestGate(t *testing.T) {
	d := New(crashdisk.New())
	f := open(t, d, "/a")
	g := NewGate()
	d.Inject(Rule{Ops: Datasync, Before: g.Wait})
	done := make(chan error)
	go func() { done <- f.Datasync() }()
	<-g.Arrived()
	if _, err := f.WriteAt([]byte("x"), 0); err != nil { // others go on
		t.Error(err)
	}
	select {
	case <-done:
		t.Error("passed a closed gate")
	default:
	}
	g.Open()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := f.Datasync(); err != nil {
		t.Error(err)
	}
}

func TestQuota(t *testing.T) {
	d := New(crashdisk.New())
	d.MkdirAll("/q", 0o755)
	old := open(t, d, "/q/old")
	old.WriteAt(make([]byte, 50), 0)
	q := d.Limit("/q", 100)
	left := func(want int64) {
		t.Helper()
		if q.Left() != want {
			t.Errorf("%d bytes left, want %d", q.Left(), want)
		}
	}
	f := open(t, d, "/q/f")
	if _, err := f.WriteAt(make([]byte, 60), 0); err != nil {
		t.Fatal(err)
	}
	left(40)
	f.WriteAt(make([]byte, 60), 0) // in place
	left(40)
	n, err := f.WriteAt(make([]byte, 60), 50)
	if n != 50 || !errors.Is(err, unix.ENOSPC) || size(t, f) != 100 {
		t.Errorf("WriteAt = %d, %v; size %d", n, err, size(t, f))
	}
	left(0)
	if u, err := d.Statfs("/q/f"); err != nil || u.Free != 0 {
		t.Error(u, err)
	}
	if err := f.Prewrite(100, 10); !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	if _, err := open(t, d, "/elsewhere").WriteAt(make([]byte, 1000), 0); err != nil {
		t.Error(err)
	}
	f.Truncate(30)
	left(70)
	if err := d.Remove("/q/old"); err != nil { // made before the quota
		t.Error(err)
	}
	left(120)
	d.Link("/q/f", "/q/g")
	d.Remove("/q/f")
	left(120)
	d.Rename("/q/g", "/g") // out of the quota
	left(150)
	d.Rename("/g", "/q/g")
	left(120)
	f.WriteAt(make([]byte, 40), 0)
	left(110)
	open(t, d, "/q/h").WriteAt(make([]byte, 10), 0)
	left(100)
	d.RemoveAll("/q")
	left(150)
	q.Remove()
	d.MkdirAll("/q", 0o755)
	if _, err := open(t, d, "/q/big").WriteAt(make([]byte, 1000), 0); err != nil {
		t.Error(err)
	}
}
