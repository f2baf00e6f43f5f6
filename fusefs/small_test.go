package fusefs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/device"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

// Several who append lose nothing of each other's.
func TestAppend(t *testing.T) {
	keys := treetest.New()
	remount(t, memtest.New(keys), keys, func(dir string) {
		name := filepath.Join(dir, "log")
		const writers, lines = 4, 200
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
				if err != nil {
					t.Error(err)
					return
				}
				for i := range lines {
					if _, err := fmt.Fprintf(f, "writer %d line %03d\n", w, i); err != nil {
						t.Error(err)
					}
				}
				if err := errors.Join(f.Sync(), f.Close()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		b, err := os.ReadFile(name)
		check(t, "read", err, 0)
		got := strings.Split(strings.TrimSpace(string(b)), "\n")
		if slices.Sort(got); len(slices.Compact(got)) != writers*lines {
			t.Errorf("%d lines, %d of them different, want %d", len(got), len(slices.Compact(got)), writers*lines)
		}
	})
}

// Writers at places of their own do not disturb each other, a truncate between.
func TestWriters(t *testing.T) {
	keys := treetest.New()
	remount(t, memtest.New(keys), keys, func(dir string) {
		name := filepath.Join(dir, "vars")
		const piece = 50_000 // over pieces of what is stored
		check(t, "write", os.WriteFile(name, make([]byte, 4*piece), 0o600), 0)
		var all sync.WaitGroup
		for w := range 4 {
			all.Go(func() {
				f, err := os.OpenFile(name, os.O_RDWR, 0)
				if err != nil {
					t.Error(err)
					return
				}
				for i := range 30 {
					if _, err := f.WriteAt(bytes.Repeat([]byte{byte('a' + w)}, piece), int64(w*piece)); err != nil {
						t.Error(err)
					}
					if i%10 == w {
						if err := f.Sync(); err != nil {
							t.Error(err)
						}
					}
				}
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		check(t, "shorten", os.Truncate(name, 4*piece-1), 0)
		want := bytes.Join([][]byte{bytes.Repeat([]byte("a"), piece), bytes.Repeat([]byte("b"), piece), bytes.Repeat([]byte("c"), piece), bytes.Repeat([]byte("d"), piece-1)}, nil)
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes differ: %v", len(got), err)
		}
	})
}

// A file that is replaced by a rename is still what it was to whoever has it open.
func TestReplacedWhileOpen(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		check(t, "write", os.WriteFile(at("a"), []byte("old"), 0o600), 0)
		f, err := os.OpenFile(at("a"), os.O_RDWR, 0)
		check(t, "open", err, 0)
		for i := range 3 {
			check(t, "write", os.WriteFile(at("a.new"), fmt.Append(nil, "new ", i), 0o600), 0)
			check(t, "rename onto", os.Rename(at("a.new"), at("a")), 0)
		}
		_, err = f.WriteAt([]byte("OLD!"), 0)
		check(t, "write of the old one", err, 0)
		check(t, "fsync of the old one", f.Sync(), 0)
		b := make([]byte, 10)
		if n, _ := f.ReadAt(b, 0); string(b[:n]) != "OLD!" {
			t.Errorf("the old one has %q", b[:n])
		}
		check(t, "close of the old one", f.Close(), 0)
		if got, err := os.ReadFile(at("a")); err != nil || string(got) != "new 2" {
			t.Errorf("%q, %v", got, err)
		}
	})
	remount(t, pool, keys, func(dir string) {
		if got, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(got) != "new 2" {
			t.Errorf("%q, %v", got, err)
		}
	})
	entries := 0
	for key := range keys.All() {
		if strings.HasPrefix(key, "files/c/") {
			entries++
		}
	}
	if entries != 1 {
		t.Errorf("%d contents are stored, want that of one file", entries)
	}
}

// Times: modified is that of the last write through the mount or what was set,
// changed that of the last change of either kind.
func TestTimes(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		for _, name := range []string{"a.raw", "small", "d"} {
			what := name
			name = filepath.Join(dir, name)
			times := func() (modified, changed int64) {
				t.Helper()
				var st unix.Stat_t
				// As the file server has it, not what the kernel remembers.
				var stx unix.Statx_t
				if err := errors.Join(unix.Statx(unix.AT_FDCWD, name, unix.AT_STATX_FORCE_SYNC, unix.STATX_ALL, &stx), unix.Stat(name, &st)); err != nil {
					t.Fatal(err)
				}
				return stx.Mtime.Sec*1e9 + int64(stx.Mtime.Nsec), stx.Ctime.Sec*1e9 + int64(stx.Ctime.Nsec)
			}
			if what == "d" {
				check(t, "mkdir", os.Mkdir(name, 0o755), 0)
			} else {
				check(t, "write", os.WriteFile(name, make([]byte, 8192), 0o600), 0)
			}
			m1, c1 := times()
			if age := time.Since(time.Unix(0, m1)); age < 0 || age > time.Minute || c1 < m1 {
				t.Errorf("%s: modified %v ago, changed %d", what, age, c1)
			}
			check(t, "chmod", os.Chmod(name, 0o700), 0)
			m2, c2 := times()
			if m2 != m1 || c2 <= c1 {
				t.Errorf("%s: chmod: modified %d then %d, changed %d then %d", what, m1, m2, c1, c2)
			}
			set := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
			check(t, "utimes", os.Chtimes(name, set, set), 0)
			m3, c3 := times()
			if m3 != set.UnixNano() || c3 <= c2 {
				t.Errorf("%s: utimes: modified %d, changed %d then %d", what, m3, c2, c3)
			}
			if what == "d" {
				continue
			}
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			check(t, "open", err, 0)
			_, err = f.WriteAt([]byte("x"), 0)
			check(t, "write", err, 0)
			check(t, "close", f.Close(), 0)
			m4, c4 := times()
			if m4 <= m1 || c4 < m4 {
				t.Errorf("%s: write: modified %d then %d, changed %d", what, m1, m4, c4)
			}
		}
	})
}

