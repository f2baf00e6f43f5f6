package fusefs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

// Names that can be made, and those that cannot.
func TestNames(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		long := func(n int, end string) string { return strings.Repeat("x", n-len(end)) + end }
		for _, c := range []struct {
			what, name string
			file, dir  syscall.Errno
		}{
			{"255 bytes", long(255, ""), 0, 0},
			{"256 bytes", long(256, ""), syscall.ENAMETOOLONG, syscall.ENAMETOOLONG},
			{"NAME.raw of 255 bytes", long(255, ".raw"), 0, syscall.EINVAL},
			{"NAME.raw of 256 bytes", long(256, ".raw"), syscall.ENAMETOOLONG, syscall.ENAMETOOLONG},
			{"more than FUSE takes", long(1025, ""), syscall.ENAMETOOLONG, syscall.ENAMETOOLONG},
			{"no name before .raw", ".raw", syscall.EINVAL, syscall.EINVAL},
			{"@", "@", 0, syscall.EINVAL},
			{"@.raw", "@.raw", syscall.EINVAL, syscall.EINVAL},
			{"a snapshot's", "a@b.raw", syscall.EINVAL, syscall.EINVAL},
			{"a control character", "a\tb", syscall.EINVAL, syscall.EINVAL},
			{"a newline", "a\nb", syscall.EINVAL, syscall.EINVAL},
			{"a control character of more bytes", "a\u0085b", syscall.EINVAL, syscall.EINVAL},
			{"a control character in a vDisk's", "a\tb.raw", syscall.EINVAL, syscall.EINVAL},
			{"a newline in a vDisk's", "a\nb.raw", syscall.EINVAL, syscall.EINVAL},
			{"no UTF-8", "a\xff", syscall.EINVAL, syscall.EINVAL},
			{"what was no UTF-8", "a\ufffd", syscall.EINVAL, syscall.EINVAL},
			{"no UTF-8 in a vDisk's", "a\xff.raw", syscall.EINVAL, syscall.EINVAL},
			{"UTF-8", "名前.raw", 0, syscall.EINVAL},
			{"blanks", " a b .raw", 0, syscall.EINVAL},
			{"an option's", "-x", 0, syscall.EINVAL},
			{"an option's in a vDisk's", "-x.raw", syscall.EINVAL, syscall.EINVAL},
			{"right to left in a vDisk's", "a\u202eb.raw", syscall.EINVAL, syscall.EINVAL},
			{"no width in a vDisk's", "a\u200bb.raw", syscall.EINVAL, syscall.EINVAL},
			{"no width", "a\u200bb", syscall.EINVAL, syscall.EINVAL},
			{"right to left", "a\u202eb", syscall.EINVAL, syscall.EINVAL},
			{".raw twice", "a.raw.raw", syscall.EINVAL, syscall.EINVAL},
			{".snapshots", ".snapshots.raw", syscall.EINVAL, syscall.EINVAL},
			{"three dots", "...", 0, 0},
			{"other cases", "A.RAW", 0, 0},
		} {
			name := filepath.Join(dir, c.name)
			check(t, "create: "+c.what, os.WriteFile(name, nil, 0o600), c.file)
			if c.file == 0 {
				entries, err := os.ReadDir(dir)
				if err != nil || !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == c.name }) {
					t.Errorf("%s: it is not listed: %v", c.what, err)
				}
				check(t, "unlink: "+c.what, unix.Unlink(name), 0)
			}
			check(t, "mkdir: "+c.what, unix.Mkdir(name, 0o755), c.dir)
			if c.dir == 0 {
				check(t, "rmdir: "+c.what, unix.Rmdir(name), 0)
			}
			check(t, "rename: "+c.what, os.WriteFile(filepath.Join(dir, "from.raw"), nil, 0o600), 0)
			if strings.HasSuffix(c.name, ".raw") {
				check(t, "rename: "+c.what, unix.Rename(filepath.Join(dir, "from.raw"), name), c.file)
				_ = unix.Unlink(name)
			}
		}
		// No directory gets a name below which there can be no vDisk, by no way.
		check(t, "mkdir", os.Mkdir(filepath.Join(dir, "sub"), 0o755), 0)
		check(t, "file", os.WriteFile(filepath.Join(dir, "small"), nil, 0o600), 0)
		for _, name := range []string{"a@b", "-x", "sub/.snapshots", "a\u202eb", "a\x01b", "a\xffb", "d.raw"} {
			onto := filepath.Join(dir, name)
			check(t, "mkdir "+name, os.Mkdir(onto, 0o755), syscall.EINVAL)
			want := syscall.EINVAL
			if name == "d.raw" {
				want = syscall.EPERM // a directory does not become a vDisk's file
			}
			check(t, "rename of a directory to "+name, unix.Rename(filepath.Join(dir, "sub"), onto), want)
		}
		for _, name := range []string{"a\u202eb", "a\x01b", "a\nb", "a\xffb"} {
			check(t, "rename of a file to "+name, unix.Rename(filepath.Join(dir, "small"), filepath.Join(dir, name)), syscall.EINVAL)
		}
		check(t, "rename of a file to -x", unix.Rename(filepath.Join(dir, "small"), filepath.Join(dir, "-x")), 0)
	})
}

