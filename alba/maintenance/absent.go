package maintenance

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

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

	turn    sync.Mutex     // one pass at a time
	budget  int            // objects that this pass may still give records
	copies  map[uint64]int // of the records of inline objects, by namespace, in this pass
	written atomic.Uint64  // records

	now bell.Bell // rung when the search is not to wait for its time
}

// run goes through all namespaces, and has repaired what it finds. A disk or a namespace
// that fails does not keep it from the others.
func (s *absentSearch) run(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.budget, s.copies = recordsMax, nil
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
		lack := make(lacking)
		found, err := s.page(ctx, ns, page, failed, lack)
		errs = append(errs, err)
		if s.budget > 0 {
			errs = append(errs, s.inline(ctx, ns, page, lack), s.write(ctx, host, ns, lack))
		}
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
// the disk does not have. Those that it has without their record are added to lack. It asks no
// disk of failed, and adds those that fail.
func (s *absentSearch) page(ctx context.Context, ns uint64, page []nsm.Object, failed map[uint64]bool, lack lacking) (found bool, err error) {
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
				keys[f.OSD] = append(keys[f.OSD], k.Append(nil), k.AppendRecovery(nil))
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
			for i := 0; i < len(infos); i += 2 { // RangeMax is even
				info, b := infos[i], list[i/2]
				if info.Found && !infos[i+1].Found {
					lack.add(b.Name, slot{b.Chunk, b.Fragment, number}, info)
				}
				if !info.Found {
					found = true
					s.log.Warn("a fragment is not on its disk", "object", b.Name, "chunk", b.Chunk, "fragment", b.Fragment, "disk", number)
					s.report(b)
				}
			}
			list = list[len(some)/2:]
		}
	}
	return found, err
}
