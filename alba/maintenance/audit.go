package maintenance

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
)

// Audit compares what the NSMs say with what is on the disks that are there. Its error
// tells the first ten fragments that an object names and its disk does not have, or that
// a disk has and no object names. Audit is for tests and offline checks: it keeps every
// key in memory, and misjudges what is written meanwhile.
func (m *Maintenance) Audit(ctx context.Context) error {
	a := &audit{fleet: m.opt.Fleet, named: make(map[manifest.Key]uint64)}
	return a.run(ctx, m.managers)
}

// audit is one comparison of the NSMs with the disks.
type audit struct {
	fleet *fleet.Fleet
	named map[manifest.Key]uint64 // the disk of each fragment that an object names
}

func (a *audit) run(ctx context.Context, of managers) error {
	var errs []error
	hosts, err := of.hosts(ctx)
	if err != nil {
		return err
	}
	err = of.each(ctx, hosts, func(host *nsm.Client, ns nsm.NamespaceInfo) error {
		for after := ""; ; {
			page, err := host.List(ctx, ns.Number, "", after, nsm.MaxPage, userfn.Consistent)
			if err != nil {
				return err
			}
			for i := range page {
				after = page[i].Name
				errs = append(errs, a.object(ctx, ns.Number, &page[i])...)
			}
			if len(page) < nsm.MaxPage {
				return nil
			}
		}
	})
	if err != nil {
		return err
	}
	for _, d := range a.fleet.All() {
		if d.Missing() != nil {
			continue
		}
		more, err := a.disk(ctx, d)
		if err != nil {
			return err
		}
		errs = append(errs, more...)
	}
	if len(errs) > 10 {
		errs = append(errs[:10], fmt.Errorf("and %d more", len(errs)-10))
	}
	return errors.Join(errs...)
}

// object looks for an object's fragments and enters them in named.
func (a *audit) object(ctx context.Context, ns uint64, o *nsm.Object) (errs []error) {
	for i, c := range o.Chunks {
		for j, f := range c.Fragments {
			if f.OSD == 0 {
				continue
			}
			k := manifest.Key{Namespace: ns, Object: o.ID, Chunk: uint32(i), Fragment: uint8(j), Version: f.Version}
			a.named[k] = f.OSD
			d := a.fleet.Disk(f.OSD)
			if d == nil || d.Missing() != nil {
				continue
			}
			info, err := d.Stat(ctx, [][]byte{k.Append(nil)})
			switch {
			case err != nil:
				errs = append(errs, err)
			case !info[0].Found:
				errs = append(errs, fmt.Errorf("object %s of namespace %d: fragment %v is not on disk %d", o.Name, ns, k, f.OSD))
			case info[0].Size != c.Length:
				errs = append(errs, fmt.Errorf("object %s of namespace %d: fragment %v has %d bytes on disk %d, not %d", o.Name, ns, k, info[0].Size, f.OSD, c.Length))
			}
		}
	}
	return errs
}

// disk looks for fragments that no object names.
func (a *audit) disk(ctx context.Context, d *fleet.Disk) (errs []error, err error) {
	for first := []byte(nil); ; {
		page, err := d.Range(ctx, first, nil, collectPage)
		if err != nil || len(page) == 0 {
			return errs, err
		}
		for _, info := range page {
			if k, err := manifest.ParseRecoveryKey(info.Key); err == nil {
				if !k.Inline() && a.named[k] != d.Number {
					errs = append(errs, fmt.Errorf("disk %d has the recovery record of fragment %v, and no object names it", d.Number, k))
				}
				continue
			}
			k, err := manifest.ParseKey(info.Key)
			if err != nil {
				errs = append(errs, fmt.Errorf("disk %d: key %x: %w", d.Number, info.Key, err))
			} else if a.named[k] != d.Number {
				errs = append(errs, fmt.Errorf("disk %d has fragment %v, and no object names it", d.Number, k))
			}
		}
		first = append(page[len(page)-1].Key, 0)
	}
}