// Files and directories that earlier releases took names for which nothing gets any
// more are there: they can be used, filled, and given other names.
func TestFileNamesOfEarlierReleases(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	tree, err := filetree.Open(t.Context(), keys)
	check(t, "open", err, 0)
	for name, kind := range map[string]filetree.Kind{"a\tb": filetree.Directory, "a\tb/c\nd": filetree.File, "x@y": filetree.Directory, "\xff": filetree.File} {
		_, err := tree.Make(t.Context(), name, filetree.Entry{Kind: kind, Attr: filetree.Attr{Mode: 0o700}})
		check(t, "make", err, 0)
	}
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		for _, name := range []string{"a\tb/c\nd", "\xff", "a\tb/new", "x@y/new"} {
			check(t, "write", os.WriteFile(at(name), []byte("x"), 0o600), 0)
			_, err := os.ReadFile(at(name))
			check(t, "read", err, 0)
		}
		check(t, "vDisk", os.WriteFile(at("x@y/c.raw"), nil, 0o600), syscall.EINVAL)
		check(t, "rename", os.Rename(at("a\tb/c\nd"), at("a\tb/cd")), 0)
		check(t, "rename", os.Rename(at("a\tb"), at("ab")), 0)
		check(t, "rename", os.Rename(at("x@y"), at("xy")), 0)
		check(t, "unlink", os.Remove(at("\xff")), 0)
		for _, name := range []string{"ab/cd", "ab/new", "xy/new"} {
			statx(t, at(name))
		}
	})
}

// vDisks that earlier releases gave names which none gets any more are there, each
// name once, and can be opened and renamed; what cannot be shown has its other doors.
func TestNamesOfEarlierReleases(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	for _, name := range []string{"a", "a.raw/b", "-x", "c\u202ed", ".snapshots/e", "dir/-y", "f", "f/s.raw"} {
		check(t, "create", pool.Create(t.Context(), name, 4096), 0)
	}
	check(t, "snapshot", pool.Snapshot(t.Context(), "f", "s"), 0)
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		for where, want := range map[string][]string{
			"":             {"-x.raw", ".snapshots", "a.raw", "c\u202ed.raw", "dir", "f", "f.raw"},
			"dir":          {"-y.raw"},
			"f":            {"s.raw.raw"},
			".snapshots/f": {"s.raw"},
		} {
			entries, err := os.ReadDir(at(where))
			check(t, "readdir", err, 0)
			var got []string
			for _, e := range entries {
				got = append(got, e.Name())
				if i, err := os.Lstat(filepath.Join(at(where), e.Name())); err != nil || i.IsDir() != e.IsDir() {
					t.Errorf("%s: %s is listed as another kind than it is: %v", where, e.Name(), err)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%q: %q, want %q", where, got, want)
			}
		}
		for _, name := range []string{"-x", "c\u202ed", "dir/-y"} {
			f, err := os.OpenFile(at(name+".raw"), os.O_RDWR, 0)
			check(t, "open", err, 0)
			_, err = f.WriteAt([]byte("x"), 0)
			check(t, "write", err, 0)
			f.Close()
		}
		check(t, "rename of its directory", unix.Rename(at("dir"), at("dir2")), 0)
		check(t, "rename", unix.Rename(at("dir2/-y.raw"), at("y.raw")), 0)
		check(t, "rename", unix.Rename(at("-x.raw"), at("x.raw")), 0)
		check(t, "rename back", unix.Rename(at("x.raw"), at("-x.raw")), syscall.EINVAL)
		check(t, "rename of what hid another", unix.Rename(at("a.raw"), at("a2.raw")), 0)
		if s, err := os.Stat(at("a.raw/b.raw")); err != nil || s.Size() != 4096 {
			t.Error(s, err)
		}
	})
}

