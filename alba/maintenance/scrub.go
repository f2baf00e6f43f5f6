package maintenance

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
)

var errUnreported = errors.New("too many fragments wait for a repair; this one is found again")

// ScrubSome reads up to n fragments of each disk back, and has repaired what is
// bad. A disk that fails leaves the others to be read.
func (m *Maintenance) ScrubSome(ctx context.Context, n int) error {
	var errs []error
	for _, d := range m.opt.Fleet.All() {
		if d.Missing() == nil && ctx.Err() == nil {
			errs = append(errs, m.scrub(ctx, d, n))
		}
	}
	return errors.Join(errs...)
}

// scrub reads fragments of a disk back. The cursor passes over what was found only
// when all of it waits for a repair: it comes here again after months.
func (m *Maintenance) scrub(ctx context.Context, d *fleet.Disk, n int) error {
	m.mu.Lock()
	after := m.cursor[d.Number]
	m.mu.Unlock()
	bad, next, err := d.Verify(ctx, after, n)
	if err != nil {
		return err
	}
	m.stats.scrubbed.Add(uint64(n))
	var errs []error
	for _, b := range bad {
		errs = append(errs, m.reportKey(ctx, d, b))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	m.mu.Lock()
	m.cursor[d.Number] = next
	m.mu.Unlock()
	return nil
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
