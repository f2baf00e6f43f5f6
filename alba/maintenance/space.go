package maintenance

import (
	"context"
	"errors"
	"slices"
	"time"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
)

// Objects whose repair the disks do not allow are tried again when the disks change.
// Something else may have changed too, so a listing of such objects is also gone through
// again after fruitlessFactor times what that took: going through it in vain takes no
// more than a twentieth of the time. A listing that takes less than fruitlessMin is gone
// through each time.
const (
	fruitlessFactor = 20
	fruitlessMin    = 100 * time.Millisecond
)

// listing names a list of objects of a namespace: those of a bucket, or those with
// fragments on a disk.
type listing struct {
	ns     uint64
	bucket nsm.Bucket // or
	disk   uint64
}

// fruitless is a listing of which the disks did not allow all to be repaired.
type fruitless struct {
	disks string    // their fingerprint then
	until time.Time // it is not gone through before, if the disks stay the same
	tally
}

// tally counts the objects of a listing that were left as they were.
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

// space brings the objects of a namespace to full width, beginning with those that
// survive the loss of the fewest disks. It moves what is on disks that are lost,
// draining, or missing for long. If a listing fails, the others are repaired all the
// same. The turn is the caller's.
func (r *repairer) space(ctx context.Context, host *nsm.Client, ns uint64, sum *survey) error {
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
		t, err := r.listing(ctx, host, listing{ns: ns, bucket: b.Bucket}, func(after string) ([]*nsm.Object, string, error) {
			return host.ListByBucket(ctx, ns, b.Bucket, after, nsm.MaxPage, userfn.Consistent)
		})
		sum.add(t)
		sum.narrow += t.all()
		errs = append(errs, ignoreGone(err))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	for _, number := range r.disks.leaving() {
		t, err := r.listing(ctx, host, listing{ns: ns, disk: number}, func(after string) ([]*nsm.Object, string, error) {
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

// listing repairs the objects of a listing, unless that is known to be in vain. An object
// that fails does not keep the others from being repaired.
func (r *repairer) listing(ctx context.Context, host *nsm.Client, l listing, list func(after string) ([]*nsm.Object, string, error)) (t tally, err error) {
	begin := r.opt.Now()
	if old, known := r.fruitless[l]; known && old.disks == r.disks.fingerprint() && begin.Before(old.until) {
		return old.tally, nil
	}
	delete(r.fruitless, l)
	seen := make(map[string]bool) // fingerprints of the disks when they did not allow something
	for after := ""; ; {
		var page []*nsm.Object
		page, after, err = list(after)
		if err != nil {
			return t, err
		}
		for _, o := range page {
			if err := r.listed(ctx, host, l.ns, o, &t, seen); err != nil {
				return t, err
			}
			if r.meanwhile(ctx) {
				// What was reported does not wait either; what fails is put off.
				_ = r.reported(ctx)
			}
		}
		if after == "" {
			break
		}
	}
	took := r.opt.Now().Sub(begin)
	// If the disks changed meanwhile, nobody knows what they allow now.
	if t.noPlace+t.unreadable > 0 && t.unknown == 0 && len(seen) == 1 && took >= fruitlessMin {
		for disks := range seen {
			r.fruitless[l] = fruitless{disks, r.opt.Now().Add(fruitlessFactor * took), t}
		}
	}
	return t, nil
}

// listed repairs one object of a listing, and enters what became of it in t. An error
// ends the listing: it is that of ctx, or says that the namespace is gone.
func (r *repairer) listed(ctx context.Context, host *nsm.Client, ns uint64, o *nsm.Object, t *tally, seen map[string]bool) error {
	k := objectKey{ns, o.Name}
	if r.pending.waits(k, r.opt.Now(), r.disks.fingerprint()) {
		t.waiting++
		return nil
	}
	err := r.object(ctx, host, due{objectKey: k}, o)
	var b *beyond
	switch {
	case err == nil:
		r.pending.repaired(due{objectKey: k})
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, nsm.ErrNamespaceNotFound):
		return err
	case errors.As(err, &b):
		seen[b.disks] = true
		if errors.Is(err, errUnreadable) {
			t.unreadable++
		} else {
			t.noPlace++
		}
	case r.putOff(k, err):
		t.waiting++
	default:
		t.unknown++
	}
	return nil
}

// putOff has an object whose repair failed tried again later.
func (r *repairer) putOff(k objectKey, err error) bool {
	disks := ""
	var b *beyond
	if errors.As(err, &b) {
		disks = b.disks
	}
	tries := r.pending.failed(k, r.opt.Now(), disks, err)
	if b == nil {
		r.tried.failed.Add(1)
		r.opt.Logger.Warn("repair of an object failed, to be tried again", "namespace", k.ns, "object", k.name, "failures", tries, "err", err)
	} else if tries == 1 {
		r.opt.Logger.Warn("an object is not repaired before the disks change", "namespace", k.ns, "object", k.name, "err", err)
	}
	return tries > 0
}
