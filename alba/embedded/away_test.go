package embedded

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"openvstorage/internal/disk/faultdisk"
)

// A disk is away at a start, is written past, and comes back: while it runs, and
// at the next start.
func TestDiskAway(t *testing.T) {
	for _, atStart := range []bool{false, true} {
		mem := newDisk(t)
		b := open(t, mem)
		fill(t, b, "ns", 0, 8)
		must(t, b.Close())
		for i := range DefaultASD {
			n := 8 + 4*i
			take(t, mem, i)
			b = open(t, mem)
			holds(t, b, "ns", n)
			missing(t, b, 1)
			fill(t, b, "ns", n, n+4)
			must(t, b.Namespace("ns").Delete(ctx, []string{name(n + 3)}, nil))
			fill(t, b, "ns", n+3, n+4)
			if atStart {
				must(t, b.Close())
				back(t, mem, i)
				b = open(t, mem)
			} else {
				back(t, mem, i)
				b.ReopenDisks(ctx)
			}
			settled(t, b)
			holds(t, b, "ns", n+4)
			must(t, b.Close())
		}
	}
}

// missing demands that so many disks are missing and that Status names them.
func missing(t *testing.T, b *Backend, n int) {
	t.Helper()
	s, err := b.Status(ctx)
	must(t, err)
	if s.Missing != n || s.Health == HealthOK || len(s.Reasons) == 0 {
		t.Errorf("%+v", s)
	}
}

// A disk dies while it is used, and comes back, or is replaced.
func TestDiskDies(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		mem := newDisk(t)
		fs := faultdisk.New(mem)
		b := open(t, fs)
		fill(t, b, "ns", 0, 8)
		fs.Inject(faultdisk.Rule{Path: asdDir(1) + "/...", Err: syscall.EIO})
		holds(t, b, "ns", 8)
		fill(t, b, "ns", 8, 16)
		b.ReopenDisks(ctx)
		holds(t, b, "ns", 16)
		missing(t, b, 1)
		fs.Clear()
		if replaced {
			take(t, mem, 1)
			_, err := b.ReplaceOSD(ctx, 2, "")
			must(t, err)
		} else {
			b.ReopenDisks(ctx)
		}
		settled(t, b)
		holds(t, b, "ns", 16)
		must(t, b.Close())
		b = open(t, mem)
		settled(t, b)
		holds(t, b, "ns", 16)
		must(t, b.Close())
	}
}

// A disk that is away for good is made again on the others, as far as there are
// others, and if it comes back after it was replaced it is refused.
func TestReplacedComesBack(t *testing.T) {
	mem := newDisk(t)
	b := open(t, mem)
	fill(t, b, "ns", 0, 8)
	must(t, b.Close())
	take(t, mem, 0)
	b = open(t, mem)
	number, err := b.ReplaceOSD(ctx, 1, "")
	must(t, err)
	settled(t, b)
	must(t, b.Close())
	// The old one in the place of the new one.
	move(t, mem, asdDir(0), "/new")
	back(t, mem, 0)
	b = open(t, mem)
	if reason := b.fleet.Disk(number).Missing(); reason == nil || !strings.Contains(reason.Error(), "another ASD") {
		t.Errorf("the old disk was taken: %v", reason)
	}
	holds(t, b, "ns", 8)
	fill(t, b, "ns", 8, 12)
	must(t, b.Close())
	take(t, mem, 0)
	move(t, mem, "/new", asdDir(0))
	b = open(t, mem)
	settled(t, b)
	holds(t, b, "ns", 12)
	must(t, b.Close())
}

