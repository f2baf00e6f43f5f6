package faultdisk

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
)

// A disk of so many bytes and so many names: room that was allocated is there for
// what is written later, and Statfs tells.
func TestDisk(t *testing.T) {
	d := New(crashdisk.New())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.MkdirAll("/d", 0o700))
	q := d.Limit("/d", 100).Disk(1000).Names(3)
	f, err := d.OpenFile("/d/a", disk.Write|disk.Create, 0o600)
	must(err)
	must(f.Allocate(0, 60))
	if size, _ := f.Size(); size != 0 {
		t.Errorf("Allocate made the file %d bytes long", size)
	}
	g, err := d.OpenFile("/d/b", disk.Write|disk.Create, 0o600)
	must(err)
	if err := g.Allocate(0, 41); !errors.Is(err, unix.ENOSPC) || q.Left() != 40 {
		t.Errorf("Allocate of more than there is: %v, %d left", err, q.Left())
	}
	if n, err := g.WriteAt(make([]byte, 50), 0); n != 40 || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("write: %d, %v", n, err)
	}
	if n, err := f.WriteAt(make([]byte, 60), 0); n != 60 || err != nil {
		t.Errorf("write to what was allocated: %d, %v", n, err)
	}
	if u, err := d.Statfs("/d"); err != nil || u.Free != 0 || u.Total != 1000 {
		t.Errorf("Statfs: %+v, %v", u, err)
	}
	must(d.MkdirAll("/d/c", 0o700))
	if _, err := d.OpenFile("/d/e", disk.Write|disk.Create, 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a fourth name: %v", err)
	}
	must(d.Rename("/d/b", "/d/a"))
	if _, err := d.OpenFile("/d/e", disk.Write|disk.Create, 0o600); err != nil {
		t.Errorf("a name after one went: %v", err)
	}
	must(d.RemoveAll("/d/c"))
	must(d.MkdirAll("/d/f", 0o700))
	if err := d.MkdirAll("/d/g", 0o700); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a directory too many: %v", err)
	}
}

// A user's quota fails with EDQUOT, and Statfs does not know of it.
func TestUserQuota(t *testing.T) {
	d := New(crashdisk.New())
	if err := d.MkdirAll("/d", 0o700); err != nil {
		t.Fatal(err)
	}
	d.Limit("/d", 10).User()
	f, err := d.OpenFile("/d/a", disk.Write|disk.Create, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 11), 0); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("write: %v", err)
	}
	if u, err := d.Statfs("/d"); err != nil || u.Free < 1<<30 {
		t.Errorf("Statfs: %+v, %v", u, err)
	}
}
