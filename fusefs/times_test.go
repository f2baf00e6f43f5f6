package fusefs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"openvstorage/device"
	"openvstorage/fusefs"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

func mtime(s unix.Statx_t) int64 { return time.Unix(s.Mtime.Sec, int64(s.Mtime.Nsec)).UnixNano() }
func ctime(s unix.Statx_t) int64 { return time.Unix(s.Ctime.Sec, int64(s.Ctime.Nsec)).UnixNano() }

// Whatever changes a vDisk, by whatever door, moves the time of modification of its
// file; a snapshot does not, nor does reading it.
func TestTimesOfOthers(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	check(t, "create", pool.Create(t.Context(), "d/a", 1<<20), 0)
	remount(t, pool, keys, func(dir string) {
		name := filepath.Join(dir, "d/a.raw")
		disk, release, err := pool.Open(t.Context(), "d/a")
		check(t, "open by another", err, 0)
		defer release()
		dev := disk.(device.Device)
		open, err := os.Open(name)
		check(t, "open", err, 0)
		defer open.Close()
		for _, c := range []struct {
			what  string
			do    func() error
			moves bool
		}{
			{"write", func() error { return dev.Write(t.Context(), []device.Span{{Off: 4096, Data: []byte("x")}}) }, true},
			{"nothing", func() error { return nil }, false},
			{"read", func() error { return dev.Read(t.Context(), make([]byte, 4096), 0) }, false},
			{"flush", func() error { return dev.Flush(t.Context()) }, false},
			{"trim", func() error { return dev.Trim(t.Context(), 0, 4096) }, true},
			{"zero", func() error { return dev.Zero(t.Context(), 0, 4096, true) }, true},
			{"resize", func() error { return pool.Resize(t.Context(), "d/a", 2<<20) }, true},
			{"snapshot", func() error { return pool.Snapshot(t.Context(), "d/a", "s") }, false},
			{"rename", func() error { return pool.Rename(t.Context(), "d/a", "d/b") }, false},
			{"write after", func() error { return dev.Write(t.Context(), []device.Span{{Off: 0, Data: []byte("x")}}) }, true},
		} {
			before := statx(t, name)
			now := time.Now().UnixNano()
			check(t, c.what, c.do(), 0)
			if c.what == "rename" {
				name = filepath.Join(dir, "d/b.raw")
			}
			after := statx(t, name)
			if moved := mtime(after) >= now; moved != c.moves || !c.moves && mtime(after) != mtime(before) {
				t.Errorf("%s: modified %d, then %d", c.what, mtime(before), mtime(after))
			}
			if ctime(after) < mtime(after) {
				t.Errorf("%s: changed %d, modified %d", c.what, ctime(after), mtime(after))
			}
			if i, err := open.Stat(); err != nil || c.moves && i.ModTime().UnixNano() < now-int64(time.Second) {
				t.Errorf("%s: by who has it open: %v, %v", c.what, i.ModTime(), err)
			}
		}
	})
}

