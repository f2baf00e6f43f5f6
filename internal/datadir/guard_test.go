package datadir

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/osdisk"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree lists everything below a directory, with the contents of files.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	check(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		all[path] = ""
		if e.Type().IsRegular() {
			b, err := os.ReadFile(path)
			all[path] = string(b)
			return err
		}
		return nil
	}))
	return all
}

// replaceds are the ways in which a directory is replaced under its process. back puts
// the directory back. Each way leaves something in its place that must stay as it is.
var replaceds = map[string]struct {
	do, back func(t *testing.T, dir string)
}{
	"renamed, an empty one made": {
		do: func(t *testing.T, dir string) { check(t, os.Rename(dir, dir+".old")); check(t, os.Mkdir(dir, 0o700)) },
		back: func(t *testing.T, dir string) {
			check(t, os.RemoveAll(dir))
			check(t, os.Rename(dir+".old", dir))
		},
	},
	"emptied where it is": {
		do: func(t *testing.T, dir string) {
			check(t, os.Mkdir(dir+".old", 0o700))
			list, err := os.ReadDir(dir)
			check(t, err)
			for _, e := range list {
				check(t, os.Rename(filepath.Join(dir, e.Name()), filepath.Join(dir+".old", e.Name())))
			}
		},
		back: func(t *testing.T, dir string) {
			list, err := os.ReadDir(dir + ".old")
			check(t, err)
			for _, e := range list {
				check(t, os.Rename(filepath.Join(dir+".old", e.Name()), filepath.Join(dir, e.Name())))
			}
			check(t, os.Remove(dir+".old"))
		},
	},
	"renamed, another one in use": {
		do: func(t *testing.T, dir string) { check(t, os.Rename(dir, dir+".old")); mustOpen(t, dir) },
		back: func(t *testing.T, dir string) {
			check(t, os.RemoveAll(dir))
			check(t, os.Rename(dir+".old", dir))
		},
	},
	"renamed, a link to another one": {
		do: func(t *testing.T, dir string) {
			check(t, os.Rename(dir, dir+".old"))
			check(t, os.Mkdir(dir+".other", 0o700))
			check(t, os.Symlink(dir+".other", dir))
		},
		back: func(t *testing.T, dir string) { check(t, os.Remove(dir)); check(t, os.Rename(dir+".old", dir)) },
	},
	"a backup in its place": {
		do: func(t *testing.T, dir string) {
			check(t, os.CopyFS(dir+".new", os.DirFS(dir)))
			check(t, os.Rename(dir, dir+".old"))
			check(t, os.Rename(dir+".new", dir))
		},
		back: func(t *testing.T, dir string) {
			check(t, os.RemoveAll(dir))
			check(t, os.Rename(dir+".old", dir))
		},
	},
	"a backup over it, file by file": {
		do: func(t *testing.T, dir string) {
			for _, name := range []string{LockFile, FormatFile} {
				b, err := os.ReadFile(filepath.Join(dir, name))
				check(t, err)
				check(t, os.Rename(filepath.Join(dir, name), dir+"."+name))
				check(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
			}
		},
		back: func(t *testing.T, dir string) {
			for _, name := range []string{LockFile, FormatFile} {
				check(t, os.Rename(dir+"."+name, filepath.Join(dir, name)))
			}
		},
	},
	"gone": {
		do:   func(t *testing.T, dir string) { check(t, os.Rename(dir, dir+".old")) },
		back: func(t *testing.T, dir string) { check(t, os.Rename(dir+".old", dir)) },
	},
	"a file in its place": {
		do: func(t *testing.T, dir string) {
			check(t, os.Rename(dir, dir+".old"))
			check(t, os.WriteFile(dir, nil, 0o600))
		},
		back: func(t *testing.T, dir string) { check(t, os.Remove(dir)); check(t, os.Rename(dir+".old", dir)) },
	},
	"its lock removed, and taken by another": {
		do: func(t *testing.T, dir string) {
			check(t, os.Rename(filepath.Join(dir, LockFile), dir+".lock"))
			mustOpen(t, dir)
		},
		back: func(t *testing.T, dir string) { check(t, os.Rename(dir+".lock", filepath.Join(dir, LockFile))) },
	},
	"an older record written over its own": {
		do: func(t *testing.T, dir string) {
			name := filepath.Join(dir, FormatFile)
			b, err := os.ReadFile(name)
			check(t, err)
			check(t, os.WriteFile(dir+".format", b, 0o600))
			r, _, err := Decode(b)
			check(t, err)
			r.Generation--
			check(t, os.WriteFile(name, Append(nil, r), 0o600))
		},
		back: func(t *testing.T, dir string) { check(t, os.Rename(dir+".format", filepath.Join(dir, FormatFile))) },
	},
}

// Once a directory is replaced, no name in it is looked up or changed by any call, and
// what lies there stays as it is. Open files go on. When the directory is put back,
// everything goes on.
func TestReplacedIsSeen(t *testing.T) {
	for how, r := range replaceds {
		t.Run(how, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			d := mustOpen(t, dir)
			check(t, d.Change(func(r *Record) { r.Generation = 7 }))
			g := d.Guard()
			in := func(name string) string { return filepath.Join(dir, name) }
			check(t, g.MkdirAll(in("buffer"), 0o700))
			f, err := g.OpenFile(in("buffer/file"), disk.Write|disk.Create, 0o600)
			check(t, err)
			defer f.Close()
			check(t, d.Check())
			outside := filepath.Join(filepath.Dir(dir), "data.elsewhere") // begins like it, and is not in it
			calls := map[string]func() error{
				"open":      func() error { _, err := g.OpenFile(in("buffer/file"), 0, 0); return err },
				"make":      func() error { _, err := g.OpenFile(in("new"), disk.Write|disk.Create, 0o600); return err },
				"mkdir":     func() error { return g.MkdirAll(in("map/x"), 0o700) },
				"rename":    func() error { return g.Rename(in("buffer/file"), in("buffer/other")) },
				"move in":   func() error { return g.Rename(outside, in("buffer/other")) },
				"move out":  func() error { return g.Rename(in("buffer/file"), outside) },
				"link":      func() error { return g.Link(in("buffer/file"), in("buffer/other")) },
				"remove":    func() error { return g.Remove(in("buffer/file")) },
				"removeall": func() error { return g.RemoveAll(in("buffer")) },
				"remove it": func() error { return g.RemoveAll(dir) },
				"readdir":   func() error { _, err := g.ReadDir(in("buffer")); return err },
				"stat":      func() error { _, err := g.Stat(in("buffer/file")); return err },
				"syncdir":   func() error { return g.SyncDir(dir) },
				"lock":      func() error { _, err := g.Lock(in("asd/lock")); return err },
				"private":   func() error { _, err := g.Private(in("buffer")); return err },
				"syncall":   func() error { return g.(guarded).SyncAll(dir) },
			}
			r.do(t, dir)
			before := tree(t, filepath.Dir(dir))
			for range 2 {
				err := d.Check()
				if !errors.Is(err, ErrReplaced) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "permission") {
					t.Fatalf("it is seen as %v", err)
				}
				if err := d.Change(func(r *Record) { r.Generation++ }); !errors.Is(err, ErrReplaced) {
					t.Errorf("its record is changed: %v", err)
				}
				for what, call := range calls {
					if err := call(); !errors.Is(err, ErrReplaced) || disk.CauseOf(err) != disk.Denied {
						t.Errorf("%s: %v", what, err)
					}
				}
			}
			if _, err := f.WriteAt([]byte("goes on"), 0); err != nil {
				t.Errorf("an open file: %v", err)
			}
			check(t, f.Truncate(0))
			after := tree(t, filepath.Dir(dir))
			for name, content := range before {
				if after[name] != content {
					t.Errorf("%s has changed", name)
				}
				delete(after, name)
			}
			if len(after) > 0 {
				t.Errorf("it was made: %v", after)
			}
			h, err := g.OpenFile(outside, disk.Write|disk.Create, 0o600)
			check(t, err)
			check(t, h.Close())

			r.back(t, dir)
			check(t, d.Check())
			check(t, d.Change(func(r *Record) { r.Generation++ }))
			for _, what := range []string{"open", "make", "mkdir", "readdir", "stat", "syncdir", "rename"} {
				check(t, calls[what]())
			}
			check(t, d.Close())
		})
	}
}

