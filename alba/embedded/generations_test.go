package embedded

import (
	"errors"
	"strings"
	"testing"

	"openvstorage/alba/nsm"
	"openvstorage/arakoon/groups"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
)

// apart are options of a backend whose disks are not in its data directory.
func apart(fs disk.FS) Options {
	o := options(fs)
	o.Dirs = []string{"/disk/0", "/disk/1", "/disk/2"}
	return o
}

func openApart(t testing.TB, fs disk.FS) *Backend {
	t.Helper()
	b, err := Open(ctx, apart(fs))
	must(t, err)
	return b
}

// fragments counts what is on the disks that are there.
func fragments(t testing.TB, b *Backend) (n int) {
	t.Helper()
	for _, d := range b.fleet.All() {
		if d.Missing() == nil {
			u, err := d.Usage(ctx)
			must(t, err)
			n += int(u.Keys)
		}
	}
	return n
}

// twoCopies returns a disk with an older copy of a data directory in place of the
// newest one, which is on the second; the disks have seen the newest.
func twoCopies(t testing.TB) (fs, newest *crashdisk.FS) {
	t.Helper()
	fs = newDisk(t)
	must(t, errors.Join(fs.MkdirAll("/disk", 0o700), fs.SyncDir("/")))
	b := openApart(t, fs)
	fill(t, b, "a", 0, 8)
	must(t, b.Close())
	older := fs.Kill()
	b = openApart(t, fs)
	fill(t, b, "a", 8, 20)
	must(t, b.Close())
	newest = fs.Kill()
	must(t, fs.Copy("/data", older, "/data"))
	return fs, newest
}

// An older copy of the data directory is refused by the disks, and nothing is
// deleted. A person may accept it; until the person confirms, too, nothing is.
func TestOlderCopy(t *testing.T) {
	fs, newest := twoCopies(t)
	if _, err := Open(ctx, apart(fs)); !errors.Is(err, ErrOlder) || !strings.Contains(err.Error(), "/disk/2") || !strings.Contains(err.Error(), "--accept-older") {
		t.Fatalf("an older copy: %v", err)
	}
	if again := fs.Kill(); again.Copy("/data", newest, "/data") == nil {
		b := openApart(t, again)
		holds(t, b, "a", 20) // the refusal has changed nothing for the newest
		must(t, b.Close())
	}

	o := apart(fs)
	o.AcceptOlder = true
	b, err := Open(ctx, o)
	must(t, err)
	before := fragments(t, b)
	holds(t, b, "a", 8)
	w := b.Maintenance()
	must(t, b.Namespace("a").Delete(ctx, []string{name(6), name(7)}, nil))
	must(t, w.Survey(ctx))
	if err := w.Collect(ctx, 0); !errors.Is(err, ErrSuspended) {
		t.Errorf("a collection: %v", err)
	}
	if n := fragments(t, b); n != before {
		t.Errorf("%d fragments of %d are left", n, before)
	}
	s, err := b.Status(ctx)
	if err != nil || s.Health != HealthDegraded || !strings.Contains(strings.Join(s.Reasons, " "), "resume-deletion") {
		t.Errorf("status: %s %q, %v", s.Health, s.Reasons, err)
	}
	must(t, b.Close())

	// The next start needs no flag, and is suspended still.
	b = openApart(t, fs)
	if err := b.Maintenance().Collect(ctx, 0); !errors.Is(err, ErrSuspended) {
		t.Errorf("a collection after a restart: %v", err)
	}
	accepted := fs.Kill()
	c, err := b.Resume(ctx)
	if err != nil || !c.Passed || c.Unnamed == 0 || c.Objects != 6 {
		t.Errorf("%+v, %v", c, err)
	}
	settled(t, b)
	holds(t, b, "a", 6)
	must(t, b.Close())

	// Had the newest copy been found before that, all would have been there.
	must(t, accepted.Copy("/data", newest, "/data"))
	if _, err := Open(ctx, apart(accepted)); !errors.Is(err, ErrOlder) {
		t.Fatalf("the newest copy, after the older one went on: %v", err)
	}
	o = apart(accepted)
	o.AcceptOlder = true
	b, err = Open(ctx, o)
	must(t, err)
	holds(t, b, "a", 20)
	must(t, b.Close())
}

// The flag, given where nothing is older, does nothing.
func TestAcceptNothing(t *testing.T) {
	fs := newDisk(t)
	b := open(t, fs)
	fill(t, b, "a", 0, 4)
	must(t, b.Close())
	o := options(fs)
	o.AcceptOlder = true
	b, err := Open(ctx, o)
	must(t, err)
	settled(t, b)
	must(t, b.Close())
}