// Times stay over a clean stop. Of a vDisk that was written to and nobody could note
// when, the time of its opening counts; of others what was kept.
func TestTimesOverRestarts(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprint("clean ", clean), func(t *testing.T) {
			needsFUSE(t)
			keys := treetest.New()
			pool := memtest.New(keys)
			dir := t.TempDir()
			disks := []string{"never", "idle", "written", "set", "setwritten", "snapped", "late"}
			for _, name := range disks {
				check(t, "create", pool.Create(t.Context(), name, 1<<20), 0)
			}
			write := func(name string) {
				t.Helper()
				check(t, "write", pool.Get(name).Write(t.Context(), []device.Span{{Off: 0, Data: []byte("x")}}), 0)
			}
			times := func() map[string]int64 {
				m := map[string]int64{}
				for _, name := range disks {
					m[name] = mtime(statx(t, filepath.Join(dir, name+".raw")))
				}
				return m
			}
			run := func(stop bool, fn func()) {
				t.Helper()
				f, err := fusefs.Mount(context.Background(), pool, keys, dir, fusefs.Options{Direct: true, Self: true})
				check(t, "mount", err, 0)
				fn()
				check(t, "unmount", f.Unmount(context.Background()), 0)
				if stop {
					check(t, "keep", f.Keep(context.Background()), 0)
				}
				time.Sleep(time.Millisecond) // clocks tell the openings apart
				pool.Reopen()
			}
			when := time.Unix(1_000_000_000, 7)
			var before map[string]int64
			run(true, func() { write("idle") })
			run(clean, func() {
				write("written")
				for _, name := range []string{"set", "setwritten"} {
					check(t, "utimes", os.Chtimes(filepath.Join(dir, name+".raw"), when, when), 0)
				}
				write("setwritten")
				if clean { // else nobody can tell it from a write
					check(t, "snapshot", pool.Snapshot(t.Context(), "snapped", "s"), 0)
				}
				before = times()
				if before["set"] != when.UnixNano() || before["setwritten"] <= when.UnixNano() {
					t.Errorf("set %d, and then written %d", before["set"], before["setwritten"])
				}
			})
			opened := time.Now().Add(-time.Second).UnixNano()
			var after map[string]int64
			run(false, func() {
				after = times()
				for _, name := range disks {
					lost := !clean && (name == "written" || name == "setwritten")
					if got := after[name]; lost && (got < before[name] || got < opened) || !lost && got != before[name] {
						t.Errorf("%s: modified %d, then %d", name, before[name], got)
					}
				}
			})
			run(false, func() { // killed again, and nothing was written
				for name, got := range times() {
					if got != after[name] {
						t.Errorf("%s: modified %d, then %d, and nothing was written", name, after[name], got)
					}
				}
				write("late")
			})
			run(true, func() {
				if got := times(); got["late"] <= after["late"] || got["written"] != after["written"] {
					t.Errorf("written to and killed: %d, then %d", after["late"], got["late"])
				}
			})
		})
	}
}

// A vDisk that lost what was not flushed, and was written to as often since, is
// another one than that of which the time was kept.
func TestTimeOfLostWrites(t *testing.T) {
	for _, c := range []struct {
		what       string
		epoch, seq uint64 // kept
		now        fusefs.Change
		changed    bool
	}{
		{"new", 0, 0, fusefs.Change{Epoch: 1}, false},
		{"new, written to", 0, 0, fusefs.Change{Epoch: 1, Seen: 1, Last: 1}, true},
		{"new, with a snapshot", 0, 0, fusefs.Change{Epoch: 1, Seen: 1}, false},
		{"kept by an older release", 0, 0, fusefs.Change{Epoch: 9, Base: 5, Seen: 5, Last: 5}, true},
		{"kept, nothing since", 1, 5, fusefs.Change{Epoch: 1, Seen: 7, Last: 5}, false},
		{"kept, written to since", 1, 5, fusefs.Change{Epoch: 1, Seen: 7, Last: 6}, true},
		{"opened where it was", 1, 5, fusefs.Change{Epoch: 2, Base: 5, Seen: 5, Last: 5}, false},
		{"opened where it was, with a snapshot", 1, 5, fusefs.Change{Epoch: 2, Base: 5, Seen: 6, Last: 5}, false},
		{"opened where it was, written to", 1, 5, fusefs.Change{Epoch: 2, Base: 5, Seen: 6, Last: 6}, true},
		{"opened further on", 1, 5, fusefs.Change{Epoch: 2, Base: 6, Seen: 6, Last: 6}, true},
		{"opened before", 1, 5, fusefs.Change{Epoch: 2, Base: 4, Seen: 4, Last: 4}, true},
		{"opened before, written to as often", 1, 5, fusefs.Change{Epoch: 2, Base: 4, Seen: 5, Last: 5}, true},
	} {
		if got := fusefs.Since(c.now, c.epoch, c.seq); got != c.changed {
			t.Errorf("%s: changed %v", c.what, got)
		}
	}
}

