package volumetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/volumedriver"

	"github.com/google/uuid"
)

// Unknown does random operations on several vDisks while many calls on registry and
// backend are not answered, with kills, power cuts and restarts in between. It demands:
//
//   - An operation that was reported as done has happened.
//   - An operation that was reported as failed has not happened.
//   - An operation of unknown outcome has happened or not, and once one of the two was
//     seen it stays so.
//   - After each start all vDisks open. A kill loses nothing that was acknowledged, a
//     power cut nothing that was flushed (P1).
func Unknown(t *testing.T, open Opener, rounds, steps int) {
	rng := rand.New(rand.NewPCG(Seed(t), 4))
	fs := crashdisk.New()
	s, err := open(fs)
	if err != nil {
		t.Fatal(err)
	}
	p := &pool{t: t, rng: rng, host: s.Host, gone: map[uuid.UUID]bool{}}
	for round := range rounds {
		s.Doubt(true)
		for range steps {
			p.step()
		}
		s.Doubt(rng.IntN(2) == 0) // the next process has no part in it
		cut := false
		var image *crashdisk.FS
		switch rng.IntN(4) {
		case 0: // the outcomes become known, and then it is closed
			s.Doubt(false)
			p.know()
			image = fs
		case 1:
			image, cut = fs.Crash(rng, kinds[rng.IntN(len(kinds))]), true
		default:
			image = fs.Kill()
		}
		s.Doubt(false)
		if err := s.Close(); err != nil && image == fs {
			t.Fatalf("round %d: close: %v", round, err)
		}
		fs = image
		if s, err = open(fs); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		p.host = s.Host
		p.opened(cut)
	}
	t.Logf("%d operations: %d done, %d failed, %d unknown; %d vDisks", p.done+p.failed+p.unknown, p.done, p.failed, p.unknown, len(p.disks))
	if p.unknown == 0 {
		t.Error("no outcome was unknown")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// poolSize is the size of the vDisks, and poolMax how many there are at most.
const (
	poolSize = 256 << 10
	poolMax  = 6
)

// pool is the model of several vDisks.
type pool struct {
	t     *testing.T
	rng   *rand.Rand
	host  *volumedriver.Host
	disks []*poolDisk
	gone  map[uuid.UUID]bool // ids of vDisks that were deleted
	n     int

	done, failed, unknown int
}

// poolDisk is one vDisk of the model.
type poolDisk struct {
	id    uuid.UUID
	names []string // its name, or while that is not known all that it may have
	maybe bool     // whether it is there is not known
	hist  *history
	doubt map[string]bool // snapshots of which it is not known whether they are there
}

// outcome counts an operation, and returns what is known of it by its error.
func (p *pool) outcome(what string, err error) (happened, known bool) {
	switch {
	case err == nil:
		p.done++
		return true, true
	case errors.Is(err, volumedriver.ErrUnknownOutcome):
		p.unknown++
		return false, false
	case errors.Is(err, volumedriver.ErrHalted):
		p.t.Fatalf("%s: %v", what, err)
	}
	p.failed++
	return false, true
}

func (p *pool) fresh(prefix string) string {
	p.n++
	return fmt.Sprintf("%s%d", prefix, p.n)
}

// step does one operation.
func (p *pool) step() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if len(p.disks) == 0 || p.rng.IntN(100) < 8 && len(p.disks) < poolMax {
		p.create(ctx)
		return
	}
	d := p.disks[p.rng.IntN(len(p.disks))]
	name := d.names[p.rng.IntN(len(d.names))]
	switch k := p.rng.IntN(100); {
	case k < 40:
		p.write(ctx, d, name)
	case k < 46:
		p.flush(ctx, d, name)
	case k < 52:
		p.rename(ctx, d, name)
	case k < 58:
		p.remove(ctx, d, name)
	case k < 66:
		p.snapshot(ctx, d, name)
	case k < 74:
		p.removeSnapshot(ctx, d, name)
	case k < 80:
		p.rollback(ctx, d, name)
	case k < 86 && len(p.disks) < poolMax:
		p.clone(ctx, d, name)
	case k < 90:
		p.resize(ctx, d, name)
	case k < 94:
		_ = p.host.Sync(ctx, name, nil)
	default:
		_ = p.host.Checkpoint(ctx, name) // and collection behind it
	}
	p.learn(d)
}

func (p *pool) create(ctx context.Context) {
	name := p.fresh("v")
	info, err := p.host.Create(ctx, name, poolSize)
	if happened, known := p.outcome("create", err); happened || !known {
		if info.ID == uuid.Nil {
			p.t.Fatalf("vDisk %s: something has begun, and nobody is told what: %v", name, err)
		}
		p.disks = append(p.disks, &poolDisk{id: info.ID, names: []string{name}, maybe: !known, hist: newHistory(poolSize), doubt: map[string]bool{}})
	}
}

// use opens a vDisk. That may fail only if the vDisk is in doubt, or could not be opened
// yet because registry or backend did not answer; then use returns nil.
func (p *pool) use(ctx context.Context, d *poolDisk, name string) (device.Device, func()) {
	dev, release, err := p.host.OpenDevice(ctx, name)
	if err != nil {
		if !d.maybe && len(d.names) == 1 && !errors.Is(err, volumedriver.ErrBusy) {
			p.t.Fatalf("vDisk %s cannot be opened: %v", name, err)
		}
		return nil, nil
	}
	return dev.(device.Device), release
}

func (p *pool) write(ctx context.Context, d *poolDisk, name string) {
	dev, release := p.use(ctx, d, name)
	if dev == nil {
		return
	}
	defer release()
	off := p.rng.Int64N(dev.Size()/4096) * 4096
	n := min(4096*(1+p.rng.Int64N(8)), dev.Size()-off)
	p.n++
	data := bytes.Repeat([]byte(fmt.Sprintf("%07d.", p.n)), int(n)/8)
	if err := dev.Write(ctx, []device.Span{{Off: off, Data: data}}); err != nil {
		p.t.Fatalf("write to vDisk %s: %v", name, err)
	}
	p.acknowledged(d)
	d.hist.addRange(off, n, func(s *modelState, from, to int64) { copy(s.data[from:to], data[from-off:]) })
}

func (p *pool) flush(ctx context.Context, d *poolDisk, name string) {
	dev, release := p.use(ctx, d, name)
	if dev == nil {
		return
	}
	defer release()
	if err := dev.Flush(ctx); err != nil {
		p.t.Fatalf("flush of vDisk %s: %v", name, err)
	}
	p.acknowledged(d)
	d.hist.flushed = len(d.hist.ops)
}

// acknowledged notes that an operation on the vDisk has succeeded: it is there, and must
// stay.
func (p *pool) acknowledged(d *poolDisk) { d.maybe = false }

func (p *pool) rename(ctx context.Context, d *poolDisk, name string) {
	to := p.fresh("r")
	switch happened, known := p.outcome("rename", p.host.Rename(ctx, name, to)); {
	case happened:
		p.acknowledged(d)
		d.names = []string{to}
	case !known:
		d.names = append(d.names, to)
	}
}

func (p *pool) remove(ctx context.Context, d *poolDisk, name string) {
	switch happened, known := p.outcome("delete", p.host.Delete(ctx, name)); {
	case happened:
		p.forget(d)
	case !known:
		d.maybe = true
	}
}

func (p *pool) forget(d *poolDisk) {
	p.gone[d.id] = true
	p.disks = slices.DeleteFunc(p.disks, func(o *poolDisk) bool { return o == d })
}

func (p *pool) snapshot(ctx context.Context, d *poolDisk, name string) {
	snap := p.fresh("s")
	_, err := p.host.SnapshotCreate(ctx, name, snap)
	if happened, known := p.outcome("snapshot", err); !happened && known {
		return
	}
	p.acknowledged(d)
	d.hist.add(func(s *modelState) { s.snaps[snap] = bytes.Clone(s.data) })
	if err == nil {
		d.hist.flushed = len(d.hist.ops)
	}
}

// someSnapshot draws from the snapshots that the model has.
func (p *pool) someSnapshot(d *poolDisk) string {
	var names []string
	for name := range d.hist.after(len(d.hist.ops)).snaps {
		if !d.hist.deleted[name] {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return names[p.rng.IntN(len(names))]
}

func (p *pool) removeSnapshot(ctx context.Context, d *poolDisk, name string) {
	snap := p.someSnapshot(d)
	if snap == "" {
		return
	}
	switch happened, known := p.outcome("delete of a snapshot", p.host.SnapshotDelete(ctx, name, snap)); {
	case happened:
		d.hist.deleted[snap] = true
		delete(d.doubt, snap)
	case !known:
		d.doubt[snap] = true
	}
}

func (p *pool) rollback(ctx context.Context, d *poolDisk, name string) {
	snap := p.someSnapshot(d)
	if snap == "" {
		return
	}
	if happened, _ := p.outcome("rollback", p.host.Rollback(ctx, name, snap)); !happened {
		return
	}
	p.acknowledged(d)
	delete(d.doubt, snap)
	d.hist.add(func(s *modelState) { clear(s.data[copy(s.data, s.snaps[snap]):]) })
	d.hist.flushed = len(d.hist.ops)
}

func (p *pool) clone(ctx context.Context, d *poolDisk, name string) {
	snap, dst := p.someSnapshot(d), p.fresh("c")
	info, err := p.host.Clone(ctx, name, snap, dst, nil)
	happened, known := p.outcome("clone", err)
	if !happened && known {
		return
	}
	if info.ID == uuid.Nil {
		p.t.Fatalf("clone of %s: something has begun, and nobody is told what: %v", name, err)
	}
	p.acknowledged(d)
	s := d.hist.after(len(d.hist.ops))
	base := bytes.Clone(s.data)
	if snap != "" {
		base = bytes.Clone(s.snaps[snap])
		delete(d.doubt, snap)
	}
	if snap == "" {
		d.hist.flushed = len(d.hist.ops) // all of it is in the backend
	}
	hist := newHistory(len(base))
	hist.base = base
	p.disks = append(p.disks, &poolDisk{id: info.ID, names: []string{dst}, maybe: !known, hist: hist, doubt: map[string]bool{}})
}

func (p *pool) resize(ctx context.Context, d *poolDisk, name string) {
	const more = 64 << 10
	size := len(d.hist.after(len(d.hist.ops)).data) + more
	if happened, _ := p.outcome("resize", p.host.Resize(ctx, name, uint64(size))); !happened {
		return
	}
	p.acknowledged(d)
	d.hist.add(func(s *modelState) { s.data = append(s.data, make([]byte, more)...) })
	d.hist.flushed = len(d.hist.ops)
}
