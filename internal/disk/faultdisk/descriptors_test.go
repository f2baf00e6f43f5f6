package faultdisk

import (
	"errors"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/disktest"

	"golang.org/x/sys/unix"
)

func TestDescriptorsConformance(t *testing.T) {
	disktest.Run(t, func(t *testing.T) (disk.FS, string) { return NewDescriptors(crashdisk.New(), 100), "/" })
}

func TestDescriptors(t *testing.T) {
	d := NewDescriptors(crashdisk.New(), 2)
	a := open(t, d, "/a")
	lock, err := d.Lock("/lock")
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"open": second(d.OpenFile("/b", disk.Write|disk.Create, 0o600)), "list": second(d.ReadDir("/")), "sync": d.SyncDir("/"), "lock": second(d.Lock("/other")),
	} {
		if !errors.Is(err, unix.EMFILE) {
			t.Errorf("%s with two open: %v", what, err)
		}
	}
	for range 2 { // a second close gives nothing back
		_ = a.Close()
	}
	if err := errors.Join(lock.Close(), d.SyncDir("/")); err != nil || d.Open() != 0 {
		t.Errorf("%d open, %v", d.Open(), err)
	}
	if peak, refused := d.Peak(); peak != 2 || refused != 4 {
		t.Errorf("at most %d open, %d refused", peak, refused)
	}
}

func second[T any](_ T, err error) error { return err }