// Paths have up to 1024 bytes; vDisks that others made with names of as many are
// there, though no such file could be made.
func TestLongPaths(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	part := strings.Repeat("p", 255)
	whole := strings.Join([]string{part, part, part, part}, "/")
	for _, name := range []string{whole, part + "/" + part} {
		check(t, "made by others", pool.Create(t.Context(), name, 4096), 0)
	}
	remount(t, pool, keys, func(dir string) {
		for _, name := range []string{whole, part + "/" + part} {
			f, err := os.OpenFile(filepath.Join(dir, name+".raw"), os.O_RDWR, 0)
			check(t, "open", err, 0)
			_, err = f.WriteAt([]byte("x"), 0)
			check(t, "write", err, 0)
			f.Close()
		}
		entries, err := os.ReadDir(filepath.Join(dir, part))
		check(t, "readdir", err, 0)
		if len(entries) != 2 {
			t.Errorf("%d entries", len(entries))
		}
		up := filepath.Join(dir, part, part, part)
		check(t, "1024 bytes", os.WriteFile(filepath.Join(up, part[1:]), nil, 0o600), 0)
		check(t, "mkdir", os.Mkdir(filepath.Join(up, "d"), 0o755), 0)
		check(t, "over 1024 bytes", os.WriteFile(filepath.Join(up, "d", part), nil, 0o600), syscall.ENAMETOOLONG)
		check(t, "over 1024 bytes", os.WriteFile(filepath.Join(up, "d", part[4:]+".raw"), nil, 0o600), syscall.ENAMETOOLONG)
		check(t, "mkdir over 1024 bytes", unix.Mkdir(filepath.Join(up, "d", part), 0o755), syscall.ENAMETOOLONG)
		check(t, "rename to over 1024 bytes", unix.Rename(filepath.Join(up, part[1:]), filepath.Join(up, "d", part)), syscall.ENAMETOOLONG)
	})
}

// A vDisk NAME.raw/OTHER is in a directory that is named as a vDisk's file is.
func TestDirectoryNamedRaw(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	check(t, "create", pool.Create(t.Context(), "a.raw/b", 4096), 0)
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		if s, err := os.Stat(at("a.raw")); err != nil || !s.IsDir() {
			t.Fatal(s, err)
		}
		if s, err := os.Stat(at("a.raw/b.raw")); err != nil || s.Size() != 4096 {
			t.Error(s, err)
		}
		check(t, "create", os.WriteFile(at("a.raw"), nil, 0o600), syscall.EISDIR)
		check(t, "mkdir", unix.Mkdir(at("a.raw"), 0o755), syscall.EEXIST)
		check(t, "rename onto it", os.WriteFile(at("c.raw"), nil, 0o600), 0)
		check(t, "rename onto it", unix.Rename(at("c.raw"), at("a.raw")), syscall.EISDIR)
		check(t, "rename it", unix.Rename(at("a.raw"), at("d")), 0)
		if _, err := pool.Info(t.Context(), "d/b"); err != nil {
			t.Error(err)
		}
	})
}

// direntsOf reads a directory from where fd is, in buffers of a size, until
// there were enough, and returns names and where each ends.
func direntsOf(t *testing.T, fd, size, enough int) (list []string, offsets []int64) {
	t.Helper()
	buf := make([]byte, size)
	for len(list) < enough {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		for b := buf[:n]; len(b) > 0; {
			length := int(b[16]) | int(b[17])<<8
			name, _, _ := strings.Cut(string(b[19:length]), "\x00")
			off := int64(0)
			for i := range 8 {
				off |= int64(b[8+i]) << (8 * i)
			}
			if name != "." && name != ".." {
				list, offsets = append(list, name), append(offsets, off)
			}
			b = b[length:]
		}
	}
	return list, offsets
}

