package maintenance

import (
	"context"
	"errors"
	"slices"
	"time"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
)

// An object that the disks do not allow to be repaired is looked at again when
// they change. Should something else have changed, a namespace's are also looked at
// now and then: after hopeFactor times what a look takes, so that looking in vain
// takes no more than a twentieth of the time. Looks shorter than hopeMin are not
// worth to be saved.
const (
	hopeFactor = 20
	hopeMin    = 100 * time.Millisecond
)

// hope is a part of a namespace that may be beyond the disks.
type hope struct {
	ns     uint64
	bucket nsm.Bucket // or
	disk   uint64
}

// hopeless is what was found of one.
type hopeless struct {
	sight string // the disks as they were
	until time.Time
	tally
}

// tally counts the objects that a look left as they were.
type tally struct {
	noPlace    uint64 // no disk can take what they lack
	unreadable uint64 // too few of their fragments are on disks that are there
	waiting    uint64 // their repair failed, and is tried again
	unknown    uint64 // it failed, and there is no room to remember that
}

func (t *tally) add(o tally) {
	t.noPlace += o.noPlace
	t.unreadable += o.unreadable
	t.waiting += o.waiting
	t.unknown += o.unknown
}

func (t *tally) all() uint64 { return t.noPlace + t.unreadable + t.waiting + t.unknown }

// repairSpace brings the objects of a namespace to full width, those first that
// can bear least, and moves what is on disks that are lost, leaving, or missing for
// long. What fails in one part leaves the others to be done.
func (m *Maintenance) repairSpace(ctx context.Context, host *nsm.Client, ns uint64, sum *survey) error {
	buckets, err := host.Buckets(ctx, ns, userfn.Consistent)
	if err != nil {
		return ignoreGone(err)
	}
	slices.SortFunc(buckets, func(a, b nsm.BucketCount) int {
		return (int(a.Present) - int(a.K)) - (int(b.Present) - int(b.K))
	})
	var errs []error
	for _, b := range buckets {
		if b.Full() {
			continue
		}
		t, err := m.look(ctx, host, hope{ns: ns, bucket: b.Bucket}, func(after string) ([]*nsm.Object, string, error) {
			return host.ListByBucket(ctx, ns, b.Bucket, after, nsm.MaxPage, userfn.Consistent)
		})
		sum.add(t)
		sum.narrow += t.all()
		errs = append(errs, ignoreGone(err))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	for _, number := range m.leaving() {
		t, err := m.look(ctx, host, hope{ns: ns, disk: number}, func(after string) ([]*nsm.Object, string, error) {
			return host.ListByOSD(ctx, ns, number, after, nsm.MaxPage, userfn.Consistent)
		})
		sum.add(t)
		errs = append(errs, ignoreGone(err))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

// ignoreGone: a namespace that was deleted meanwhile is no failure.
func ignoreGone(err error) error {
	if errors.Is(err, nsm.ErrNamespaceNotFound) {
		return nil
	}
	return err
}

// look repairs the objects of a list, unless it is known to be in vain. One that
// fails leaves the others to be done.
func (m *Maintenance) look(ctx context.Context, host *nsm.Client, h hope, list func(after string) ([]*nsm.Object, string, error)) (t tally, err error) {
	begin := m.opt.Now()
	if old, known := m.hopeless[h]; known && old.sight == m.sight() && begin.Before(old.until) {
		return old.tally, nil
	}
	delete(m.hopeless, h)
	sights := make(map[string]bool) // what the disks were when they did not allow something
	for after := ""; ; {
		var page []*nsm.Object
		page, after, err = list(after)
		if err != nil {
			return t, err
		}
		for _, o := range page {
			if err := m.repairListed(ctx, host, h, o, &t, sights); err != nil {
				return t, err
			}
			if m.between(ctx) {
				// What was reported does not wait either; what fails is put off.
				_ = m.repairPending(ctx)
			}
		}
		if after == "" {
			break
		}
	}
	took := m.opt.Now().Sub(begin)
	// With the disks changing under the look, nobody knows what they allow now.
	if t.noPlace+t.unreadable > 0 && t.unknown == 0 && len(sights) == 1 && took >= hopeMin {
		for sight := range sights {
			m.hopeless[h] = hopeless{sight, m.opt.Now().Add(hopeFactor * took), t}
		}
	}
	return t, nil
}

// repairListed repairs one object of a look, and enters what became of it in t. Its
// error ends the look: it is that of ctx, or says that the namespace is gone.
func (m *Maintenance) repairListed(ctx context.Context, host *nsm.Client, h hope, o *nsm.Object, t *tally, sights map[string]bool) error {
	k := objectKey{h.ns, o.Name}
	if m.pending.waits(k, m.opt.Now(), m.sight()) {
		t.waiting++
		return nil
	}
	err := m.repairObject(ctx, host, due{objectKey: k}, o)
	var b *beyond
	switch {
	case err == nil:
		m.pending.repaired(due{objectKey: k})
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, nsm.ErrNamespaceNotFound):
		return err
	case errors.As(err, &b):
		sights[b.sight] = true
		if errors.Is(err, errUnreadable) {
			t.unreadable++
		} else {
			t.noPlace++
		}
	case m.putOff(k, err):
		t.waiting++
	default:
		t.unknown++
	}
	return nil
}

// putOff has an object whose repair failed tried again later.
func (m *Maintenance) putOff(k objectKey, err error) bool {
	sight := ""
	var b *beyond
	if errors.As(err, &b) {
		sight = b.sight
	}
	tries := m.pending.failed(k, m.opt.Now(), sight, err)
	if b == nil {
		m.stats.failures.Add(1)
		m.opt.Logger.Warn("repair of an object failed, to be tried again", "namespace", k.ns, "object", k.name, "failures", tries, "err", err)
	} else if tries == 1 {
		m.opt.Logger.Warn("an object is not repaired before the disks change", "namespace", k.ns, "object", k.name, "err", err)
	}
	return tries > 0
}