// A size that another client gave a vDisk is seen after attrTimeout, by whoever has
// the file open as well, and so is that it was modified.
func TestSizeOfOthers(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		name := filepath.Join(dir, "a.raw")
		check(t, "write", os.WriteFile(name, make([]byte, 4096), 0o600), 0)
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		check(t, "open", err, 0)
		defer f.Close()
		before, err := f.Stat()
		check(t, "stat", err, 0)
		dev, release, err := pool.Open(t.Context(), "a")
		check(t, "open by another", err, 0)
		defer release()
		check(t, "write by another", dev.(device.Device).Write(t.Context(), []device.Span{{Off: 0, Data: []byte("theirs")}}), 0)
		check(t, "resize by another", pool.Resize(t.Context(), "a", 1<<20), 0)
		until(t, func() bool {
			byName, err := os.Stat(name)
			open, err2 := f.Stat()
			return err == nil && err2 == nil && byName.Size() == 1<<20 && open.Size() == 1<<20
		})
		if after, err := f.Stat(); err != nil || !after.ModTime().After(before.ModTime()) {
			t.Errorf("modified %v, then %v, %v", before.ModTime(), after.ModTime(), err)
		}
		b := make([]byte, 6)
		if _, err := f.ReadAt(b, 0); err != nil || string(b) != "theirs" {
			t.Errorf("%q, %v", b, err)
		}
		_, err = f.WriteAt([]byte("x"), 1<<20-1)
		check(t, "write at the new end", err, 0)
		if n, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_END); err != nil || n != 1<<20 {
			t.Errorf("SEEK_END: %d, %v", n, err)
		}
		check(t, "a size that is too small now", f.Truncate(8192), syscall.EINVAL)
	})
}

// A time that is set while the file is open, with all written, is that after the
// close: cp -p and tar do so.
func TestTimeBeforeClose(t *testing.T) {
	keys := treetest.New()
	remount(t, memtest.New(keys), keys, func(dir string) {
		name := filepath.Join(dir, "copied")
		f, err := os.Create(name)
		check(t, "create", err, 0)
		_, err = f.WriteString("what is copied")
		check(t, "write", err, 0)
		then := time.Unix(1_000_000_000, 5)
		at := []unix.Timeval{unix.NsecToTimeval(then.UnixNano()), unix.NsecToTimeval(then.UnixNano())}
		check(t, "futimes", unix.Futimes(int(f.Fd()), at), 0)
		check(t, "chmod", f.Chmod(0o640), 0)
		check(t, "close", f.Close(), 0)
		i, err := os.Stat(name)
		check(t, "stat", err, 0)
		if i.ModTime().Unix() != then.Unix() || i.Mode().Perm() != 0o640 {
			t.Errorf("after the close: %v, %v", i.ModTime(), i.Mode())
		}
		b, err := os.ReadFile(name)
		if check(t, "read", err, 0); string(b) != "what is copied" {
			t.Errorf("read %q", b)
		}
	})
}