// A directory with many entries is read whole, from wherever one seeks to, and
// one that changes meanwhile shows what was there all the time, once.
func TestReaddirMany(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	const many = 3000
	for i := range many {
		check(t, "create", pool.Create(t.Context(), fmt.Sprintf("d/disk%04d", i), 4096), 0)
	}
	remount(t, pool, keys, func(dir string) {
		for i := range 20 {
			check(t, "write", os.WriteFile(filepath.Join(dir, "d", fmt.Sprint("small", i)), nil, 0o600), 0)
		}
		f, err := os.Open(filepath.Join(dir, "d"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		all, offsets := direntsOf(t, int(f.Fd()), 4096, many*2)
		if sorted := slices.Sorted(slices.Values(all)); len(slices.Compact(sorted)) != many+20 || len(all) != many+20 {
			t.Fatalf("%d entries, %d of them different, want %d", len(all), len(slices.Compact(sorted)), many+20)
		}
		for _, i := range []int{0, 1, 17, 1500, many + 18} {
			if _, err := unix.Seek(int(f.Fd()), offsets[i], 0); err != nil {
				t.Fatal(err)
			}
			rest, _ := direntsOf(t, int(f.Fd()), 1<<16, many*2)
			if !slices.Equal(rest, all[i+1:]) {
				t.Errorf("behind entry %d: %d entries, want %d", i, len(rest), len(all)-i-1)
			}
		}
		if _, err := unix.Seek(int(f.Fd()), 0, 0); err != nil {
			t.Fatal(err)
		}
		part, _ := direntsOf(t, int(f.Fd()), 4096, 100)
		check(t, "made meanwhile", os.WriteFile(filepath.Join(dir, "d", "aaa"), nil, 0o600), 0)
		check(t, "gone meanwhile", os.Remove(filepath.Join(dir, "d", "disk2999.raw")), 0)
		rest, _ := direntsOf(t, int(f.Fd()), 4096, many*2)
		seen := append(part, rest...)
		seen = slices.DeleteFunc(seen, func(name string) bool { return name == "aaa" || name == "disk2999.raw" })
		slices.Sort(seen)
		if n := len(seen); n != many+19 || len(slices.Compact(seen)) != n {
			t.Errorf("%d entries were seen that were there all the time, want %d", n, many+19)
		}
		if _, err := unix.Seek(int(f.Fd()), 0, 0); err != nil {
			t.Fatal(err)
		}
		if again, _ := direntsOf(t, int(f.Fd()), 1<<16, many*2); !slices.Contains(again, "aaa") || slices.Contains(again, "disk2999.raw") {
			t.Error("read from its start again, the directory is what it was")
		}
	})
}

// Whoever is in a directory stays there, however often it is looked up.
func TestDirectoryStays(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	check(t, "create", pool.Create(t.Context(), "d/a", 4096), 0)
	check(t, "snapshot", pool.Snapshot(t.Context(), "d/a", "s"), 0)
	remount(t, pool, keys, func(dir string) {
		for _, name := range []string{"d", ".snapshots", ".snapshots/d/a", ".snapshots/d/a/s.raw"} {
			var before, after unix.Stat_t
			check(t, name, unix.Stat(filepath.Join(dir, name), &before), 0)
			f, err := os.Open(filepath.Join(dir, name))
			check(t, name, err, 0)
			// The kernel asks anew after the attributes' time, or when told to.
			deadline := 0
			for ; deadline < 5; deadline++ {
				check(t, "drop", os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0), 0)
				check(t, name, unix.Stat(filepath.Join(dir, name), &after), 0)
				if before.Ino != after.Ino {
					t.Errorf("%s: inode %d, then %d", name, before.Ino, after.Ino)
				}
			}
			if where, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil || where != filepath.Join(dir, name) {
				t.Errorf("%s, open, is at %q, %v", name, where, err)
			}
			f.Close()
		}
		// One that is removed is not what gets its name.
		check(t, "mkdir", os.Mkdir(filepath.Join(dir, "x"), 0o755), 0)
		old, err := os.Open(filepath.Join(dir, "x"))
		check(t, "open", err, 0)
		defer old.Close()
		check(t, "rmdir", os.Remove(filepath.Join(dir, "x")), 0)
		err = os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/f", old.Fd()), nil, 0o600)
		if !errors.Is(err, syscall.ENOENT) {
			t.Errorf("create in a removed directory: %v", err)
		}
		check(t, "mkdir", os.Mkdir(filepath.Join(dir, "x"), 0o755), 0)
		check(t, "create", os.WriteFile(filepath.Join(dir, "x/f"), nil, 0o600), 0)
	})
}
