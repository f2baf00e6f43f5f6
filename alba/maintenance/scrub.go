package maintenance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
	"openvstorage/alba/maintenance/pace"
	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"

	"openvstorage/internal/bell"
)

// The scrub reads every fragment back, on each disk in order of key. A round over a disk
// takes a time that is set. How far it is outlives the process (see scrubstate.go).
//
// The pace goes by bytes: a disk is read so fast that what is left of the round takes
// what is left of the time. A disk whose round fell behind, because nothing ran for a
// while, is read faster, up to scrubCatchUp times the pace of a whole round.

// ScrubTime is how long a round takes unless Options say otherwise.
const ScrubTime = 14 * 24 * time.Hour

const (
	scrubCatchUp = 8
	// scrubPage and scrubBytes bound what is read at once.
	scrubPage  = 64
	scrubBytes = 16 << 20
	// scrubBurst bounds the bytes that a disk is owed after it could not be read.
	scrubBurst = 64 << 20
	// scrubRest is how long a disk is left alone that could not be read.
	scrubRest = time.Minute
	// scrubPatience is how long Close waits for reads that are under way.
	scrubPatience = 5 * time.Second
	// heldEvery is how often the managers are asked how much disks hold.
	heldEvery = time.Minute
)

var errUnreported = errors.New("too many fragments wait for a repair; this one is found again")

// ScrubProgress is how far the scrub of a disk is.
type ScrubProgress struct {
	Began     time.Time // this round
	Ended     time.Time // the last whole round, zero: there was none
	Resting   bool      // this round has ended, and the next begins when its time is over
	Bytes     uint64    // read back in this round
	Fragments uint64
	Bad       uint64 // of those
}

// scrubber reads disks back and reports what is bad.
type scrubber struct {
	managers
	opt    *Options
	tried  *attempts
	pace   *pace.Pace
	report func(client.Bad) bool // whether there was room

	state scrubState
	steps sync.WaitGroup // under way, one of each disk at most
	ended bell.Bell      // rung at the end of each step

	fragments, bytes atomic.Uint64 // read back
}

// begin goes on with what was written down, and begins with the disks that it does not
// name.
func (m *scrubber) begin() {
	m.state.load(m.opt)
	for _, d := range m.opt.Fleet.All() {
		m.state.disk(d.UUID, m.opt.Now())
	}
}

// end waits for the steps under way, for scrubPatience at most, and writes down how far
// the scrub is.
func (m *scrubber) end() {
	read := make(chan struct{})
	go func() {
		defer close(read)
		m.steps.Wait()
	}()
	select {
	case <-read:
	case <-time.After(scrubPatience):
		m.opt.Logger.Warn("a disk does not answer the scrub; it is not waited for")
	}
	m.save()
}

// some reads up to n fragments of each disk back at once, whatever the pace. A disk that
// fails does not keep the others from being read.
func (m *scrubber) some(ctx context.Context, n int) error {
	var errs []error
	for _, d := range m.opt.Fleet.All() {
		if d.Missing() != nil || ctx.Err() != nil {
			continue
		}
		s := m.state.disk(d.UUID, m.opt.Now())
		s.turn.Lock()
		m.state.begin(s, m.opt.Now())
		_, err := m.read(ctx, d, s, n, 1<<62)
		s.turn.Unlock()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// run reads all disks back at their pace until ctx ends.
func (m *scrubber) run(ctx context.Context) {
	tick := time.NewTicker(m.opt.Tick)
	defer tick.Stop()
	var asked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.ended.Rung():
			if m.state.saveDue(m.opt.Now(), true) {
				m.save()
			}
			continue
		case <-tick.C:
		}
		if now := m.opt.Now(); asked.IsZero() || now.Sub(asked) >= heldEvery {
			asked = now
			m.tried.try(ctx, "ask how much the disks hold", m.askHeld)
		}
		for _, d := range m.opt.Fleet.All() {
			if d.Missing() == nil {
				m.due(ctx, d)
			}
		}
		if m.state.saveDue(m.opt.Now(), false) {
			m.save()
		}
	}
}

