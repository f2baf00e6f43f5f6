package maintenance

import (
	"context"
	"errors"
	"slices"

	"openvstorage/alba/client"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
)

var errAbsent = errors.New("the disk does not have it")

// FindAbsent looks for fragments that an object names and that its disk, which
// is there, does not have: a disk that was damaged may have forgotten them, and
// nobody reads parity until it is too late. What is found is repaired.
// A disk or a namespace that fails leaves the others to be looked at.
func (m *Maintenance) FindAbsent(ctx context.Context) error {
	hosts, err := m.opt.ABM.Hosts(ctx, userfn.Consistent)
	if err != nil {
		return err
	}
	var errs []error
	failed := make(map[uint64]bool) // disks, said once
	err = m.each(ctx, hosts, func(host *nsm.Client, ns nsm.NamespaceInfo) error {
		if err := m.findAbsent(ctx, host, ns.Number, failed); err != nil {
			errs = append(errs, ignoreGone(err))
		}
		return ctx.Err()
	})
	return errors.Join(append(errs, err)...)
}

func (m *Maintenance) findAbsent(ctx context.Context, host *nsm.Client, ns uint64, failed map[uint64]bool) error {
	var errs []error
	for after := ""; ; {
		page, err := host.List(ctx, ns, "", after, nsm.MaxPage, userfn.Consistent)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		found, err := m.reportAbsent(ctx, ns, page, failed)
		errs = append(errs, err)
		if found {
			errs = append(errs, m.Repair(ctx))
		}
		if len(page) < nsm.MaxPage || ctx.Err() != nil {
			return errors.Join(errs...)
		}
		after = page[len(page)-1].Name
	}
}

// reportAbsent asks each disk once for all its fragments of some objects, and
// reports those that it does not have.
func (m *Maintenance) reportAbsent(ctx context.Context, ns uint64, page []nsm.Object, failed map[uint64]bool) (found bool, err error) {
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
		if d == nil || d.Missing() != nil || failed[number] {
			continue
		}
		for some := range slices.Chunk(keys[number], osd.RangeMax) {
			infos, e := d.Stat(ctx, some)
			if e != nil {
				failed[number] = true
				err = errors.Join(err, e)
				break
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
	return found, err
}
