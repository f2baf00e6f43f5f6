package fusefs_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs"
	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

// A directory moves with all that is below it: vDisks, snapshots, small and
// empty files, directories made and implied; what is open stays open.
func TestRenameDirectory(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		check(t, "implied", pool.Create(t.Context(), "vm1/deep/er/b", 4096), 0)
		check(t, "write", os.WriteFile(at("vm1/a.raw"), bytes.Repeat([]byte("a"), 4096), 0o640), 0)
		check(t, "write", os.WriteFile(at("vm1/a.xml"), []byte("<domain/>"), 0o640), 0)
		check(t, "write", os.WriteFile(at("vm1/new.raw"), nil, 0o640), 0)
		check(t, "mkdir", os.Mkdir(at("vm1/nvram"), 0o750), 0)
		check(t, "snapshot", unix.Setxattr(at("vm1/a.raw"), "user.ovs.snapshot", []byte("s"), 0), 0)
		open := map[string]*os.File{}
		for _, name := range []string{"a.raw", "a.xml", "new.raw", "deep/er/b.raw"} {
			f, err := os.OpenFile(at("vm1/"+name), os.O_RDWR, 0)
			check(t, "open "+name, err, 0)
			open[name] = f
		}
		s, err := os.Open(at(".snapshots/vm1/a/s.raw"))
		check(t, "open of the snapshot", err, 0)
		in, err := os.Open(at("vm1/nvram"))
		check(t, "open of a directory", err, 0)

		check(t, "mv vm1 vm2", unix.Rename(at("vm1"), at("vm2")), 0)
		_, err = os.Stat(at("vm1"))
		check(t, "the old name", err, syscall.ENOENT)
		for name, f := range open {
			_, err := f.WriteAt([]byte("W"), 1)
			check(t, "write of "+name+", open since before", err, 0)
			check(t, "fsync", f.Sync(), 0)
			now, err := os.ReadFile(at("vm2/" + name))
			if err != nil || now[1] != 'W' {
				t.Errorf("%s: %d bytes, %v", name, len(now), err)
			}
		}
		check(t, "it grows", open["a.raw"].Truncate(16384), 0)
		if i, err := pool.Info(t.Context(), "vm2/a"); err != nil || i.Size != 16384 {
			t.Errorf("the vDisk: %+v, %v", i, err)
		}
		if i, err := pool.Info(t.Context(), "vm2/new"); err != nil || i.Size != 4096 {
			t.Errorf("the vDisk of what was an empty file: %+v, %v", i, err)
		}
		check(t, "create in a directory that is open", os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/vars", in.Fd()), []byte("v"), 0o600), 0)
		if got, err := os.ReadFile(at("vm2/nvram/vars")); err != nil || string(got) != "v" {
			t.Errorf("made through it: %q, %v", got, err)
		}
		b := make([]byte, 1)
		if _, err := s.ReadAt(b, 0); err != nil || b[0] != 'a' {
			t.Errorf("the open snapshot: %q, %v", b, err)
		}
		if _, err := os.Stat(at(".snapshots/vm2/a/s.raw")); err != nil {
			t.Error(err)
		}
		again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", s.Fd()), os.O_RDONLY, 0)
		check(t, "the snapshot opened anew by its old node", err, 0)
		again.Close()

		check(t, "mkdir", os.Mkdir(at("vm3"), 0o755), 0)
		check(t, "onto an empty one", unix.Rename(at("vm2"), at("vm3")), 0)
		check(t, "write", os.WriteFile(at("full.txt"), nil, 0o600), 0)
		check(t, "mkdir", os.MkdirAll(at("full/x"), 0o755), 0)
		check(t, "onto a full one", unix.Rename(at("vm3"), at("full")), syscall.ENOTEMPTY)
		check(t, "implied", pool.Create(t.Context(), "implied/d", 4096), 0)
		check(t, "onto an implied one", unix.Rename(at("vm3"), at("implied")), syscall.ENOTEMPTY)
		check(t, "onto a file", unix.Rename(at("vm3"), at("full.txt")), syscall.ENOTDIR)
		check(t, "to NAME.raw", unix.Rename(at("vm3"), at("vm3.raw")), syscall.EPERM)
		check(t, "below itself", unix.Rename(at("vm3"), at("vm3/deep/x")), syscall.EINVAL)
		check(t, "no replace", unix.Renameat2(unix.AT_FDCWD, at("vm3"), unix.AT_FDCWD, at("implied"), unix.RENAME_NOREPLACE), syscall.EEXIST)
		check(t, "an implied one", unix.Rename(at("implied"), at("vm3/deep/i")), 0)
		if _, err := pool.Info(t.Context(), "vm3/deep/i/d"); err != nil {
			t.Error(err)
		}
		long := strings.Repeat("n", 255)
		check(t, "mkdir", os.MkdirAll(at(long+"/"+long+"/"+long), 0o755), 0)
		check(t, "to where names get too long", unix.Rename(at("vm3"), at(long+"/"+long+"/"+long+"/"+long)), syscall.ENAMETOOLONG)

		keys.Fail(filetree.ErrNotWritten)
		check(t, "it cannot be stored", unix.Rename(at("vm3"), at("vm4")), syscall.EIO)
		keys.Fail(nil)
		if _, err := pool.Info(t.Context(), "vm3/a"); err != nil {
			t.Error("after a renaming that failed: ", err)
		}
		check(t, "rename again", unix.Rename(at("vm3"), at("vm4")), 0)
		for _, f := range open {
			check(t, "close", f.Close(), 0)
		}
		s.Close()
		in.Close()
	})
	remount(t, pool, keys, func(dir string) {
		for _, name := range []string{"a.raw", "a.xml", "new.raw", "nvram/vars", "deep/er/b.raw", "deep/i/d.raw"} {
			if _, err := os.Stat(filepath.Join(dir, "vm4", name)); err != nil {
				t.Error("after a start anew: ", err)
			}
		}
	})
}

