package fusefs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs"
	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

// remount mounts a pool and a tree, runs fn there, and unmounts.
func remount(t *testing.T, pool *memtest.Pool, keys *treetest.Keys, fn func(dir string)) {
	t.Helper()
	needsFUSE(t)
	dir := t.TempDir()
	f, err := fusefs.Mount(context.Background(), pool, keys, dir, fusefs.Options{Direct: true, Self: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Unmount(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	fn(dir)
}

// Small files, directories, vDisks without a size, and owners, modes and times
// are there after a restart.
func TestKept(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	when := time.Date(2024, 2, 29, 12, 0, 0, 5, time.UTC)
	definition := bytes.Repeat([]byte("<domain/>"), 20_000)
	set := map[string]os.FileMode{"vm": 0o750, "vm/a.xml": 0o640, "vm/a.raw": 0o660, "vm/new.raw": 0o600, "vm/deep/er": 0o755}
	remount(t, pool, keys, func(dir string) {
		check(t, "mkdir", os.MkdirAll(filepath.Join(dir, "vm/deep/er"), 0o755), 0)
		check(t, "write", os.WriteFile(filepath.Join(dir, "vm/a.xml"), definition, 0o600), 0)
		check(t, "disk", os.WriteFile(filepath.Join(dir, "vm/a.raw"), make([]byte, 8192), 0o600), 0)
		check(t, "empty disk", os.WriteFile(filepath.Join(dir, "vm/new.raw"), nil, 0o600), 0)
		for name, mode := range set {
			check(t, name, os.Chmod(filepath.Join(dir, name), mode), 0)
			check(t, name, os.Chown(filepath.Join(dir, name), 1000, 2000), 0)
			check(t, name, os.Chtimes(filepath.Join(dir, name), when, when), 0)
		}
	})
	remount(t, pool, keys, func(dir string) {
		for name, mode := range set {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(dir, name), &st); err != nil {
				t.Error(name, err)
			}
			if st.Mode&0o7777 != uint32(mode) || st.Uid != 1000 || st.Gid != 2000 || st.Mtim.Nano() != when.UnixNano() {
				t.Errorf("%s: %o %d:%d %v", name, st.Mode, st.Uid, st.Gid, st.Mtim)
			}
		}
		got, err := os.ReadFile(filepath.Join(dir, "vm/a.xml"))
		if err != nil || !bytes.Equal(got, definition) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		check(t, "sized", os.Truncate(filepath.Join(dir, "vm/new.raw"), 4096), 0)
	})
	remount(t, pool, keys, func(dir string) {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "vm/new.raw"), &st); err != nil || st.Uid != 1000 || st.Size != 4096 {
			t.Errorf("the vDisk of an empty file: %+v, %v", st, err)
		}
	})
}