// A lock file that somebody removes is made again, so that no other process claims the
// directory. It is given back in the end.
func TestRemovedLockIsMadeAgain(t *testing.T) {
	for name, fsys := range map[string]disk.FS{"os": osdisk.New(), "model": crashdisk.New()} {
		dir := "/data"
		if name == "os" {
			dir = filepath.Join(t.TempDir(), "data")
		}
		d, err := Open(fsys, dir)
		check(t, err)
		for range 3 {
			check(t, fsys.Remove(filepath.Join(dir, LockFile)))
			names, err := d.Guard().ReadDir(dir)
			check(t, err)
			if !slices.Contains(names, LockFile) {
				t.Errorf("%s: it holds %v", name, names)
			}
			check(t, d.Check())
			if _, err := Open(fsys, dir); !errors.Is(err, ErrInUse) {
				t.Fatalf("%s: another one takes it: %v", name, err)
			}
		}
		check(t, d.Close())
		again, err := Open(fsys, dir)
		check(t, err)
		check(t, again.Close())
	}
}

// What cannot be looked at has not been replaced.
func TestUnknownIsNotReplaced(t *testing.T) {
	d := &Directory{Path: "/data", fs: deaf{crashdisk.New()}}
	if err := d.here(); err != nil {
		t.Error(err)
	}
}

type deaf struct{ disk.FS }

func (deaf) Stat(string) (os.FileInfo, error) { return nil, io.ErrUnexpectedEOF }