// Renames of others are followed: a file that is open stays the same vDisk's,
// whoever gets its name.
func TestRenamedByOthers(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		check(t, "write", os.WriteFile(at("a.raw"), make([]byte, 4096), 0o600), 0)
		was, err := pool.Info(t.Context(), "a")
		check(t, "info", err, 0)
		f, err := os.OpenFile(at("a.raw"), os.O_RDWR, 0)
		check(t, "open", err, 0)
		check(t, "rename", pool.Rename(t.Context(), "a", "b"), 0)
		check(t, "another", pool.Create(t.Context(), "a", 4096), 0)
		check(t, "it grows", f.Truncate(8192), 0)
		check(t, "snapshot", unix.Fsetxattr(int(f.Fd()), "user.ovs.snapshot", []byte("s"), 0), 0)
		if i, _ := pool.Info(t.Context(), "a"); i.Size != 4096 || len(i.Snapshots) != 0 {
			t.Errorf("the other vDisk: %+v", i)
		}
		if i, _ := pool.Info(t.Context(), "b"); i.ID != was.ID || i.Size != 8192 || len(i.Snapshots) != 1 {
			t.Errorf("the vDisk: %+v", i)
		}
		id := make([]byte, 36)
		if _, err := unix.Fgetxattr(int(f.Fd()), "user.ovs.id", id); err != nil || string(id) != was.ID.String() {
			t.Errorf("its id is %s, %v", id, err)
		}
		f.Close()
	})
}