// due reads what is due of a disk in the background: a disk that does not answer holds up
// no other.
func (m *scrubber) due(ctx context.Context, d *fleet.Disk) {
	now := m.opt.Now()
	s := m.state.disk(d.UUID, now)
	if !s.turn.TryLock() {
		return // it has not ended since the last tick
	}
	if !m.state.due(s, now, m.opt.Scrub, m.state.total(d)) {
		s.turn.Unlock()
		return
	}
	m.steps.Go(func() {
		defer m.ended.Ring()
		defer s.turn.Unlock()
		m.tried.try(ctx, "scrub", func(ctx context.Context) error {
			for begin := time.Now(); s.credit > 0 && time.Since(begin) < m.opt.Tick; {
				read, err := m.read(ctx, d, s, scrubPage, min(int64(s.credit), scrubBytes))
				s.credit -= float64(read)
				if err == nil && read > 0 {
					err = m.pace.Wait(ctx, uint64(read))
				}
				if err != nil {
					s.rest = m.opt.Now().Add(scrubRest) // what it says is logged, not each second
				}
				if err != nil || s.Resting || ctx.Err() != nil {
					return err
				}
			}
			return nil
		})
	})
}

// askHeld asks the NSM hosts how much disks hold.
func (m *scrubber) askHeld(ctx context.Context) error {
	held, err := m.held(ctx)
	if err == nil {
		m.state.hold(held)
	}
	return err
}

// read reads fragments of a disk back, from where its scrub is: up to n of them, or up to
// so many bytes, but one at least. The cursor passes over bad fragments only once all of
// them wait for a repair, because the scrub does not come back for weeks. s.turn is held.
func (m *scrubber) read(ctx context.Context, d *fleet.Disk, s *scrubDisk, n int, bytes int64) (read int64, err error) {
	first := append(append([]byte(nil), s.cursor...), 0)
	if s.cursor == nil {
		first = nil
	}
	page, err := d.Range(ctx, first, nil, min(n, osd.RangeMax))
	if err != nil {
		return 0, err
	}
	count := 0
	for _, info := range page {
		if count > 0 && read+int64(info.Size) > bytes {
			break
		}
		read += int64(info.Size)
		count++
	}
	if count == 0 {
		m.state.end(s, m.opt.Now())
		s.credit = 0
		return 0, nil
	}
	bad, next, err := d.Verify(ctx, s.cursor, count)
	if err != nil {
		return 0, err
	}
	m.fragments.Add(uint64(count))
	m.bytes.Add(uint64(read))
	var errs []error
	for _, b := range bad {
		errs = append(errs, m.reportKey(ctx, d, b))
	}
	if err := errors.Join(errs...); err != nil {
		return read, err
	}
	m.state.pass(s, next, uint64(count), uint64(read), uint64(len(bad)))
	if next == nil {
		m.state.end(s, m.opt.Now())
		m.opt.Logger.Info("a disk was read back whole", "disk", d.Number, "bytes", s.Bytes, "fragments", s.Fragments, "bad", s.Bad, "began", s.Began)
	}
	return read, nil
}

// reportKey finds the object of a bad fragment and reports the fragment. A value whose
// key is no fragment's, or that no object names, needs no repair.
func (m *scrubber) reportKey(ctx context.Context, d *fleet.Disk, b osd.Bad) error {
	k, err := manifest.ParseKey(b.Key)
	if err != nil {
		m.opt.Logger.Warn("scrub found a bad value that is no fragment", "disk", d.Number, "place", d.Place, "err", fmt.Errorf("%w: %w", err, b.Err))
		return nil
	}
	host, err := m.hostOf(ctx, k.Namespace)
	if err != nil || host == nil {
		return err
	}
	o, err := lookup(ctx, host, k)
	if err != nil || !names(o, k, d.Number) {
		return err
	}
	m.opt.Logger.Warn("scrub found a bad fragment", "object", o.Name, "fragment", k, "disk", d.Number, "err", b.Err)
	if !m.report(client.Bad{Namespace: k.Namespace, Name: o.Name, Object: k.Object, Chunk: int(k.Chunk), Fragment: int(k.Fragment), OSD: d.Number, Err: b.Err}) {
		return fmt.Errorf("disk %d (%s): object %s: %w", d.Number, d.Place, o.Name, errUnreported)
	}
	return nil
}
