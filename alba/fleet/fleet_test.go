package fleet_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

var ctx = context.Background()

// clock is a clock that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newDisk(t *testing.T) (*fleet.Fleet, *fleet.Disk, *osdtest.Faulty, *osdtest.Memory, *clock) {
	t.Helper()
	c := &clock{time.Unix(1, 0)}
	f := fleet.New(c.now)
	m := osdtest.NewMemory(uuid.New(), 1<<20)
	faults := osdtest.NewFaulty(m)
	d := f.Add(7, m.ID(), "node", "asd/7")
	d.Attach(faults)
	if err := d.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	return f, d, faults, m, c
}

func usable(f *fleet.Fleet) bool { return f.Disks()[0].Usable() }

// A disk is an OSD like any other.
func TestConformance(t *testing.T) {
	osdtest.Run(t, func(t *testing.T) osd.OSD {
		m := osdtest.NewMemory(uuid.New(), 512<<20)
		d := fleet.New(nil).Add(1, m.ID(), "node", "asd/1")
		d.Attach(m)
		return d
	})
}

func TestMissing(t *testing.T) {
	f, d, faults, _, _ := newDisk(t)
	if !usable(f) || d.Missing() != nil {
		t.Fatal("a new disk is not usable")
	}
	gone := errors.New("unplugged")
	d.Detach(gone)
	for what, err := range map[string]error{
		"apply": d.Apply(ctx, nil, []osd.Update{osdtest.Delete("k")}),
		"read":  d.Read(ctx, []byte("k"), 0, nil, nil),
		"why":   d.Missing(),
	} {
		if !errors.Is(err, fleet.ErrMissing) || !errors.Is(err, gone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, alive := f.Alive(7); alive || usable(f) {
		t.Error("a missing disk is alive")
	}
	if f.Add(7, uuid.New(), "other", "elsewhere") != d {
		t.Error("a known number is another disk")
	}
	d.Attach(faults)
	if err := d.Refresh(ctx); err != nil || !usable(f) {
		t.Errorf("a disk that is back: %v", err)
	}
	f.Remove(7)
	if f.Disk(7) != nil || len(f.All()) != 0 {
		t.Error("a removed disk is there")
	}
}

// After failed writes a disk rests, longer each time, and a success ends that.
func TestRest(t *testing.T) {
	f, d, faults, _, c := newDisk(t)
	broken := errors.New("broken")
	rule := faults.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Err: broken})
	put := func() error { return d.Apply(ctx, nil, []osd.Update{osdtest.Put("k", []byte("v"), 1, 1)}) }
	for i, rest := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		if err := put(); !errors.Is(err, broken) {
			t.Fatal(err)
		}
		c.t = c.t.Add(rest - 1)
		if usable(f) {
			t.Errorf("failure %d: usable before its rest is over", i)
		}
		c.t = c.t.Add(1)
		if !usable(f) {
			t.Errorf("failure %d: not usable after its rest", i)
		}
	}
	rule.Remove()
	if err := put(); err != nil || !usable(f) {
		t.Errorf("after a success: %v", err)
	}
	if n := d.Counts(); n.Writes != 4 || n.WriteErrors != 3 {
		t.Errorf("counts %+v", n)
	}
}

// Asserts and bad arguments are not the disk's fault; a full one is not used
// until it says that it is not.
func TestNotItsFault(t *testing.T) {
	f, d, _, m, _ := newDisk(t)
	err := d.Apply(ctx, []osd.Assert{{Kind: osd.Exists, Key: []byte("absent")}}, []osd.Update{osdtest.Delete("k")})
	if !errors.Is(err, osd.ErrAssert) || !usable(f) {
		t.Errorf("assert: %v, usable %v", err, usable(f))
	}
	m.SetFull(true)
	if err := d.Apply(ctx, nil, []osd.Update{osdtest.Put("k", []byte("v"), 1, 1)}); !errors.Is(err, osd.ErrFull) || usable(f) {
		t.Errorf("full: %v, usable %v", err, usable(f))
	}
	m.SetFull(false)
	if err := d.Refresh(ctx); err != nil || !usable(f) {
		t.Errorf("no longer full: %v", err)
	}
	d.SetLeaving(true)
	if usable(f) {
		t.Error("a disk on its way out gets fragments")
	}
}

// A disk's zone is what was said last, also once it has moved to another place.
func TestZone(t *testing.T) {
	f, d, _, _, _ := newDisk(t)
	if d.Zone() != "" || f.Disks()[0].Zone != "" {
		t.Errorf("a new disk is in zone %q", d.Zone())
	}
	d.SetZone("a")
	d.SetZone("b")
	if d.Zone() != "b" || f.Disks()[0].Zone != "b" {
		t.Errorf("zone %q, to placement %q", d.Zone(), f.Disks()[0].Zone)
	}
	if moved := f.Move(d, "asd/8"); moved.Zone() != "b" {
		t.Errorf("moved to zone %q", moved.Zone())
	}
}

// Patience follows what reads take, within its bounds.
func TestPatience(t *testing.T) {
	_, d, _, _, _ := newDisk(t)
	if err := d.Apply(ctx, nil, []osd.Update{osdtest.Put("k", []byte("v"), 1, 1)}); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := d.Read(ctx, []byte("k"), 0, make([]byte, 1), make([]uint32, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if p := d.Patience(1); p < 2*time.Millisecond || p > time.Second {
		t.Errorf("patience %v", p)
	}
}

// A disk that is there and cannot be opened is not gone, and cannot be reached.
func TestUnopened(t *testing.T) {
	f, d, faults, _, _ := newDisk(t)
	why := errors.New("too many open files")
	d.Unopened(why)
	err := d.Read(ctx, []byte("k"), 0, nil, nil)
	if !errors.Is(err, fleet.ErrUnopened) || !errors.Is(err, fleet.ErrMissing) || !errors.Is(err, why) || usable(f) {
		t.Error(err)
	}
	d.Detach(why)
	if err := d.Missing(); errors.Is(err, fleet.ErrUnopened) || !errors.Is(err, fleet.ErrMissing) {
		t.Error(err)
	}
	d.Unopened(why)
	d.Attach(faults)
	if err := d.Refresh(ctx); err != nil || !usable(f) || d.Reason() != nil {
		t.Error(err, d.Reason())
	}
}

// That no more files can be opened, or no memory had, is no fault of the disk.
func TestNotItsErrno(t *testing.T) {
	for _, errno := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		f, d, faults, _, _ := newDisk(t)
		faults.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Err: errno})
		if err := d.Apply(ctx, nil, []osd.Update{osdtest.Put("k", []byte("v"), 1, 1)}); !errors.Is(err, errno) || !usable(f) {
			t.Errorf("%v: usable %v", err, usable(f))
		}
	}
}
