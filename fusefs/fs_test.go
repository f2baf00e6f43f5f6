package fusefs_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

// mount mounts a pool in memory; the test is skipped where that cannot be.
func mount(t *testing.T) (string, *memtest.Pool) {
	t.Helper()
	needsFUSE(t)
	dir, keys := t.TempDir(), treetest.New()
	pool := memtest.New(keys)
	f, err := fusefs.Mount(context.Background(), pool, keys, dir, fusefs.Options{Direct: true, Self: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Unmount(context.Background()); err != nil {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			t.Error(err)
		}
	})
	return dir, pool
}

// mountOn mounts a pool of its own on a directory, and returns what unmounts it.
func mountOn(t *testing.T, dir string, keys *treetest.Keys, allowOther bool) func() {
	t.Helper()
	f, err := fusefs.Mount(context.Background(), memtest.New(keys), keys, dir, fusefs.Options{Direct: true, Self: true, AllowOther: allowOther})
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := f.Unmount(context.Background()); err != nil {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			t.Error(err)
		}
	}
}

func needsFUSE(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and /dev/fuse")
	}
	f.Close()
}

func check(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if want == 0 && err == nil {
		return
	}
	if !errors.Is(err, want) || want == 0 {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestOperations(t *testing.T) {
	dir, pool := mount(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	open := func(name string, flags int) *os.File {
		t.Helper()
		f, err := os.OpenFile(at(name), flags, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	size := func(name string) int64 {
		t.Helper()
		s, err := os.Stat(at(name))
		if err != nil {
			t.Fatal(err)
		}
		return s.Size()
	}

	f := open("a.raw", os.O_RDWR|os.O_CREATE|os.O_EXCL)
	_, err := os.OpenFile(at("a.raw"), os.O_CREATE|os.O_EXCL, 0o600)
	check(t, "create again", err, syscall.EEXIST)
	check(t, "create of a small file", os.WriteFile(at("x.txt"), nil, 0o600), 0)
	check(t, "create with @", os.WriteFile(at("a@b.raw"), nil, 0o600), syscall.EINVAL)
	if n := size("a.raw"); n != 0 {
		t.Errorf("new file has %d bytes", n)
	}
	check(t, "fsync of an empty file", f.Sync(), 0)
	check(t, "truncate", f.Truncate(10000), 0)
	if n := size("a.raw"); n != 12288 {
		t.Errorf("size %d, want it rounded up", n)
	}
	_, err = f.WriteAt([]byte("hello"), 20001)
	check(t, "write past the end", err, 0)
	if n := size("a.raw"); n != 20480 {
		t.Errorf("size %d after a write past the end", n)
	}
	b := make([]byte, 5)
	if _, err := f.ReadAt(b, 20001); err != nil || string(b) != "hello" {
		t.Errorf("read %q, %v", b, err)
	}
	check(t, "fsync", f.Sync(), 0)
	check(t, "shrink", f.Truncate(4096), syscall.EINVAL)
	check(t, "too large", f.Truncate(65<<40), syscall.EFBIG)

	fd := int(f.Fd())
	if n, err := unix.Seek(fd, 0, unix.SEEK_DATA); err != nil || n != 16384 {
		t.Errorf("SEEK_DATA: %d, %v", n, err)
	}
	if n, err := unix.Seek(fd, 16384, unix.SEEK_HOLE); err != nil || n != 20480 {
		t.Errorf("SEEK_HOLE: %d, %v", n, err)
	}
	_, err = unix.Seek(fd, 1<<20, unix.SEEK_DATA)
	check(t, "SEEK_DATA past the end", err, syscall.ENXIO)
	check(t, "fallocate", unix.Fallocate(fd, 0, 0, 40960), 0)
	if n := size("a.raw"); n != 40960 {
		t.Errorf("size %d after fallocate", n)
	}
	check(t, "fallocate keeping the size", unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20), 0)
	check(t, "punch a hole", unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, 16384, 4096), 0)
	_, err = unix.Seek(fd, 0, unix.SEEK_DATA)
	check(t, "SEEK_DATA of zeros", err, syscall.ENXIO)
	check(t, "zero", unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 0, 45056), 0)
	check(t, "collapse", unix.Fallocate(fd, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096), syscall.EOPNOTSUPP)
	if n := size("a.raw"); n != 45056 {
		t.Errorf("size %d after zero range", n)
	}

	check(t, "unlink while open", os.Remove(at("a.raw")), syscall.EBUSY)
	check(t, "rename while open", os.Rename(at("a.raw"), at("b.raw")), 0)
	check(t, "rename of a vDisk to no vDisk", os.Rename(at("b.raw"), at("b")), syscall.EPERM)
	check(t, "chmod", os.Chmod(at("b.raw"), 0o640), 0)
	check(t, "symlink", os.Symlink("b.raw", at("l")), syscall.EPERM)
	check(t, "link", os.Link(at("b.raw"), at("l.raw")), syscall.EPERM)
	check(t, "pipe", unix.Mkfifo(at("p"), 0o600), syscall.EPERM)
	check(t, "mkdir", os.Mkdir(at("d"), 0o755), 0)
	check(t, "rename into a directory", os.Rename(at("b.raw"), at("d/c.raw")), 0)
	check(t, "rmdir of a full one", os.Remove(at("d")), syscall.ENOTEMPTY)
	check(t, "write", os.WriteFile(at("e.raw"), []byte("e"), 0o600), 0)
	check(t, "rename onto a vDisk", os.Rename(at("e.raw"), at("d/c.raw")), syscall.EEXIST)
	check(t, "exchange", unix.Renameat2(unix.AT_FDCWD, at("e.raw"), unix.AT_FDCWD, at("d/c.raw"), unix.RENAME_EXCHANGE), syscall.EINVAL)
	check(t, "O_TRUNC", os.WriteFile(at("e.raw"), make([]byte, 5000), 0o600), 0)
	if n := size("e.raw"); n != 8192 {
		t.Errorf("size %d after writing anew", n)
	}

	_, err = f.WriteAt([]byte("snap"), 0)
	check(t, "write", err, 0)
	check(t, "snapshot", unix.Setxattr(at("d/c.raw"), "user.ovs.snapshot", []byte("s1"), 0), 0)
	check(t, "snapshot again", unix.Setxattr(at("d/c.raw"), "user.ovs.snapshot", []byte("s1"), 0), syscall.EEXIST)
	check(t, "setting the id", unix.Setxattr(at("d/c.raw"), "user.ovs.id", []byte("1"), 0), syscall.EPERM)
	n, err := unix.Getxattr(at("d/c.raw"), "user.ovs.snapshots", b)
	if err != nil || string(b[:n]) != "s1" {
		t.Errorf("snapshots: %q, %v", b[:max(n, 0)], err)
	}
	_, err = unix.Getxattr(at("d/c.raw"), "user.other", b)
	check(t, "another attribute", err, syscall.ENODATA)
	check(t, "emptying a vDisk with a snapshot", os.Truncate(at("d/c.raw"), 0), syscall.EBUSY)
	_, err = f.WriteAt([]byte("late"), 0)
	check(t, "write", err, 0)
	s := open(".snapshots/d/c/s1.raw", os.O_RDONLY)
	if _, err := s.ReadAt(b[:4], 0); err != nil || string(b[:4]) != "snap" {
		t.Errorf("snapshot has %q, %v", b[:4], err)
	}
	s.Close()
	_, err = os.OpenFile(at(".snapshots/d/c/s1.raw"), os.O_RDWR, 0)
	check(t, "writing a snapshot", err, syscall.EROFS)

	var names []string
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{".snapshots", "d", "e.raw", "x.txt"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("directory has %v, %v; want %v", names, err, want)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || int64(st.Blocks)*st.Bsize != 1<<30 || st.Bfree*2 != st.Blocks {
		t.Errorf("statfs: %+v, %v", st, err)
	}

	pool.Fail(true)
	_, err = f.WriteAt([]byte("x"), 0)
	check(t, "write to a halted vDisk", err, syscall.EIO)
	_, err = f.ReadAt(b, 0)
	check(t, "read of a halted vDisk", err, syscall.EIO)
	check(t, "fsync of a halted vDisk", f.Sync(), syscall.EIO)
	pool.Fail(false)
	f.Close()
}

func TestAbsent(t *testing.T) {
	dir, _ := mount(t)
	for _, name := range []string{"a.raw", "a", "d/a.raw", ".snapshots/a"} {
		_, err := os.Stat(filepath.Join(dir, name))
		check(t, name, err, syscall.ENOENT)
	}
	check(t, "unlink", os.Remove(filepath.Join(dir, "a.raw")), syscall.ENOENT)
}

// Random operations against a model of bytes.
func TestModel(t *testing.T) {
	dir, _ := mount(t)
	f, err := os.Create(filepath.Join(dir, "m.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const room = 1 << 18
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	model := make([]byte, 4096)
	grow := func(end int) {
		if end = (end + 4095) &^ 4095; end > len(model) {
			model = append(model, make([]byte, end-len(model))...)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		off := r.IntN(room)
		n := 1 + r.IntN(min(room-off, 1<<16))
		switch r.IntN(5) {
		case 0, 1:
			p := make([]byte, n)
			for k := range p {
				p[k] = byte(r.Uint32())
			}
			if _, err := f.WriteAt(p, int64(off)); err != nil {
				t.Fatal(i, err)
			}
			grow(off + n)
			copy(model[off:], p)
		case 2:
			if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, int64(off), int64(n)); err != nil {
				t.Fatal(i, err)
			}
			if off < len(model) {
				clear(model[off:min(len(model), off+n)])
			}
		case 3:
			if off+n >= len(model) {
				if err := f.Truncate(int64(off + n)); err != nil && (off+n+4095)&^4095 > len(model) {
					t.Fatal(i, err)
				}
				grow(off + n)
			}
		default:
			p := make([]byte, n)
			got, _ := f.ReadAt(p, int64(off))
			want := model[min(off, len(model)):min(len(model), off+n)]
			if !bytes.Equal(p[:got], want) {
				t.Fatalf("operation %d: read of %d bytes at %d differs (%d, want %d)", i, n, off, got, len(want))
			}
		}
	}
}
