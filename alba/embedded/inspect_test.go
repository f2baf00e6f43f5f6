package embedded

import (
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/asd"
	"openvstorage/alba/health"
	"openvstorage/internal/disk"
)

// An identity that has got bad is shown while all runs, not by the next start alone; the
// disk is used on, and its file is left as it is.
func TestBadIdentityIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newDisk(t)
		b, err := Open(ctx, background(mem))
		must(t, err)
		fill(t, b, "ns", 0, 8)
		name := path.Join(asdDir(1), asd.IdentityName)
		f, err := mem.OpenFile(name, disk.Write, 0)
		must(t, err)
		was := make([]byte, 1)
		_, err = f.ReadAt(was, 20)
		must(t, err)
		_, err = f.WriteAt([]byte{was[0] ^ 1}, 20)
		must(t, err)
		for range 3 {
			time.Sleep(10 * time.Second)
			d := diskStates(t, b, health.OK, health.Damaged, health.OK)[1]
			if !strings.Contains(d.Reason, name) || !strings.Contains(d.Reason, "next start") {
				t.Error(d.Reason)
			}
			if s := status(t, b, health.Degraded, "disk 2 "); s.MayDie != 1 || s.Missing != 0 {
				t.Errorf("%d may die, %d are missing", s.MayDie, s.Missing)
			}
			fill(t, b, "ns", 8, 12)
			holds(t, b, "ns", 12)
		}
		_, err = f.WriteAt(was, 20)
		must(t, err)
		must(t, f.Close())
		time.Sleep(10 * time.Second)
		diskStates(t, b, health.OK, health.OK, health.OK)
		must(t, b.Close())
		b = open(t, mem)
		settled(t, b)
		must(t, b.Close())
	})
}

// A file system that has failed and tells nobody is shown though nobody writes to it.
func TestIdleReadOnlyIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &mounted{FS: newDisk(t)}
		b, err := Open(ctx, background(fs))
		must(t, err)
		fill(t, b, "ns", 0, 8)
		dir := asdDir(1)
		fs.silent.Store(true)
		fs.readOnly.Store(&dir)
		time.Sleep(10 * time.Second)
		diskStates(t, b, health.OK, health.ReadOnly, health.OK)
		status(t, b, health.Degraded, "disk 2 ")
		holds(t, b, "ns", 8)
		fs.readOnly.Store(nil)
		time.Sleep(15 * time.Second)
		diskStates(t, b, health.OK, health.OK, health.OK)
		must(t, b.Close())
	})
}

// A disk that is unmounted though it is in use never has the figures of what is below.
func TestUnmountedHasNoFiguresOfTheRoot(t *testing.T) {
	const gib = uint64(1) << 30
	mem := newDisk(t)
	fs := &volumes{FS: mem}
	fs.set(3*gib, 3*gib, 3*gib)
	b := open(t, fs)
	defer func() { must(t, b.Close()) }()
	fill(t, b, "ns", 0, 4)
	diskStates(t, b, health.OK, health.OK, health.OK)
	take(t, mem, 1)
	must(t, mem.MkdirAll(asdDir(1), 0o700))
	fs.set(3*gib, 700*gib, 3*gib)
	small := func() {
		t.Helper()
		list, err := b.OSDs(ctx)
		must(t, err)
		for _, d := range list {
			if d.Capacity > 3*gib {
				t.Errorf("disk %d is %s with %d GiB", d.Number, d.State, d.Capacity/gib)
			}
		}
		s, err := b.Status(ctx)
		if must(t, err); s.Capacity > 9*gib {
			t.Errorf("the backend has %d GiB", s.Capacity/gib)
		}
		if _, free, err := b.Usage(ctx); err != nil || free > 9*gib {
			t.Errorf("%d GiB are free, %v", free/gib, err)
		}
	}
	small()
	b.ReopenDisks(ctx)
	diskStates(t, b, health.OK, health.Missing, health.OK)
	small()
	must(t, mem.RemoveAll(asdDir(1)))
	back(t, mem, 1)
	fs.set(3*gib, 3*gib, 3*gib)
	b.ReopenDisks(ctx)
	settled(t, b)
}
