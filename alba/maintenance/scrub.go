package maintenance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
)

// The scrub reads every fragment back, disk by disk in order of key, a round in a
// time that is set. Where it is outlives the process (see scrubstate.go).
//
// It goes by bytes: a disk is read at the pace at which what is left of the round
// takes what is left of the time. One that fell behind, as nothing ran for a while,
// is read faster, up to scrubCatchUp times the pace of a whole round.

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

// ScrubOf is how far the scrub of a disk is; ok is false before it has begun.
func (m *Maintenance) ScrubOf(number uint64) (p ScrubProgress, ok bool) {
	d := m.opt.Fleet.Disk(number)
	if d == nil {
		return p, false
	}
	m.scrubs.mu.Lock()
	defer m.scrubs.mu.Unlock()
	if s := m.scrubs.disks[d.UUID]; s != nil {
		return s.ScrubProgress, true
	}
	return p, false
}

// ScrubTime is in what time a disk is read back whole, negative: never.
func (m *Maintenance) ScrubTime() time.Duration { return m.opt.Scrub }

// ScrubSome reads up to n fragments of each disk back, at once, and has repaired
// what is bad. A disk that fails leaves the others to be read.
func (m *Maintenance) ScrubSome(ctx context.Context, n int) error {
	var errs []error
	for _, d := range m.opt.Fleet.All() {
		if d.Missing() != nil || ctx.Err() != nil {
			continue
		}
		s := m.scrubs.disk(d.UUID, m.opt.Now())
		s.turn.Lock()
		m.scrubs.begin(s, m.opt.Now())
		_, err := m.scrub(ctx, d, s, n, 1<<62)
		s.turn.Unlock()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// scrubAll reads all disks back at their pace until ctx ends.
func (m *Maintenance) scrubAll(ctx context.Context) {
	tick := time.NewTicker(m.opt.Tick)
	defer tick.Stop()
	var asked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.scrubs.stepped:
			if m.scrubs.saveDue(m.opt.Now(), true) {
				m.keepScrub()
			}
			continue
		case <-tick.C:
		}
		if now := m.opt.Now(); asked.IsZero() || now.Sub(asked) >= heldEvery {
			asked = now
			m.try(ctx, "ask how much the disks hold", m.askHeld)
		}
		for _, d := range m.opt.Fleet.All() {
			if d.Missing() == nil {
				m.scrubDue(ctx, d)
			}
		}
		if m.scrubs.saveDue(m.opt.Now(), false) {
			m.keepScrub()
		}
	}
}

// scrubDue reads what is due of a disk, beside the others: a disk that does not
// answer holds nobody up but itself.
func (m *Maintenance) scrubDue(ctx context.Context, d *fleet.Disk) {
	now := m.opt.Now()
	s := m.scrubs.disk(d.UUID, now)
	if !s.turn.TryLock() {
		return // it has not ended since the last tick
	}
	if !m.scrubs.due(s, now, m.opt.Scrub, m.scrubs.total(d)) {
		s.turn.Unlock()
		return
	}
	m.scrubs.steps.Go(func() {
		defer m.scrubs.step()
		defer s.turn.Unlock()
		m.try(ctx, "scrub", func(ctx context.Context) error {
			for begin := time.Now(); s.credit > 0 && time.Since(begin) < m.opt.Tick; {
				read, err := m.scrub(ctx, d, s, scrubPage, min(int64(s.credit), scrubBytes))
				s.credit -= float64(read)
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

// step tells that one has ended.
func (s *scrubs) step() {
	select {
	case s.stepped <- struct{}{}:
	default:
	}
}

// askHeld asks the NSM hosts how much disks hold.
func (m *Maintenance) askHeld(ctx context.Context) error {
	held, err := m.heldBytes(ctx)
	if err == nil {
		m.scrubs.mu.Lock()
		m.scrubs.held = held
		m.scrubs.mu.Unlock()
	}
	return err
}

// scrub reads fragments of a disk back, from where it was: up to n, or up to so
// many bytes, but one at least. The cursor passes over what was found bad only when
// all of it waits for a repair: it comes here again after weeks. s.turn is held.
func (m *Maintenance) scrub(ctx context.Context, d *fleet.Disk, s *scrubDisk, n int, bytes int64) (read int64, err error) {
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
		m.scrubs.end(s, m.opt.Now())
		s.credit = 0
		return 0, nil
	}
	bad, next, err := d.Verify(ctx, s.cursor, count)
	if err != nil {
		return 0, err
	}
	m.stats.scrubbed.Add(uint64(count))
	m.stats.scrubbedBytes.Add(uint64(read))
	var errs []error
	for _, b := range bad {
		errs = append(errs, m.reportKey(ctx, d, b))
	}
	if err := errors.Join(errs...); err != nil {
		return read, err
	}
	m.scrubs.pass(s, next, uint64(count), uint64(read), uint64(len(bad)))
	if next == nil {
		m.scrubs.end(s, m.opt.Now())
		m.opt.Logger.Info("a disk was read back whole", "disk", d.Number, "bytes", s.Bytes, "fragments", s.Fragments, "bad", s.Bad, "began", s.Began)
	}
	return read, nil
}

// reportKey finds the object of a bad fragment and has it repaired. What is under a
// key that is not ours, or is named by no object, is nothing to repair.
func (m *Maintenance) reportKey(ctx context.Context, d *fleet.Disk, b osd.Bad) error {
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