// A copy that is started while the original runs is refused, whichever disk it
// could get hold of.
func TestCopyBeside(t *testing.T) {
	fs := newDisk(t)
	must(t, errors.Join(fs.MkdirAll("/disk", 0o700), fs.SyncDir("/")))
	b := openApart(t, fs)
	fill(t, b, "a", 0, 8)
	must(t, fs.Copy("/copy", fs, "/data"))
	o := apart(fs)
	o.Dir = "/copy"
	if _, err := Open(ctx, o); !errors.Is(err, ErrTwice) || !strings.Contains(err.Error(), "/disk/0") {
		t.Errorf("a copy beside the original: %v", err)
	}
	fill(t, b, "a", 8, 12)
	must(t, b.Close())
	if _, err := Open(ctx, o); !errors.Is(err, ErrOlder) {
		t.Errorf("the copy after the original: %v", err)
	}
	b = openApart(t, fs)
	holds(t, b, "a", 12)
	settled(t, b)
	must(t, b.Close())
}

// Disks that come back after the start are judged then. Two copies that went on
// apart have claimed the same numbers by then.
func TestCopyWithoutDisks(t *testing.T) {
	fs, newest := twoCopies(t)
	must(t, fs.Rename("/disk", "/away"))
	for range 3 { // further than the newest has come
		b, err := Open(ctx, apart(fs))
		must(t, err)
		must(t, b.CreateNamespace(ctx, "b"))
		must(t, b.DeleteNamespace(ctx, "b"))
		must(t, b.Close())
	}
	b, err := Open(ctx, apart(fs))
	must(t, err)
	must(t, fs.Rename("/away", "/disk"))
	b.ReopenDisks(ctx)
	s, err := b.Status(ctx)
	must(t, err)
	if s.Missing != 3 || !strings.Contains(strings.Join(s.Reasons, " "), "apart") {
		t.Errorf("%d are missing: %q", s.Missing, s.Reasons)
	}
	must(t, b.Close())
	must(t, fs.Copy("/data", newest, "/data"))
	b = openApart(t, fs)
	holds(t, b, "a", 20)
	settled(t, b)
	must(t, b.Close())
}

// A disk that was away while the others went on is older, and taken.
func TestAwayIsTaken(t *testing.T) {
	fs := newDisk(t)
	b := open(t, fs)
	fill(t, b, "a", 0, 8)
	must(t, b.Close())
	take(t, fs, 1)
	for range 3 {
		b = open(t, fs)
		must(t, b.Close())
	}
	back(t, fs, 1)
	b = open(t, fs)
	settled(t, b)
	must(t, b.Close())
}

// A lost manager ends the start, by name, and no fragment is deleted.
func TestLostManager(t *testing.T) {
	fs := newDisk(t)
	b := open(t, fs)
	fill(t, b, "a", 0, 8)
	must(t, b.Close())
	whole := fs.Kill()
	for _, name := range []string{"/data/arakoon/nsm-0", "/data/arakoon/abm", "/data/arakoon"} {
		must(t, fs.RemoveAll(name))
		if _, err := Open(ctx, options(fs)); !errors.Is(err, groups.ErrMissing) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
		must(t, fs.Copy(name, whole, name))
		b = open(t, fs)
		holds(t, b, "a", 8)
		settled(t, b)
		must(t, b.Close())
		whole = fs.Kill()
	}
}

// A namespace that one manager does not know is not taken for a deleted one.
func TestUnknownNamespace(t *testing.T) {
	fs := newDisk(t)
	b := open(t, fs)
	fill(t, b, "a", 0, 8)
	before := fragments(t, b)
	// An NSM that never heard of it, as one that was put back from a copy.
	b.nsm = nsmWithout(t, b)
	b.Inventory.nsm = b.nsm
	w := b.Maintenance()
	if err := w.Collect(ctx, 0); err == nil || !strings.Contains(err.Error(), "not known to any NSM host") {
		t.Errorf("a collection: %v", err)
	}
	if n := fragments(t, b); n != before {
		t.Errorf("%d fragments of %d are left", n, before)
	}
	s, err := b.Status(ctx)
	if err != nil || s.Health != HealthBad || !strings.Contains(strings.Join(s.Reasons, " "), "not known to the NSM") {
		t.Errorf("status: %s %q, %v", s.Health, s.Reasons, err)
	}
	if c, err := b.Resume(ctx); !errors.Is(err, ErrCheck) || c.Passed {
		t.Errorf("a check: %+v, %v", c, err)
	}
	must(t, b.Close())
}

// nsmWithout is a client of an NSM host that serves no namespace.
func nsmWithout(t testing.TB, b *Backend) *nsm.Client {
	t.Helper()
	fs := newDisk(t)
	other := open(t, fs)
	t.Cleanup(func() { _ = other.Close() })
	return other.nsm
}