// Small files are like those of any file system.
func TestSmallFiles(t *testing.T) {
	keys := treetest.New()
	remount(t, memtest.New(keys), keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		read := func(name, want string) {
			t.Helper()
			if got, err := os.ReadFile(at(name)); err != nil || string(got) != want {
				t.Errorf("%s has %q, %v; want %q", name, got, err, want)
			}
		}
		check(t, "write", os.WriteFile(at("a"), []byte("one"), 0o600), 0)
		check(t, "write", os.WriteFile(at("a.new"), []byte("two"), 0o600), 0)
		check(t, "no replace", unix.Renameat2(unix.AT_FDCWD, at("a.new"), unix.AT_FDCWD, at("a"), unix.RENAME_NOREPLACE), syscall.EEXIST)
		check(t, "rename onto", os.Rename(at("a.new"), at("a")), 0)
		read("a", "two")

		f, err := os.OpenFile(at("a"), os.O_RDWR|os.O_APPEND, 0)
		check(t, "open", err, 0)
		_, err = f.WriteString(" three")
		check(t, "append", err, 0)
		read("a", "two three")
		check(t, "unlink while open", os.Remove(at("a")), 0)
		_, err = f.WriteString("!")
		check(t, "write of an unlinked one", err, 0)
		got := make([]byte, 20)
		if n, _ := f.ReadAt(got, 0); string(got[:n]) != "two three!" {
			t.Errorf("unlinked: %q", got[:n])
		}
		check(t, "fsync of an unlinked one", f.Sync(), 0)
		check(t, "close of an unlinked one", f.Close(), 0)
		_, err = os.Stat(at("a"))
		check(t, "stat", err, syscall.ENOENT)

		f, err = os.Create(at("b"))
		check(t, "create", err, 0)
		_, err = f.WriteAt([]byte("end"), 200_000)
		check(t, "sparse", err, 0)
		check(t, "punch", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, 200_000, 1), 0)
		check(t, "collapse", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096), syscall.EOPNOTSUPP)
		check(t, "shorten", f.Truncate(200_002), 0)
		check(t, "lengthen", f.Truncate(200_004), 0)
		_, err = f.WriteAt([]byte("x"), 8<<20)
		check(t, "too large", err, syscall.EFBIG)
		check(t, "too large", f.Truncate(8<<20+1), syscall.EFBIG)
		check(t, "close", f.Close(), 0)
		read("b", string(make([]byte, 200_001))+"n\x00\x00")
		mapped(t, at("b"))
		check(t, "write anew", os.WriteFile(at("b"), append(make([]byte, 200_001), "n\x00\x00"...), 0o600), 0)
		check(t, "disk", os.WriteFile(at("m.raw"), make([]byte, 8192), 0o600), 0)
		mapped(t, at("m.raw"))
		check(t, "remove", os.Remove(at("m.raw")), 0)

		check(t, "mkdir", os.MkdirAll(at("d/sub"), 0o755), 0)
		check(t, "into", os.Rename(at("b"), at("d/sub/b")), 0)
		check(t, "below itself", os.Rename(at("d"), at("d/sub/d")), syscall.EINVAL)
		check(t, "directory", os.Rename(at("d"), at("e")), 0)
		if s, err := os.Stat(at("e/sub/b")); err != nil || s.Size() != 200_004 {
			t.Error(s, err)
		}
		check(t, "write below what moved", os.WriteFile(at("e/sub/c"), []byte("c"), 0o600), 0)
		check(t, "file onto its directory", unix.Rename(at("e/sub/c"), at("e")), syscall.ENOTEMPTY)
		check(t, "mkdir", os.Mkdir(at("g"), 0o755), 0)
		check(t, "file onto directory", unix.Rename(at("e/sub/c"), at("g")), syscall.EISDIR)
		check(t, "rmdir", os.Remove(at("g")), 0)
		check(t, "rmdir", os.Remove(at("e")), syscall.ENOTEMPTY)
		check(t, "to a vDisk", os.Rename(at("e/sub/c"), at("c.raw")), syscall.EPERM)
		check(t, "rm -r", os.RemoveAll(at("e")), 0)
	})
	if all := keys.All(); len(all) != 0 {
		t.Errorf("%d keys are left", len(all))
	}
}

// These name the file that the process maps instead of running tests.
const (
	mapEnv     = "FUSEFS_TEST_MAP"
	privateEnv = "FUSEFS_TEST_MAP_PRIVATE"
	holdEnv    = "FUSEFS_TEST_HOLD"
)

// TestMain lets a process of its own use mappings: a page fault stops all
// threads of a Go program that is to collect garbage, and with it the mount
// that should answer.
func TestMain(m *testing.M) {
	for env, does := range map[string]func(string) error{mapEnv: writeMapped, privateEnv: writePrivately, holdEnv: holdMapped} {
		name := os.Getenv(env)
		if name == "" {
			continue
		}
		if err := does(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// writeMapped writes a byte through a shared mapping and reads it as a file.
func writeMapped(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	m[7] = 'M'
	if err := errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m)); err != nil {
		return err
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 7); err != nil || b[0] != 'M' {
		return fmt.Errorf("read %q, %w", b, err)
	}
	return nil
}

// writePrivately changes a private mapping: the file stays what it is.
func writePrivately(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	before := make([]byte, 8192)
	if _, err := f.ReadAt(before, 0); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	if !bytes.Equal(m, before) {
		return errors.New("the mapping has other bytes than the file")
	}
	m[4100] = 'P'
	after := make([]byte, 8192)
	if _, err := f.ReadAt(after, 0); err != nil || !bytes.Equal(after, before) {
		return fmt.Errorf("the file has changed, %w", err)
	}
	return unix.Munmap(m)
}

// mapped has another process write a byte through a mapping.
func mapped(t *testing.T, name string) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), mapEnv+"="+name)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("mapping of %s: %v: %s", name, err, out)
	}
}