// With two of three disks away, what cannot be read says so, by namespace and
// disk; nothing else stops, and with the disks all is well.
func TestTwoAway(t *testing.T) {
	mem := newDisk(t)
	b := open(t, mem)
	fill(t, b, "ns", 0, 8)
	must(t, b.Close())
	take(t, mem, 0)
	take(t, mem, 2)
	b = open(t, mem)
	missing(t, b, 2)
	failed := 0
	for i := range 8 {
		p, err := get(b, "ns", i)
		if err == nil {
			if string(p) != string(data(i)) {
				t.Errorf("object %d has other bytes", i)
			}
			continue
		}
		failed++
		named(t, err, "namespace ns", "disk 1", "disk 3")
	}
	if failed == 0 {
		t.Error("all was read with two disks away")
	}
	// The last policy wants no more than one disk.
	must(t, b.Namespace("ns").Put(ctx, name(8), data(8)))
	if p, err := get(b, "ns", 8); err != nil || string(p) != string(data(8)) {
		t.Errorf("%d bytes of object 8, %v", len(p), err)
	}
	if err := settledErr(b); err == nil {
		t.Error("settled with two disks away")
	}
	back(t, mem, 0)
	b.ReopenDisks(ctx)
	holds(t, b, "ns", 9)
	fill(t, b, "ns", 9, 12)
	back(t, mem, 2)
	b.ReopenDisks(ctx)
	settled(t, b)
	holds(t, b, "ns", 12)
	must(t, b.Close())
}

func named(t *testing.T, err error, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not name %s: %v", w, err)
		}
	}
}

// A disk without room, one that takes no writes, and one whose syncs fail: puts
// go on on the others, nothing is lost, and it is used again when it is well.
func TestSickDisk(t *testing.T) {
	sick := map[string]func(fs *faultdisk.FS) (well func()){
		"full": func(fs *faultdisk.FS) func() { return fs.Limit(asdDir(1), 100<<10).Remove },
		"writes": func(fs *faultdisk.FS) func() {
			fs.Inject(faultdisk.Rule{Ops: faultdisk.Write | faultdisk.Prewrite, Path: asdDir(1) + "/...", Err: syscall.EIO})
			return fs.Clear
		},
		"syncs": func(fs *faultdisk.FS) func() {
			fs.Inject(faultdisk.Rule{Ops: faultdisk.Datasync | faultdisk.Sync, Path: asdDir(1) + "/...", Err: syscall.EIO})
			return fs.Clear
		},
		"reads": func(fs *faultdisk.FS) func() {
			fs.Inject(faultdisk.Rule{Ops: faultdisk.Read | faultdisk.TryRead, Path: asdDir(1) + "/...", Err: syscall.EIO})
			return fs.Clear
		},
	}
	for kind, make := range sick {
		t.Run(kind, func(t *testing.T) {
			mem := newDisk(t)
			fs := faultdisk.New(mem)
			b := open(t, fs)
			fill(t, b, "ns", 0, 8)
			well := make(fs)
			fill(t, b, "ns", 8, 40)
			holds(t, b, "ns", 40)
			// A kill now finds all that was acknowledged.
			killed := open(t, mem.Kill())
			holds(t, killed, "ns", 40)
			must(t, killed.Close())
			well()
			b.ReopenDisks(ctx)
			settled(t, b)
			holds(t, b, "ns", 40)
			must(t, b.Close())
			b = open(t, mem)
			settled(t, b)
			holds(t, b, "ns", 40)
			must(t, b.Close())
		})
	}
}

// With no room on any disk a put fails and says why; reads go on, deletes go on,
// and with room all goes on.
func TestAllFull(t *testing.T) {
	mem := newDisk(t)
	fs := faultdisk.New(mem)
	b := open(t, fs)
	fill(t, b, "ns", 0, 8)
	q := fs.Limit("/data/asd", 1<<20)
	var err error
	n := 8
	for ; err == nil && n < 200; n++ {
		err = b.Namespace("ns").Put(ctx, name(n), data(n))
	}
	n--
	if !errors.Is(err, syscall.ENOSPC) && (err == nil || !strings.Contains(err.Error(), "full")) {
		t.Fatalf("put of object %d on full disks: %v", n, err)
	}
	holds(t, b, "ns", n)
	must(t, b.Namespace("ns").Delete(ctx, []string{name(n - 1)}, nil))
	n--
	holds(t, b, "ns", n)
	q.Remove()
	b.ReopenDisks(ctx)
	fill(t, b, "ns", n, n+4)
	settled(t, b)
	holds(t, b, "ns", n+4)
	must(t, b.Close())
}
