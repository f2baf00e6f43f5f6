package fleet_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/internal/gate"

	"github.com/google/uuid"
)

// paced is an OSD whose writes and reads take a while.
type paced struct {
	osd.OSD
	mu          sync.Mutex
	write, read time.Duration
}

func (p *paced) set(write, read time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.write, p.read = write, read
}

func (p *paced) takes(write bool) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if write {
		return p.write
	}
	return p.read
}

func (p *paced) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	time.Sleep(p.takes(true))
	return p.OSD.Apply(ctx, asserts, updates)
}

func (p *paced) Read(ctx context.Context, key []byte, off uint32, b []byte, crcs []uint32) error {
	time.Sleep(p.takes(false))
	return p.OSD.Read(ctx, key, off, b, crcs)
}

// trio is three disks that are watched, on a clock that stands still while anything
// runs.
type trio struct {
	f       *fleet.Fleet
	faults  []*osdtest.Faulty
	paces   []*paced
	changes []string
	run     context.Context
	cancel  context.CancelFunc
}

func newTrio(t *testing.T) *trio {
	x := &trio{f: fleet.New(nil)}
	for i := range uint64(3) {
		m := osdtest.NewMemory(uuid.New(), 64<<20)
		x.faults = append(x.faults, osdtest.NewFaulty(m))
		x.paces = append(x.paces, &paced{OSD: x.faults[i], write: 5 * time.Millisecond, read: time.Millisecond})
		d := x.f.Add(i+1, m.ID(), "node", "asd")
		d.Attach(x.paces[i])
		if err := d.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
	}
	x.run, x.cancel = context.WithCancel(ctx)
	go x.f.Watch(x.run, func(d *fleet.Disk, before, after fleet.Condition) {
		x.changes = append(x.changes, after.State.String())
	})
	return x
}

// end ends what was begun.
func (x *trio) end() {
	x.cancel()
	time.Sleep(2 * time.Second)
}

// work has every disk write and read, every 50 ms.
func (x *trio) work() {
	for _, d := range x.f.All() {
		go func() {
			for x.run.Err() == nil {
				if err := d.Apply(ctx, nil, []osd.Update{osdtest.Put("k", make([]byte, 64<<10), 1, 1)}); err == nil {
					_ = d.Read(ctx, []byte("k"), 0, make([]byte, 4096), make([]uint32, 1))
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
	}
}

// If a write does not come back within ten seconds, its disk does not answer: the disk gets
// nothing more, and whoever waits for a turn or an answer is released. The disk is well
// again soon after the write has come back.
func TestHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrio(t)
		x.work()
		time.Sleep(5 * time.Second)
		d := x.f.Disk(2)
		door := gate.New()
		rule := x.faults[1].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply, osdtest.Usage}, Gate: door})
		asked := make(chan error, 1)
		go func() {
			_, err := d.Usage(ctx)
			asked <- err
		}()
		began := time.Now()
		for d.Silent() == nil {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("it took %v to see it", took)
		}
		if err := <-asked; !errors.Is(err, fleet.ErrNotAnswering) {
			t.Errorf("a call under way: %v", err)
		}
		is := d.Condition()
		if is.State != fleet.Failing || is.Reason == "" || is.Since.Before(began) || is.Since.After(time.Now()) {
			t.Errorf("condition %+v", is)
		}
		for what, err := range map[string]error{
			"apply": d.Apply(ctx, nil, []osd.Update{osdtest.Delete("k")}), "missing": d.Missing(), "refresh": d.Refresh(ctx),
			"aside": d.ApplyAside(ctx, nil, []osd.Update{osdtest.Delete("k")}),
		} {
			if !errors.Is(err, fleet.ErrNotAnswering) || !errors.Is(err, fleet.ErrMissing) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if d.Attached() != nil || d.Answers().Err() == nil {
			t.Error("it is gone, or answers")
		}
		for _, p := range x.f.Disks() {
			if p.Usable() != (p.OSD != 2) {
				t.Errorf("disk %d usable: %v", p.OSD, p.Usable())
			}
		}
		door.Open()
		rule.Remove()
		began = time.Now()
		for d.Condition().State != fleet.Well {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(began); took > 8*time.Second || d.Answers().Err() != nil {
			t.Errorf("it took %v to be well again", took)
		}
		x.end()
	})
}

// A disk that is as slow as a fortieth of the others is slow, others are not, and it
// is well again when it is.
func TestSlow(t *testing.T) {
	for _, what := range []string{"writes", "reads"} {
		synctest.Test(t, func(t *testing.T) {
			x := newTrio(t)
			x.work()
			time.Sleep(5 * time.Second)
			if what == "writes" {
				x.paces[1].set(200*time.Millisecond, time.Millisecond)
			} else {
				x.paces[1].set(5*time.Millisecond, 200*time.Millisecond)
			}
			time.Sleep(4 * time.Second)
			for _, d := range x.f.All() {
				if is := d.Condition(); (is.State == fleet.Slow) != (d.Number == 2) || d.Silent() != nil {
					t.Errorf("%s: disk %d is %+v", what, d.Number, is)
				}
			}
			if p := x.f.Disk(2).Patience(4096); p > 20*time.Millisecond {
				t.Errorf("%s: a slow disk is given %v", what, p)
			}
			x.paces[1].set(5*time.Millisecond, time.Millisecond)
			time.Sleep(6 * time.Second)
			if is := x.f.Disk(2).Condition(); is.State != fleet.Well {
				t.Errorf("%s: afterwards: %+v", what, is)
			}
			x.end()
		})
	}
}

// All disks being slow, none is: nobody would be better.
func TestAllSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrio(t)
		for _, p := range x.paces {
			p.set(500*time.Millisecond, 500*time.Millisecond)
		}
		x.work()
		time.Sleep(20 * time.Second)
		if len(x.changes) > 0 {
			t.Errorf("%v", x.changes)
		}
		x.end()
	})
}

// While nobody looks, as the process stands still, no disk fails to answer.
func TestProcessStandsStill(t *testing.T) {
	f, d, faults, _, c := newDisk(t)
	door := gate.New()
	faults.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Gate: door})
	done := make(chan error, 1)
	go func() { done <- d.Apply(ctx, nil, []osd.Update{osdtest.Put("k", []byte("v"), 1, 1)}) }()
	if err := door.Arrived(ctx, 1); err != nil {
		t.Fatal(err)
	}
	c.t = c.t.Add(time.Hour)
	f.Judge(nil)
	if d.Silent() != nil {
		t.Error("it does not answer")
	}
	door.Open()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A disk whose writes fail, several in a row, is failing until one succeeds, and is
// read meanwhile.
func TestRefusesWrites(t *testing.T) {
	f, d, faults, _, _ := newDisk(t)
	put := func() error { return d.Apply(ctx, nil, []osd.Update{osdtest.Put("k", []byte("v"), 1, 1)}) }
	rule := faults.Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Err: errors.New("broken")})
	for range 3 {
		if put() == nil {
			t.Fatal("it succeeds")
		}
		f.Judge(nil)
	}
	if is := d.Condition(); is.State != fleet.Failing || d.Missing() != nil {
		t.Errorf("%+v, %v", is, d.Missing())
	}
	rule.Remove()
	if err := put(); err != nil {
		t.Fatal(err)
	}
	f.Judge(nil)
	if is := d.Condition(); is.State != fleet.Well {
		t.Errorf("%+v", is)
	}
}
