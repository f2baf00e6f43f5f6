package maintenance

import (
	"context"
	"fmt"

	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
)

// ScrubSome reads up to n fragments of each disk back, and repairs what is bad.
func (m *Maintenance) ScrubSome(ctx context.Context, n int) error {
	for _, d := range m.opt.Fleet.All() {
		if d.Missing() != nil {
			continue
		}
		m.mu.Lock()
		after := m.cursor[d.Number]
		m.mu.Unlock()
		bad, next, err := d.Verify(ctx, after, n)
		if err != nil {
			return err
		}
		m.mu.Lock()
		m.cursor[d.Number] = next
		m.mu.Unlock()
		m.stats.scrubbed.Add(uint64(n))
		for _, b := range bad {
			if err := m.reportKey(ctx, d, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// reportKey finds the object of a bad fragment and has it repaired.
func (m *Maintenance) reportKey(ctx context.Context, d *fleet.Disk, b osd.Bad) error {
	k, err := manifest.ParseKey(b.Key)
	if err != nil {
		return fmt.Errorf("disk %d (%s): %w: %w", d.Number, d.Place, err, b.Err)
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
	m.Bad(client.Bad{Namespace: k.Namespace, Name: o.Name, Object: k.Object, Chunk: int(k.Chunk), Fragment: int(k.Fragment), OSD: d.Number, Err: b.Err})
	return nil
}
