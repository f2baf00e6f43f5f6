package maintenance

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"openvstorage/alba/client"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/osd"
)

var errAbsent = errors.New("the disk does not have it")

// FindAbsent looks for fragments that an object names and that its disk, which
// is there, does not have: a disk that was damaged may have forgotten them, and
// nobody reads parity until it is too late. What is found is repaired.
func (m *Maintenance) FindAbsent(ctx context.Context) error {
	hosts, err := m.opt.ABM.Hosts(ctx, nsm.Consistent)
	if err != nil {
		return err
	}
	return m.each(ctx, hosts, func(host *nsm.Client, ns nsm.NamespaceInfo) error {
		for after := ""; ; {
			page, err := host.List(ctx, ns.Number, "", after, nsm.MaxPage, nsm.Consistent)
			if err != nil {
				return err
			}
			found, err := m.reportAbsent(ctx, ns.Number, page)
			if err == nil && found {
				err = m.Repair(ctx)
			}
			if err != nil || len(page) < nsm.MaxPage {
				return err
			}
			after = page[len(page)-1].Name
		}
	})
}

// reportAbsent asks each disk once for all its fragments of some objects, and
// reports those that it does not have.
func (m *Maintenance) reportAbsent(ctx context.Context, ns uint64, page []nsm.Object) (found bool, err error) {
	asked := make(map[uint64][]client.Bad) // by disk
	keys := make(map[uint64][][]byte)
	for i := range page {
		o := &page[i]
		for j, c := range o.Chunks {
			for n, f := range c.Fragments {
				if f.OSD == 0 {
					continue
				}
				k := manifest.Key{Namespace: ns, Object: o.ID, Chunk: uint32(j), Fragment: uint8(n), Version: f.Version}
				keys[f.OSD] = append(keys[f.OSD], k.Append(nil))
				asked[f.OSD] = append(asked[f.OSD], client.Bad{Namespace: ns, Name: o.Name, Object: o.ID, Chunk: j, Fragment: n, OSD: f.OSD, Err: errAbsent})
			}
		}
	}
	for number, list := range asked {
		d := m.opt.Fleet.Disk(number)
		if d == nil || d.Missing() != nil {
			continue
		}
		for some := range slices.Chunk(keys[number], osd.RangeMax) {
			infos, err := d.Stat(ctx, some)
			if err != nil {
				return found, fmt.Errorf("disk %d (%s): %w", number, d.Place, err)
			}
			for i, info := range infos {
				if b := list[i]; !info.Found {
					found = true
					m.opt.Logger.Warn("a fragment is not on its disk", "object", b.Name, "chunk", b.Chunk, "fragment", b.Fragment, "disk", number)
					m.Bad(b)
				}
			}
			list = list[len(some):]
		}
	}
	return found, nil
}