// The times and links of directories follow what is made, removed and renamed in
// them, through the mount and beside it.
func TestDirectories(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	for _, name := range []string{"d/x", "d/sub/y", "other/z", "top"} {
		check(t, "create", pool.Create(t.Context(), name, 4096), 0)
	}
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		check(t, "mkdir", os.Mkdir(at("e"), 0o755), 0)
		for _, c := range []struct {
			what  string
			do    func() error
			dirs  []string // that change
			links []uint32 // that these have then
			not   []string // that do not
		}{
			{"mkdir", func() error { return os.Mkdir(at("d/new"), 0o755) }, []string{"d"}, []uint32{4}, []string{"", "e", "other"}},
			{"mkdir in the root", func() error { return os.Mkdir(at("new"), 0o755) }, []string{""}, []uint32{7}, []string{"e", "d"}},
			{"create", func() error { return os.WriteFile(at("e/f"), nil, 0o600) }, []string{"e"}, []uint32{2}, []string{"", "d"}},
			{"write", func() error { return os.WriteFile(at("e/f"), []byte("x"), 0o600) }, nil, nil, []string{"", "e", "d"}},
			{"chmod", func() error { return os.Chmod(at("e/f"), 0o640) }, nil, nil, []string{"", "e", "d"}},
			{"rename", func() error { return os.Rename(at("e/f"), at("d/f")) }, []string{"e", "d"}, []uint32{2, 4}, []string{"", "other"}},
			{"rename within", func() error { return os.Rename(at("d/f"), at("d/g")) }, []string{"d"}, []uint32{4}, []string{"", "e"}},
			{"rename of a directory", func() error { return os.Rename(at("d/new"), at("e/new")) }, []string{"d", "e"}, []uint32{3, 3}, []string{"", "other"}},
			{"unlink", func() error { return os.Remove(at("d/g")) }, []string{"d"}, []uint32{3}, []string{"", "e"}},
			{"rmdir", func() error { return unix.Rmdir(at("e/new")) }, []string{"e"}, []uint32{2}, []string{"", "d"}},
			{"create of a vDisk's file", func() error { return os.WriteFile(at("e/v.raw"), nil, 0o600) }, []string{"e"}, []uint32{2}, []string{"", "d"}},
			{"its unlink", func() error { return os.Remove(at("e/v.raw")) }, []string{"e"}, []uint32{2}, []string{"", "d"}},
			{"create of another", func() error { return os.WriteFile(at("e/w.raw"), nil, 0o600) }, []string{"e"}, []uint32{2}, []string{"", "d"}},
			{"truncate of an empty file", func() error { return os.Truncate(at("e/w.raw"), 0) }, nil, nil, []string{"", "e", "d"}},
			{"open of it with O_TRUNC", func() error { return os.WriteFile(at("e/w.raw"), nil, 0o600) }, nil, nil, []string{"", "e", "d"}},
			{"its first write", func() error { return os.WriteFile(at("e/w.raw"), []byte("x"), 0o600) }, []string{".snapshots"}, []uint32{6}, []string{"", "e", "d"}},
			{"truncate to nothing", func() error { return os.Truncate(at("e/w.raw"), 0) }, []string{".snapshots"}, []uint32{5}, []string{"", "e", "d"}},
			{"truncate of an empty file again", func() error { return os.Truncate(at("e/w.raw"), 0) }, nil, nil, []string{"", "e", "d", ".snapshots"}},
			{"truncate to more", func() error { return os.Truncate(at("e/w.raw"), 8192) }, []string{".snapshots"}, []uint32{6}, []string{"", "e", "d"}},
			{"unlink of it", func() error { return os.Remove(at("e/w.raw")) }, []string{"e"}, []uint32{2}, []string{"", "d"}},
			{"rename of a vDisk", func() error { return os.Rename(at("d/x.raw"), at("e/x.raw")) }, []string{"d", "e", ".snapshots/d"}, []uint32{3, 2, 3}, []string{"", "other"}},
			{"unlink of a vDisk", func() error { return os.Remove(at("e/x.raw")) }, []string{"e"}, []uint32{2}, []string{"", "d"}},
			{"creation by others", func() error { return pool.Create(t.Context(), "e/y", 4096) }, []string{"e", ".snapshots", ".snapshots/e"}, []uint32{2, 6, 3}, []string{"", "d", ".snapshots/d"}},
			{"creation of a directory by others", func() error { return pool.Create(t.Context(), "e/deep/er/y", 4096) }, []string{"e", "e/deep", "e/deep/er"}, []uint32{3, 3, 2}, []string{"", "d"}},
			{"renaming by others", func() error { return pool.Rename(t.Context(), "e/y", "d/y") }, []string{"e", "d"}, []uint32{3, 3}, []string{"", "other"}},
			{"deletion by others", func() error { return pool.Delete(t.Context(), "e/deep/er/y", func(fusefs.Info) error { return nil }) }, []string{"e"}, []uint32{2}, []string{"", "d"}},
			{"writing by others", func() error {
				return pool.Get("top").Write(t.Context(), []device.Span{{Off: 0, Data: []byte("x")}})
			}, nil, nil, []string{"", "d", "e"}},
			{"snapshot", func() error { return pool.Snapshot(t.Context(), "top", "s") }, []string{".snapshots/top"}, []uint32{2}, []string{"", "d", ".snapshots", ".snapshots/d"}},
		} {
			before := map[string]int64{}
			for _, d := range c.not {
				before[d] = mtime(statx(t, at(d)))
			}
			now := time.Now().UnixNano()
			check(t, c.what, c.do(), 0)
			for i, d := range c.dirs {
				if s := statx(t, at(d)); mtime(s) < now || ctime(s) < now || s.Nlink != c.links[i] {
					t.Errorf("%s: %q: modified %v, changed %v after it, %d links, want %d", c.what, d, mtime(s)-now, ctime(s)-now, s.Nlink, c.links[i])
				}
			}
			for _, d := range c.not {
				if s := statx(t, at(d)); mtime(s) != before[d] {
					t.Errorf("%s: %q: it is modified", c.what, d)
				}
			}
		}
		// A renamed file and directory have another time of change, and keep theirs of
		// modification.
		check(t, "file", os.WriteFile(at("e/f"), []byte("x"), 0o600), 0)
		for _, name := range []string{"e/f", "e", "top.raw"} {
			before, now := statx(t, at(name)), time.Now().UnixNano()
			check(t, "rename", os.Rename(at(name), at(name+"2"+filepath.Ext(name))), 0)
			if s := statx(t, at(name+"2"+filepath.Ext(name))); ctime(s) < now || mtime(s) != mtime(before) {
				t.Errorf("%s: changed %d after it, modified %d, then %d", name, ctime(s)-now, mtime(before), mtime(s))
			}
			check(t, "rename back", os.Rename(at(name+"2"+filepath.Ext(name)), at(name)), 0)
		}
	})
}

