package maintenance

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"

	"openvstorage/internal/bell"
)

var errAbsent = errors.New("the disk does not have it")

// absentSearch looks for fragments that an object names and that their disk, which is
// there, does not have. A disk that was damaged may have forgotten them, and nobody reads
// parity before it is needed.
type absentSearch struct {
	managers
	fleet  *fleet.Fleet
	log    *slog.Logger
	report func(client.Bad) bool
	repair func(ctx context.Context) error // what was reported

	now bell.Bell // rung when the search is not to wait for its time
}

// run goes through all namespaces, and has repaired what it finds. A disk or a namespace
// that fails does not keep it from the others.
func (s *absentSearch) run(ctx context.Context) error {
	hosts, err := s.hosts(ctx)
	if err != nil {
		return err
	}
	var errs []error
	failed := make(map[uint64]bool) // disks; each error is told once
	err = s.each(ctx, hosts, func(host *nsm.Client, ns nsm.NamespaceInfo) error {
		if err := s.space(ctx, host, ns.Number, failed); err != nil {
			errs = append(errs, ignoreGone(err))
		}
		return ctx.Err()
	})
	return errors.Join(append(errs, err)...)
}

// space goes through the objects of a namespace.
func (s *absentSearch) space(ctx context.Context, host *nsm.Client, ns uint64, failed map[uint64]bool) error {
	var errs []error
	for after := ""; ; {
		page, err := host.List(ctx, ns, "", after, nsm.MaxPage, userfn.Consistent)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		found, err := s.page(ctx, ns, page, failed)
		errs = append(errs, err)
		if found {
			errs = append(errs, s.repair(ctx))
		}
		if len(page) < nsm.MaxPage || ctx.Err() != nil {
			return errors.Join(errs...)
		}
		after = page[len(page)-1].Name
	}
}

// page asks each disk once for all its fragments of some objects, and reports those that
// the disk does not have. It asks no disk of failed, and adds those that fail.
func (s *absentSearch) page(ctx context.Context, ns uint64, page []nsm.Object, failed map[uint64]bool) (found bool, err error) {
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
		d := s.fleet.Disk(number)
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
					s.log.Warn("a fragment is not on its disk", "object", b.Name, "chunk", b.Chunk, "fragment", b.Fragment, "disk", number)
					s.report(b)
				}
			}
			list = list[len(some):]
		}
	}
	return found, err
}
