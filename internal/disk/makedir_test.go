package disk_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

// TestMakeDirIsDurable: all that was made outlives a power cut, not only the last
// name.
func TestMakeDirIsDurable(t *testing.T) {
	for seed := range uint64(20) {
		d := crashdisk.New()
		if err := disk.MakeDir(d, "/srv/team/data/", 0o700); err != nil {
			t.Fatal(err)
		}
		after := d.Crash(rand.New(rand.NewPCG(seed, 0)), crashdisk.Options{})
		if info, err := after.Stat("/srv/team/data"); err != nil || !info.IsDir() {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// denied is a file system whose directory /srv may not be read.
type denied struct {
	*faultdisk.FS
	all []string // SyncAll was called with
}

func (d *denied) SyncAll(name string) error {
	d.all = append(d.all, name)
	return nil
}

func TestSyncNameInDirectoryThatMayNotBeRead(t *testing.T) {
	f := faultdisk.New(crashdisk.New())
	f.Inject(faultdisk.Rule{Ops: faultdisk.SyncDir, Err: unix.EACCES})
	if err := disk.MakeDir(f, "/srv/data", 0o700); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("nothing can be synced: %v", err)
	}
	d := &denied{FS: f}
	if err := disk.MakeDir(d, "/srv/more", 0o700); err != nil || len(d.all) != 1 || d.all[0] != "/srv/more" {
		t.Errorf("%v, synced by %q", err, d.all)
	}
	if err := disk.SyncName(faultdisk.New(crashdisk.New()), "/none/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
