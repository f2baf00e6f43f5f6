package embedded

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/alba/health"
	"openvstorage/internal/disk/faultdisk"
)

// A disk that is there and cannot be opened, as the machine lacks something, is
// shown as that with the reason, is not given up, and is opened when the reason
// has passed. One whose medium fails is missing.
func TestUnopened(t *testing.T) {
	for errno, state := range map[syscall.Errno]health.State{
		syscall.EMFILE: "unopened", syscall.ENFILE: "unopened", syscall.ENOMEM: "unopened", syscall.EACCES: "unopened", syscall.EIO: "missing",
	} {
		mem := newDisk(t)
		o := options(mem)
		o.ASDs = 5
		b, err := Open(ctx, o)
		must(t, err)
		fill(t, b, "ns", 0, 8)
		must(t, b.Close())

		fs := faultdisk.New(mem)
		fs.Inject(faultdisk.Rule{Ops: faultdisk.Open | faultdisk.Lock, Path: asdDir(1) + "/*", Err: errno})
		o.FS = fs
		b, err = Open(ctx, o)
		must(t, err)
		before, err := b.OSD(ctx, 2)
		must(t, err)
		if before.State != state || !strings.Contains(before.Reason, errno.Error()) || !strings.Contains(before.Reason, asdDir(1)) || before.Fragments == 0 {
			t.Errorf("%v: %+v", errno, before)
		}
		if s, err := b.Status(ctx); err != nil || s.Health != HealthDegraded || s.Missing != 1 {
			t.Errorf("%v: %+v, %v", errno, s, err)
		}
		holds(t, b, "ns", 8)
		if _, err := b.ReplaceOSD(ctx, 2, "/elsewhere"); state == "unopened" && !errors.Is(err, errno) {
			t.Errorf("%v: a disk that is there was given up: %v", errno, err)
		} else if state == "missing" {
			must(t, err)
			must(t, b.Close())
			continue
		}
		// Looks in the background leave it alone for a while: opens may read much.
		reopened := map[uint64]time.Time{}
		b.asds.reopenAll(ctx, reopened)
		fs.Clear()
		b.asds.reopenAll(ctx, reopened)
		if err := b.fleet.Disk(2).Missing(); !errors.Is(err, fleet.ErrUnopened) || !errors.Is(err, fleet.ErrMissing) {
			t.Errorf("%v: %v", errno, err)
		}
		reopened[2] = time.Now().Add(-reopenPause)
		b.asds.reopenAll(ctx, reopened)
		if err := b.fleet.Disk(2).Missing(); err != nil {
			t.Errorf("%v has passed: %v", errno, err)
		}
		settled(t, b)
		holds(t, b, "ns", 8)
		must(t, b.Close())
	}
}

// The unit lets the process have as many files open as it should.
func TestUnitAllowsFiles(t *testing.T) {
	unit, err := os.ReadFile("../../scripts/systemd/ovs.service")
	must(t, err)
	found := regexp.MustCompile(`(?m)^LimitNOFILE=(\d+)$`).FindSubmatch(unit)
	if found == nil {
		t.Fatal("no LimitNOFILE")
	}
	if n, err := strconv.Atoi(string(found[1])); err != nil || n < openFilesLeast {
		t.Errorf("LimitNOFILE=%s, at least %d are wanted", found[1], openFilesLeast)
	}
}

// A disk that cannot read all that it needs to open, after a kill, takes no
// writes and says which file it is. What it has is served, what it may have is
// read from others and made again; well again, it has all.
func TestUnreadableWhileOpening(t *testing.T) {
	mem := newDisk(t)
	o := options(mem)
	o.ASDs = 5
	b, err := Open(ctx, o)
	must(t, err)
	fill(t, b, "ns", 0, 12)
	killed := mem.Kill()
	must(t, b.Close())

	fs := faultdisk.New(killed)
	const segment = "0000000000000001.seg"
	fs.Inject(faultdisk.Rule{Ops: faultdisk.Read, Path: asdDir(1) + "/" + segment, Err: syscall.EIO})
	o.FS = fs
	b, err = Open(ctx, o)
	must(t, err)
	d, err := b.OSD(ctx, 2)
	must(t, err)
	for _, part := range []string{segment, asdDir(1), syscall.EIO.Error(), "accept-unreadable"} {
		if d.State != "read-only" || !strings.Contains(d.Reason, part) {
			t.Errorf("%s is not named: %+v", part, d)
		}
	}
	holds(t, b, "ns", 12)
	w := b.Maintenance()
	must(t, errors.Join(w.FindAbsent(ctx), w.Repair(ctx)))
	if n := w.Stats().Repaired; d.Fragments > 0 && n == 0 {
		t.Error("nothing was made again")
	}
	fill(t, b, "ns", 12, 16)
	fs.Clear()
	b.ReopenDisks(ctx)
	if d, err := b.OSD(ctx, 2); err != nil || d.State != "ok" {
		t.Errorf("%+v, %v", d, err)
	}
	settled(t, b)
	holds(t, b, "ns", 16)
	must(t, b.Close())
}