// A deletion is of the vDisk that was found by the name, as it was then, whatever
// others do before it is made.
func TestDeletedMeanwhile(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(t *testing.T, p *memtest.Pool) // others are faster
		unlink syscall.Errno
		empty  syscall.Errno // truncate to nothing
	}{
		{"renamed, another has the name", func(t *testing.T, p *memtest.Pool) {
			check(t, "rename", p.Rename(t.Context(), "a", "old"), 0)
			check(t, "create", p.Create(t.Context(), "a", 8192), 0)
		}, syscall.ENOENT, 0},
		{"deleted, another has the name", func(t *testing.T, p *memtest.Pool) {
			check(t, "delete", p.Delete(t.Context(), "a", func(fusefs.Info) error { return nil }), 0)
			check(t, "create", p.Create(t.Context(), "a", 8192), 0)
		}, syscall.ENOENT, syscall.ENOENT},
		{"it has a snapshot", func(t *testing.T, p *memtest.Pool) {
			check(t, "snapshot", p.Snapshot(t.Context(), "a", "s"), 0)
		}, 0, syscall.EBUSY},
	} {
		for _, way := range []struct {
			name string
			do   func(name string) error
			want syscall.Errno
		}{
			{"unlink", os.Remove, c.unlink},
			{"truncate", func(name string) error { return os.Truncate(name, 0) }, c.empty},
			{"truncate of an open file", func(name string) error {
				f, err := os.OpenFile(name, os.O_RDWR, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				if err := f.Truncate(0); err != nil {
					return err
				}
				_, err = f.WriteAt([]byte("of the file"), 0)
				return err
			}, c.empty},
		} {
			t.Run(way.name+", "+c.name, func(t *testing.T) {
				dir, pool := mount(t)
				name := filepath.Join(dir, "a.raw")
				check(t, "write", os.WriteFile(name, make([]byte, 4096), 0o600), 0)
				was, err := pool.Info(t.Context(), "a")
				check(t, "info", err, 0)
				pool.BeforeDelete(func() { c.before(t, pool) })
				check(t, way.name, way.do(name), way.want)
				list, _ := pool.List(t.Context())
				for _, i := range list {
					if i.Name == "a" && i.ID != was.ID && i.Size != 8192 {
						t.Errorf("the other vDisk: %+v", i)
					}
				}
				has := func(name string) bool {
					return slices.ContainsFunc(list, func(i fusefs.Info) bool { return i.Name == name })
				}
				switch {
				case way.name == "unlink":
					if has("a") != (way.want == syscall.ENOENT) {
						t.Errorf("the vDisks: %+v", list)
					}
				case c.name == "renamed, another has the name":
					// The file is followed, as by every operation on an open one.
					if !has("a") || has("old") != (way.name != "truncate") {
						t.Errorf("the vDisks: %+v", list)
					}
					if _, err := os.Stat(filepath.Join(dir, "old.raw")); err != nil {
						t.Error(err)
					}
				default:
					if !has("a") {
						t.Error("it was deleted")
					}
				}
			})
		}
	}
}

