package maintenance

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"openvstorage/alba/abm"
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

// fruitlessMax bounds the listings that are remembered. One that is not is gone through each
// time.
const fruitlessMax = 1024

// order is one survey's way through all that is to be repaired, pass after pass.
type order struct {
	passes
	rank    ranker
	risk    string                // of the disks when the passes began
	seen    map[listing]*lookedAt // listings of which the disks did not allow all; up to fruitlessMax
	leaving []uint64              // disks whose fragments must be elsewhere, in order
	put     func(ctx context.Context, p *piece) error
	ended   error // why the passes ended before their end
}

// lookedAt is a listing of which the disks did not allow all, over the passes of a survey.
type lookedAt struct {
	tally
	disks string // their fingerprint when they did not; "": it was not always the same
	took  time.Duration
}

// errRiskier ends a pass: the disks have changed so that other objects may be in danger.
var errRiskier = errors.New("the disks have changed")

// restarts is how often one survey begins anew because the disks have changed. The next
// survey goes on with what is left.
const restarts = 10

// all brings the objects of all namespaces to full width, and moves what is on disks that
// are lost, draining, or missing for long. Those that survive the loss of the fewest disks
// come first, whatever their namespace. If something fails, the rest is repaired all the
// same. The turn is the caller's.
func (r *repairer) all(ctx context.Context, hosts []abm.Host, sum *survey) error {
	if r.team != nil {
		return r.shared(ctx, hosts, sum)
	}
	return r.passes(ctx, hosts, sum, nil)
}

// passes goes through all objects that are to be repaired, in order of their safety. It gives
// put pieces of them, and repairs them itself if put is nil. An error of put ends it.
func (r *repairer) passes(ctx context.Context, hosts []abm.Host, sum *survey, put func(ctx context.Context, p *piece) error) error {
	var errs []error
	for range restarts {
		*sum, errs = survey{}, nil
		o := order{
			passes: firstPass(), rank: ranker{fleet: r.opt.Fleet}, risk: r.disks.risk(), put: put,
			seen: make(map[listing]*lookedAt), leaving: r.disks.leaving(),
		}
		for more := true; more && o.ended == nil; more = o.advance() {
			errs = append(errs, r.each(ctx, hosts, func(host *nsm.Client, ns nsm.NamespaceInfo) error {
				return r.space(ctx, host, ns.Number, &o, sum)
			}))
			if ctx.Err() != nil {
				return errors.Join(append(errs, ctx.Err())...)
			}
		}
		switch {
		case o.ended == nil:
			r.remember(&o)
			return errors.Join(errs...)
		case !errors.Is(o.ended, errRiskier):
			return errors.Join(errs...)
		}
	}
	return errors.Join(errs...)
}

// remember keeps which listings were gone through in vain.
func (r *repairer) remember(o *order) {
	now, disks := r.opt.Now(), r.disks.fingerprint()
	maps.DeleteFunc(r.fruitless, func(_ listing, f fruitless) bool { return f.disks != disks || !now.Before(f.until) })
	for l, s := range o.seen {
		// If the disks changed meanwhile, nobody knows what they allow now.
		if s.noPlace+s.unreadable > 0 && s.unknown == 0 && s.disks != "" && s.took >= fruitlessMin && len(r.fruitless) < fruitlessMax {
			r.fruitless[l] = fruitless{s.disks, r.opt.Now().Add(fruitlessFactor * s.took), s.tally}
		}
	}
}

// space repairs those objects of a namespace whose turn it is. An object that lacks something
// is in the listing of its bucket, any other one in that of the first disk that it has to
// leave.
func (r *repairer) space(ctx context.Context, host *nsm.Client, ns uint64, o *order, sum *survey) error {
	buckets, err := host.Buckets(ctx, ns, userfn.Consistent)
	if err != nil {
		return ignoreGone(err)
	}
	slices.SortFunc(buckets, func(a, b nsm.BucketCount) int {
		return (int(a.Present) - int(a.K)) - (int(b.Present) - int(b.K))
	})
	var list []listing
	for _, b := range buckets {
		if !b.Full() {
			list = append(list, listing{ns: ns, bucket: b.Bucket})
		}
	}
	for _, number := range o.leaving {
		list = append(list, listing{ns: ns, disk: number})
	}
	var errs []error
	for _, l := range list {
		t, err := r.listing(ctx, host, l, o)
		sum.add(t)
		if l.disk == 0 {
			sum.narrow += t.all()
		}
		if o.ended != nil || ctx.Err() != nil {
			return err
		}
		errs = append(errs, ignoreGone(err))
	}
	return errors.Join(errs...)
}