// Times of directories are there after a restart.
func TestDirectoryTimesKept(t *testing.T) {
	needsFUSE(t)
	keys := treetest.New()
	pool := memtest.New(keys)
	dir := t.TempDir()
	var made, set int64
	f, err := fusefs.Mount(context.Background(), pool, keys, dir, fusefs.Options{Direct: true, Self: true})
	check(t, "mount", err, 0)
	for _, d := range []string{"d", "set"} {
		check(t, "mkdir", os.Mkdir(filepath.Join(dir, d), 0o755), 0)
		check(t, "create by others", pool.Create(t.Context(), d+"/a", 4096), 0)
		_ = statx(t, filepath.Join(dir, d))
	}
	when := time.Unix(1_000_000_000, 7)
	check(t, "utimes", os.Chtimes(filepath.Join(dir, "set"), when, when), 0)
	made, set = mtime(statx(t, filepath.Join(dir, "d"))), mtime(statx(t, filepath.Join(dir, "set")))
	if set != when.UnixNano() {
		t.Errorf("set: %d", set)
	}
	check(t, "unmount", f.Unmount(context.Background()), 0)
	check(t, "keep", f.Keep(context.Background()), 0)
	remount(t, pool, keys, func(dir string) {
		if got := mtime(statx(t, filepath.Join(dir, "d"))); got != made {
			t.Errorf("modified %d, then %d", made, got)
		}
		if got := mtime(statx(t, filepath.Join(dir, "set"))); got != set {
			t.Errorf("set %d, then %d", set, got)
		}
	})
}