// What cannot be stored is told by the close, and by every change after it.
func TestSmallFilesFail(t *testing.T) {
	keys := treetest.New()
	remount(t, memtest.New(keys), keys, func(dir string) {
		f, err := os.Create(filepath.Join(dir, "a"))
		check(t, "create", err, 0)
		_, err = f.WriteString("lost")
		check(t, "write", err, 0)
		keys.Fail(filetree.ErrNotWritten)
		check(t, "fsync", f.Sync(), syscall.EIO)
		keys.Fail(nil)
		check(t, "fsync that can", f.Sync(), 0)
		_, _ = f.WriteString(" again")
		keys.Fail(errors.New("the disk is gone"))
		check(t, "fsync", f.Sync(), syscall.EIO)
		keys.Fail(nil)
		check(t, "fsync that finds out", f.Sync(), 0)
		for _, made := range []bool{true, false} {
			name := filepath.Join(dir, fmt.Sprint("d", made))
			keys.Doubt(errors.New("no answer"), made)
			check(t, "mkdir", os.Mkdir(name, 0o755), syscall.EIO)
			check(t, "mkdir in doubt", os.Mkdir(name+"x", 0o755), syscall.EIO)
			keys.Fail(nil)
			check(t, "mkdir that finds out", os.Mkdir(name+"x", 0o755), 0)
			_, err := os.Stat(name)
			if (err == nil) != made {
				t.Errorf("%s: %v", name, err)
			}
		}
		f.Close()
	})
}

// A copy of a whole vDisk is a clone; of a part, or onto something, a copy.
func TestCopyRange(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		data := bytes.Repeat([]byte("0123456789abcdef"), 3<<12)
		copy(data[65536:131072], make([]byte, 65536))
		check(t, "write", os.WriteFile(at("a.raw"), data, 0o600), 0)
		a, err := os.OpenFile(at("a.raw"), os.O_RDWR, 0)
		check(t, "open", err, 0)
		defer a.Close()
		for i, c := range []struct {
			in, out int64
			length  int
			clones  int
		}{{0, 0, len(data), 1}, {0, 0, 1 << 30, 2}, {4096, 4096, 100_000, 2}, {4096, 0, 40_000, 2}, {0, 8192, 1 << 20, 2}, {5, 4101, 5000, 2}, {1, 2, 5000, 2}} {
			name := at("copy.raw")
			b, err := os.Create(name)
			check(t, "create", err, 0)
			in, out, left := c.in, c.out, min(c.length, len(data)-int(c.in))
			for left > 0 {
				n, err := unix.CopyFileRange(int(a.Fd()), &in, int(b.Fd()), &out, left, 0)
				if err != nil || n == 0 {
					t.Fatal(i, n, err)
				}
				left -= n
			}
			want := append(make([]byte, c.out), data[c.in:min(len(data), int(c.in)+c.length)]...)
			got := make([]byte, len(want))
			if _, err := b.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("copy %d differs: %v", i, err)
			}
			if pool.Clones() != c.clones {
				t.Errorf("copy %d: %d clones, want %d", i, pool.Clones(), c.clones)
			}
			check(t, "close", b.Close(), 0)
			check(t, "remove", os.Remove(name), 0)
		}
	})
}

// A vDisk that may be deleted to make its file empty: whatever became of that, the
// file is there, whole or empty.
func TestEmptiedInDoubt(t *testing.T) {
	for _, made := range []bool{true, false} {
		keys := treetest.New()
		pool := memtest.New(keys)
		remount(t, pool, keys, func(dir string) {
			name := filepath.Join(dir, "a.raw")
			check(t, "write", os.WriteFile(name, make([]byte, 8192), 0o640), 0)
			pool.DoubtDelete(made)
			check(t, "truncate", os.Truncate(name, 0), syscall.EIO)
			if !made {
				check(t, "truncate again", os.Truncate(name, 0), 0)
			}
		})
		remount(t, pool, keys, func(dir string) {
			name := filepath.Join(dir, "a.raw")
			if i, err := os.Stat(name); err != nil || i.Size() != 0 {
				t.Errorf("made %v: %v, %v", made, i, err)
			}
			check(t, "write again", os.WriteFile(name, make([]byte, 4096), 0o640), 0)
			if i, err := os.Stat(name); err != nil || i.Size() != 4096 {
				t.Errorf("made %v: %v, %v", made, i, err)
			}
		})
	}
}
