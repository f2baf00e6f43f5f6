package blockdev_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/blockdev"
)

func TestLoop(t *testing.T) {
	if f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0); err != nil {
		t.Skip("no loop devices here: ", err)
	} else {
		f.Close()
	}
	file := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(file, bytes.Repeat([]byte("01234567"), 1<<17), 0o600); err != nil {
		t.Fatal(err)
	}
	dev, err := blockdev.Attach(file, blockdev.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := blockdev.Backing(dev); got != file {
		t.Errorf("%s is over %q", dev, got)
	}
	d, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteAt([]byte("written"), 4096); err != nil {
		t.Error(err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got[4096:4103]) != "written" {
		t.Errorf("the file has %q, %v", got[4096:4103], err)
	}
	// One that is taken is not taken from its user: another is made.
	other, err := blockdev.Attach(file, blockdev.Options{Device: dev, ReadOnly: true})
	if err != nil || other == dev {
		t.Fatal(other, err)
	}
	if d, err := os.OpenFile(other, os.O_RDWR, 0); err == nil {
		_, err = d.WriteAt(make([]byte, 512), 0)
		if err := errors.Join(err, d.Sync()); !errors.Is(err, unix.EPERM) {
			t.Errorf("write to a read-only device: %v", err)
		}
		d.Close()
	}
	for _, dev := range []string{dev, other, other} { // twice is no error
		if err := blockdev.Detach(dev); err != nil {
			t.Error(err)
		}
	}
	if got := blockdev.Backing(other); got != "" {
		t.Errorf("%s is over %q still", other, got)
	}
	// The same one again.
	if again, err := blockdev.Attach(file, blockdev.Options{Device: dev}); err != nil || again != dev {
		t.Error(again, err)
	} else if err := blockdev.Detach(dev); err != nil {
		t.Error(err)
	}
	if _, err := blockdev.Attach(file+"x", blockdev.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
