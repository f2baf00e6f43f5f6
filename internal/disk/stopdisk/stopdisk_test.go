package stopdisk

import (
	"errors"
	"io/fs"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/disktest"
	"openvstorage/internal/disk/faultdisk"
)

func TestConformance(t *testing.T) {
	disktest.Run(t, func(t *testing.T) (disk.FS, string) {
		d := New(crashdisk.New())
		if err := d.MkdirAll("/test", 0o755); err != nil {
			t.Fatal(err)
		}
		return d, "/test"
	})
}

// With a call in the kernel that does not come back, Stop gives the locks back, and
// nothing that is called after it reaches the disk.
func TestStopWhileACallHangs(t *testing.T) {
	under := faultdisk.New(crashdisk.New())
	d := New(under)
	f, err := d.OpenFile("/a", disk.Write|disk.Create, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	held, err := d.Lock("/lock")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := under.Lock("/lock"); !errors.Is(err, disk.ErrLocked) {
		t.Fatalf("a lock that is held: %v", err)
	}
	door := faultdisk.NewGate()
	under.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Before: door.Wait})
	synced := make(chan error, 1)
	go func() { synced <- f.Datasync() }()
	<-door.Arrived()
	before := d.Done()
	d.Stop()
	if !d.Stopped() || d.Done() != before {
		t.Error("not stopped, or a call has come back")
	}
	other, err := under.Lock("/lock")
	if err != nil {
		t.Fatalf("the lock was not given back: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Errorf("the lock, closed once more: %v", err)
	}
	if _, err := under.Lock("/lock"); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("the lock of another was given back: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	calls := under.Count(faultdisk.Any, "")
	for what, call := range map[string]func() error{
		"write":  func() error { _, err := f.WriteAt([]byte("x"), 0); return err },
		"sync":   f.Datasync,
		"close":  f.Close,
		"rename": func() error { return d.Rename("/a", "/b") },
		"open":   func() error { _, err := d.OpenFile("/a", 0, 0); return err },
		"lock":   func() error { _, err := d.Lock("/lock"); return err },
		"stat":   func() error { _, err := d.Stat("/a"); return err },
	} {
		if err := call(); !errors.Is(err, ErrStopped) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := under.Count(faultdisk.Any, ""); n != calls {
		t.Errorf("%d calls reached the disk", n-calls)
	}
	door.Open()
	if err := <-synced; err != nil {
		t.Errorf("the call that hung: %v", err)
	}
}

// A turn ends when what began before it has come back: calls that each come back let
// turns pass, one that hangs does not, whatever comes and goes beside it.
func TestTurn(t *testing.T) {
	under := faultdisk.New(crashdisk.New())
	d := New(under)
	for range 3 {
		if !d.Turn() {
			t.Fatal("a turn of no calls does not end")
		}
	}
	door := faultdisk.NewGate()
	under.Inject(faultdisk.Rule{Ops: faultdisk.Stat, Path: "/hangs", Before: door.Wait})
	stat := make(chan error, 1)
	go func() {
		_, err := d.Stat("/hangs")
		stat <- err
	}()
	<-door.Arrived()
	if !d.Turn() {
		t.Error("the turn in which it began does not end")
	}
	for range 3 {
		if _, err := d.Stat("/"); err != nil {
			t.Fatal(err)
		}
		if d.Turn() {
			t.Error("a turn ends with a call under way that began before it")
		}
	}
	door.Open()
	if err := <-stat; !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for range 3 {
		if !d.Turn() {
			t.Error("a turn does not end though all have come back")
		}
	}
}