// page lists objects of a listing, from the one behind after.
func (l listing) page(ctx context.Context, host *nsm.Client, after string) ([]*nsm.Object, string, error) {
	if l.disk == 0 {
		return host.ListByBucket(ctx, l.ns, l.bucket, after, nsm.MaxPage, userfn.Consistent)
	}
	return host.ListByOSD(ctx, l.ns, l.disk, after, nsm.MaxPage, userfn.Consistent)
}

// has reports whether an object is to be repaired in this listing, so that each object is
// in one.
func (l listing) has(o *nsm.Object, leaving []uint64) bool {
	if narrow := len(o.Chunks) > 0 && !o.Bucket().Full(); narrow || l.disk == 0 {
		return narrow && l.disk == 0
	}
	for _, number := range leaving {
		if o.On(number) {
			return number == l.disk
		}
	}
	return false
}

// listing repairs those objects of a listing whose turn it is, unless that is known to be in
// vain. An object that fails does not keep the others from being repaired.
func (r *repairer) listing(ctx context.Context, host *nsm.Client, l listing, o *order) (t tally, err error) {
	begin := r.opt.Now()
	if old, known := r.fruitless[l]; known {
		if old.disks == r.disks.fingerprint() && begin.Before(old.until) {
			if o.first() {
				return old.tally, nil
			}
			return t, nil
		}
		delete(r.fruitless, l)
	}
	seen := make(map[string]bool) // fingerprints of the disks when they did not allow something
	defer func() { o.looked(l, t, seen, r.opt.Now().Sub(begin)) }()
	pieces := cutter{piece: piece{listing: l, turn: o.turn}, put: func(p *piece) error { return o.end(o.put(ctx, p)) }}
	for after := ""; ; {
		var page []*nsm.Object
		page, after, err = l.page(ctx, host, after)
		if err != nil {
			return t, err
		}
		for _, obj := range page {
			if !l.has(obj, o.leaving) || !o.now(o.rank.safety(obj)) {
				continue
			}
			if o.put != nil {
				err = pieces.add(obj)
			} else {
				err = r.listed(ctx, host, l.ns, obj, &t, seen)
			}
			if err == nil {
				err = r.between(ctx, o)
			}
			if err != nil {
				return t, err
			}
		}
		if err := pieces.cut(after); err != nil {
			return t, err
		}
		// Objects whose turn it is not take time too.
		if err := r.between(ctx, o); err != nil {
			return t, err
		}
		if after == "" {
			return t, nil
		}
	}
}

// between does what cannot wait between two objects. The error ends the passes.
func (r *repairer) between(ctx context.Context, o *order) error {
	if !r.meanwhile(ctx) {
		return nil
	}
	// What was reported does not wait either; what fails is put off.
	_ = r.reported(ctx)
	if r.disks.risk() != o.risk {
		return o.end(errRiskier)
	}
	return nil
}

// end ends the passes if err is not nil.
func (o *order) end(err error) error {
	o.ended = errors.Join(o.ended, err)
	return err
}

// first reports whether this is the first pass.
func (o *order) first() bool { return o.turn == firstPass().turn }

// looked adds up what became of a listing over the passes.
func (o *order) looked(l listing, t tally, seen map[string]bool, took time.Duration) {
	s := o.seen[l]
	switch {
	case s == nil && (len(seen) == 0 || len(o.seen) >= fruitlessMax):
		return
	case s == nil:
		s = new(lookedAt)
		o.seen[l] = s
		for s.disks = range seen {
		}
	}
	if _, same := seen[s.disks]; len(seen) > 1 || len(seen) == 1 && !same {
		s.disks = ""
	}
	s.tally.add(t)
	s.took += took
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
