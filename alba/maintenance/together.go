package maintenance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/maintenance/share"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// together is the repair by several agents. One of them plans: it goes through all objects in
// the order of their safety and cuts what is to be done into pieces. All of them do the
// pieces, the planner too. Any agent may die anywhere: another one plans on, and what it had is
// done again.
type together struct {
	plans, pieces *share.Share
	vain          vain
}

// vain is a survey that could repair nothing of what there was.
type vain struct {
	disks  string // their fingerprint
	narrow uint64 // objects below full width
	until  time.Time
}

// vainTime is how long such a survey is not repeated while all stays the same.
const vainTime = 5 * time.Minute

func newTogether(o *Options) *together {
	if o.Agent == "" {
		return nil
	}
	queue := func(kind string) *share.Share {
		return share.New(share.Options{Queue: abm.Queue{Client: o.ABM}, Holder: o.Agent, Kind: kind, Lease: o.Lease, Now: o.Now})
	}
	return &together{plans: queue("maintenance/"), pieces: queue("repair/")}
}

// errFound ends a look for work that has found some; errOthers a plan, because pieces wait
// that other agents are at.
var (
	errFound  = errors.New("there is work")
	errOthers = errors.New("other agents are at it")
)

// shared is all for several agents. It counts only what this agent has tried itself.
func (r *repairer) shared(ctx context.Context, hosts []abm.Host, sum *survey) error {
	narrow, err := r.narrow(ctx, hosts)
	if err != nil {
		return err
	}
	v := &r.team.vain
	if disks := r.disks.fingerprint(); v.disks != disks || v.narrow != narrow || !r.opt.Now().Before(v.until) {
		*v = vain{}
		did := r.repaired.Load()
		err = r.planned(ctx, hosts)
		err = errors.Join(err, r.help(ctx, sum))
		if narrow, err = r.recount(ctx, hosts, err); err == nil && r.repaired.Load() == did && sum.all() > 0 {
			*v = vain{disks, narrow, r.opt.Now().Add(vainTime)}
		}
	} else {
		err = r.help(ctx, sum)
	}
	sum.narrow = narrow
	return err
}

// recount is narrow beside another error.
func (r *repairer) recount(ctx context.Context, hosts []abm.Host, before error) (uint64, error) {
	n, err := r.narrow(ctx, hosts)
	return n, errors.Join(before, err)
}

// narrow counts the objects below full width.
func (r *repairer) narrow(ctx context.Context, hosts []abm.Host) (n uint64, err error) {
	err = r.each(ctx, hosts, func(host *nsm.Client, ns nsm.NamespaceInfo) error {
		buckets, err := host.Buckets(ctx, ns.Number, userfn.Consistent)
		for _, b := range buckets {
			if !b.Full() {
				n += b.Objects
			}
		}
		return err
	})
	return n, err
}

// planned has this agent plan, if there is work and no other agent plans.
func (r *repairer) planned(ctx context.Context, hosts []abm.Host) error {
	var none survey
	err := r.passes(ctx, hosts, &none, func(context.Context, *piece) error { return errFound })
	if !errors.Is(err, errFound) {
		return errors.Join(err, r.endPlan(ctx))
	}
	h, err := r.team.plans.Claim(ctx, "plan")
	if h == nil || err != nil {
		return err
	}
	err = h.Do(ctx, func(ctx context.Context) error {
		return r.passes(ctx, hosts, &none, func(ctx context.Context, p *piece) error {
			if err := h.Err(); err != nil {
				return err
			}
			return r.offer(ctx, p)
		})
	})
	if errors.Is(err, errOthers) || errors.Is(err, share.ErrLost) {
		return nil // the next survey plans on
	}
	return err
}

// endPlan takes the plan of an agent that has died out of the queue: there is nothing left to
// plan.
func (r *repairer) endPlan(ctx context.Context) error {
	h, err := r.team.plans.Take(ctx)
	if h == nil || err != nil {
		return err
	}
	return h.Finish(ctx)
}

// offer puts a piece into the queue. While there are many, it does one itself.
func (r *repairer) offer(ctx context.Context, p *piece) error {
	data, err := record.Encode(1, p)
	if err != nil {
		return err
	}
	for {
		n, err := r.team.pieces.Count(ctx)
		if err != nil {
			return err
		}
		if n < piecesMax {
			return r.team.pieces.Offer(ctx, p.name(), data)
		}
		var sum survey
		did, err := r.helpOnce(ctx, &sum)
		if err != nil {
			return err
		}
		if !did {
			return errOthers
		}
	}
}

// help does pieces until none is free.
func (r *repairer) help(ctx context.Context, sum *survey) error {
	var errs []error
	for ctx.Err() == nil {
		did, err := r.helpOnce(ctx, sum)
		if err != nil && len(errs) < 10 {
			errs = append(errs, err)
		}
		if !did {
			break
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// helpOnce does one piece, and reports whether there was one. A piece that fails is finished
// all the same: whoever plans next finds again what is left of it.
func (r *repairer) helpOnce(ctx context.Context, sum *survey) (did bool, err error) {
	h, err := r.team.pieces.Take(ctx)
	if h == nil || err != nil {
		return false, err
	}
	p := new(piece)
	if err := record.Decode(h.Data(), 1, p); err != nil {
		// A newer release may have made it: agents of that one do it.
		err = fmt.Errorf("piece of repair %q: %w", h.Name(), err)
		return true, errors.Join(err, h.Fail(ctx, err.Error()))
	}
	err = h.Do(ctx, func(ctx context.Context) error {
		r.holds = h.Err
		defer func() { r.holds = nil }()
		return r.piece(ctx, p, sum)
	})
	if errors.Is(err, share.ErrLost) {
		r.opt.Logger.Warn("another agent has taken over a piece of the repair", "piece", h.Name())
		err = nil
	}
	return true, err
}

// piece repairs the objects of a piece.
func (r *repairer) piece(ctx context.Context, p *piece, sum *survey) error {
	host, err := r.hostOf(ctx, p.ns)
	if host == nil || err != nil {
		return err
	}
	leaving := r.disks.leaving()
	rank := ranker{fleet: r.opt.Fleet}
	var t tally
	defer func() { sum.add(t) }()
	for after := p.after; ; {
		var page []*nsm.Object
		page, after, err = p.page(ctx, host, after)
		if err != nil {
			return ignoreGone(err)
		}
		for _, o := range page {
			if !p.has(o.Name) {
				return nil
			}
			if !p.listing.has(o, leaving) || sooner(p.turn, rank.safety(o)) {
				continue
			}
			if err := r.listed(ctx, host, p.ns, o, &t, make(map[string]bool)); err != nil {
				return ignoreGone(err)
			}
			if r.meanwhile(ctx) {
				_ = r.reported(ctx)
			}
		}
		if after == "" {
			return nil
		}
	}
}