// What is open and has no name any more has no links, and can be looked at.
func TestNoLinks(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	check(t, "create", pool.Create(t.Context(), "implied/a", 4096), 0)
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		look := func(what string, f *os.File, links uint32) {
			t.Helper()
			var s unix.Statx_t
			check(t, what, unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_ALL, &s), 0)
			if s.Nlink != links {
				t.Errorf("%s: %d links, want %d", what, s.Nlink, links)
			}
		}
		for _, name := range []string{"small", "replaced", "empty.raw"} {
			check(t, "write", os.WriteFile(at(name), nil, 0o600), 0)
		}
		for _, name := range []string{"d", "over", "onto"} {
			check(t, "mkdir", os.Mkdir(at(name), 0o755), 0)
		}
		open := map[string]*os.File{}
		for _, name := range []string{"small", "replaced", "empty.raw", "d", "onto", "implied"} {
			f, err := os.Open(at(name))
			check(t, "open", err, 0)
			defer f.Close()
			open[name] = f
		}
		disk, err := os.OpenFile(at("implied/a.raw"), unix.O_PATH, 0)
		check(t, "open", err, 0)
		defer disk.Close()
		look("before", open["small"], 1)
		check(t, "unlink", os.Remove(at("small")), 0)
		look("unlinked", open["small"], 0)
		check(t, "fchmod", open["small"].Chmod(0o640), 0)
		check(t, "write", os.WriteFile(at("new"), nil, 0o600), 0)
		check(t, "rename", os.Rename(at("new"), at("replaced")), 0)
		look("replaced", open["replaced"], 0)
		check(t, "unlink", os.Remove(at("empty.raw")), 0)
		look("empty file unlinked", open["empty.raw"], 0)
		check(t, "rmdir", os.Remove(at("d")), 0)
		look("directory removed", open["d"], 0)
		check(t, "fchmod of it", open["d"].Chmod(0o700), 0)
		check(t, "fsync of it", open["d"].Sync(), 0)
		check(t, "mkdir again", os.Mkdir(at("d"), 0o755), 0)
		look("another has its name", open["d"], 0)
		check(t, "rename", unix.Rename(at("over"), at("onto")), 0)
		look("directory replaced", open["onto"], 0)
		check(t, "delete", pool.Delete(t.Context(), "implied/a", func(fusefs.Info) error { return nil }), 0)
		look("directory that nothing implies", open["implied"], 0)
		look("vDisk deleted by others", disk, 0)
		check(t, "create", pool.Create(t.Context(), "implied/a", 4096), 0)
		look("directory that something implies again", open["implied"], 2)
	})
}

// What is made in a directory with the set-group-ID bit is of its group; and a
// truncation counts as a modification though the size stays.
func TestGroupsAndTruncation(t *testing.T) {
	keys := treetest.New()
	remount(t, memtest.New(keys), keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		check(t, "mkdir", os.Mkdir(at("d"), 0o755), 0)
		check(t, "chown", os.Chown(at("d"), 0, 1234), 0)
		check(t, "chmod", unix.Chmod(at("d"), 0o2775), 0)
		check(t, "mkdir", os.Mkdir(at("d/sub"), 0o755), 0)
		for _, name := range []string{"d/f", "d/sub/g", "d/v.raw"} {
			check(t, "create", os.WriteFile(at(name), nil, 0o644), 0)
		}
		for name, mode := range map[string]uint16{"d/sub": 0o2755, "d/f": 0o644, "d/sub/g": 0o644, "d/v.raw": 0o644} {
			if s := statx(t, at(name)); s.Gid != 1234 || s.Mode&0o7777 != mode {
				t.Errorf("%s: group %d, mode %o", name, s.Gid, s.Mode&0o7777)
			}
		}
		for _, name := range []string{"d/f", "d/v.raw"} {
			for range 2 {
				now := time.Now().UnixNano()
				f, err := os.OpenFile(at(name), os.O_RDWR|os.O_TRUNC, 0)
				check(t, "truncate", err, 0)
				if s := statx(t, at(name)); mtime(s) < now || ctime(s) < now {
					t.Errorf("%s: modified %d after it was truncated", name, mtime(s)-now)
				}
				check(t, "close", f.Close(), 0)
				if s := statx(t, at(name)); mtime(s) < now {
					t.Errorf("%s: modified %d after it was truncated and closed", name, mtime(s)-now)
				}
			}
		}
	})
}