// A directory that moves while a vDisk in it is deleted takes it along to its
// deletion, and one that gets the directory's name keeps its own.
func TestDeletedMoving(t *testing.T) {
	dir, pool := mount(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	check(t, "mkdir", os.Mkdir(at("d"), 0o755), 0)
	check(t, "write", os.WriteFile(at("d/a.raw"), make([]byte, 4096), 0o600), 0)
	pool.BeforeDelete(func() {
		check(t, "rename", unix.Rename(at("d"), at("e")), 0)
		check(t, "create", pool.Create(t.Context(), "d/a", 8192), 0)
	})
	check(t, "unlink", os.Remove(at("d/a.raw")), 0)
	list, err := pool.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "d/a" || list[0].Size != 8192 {
		t.Errorf("the vDisks: %+v, %v", list, err)
	}
}

// names is a model of a mount: paths of vDisks and small files, with what they
// hold, and directories.
type names struct {
	files map[string]string
	dirs  map[string]bool
}

func (m *names) below(dir string) (list []string) {
	for _, of := range []map[string]bool{m.dirs, keysOf(m.files)} {
		for name := range of {
			if strings.HasPrefix(name, dir+"/") {
				list = append(list, name)
			}
		}
	}
	return list
}

func keysOf(m map[string]string) map[string]bool {
	out := map[string]bool{}
	for k := range m {
		out[k] = true
	}
	return out
}

// rename does what rename(2) does, but that no vDisk is replaced.
func (m *names) rename(from, to string) error {
	content, isFile := m.files[from]
	_, ontoFile := m.files[to]
	isDir, ontoDir := m.dirs[from], m.dirs[to]
	raw, ontoRaw := strings.HasSuffix(from, ".raw"), strings.HasSuffix(to, ".raw")
	up := path.Dir(to)
	switch {
	case !isFile && !isDir || up != "." && !m.dirs[up]:
		return fs.ErrNotExist
	case from == to:
		return nil
	case strings.HasPrefix(to, from+"/"):
		return syscall.EINVAL
	case strings.HasPrefix(from, to+"/"):
		return syscall.ENOTEMPTY
	case isDir && ontoFile:
		return syscall.ENOTDIR
	case isFile && ontoDir:
		return syscall.EISDIR
	case raw != ontoRaw:
		return syscall.EPERM
	case raw && ontoFile:
		return syscall.EEXIST
	case ontoDir && len(m.below(to)) > 0:
		return syscall.ENOTEMPTY
	}
	if isFile {
		delete(m.files, from)
		m.files[to] = content
		return nil
	}
	for _, name := range append(m.below(from), from) {
		now := to + strings.TrimPrefix(name, from)
		if content, ok := m.files[name]; ok {
			delete(m.files, name)
			m.files[now] = content
			continue
		}
		delete(m.dirs, name)
		m.dirs[now] = true
	}
	return nil
}

// Random renames of files of both kinds and of directories do what they do to
// maps, also over mounts anew.
func TestRenameModel(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	r := rand.New(rand.NewPCG(11, 12))
	m := &names{map[string]string{}, map[string]bool{}}
	bases := []string{"a", "b", "c", "a.raw", "b.raw", "f", "g"}
	name := func() string {
		parts := make([]string, 1+r.IntN(3))
		for i := range parts {
			parts[i] = bases[r.IntN(3)]
		}
		parts[len(parts)-1] = bases[r.IntN(len(bases))]
		return strings.Join(parts, "/")
	}
	for round := range 5 {
		remount(t, pool, keys, func(dir string) {
			for i := range 150 {
				what := name()
				at := filepath.Join(dir, what)
				_, taken := m.files[what]
				up := path.Dir(what)
				free := !taken && !m.dirs[what] && (up == "." || m.dirs[up])
				switch base := path.Base(what); {
				case r.IntN(2) == 0:
					to := name()
					want := m.rename(what, to)
					err := unix.Rename(at, filepath.Join(dir, to))
					errno, _ := err.(syscall.Errno)
					if want == fs.ErrNotExist {
						want = syscall.ENOENT
						if errno == syscall.ENOTDIR { // a file is in the way of either
							want = syscall.ENOTDIR
						}
					}
					if want == nil && err != nil || want != nil && err != want {
						t.Fatalf("round %d step %d: mv %s %s: %v, the model says %v", round, i, what, to, err, want)
					}
				case free && len(base) == 1 && base < "d":
					check(t, "mkdir "+what, os.Mkdir(at, 0o755), 0)
					m.dirs[what] = true
				case free:
					content := fmt.Sprint(round, i)
					check(t, "write "+what, os.WriteFile(at, []byte(content), 0o600), 0)
					m.files[what] = content
				}
			}
			m.compare(t, dir)
		})
	}
}

// compare walks the mount.
func (m *names) compare(t *testing.T, dir string) {
	t.Helper()
	files, dirs := map[string]string{}, map[string]bool{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, name)
		switch {
		case err != nil:
			return err
		case rel == ".snapshots":
			return fs.SkipDir
		case rel == ".":
		case e.IsDir():
			dirs[rel] = true
		default:
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			files[rel] = strings.TrimRight(string(b), "\x00")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(files, m.files) || !maps.Equal(dirs, m.dirs) {
		t.Fatalf("the mount has %v %v\nthe model     %v %v", files, slices.Sorted(maps.Keys(dirs)), m.files, slices.Sorted(maps.Keys(m.dirs)))
	}
}
