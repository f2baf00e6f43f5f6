package disktest

import (
	"errors"
	"io/fs"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
)

func testRename(t *testing.T, d *env) {
	d.create("a", "A")
	d.create("b", "B")
	d.ok(d.Rename(d.path("a"), d.path("b")))
	d.nameHolds("b", "A")
	d.names("", "b")
	d.is(d.Rename(d.path("a"), d.path("c")), fs.ErrNotExist)
	d.is(d.Rename(d.path("b"), d.path("no/b")), fs.ErrNotExist)
	d.ok(d.Rename(d.path("b"), d.path("b")))
	d.nameHolds("b", "A")

	d.ok(d.MkdirAll(d.path("x/y"), 0o755))
	d.ok(d.Rename(d.path("b"), d.path("x/y/b")))
	d.names("", "x")
	d.nameHolds("x/y/b", "A")
	d.ok(d.Rename(d.path("x/y"), d.path("z")))
	d.nameHolds("z/b", "A")
	d.names("x")
	d.is(d.Rename(d.path("z"), d.path("z/in")), unix.EINVAL)
	d.create("f", "F")
	d.is(d.Rename(d.path("f"), d.path("x")), fs.ErrExist)
	d.is(d.Rename(d.path("x"), d.path("f")), unix.ENOTDIR)
	d.ok(d.SyncDir(d.path("")))
}

func testLink(t *testing.T, d *env) {
	f := d.create("a", "A")
	d.ok(d.Link(d.path("a"), d.path("b")))
	d.write(f, 1, "more")
	d.nameHolds("b", "Amore")
	d.is(d.Link(d.path("a"), d.path("b")), fs.ErrExist)
	d.is(d.Link(d.path("no"), d.path("c")), fs.ErrNotExist)
	d.ok(d.Rename(d.path("a"), d.path("b"))) // two names of one file: nothing happens
	d.names("", "a", "b")
	d.ok(d.Remove(d.path("a")))
	d.nameHolds("b", "Amore")
}

func testRemove(t *testing.T, d *env) {
	d.create("a", "A")
	d.ok(d.Remove(d.path("a")))
	err := d.Remove(d.path("a"))
	d.is(err, fs.ErrNotExist)
	var pe *fs.PathError
	if !errors.As(err, &pe) || pe.Path != d.path("a") {
		t.Errorf("error %v does not name the path", err)
	}
	d.ok(d.MkdirAll(d.path("x/y"), 0o755))
	d.is(d.Remove(d.path("x")), unix.ENOTEMPTY)
	d.create("x/y/f", "F")
	d.ok(d.RemoveAll(d.path("x")))
	d.ok(d.RemoveAll(d.path("x")))
	d.ok(d.RemoveAll(d.path("no/such")))
	d.names("")
}

func testDirectories(t *testing.T, d *env) {
	d.ok(d.MkdirAll(d.path("x/y/z"), 0o755))
	d.ok(d.MkdirAll(d.path("x/y/z"), 0o755))
	d.create("x/b", "")
	d.create("x/a", "")
	d.names("x", "a", "b", "y")
	_, err := d.ReadDir(d.path("no"))
	d.is(err, fs.ErrNotExist)
	d.is(d.MkdirAll(d.path("x/a"), 0o755), unix.ENOTDIR)
	d.is(d.MkdirAll(d.path("x/a/b"), 0o755), unix.ENOTDIR)
	d.ok(d.SyncDir(d.path("x/y")))
	d.is(d.SyncDir(d.path("no")), fs.ErrNotExist)
	d.is(d.SyncDir(d.path("x/a")), unix.ENOTDIR)
	u, err := d.Statfs(d.path("x"))
	d.ok(err)
	if u.Total == 0 || u.Free > u.Total {
		t.Errorf("Statfs = %+v", u)
	}
	_, err = d.Statfs(d.path("no"))
	d.is(err, fs.ErrNotExist)
}

func testRemovedButOpen(t *testing.T, d *env) {
	f := d.create("a", "hello")
	d.ok(d.Remove(d.path("a")))
	d.write(f, 5, "!")
	d.holds(f, "hello!")
	d.ok(f.Datasync())
	d.create("a", "other")
	d.holds(f, "hello!")
	d.nameHolds("a", "other")
}

func testLock(t *testing.T, d *env) {
	l, err := d.Lock(d.path("LOCK"))
	d.ok(err)
	_, err = d.Lock(d.path("LOCK"))
	d.is(err, disk.ErrLocked)
	d.ok(l.Close())
	l, err = d.Lock(d.path("LOCK"))
	d.ok(err)
	d.ok(l.Close())
	d.is(l.Close(), fs.ErrClosed)
	_, err = d.Lock(d.path("no/LOCK"))
	d.is(err, fs.ErrNotExist)
}

func testStat(t *testing.T, d *env) {
	d.create("a", "hello")
	i, err := d.Stat(d.path("a"))
	d.ok(err)
	if i.Name() != "a" || i.Size() != 5 || i.IsDir() || !i.Mode().IsRegular() || i.ModTime().IsZero() {
		t.Errorf("Stat of a file: %s %d %v", i.Name(), i.Size(), i.Mode())
	}
	d.ok(d.MkdirAll(d.path("x"), 0o755))
	i, err = d.Stat(d.path("x"))
	d.ok(err)
	if i.Name() != "x" || !i.IsDir() || !i.Mode().IsDir() {
		t.Errorf("Stat of a directory: %s %v", i.Name(), i.Mode())
	}
	_, err = d.Stat(d.path("no"))
	d.is(err, fs.ErrNotExist)
	_, err = d.Stat(d.path("a/b"))
	d.is(err, unix.ENOTDIR)
}

// Whatever mode is asked for, others get no rights; and Private says which mode it
// found.
func testPrivate(t *testing.T, d *env) {
	f, err := d.OpenFile(d.path("f"), disk.Write|disk.Create, 0o666)
	d.ok(err)
	d.ok(f.Close())
	d.ok(d.MkdirAll(d.path("x/y"), 0o777))
	l, err := d.Lock(d.path("LOCK"))
	d.ok(err)
	defer l.Close()
	for name, want := range map[string]fs.FileMode{"f": 0o600, "x": 0o700 | fs.ModeDir, "x/y": 0o700 | fs.ModeDir, "LOCK": 0o600} {
		was, err := d.Private(d.path(name))
		d.ok(err)
		if was != want {
			t.Errorf("%s was made with mode %v, not %v", name, was, want)
		}
	}
	_, err = d.Private(d.path("no"))
	d.is(err, fs.ErrNotExist)
}