// What was done in a directory just before a kill is in its time of modification after
// it; and a time that somebody has set stays.
func TestDirectoryTimesAfterKill(t *testing.T) {
	k := newKernel(t)
	dir := func(name string) uint64 {
		var out fuse.EntryOut
		if s := k.Raw.Mkdir(nil, &fuse.MkdirIn{InHeader: header(1), Mode: 0o755}, name, &out); !s.Ok() {
			t.Fatal(s)
		}
		return out.NodeId
	}
	dir("d")
	dir("e")
	for _, c := range []struct {
		what string
		do   func(d, e uint64) fuse.Status
		dirs []string
	}{
		{"create", func(d, _ uint64) fuse.Status { k.create(d, "f"); k.create(d, "v.raw"); return fuse.OK }, []string{"d"}},
		{"rename", func(d, e uint64) fuse.Status {
			return k.Raw.Rename(nil, &fuse.RenameIn{InHeader: header(d), Newdir: e}, "f", "g")
		}, []string{"d", "e"}},
		{"unlink", func(_, e uint64) fuse.Status { h := header(e); return k.Raw.Unlink(nil, &h, "g") }, []string{"e"}},
		{"mkdir", func(_, e uint64) fuse.Status {
			return k.Raw.Mkdir(nil, &fuse.MkdirIn{InHeader: header(e), Mode: 0o755}, "sub", &fuse.EntryOut{})
		}, []string{"e"}},
		{"rename of a directory", func(d, e uint64) fuse.Status {
			return k.Raw.Rename(nil, &fuse.RenameIn{InHeader: header(e), Newdir: d}, "sub", "sub")
		}, []string{"d", "e"}},
		{"rmdir", func(d, _ uint64) fuse.Status { h := header(d); return k.Raw.Rmdir(nil, &h, "sub") }, []string{"d"}},
		{"unlink of an empty file", func(d, _ uint64) fuse.Status { h := header(d); return k.Raw.Unlink(nil, &h, "v.raw") }, []string{"d"}},
		{"creation by others", func(_, _ uint64) fuse.Status {
			return fuse.ToStatus(k.pool.Create(t.Context(), "d/x", 4096))
		}, []string{"d"}},
		{"rename of a vDisk", func(d, e uint64) fuse.Status {
			k.lookup(d, "x.raw")
			return k.Raw.Rename(nil, &fuse.RenameIn{InHeader: header(d), Newdir: e}, "x.raw", "y.raw")
		}, []string{"d", "e"}},
		{"unlink of a vDisk", func(_, e uint64) fuse.Status { h := header(e); return k.Raw.Unlink(nil, &h, "y.raw") }, []string{"e"}},
		{"utimes", func(d, _ uint64) fuse.Status {
			check(t, "create", k.pool.Create(t.Context(), "d/z", 4096), 0)
			return k.Raw.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(d), Valid: fuse.FATTR_MTIME, Mtime: 1000}}, &fuse.AttrOut{})
		}, nil},
	} {
		d, e := k.lookup(1, "d"), k.lookup(1, "e")
		before := map[string]fuse.EntryOut{"d": d, "e": e}
		now := time.Now()
		if s := c.do(d.NodeId, e.NodeId); !s.Ok() {
			t.Fatalf("%s: %v", c.what, s)
		}
		k = newKernelOf(t, k.pool, k.keys) // the one before keeps nothing any more
		for name, was := range before {
			out := k.lookup(1, name)
			if out.ModTime() == was.ModTime() == slices.Contains(c.dirs, name) || slices.Contains(c.dirs, name) && out.ModTime().Before(now) {
				if c.what == "utimes" && name == "d" && out.Mtime == 1000 {
					continue
				}
				t.Errorf("%s: %q was modified at %v, and after a kill at %v", c.what, name, was.ModTime(), out.ModTime())
			}
		}
	}
}
