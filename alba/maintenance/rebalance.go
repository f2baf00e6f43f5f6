package maintenance

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/maintenance/balance"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/policy"
)

// balanceLook is how many objects one survey looks at for a better place, and balanceBytes how
// much it moves. The next survey goes on from there: repair comes first.
const (
	balanceLook  = 20_000
	balanceBytes = 4 << 30
)

// rebalancer moves fragments to where they are better, once all objects are whole: away from
// disks that are fuller than others, and to nodes and zones that have fewer fragments of a
// chunk. It looks at all objects once after a start and when disks, nodes or zones have
// changed, for the sake of the spread; else only at those on the fullest disk.
type rebalancer struct {
	repairs *repairer
	gap     float64 // see balance.New; not above 0: nothing is moved

	spread string    // disks, nodes and zones for which all objects are spread as well as can be
	again  time.Time // after failures: not before
	at     waypoint  // where to go on
	moved  atomic.Uint64
	bytes  atomic.Uint64
}

// waypoint is where a way through all objects stopped.
type waypoint struct {
	of    string // what the way is for; another one begins anew
	host  uint64
	ns    uint64
	after string
}

// errEnough ends a way through objects: it goes on with the next survey.
var errEnough = errors.New("enough for one survey")

// run moves fragments, if there is reason to. It reports whether there is more to do. The
// turn is the caller's.
func (b *rebalancer) run(ctx context.Context, hosts []abm.Host) (more bool, err error) {
	if b.gap <= 0 || len(b.repairs.disks.leaving()) > 0 || b.repairs.opt.Now().Before(b.again) {
		return false, nil
	}
	disks, err := b.disks(ctx)
	if err != nil {
		return false, err
	}
	c := balance.New(disks, b.gap)
	fullest, uneven := c.Fullest()
	shape := shape(disks)
	if shape == b.spread && !uneven {
		return false, nil
	}
	w := &way{rebalancer: b, cluster: c, risk: b.repairs.disks.risk()}
	if shape == b.spread {
		w.disk = fullest
	}
	if b.repairs.team == nil {
		return w.run(ctx, hosts, shape)
	}
	h, err := b.repairs.team.plans.Claim(ctx, "balance")
	if h == nil || err != nil {
		return false, err
	}
	err = h.Do(ctx, func(ctx context.Context) (err error) {
		b.repairs.holds = h.Err
		defer func() { b.repairs.holds = nil }()
		more, err = w.run(ctx, hosts, shape)
		return err
	})
	return more, err
}

// disks returns the disks, each with what objects have on it. That counts a move at once,
// unlike what disks say of themselves.
func (b *rebalancer) disks(ctx context.Context) ([]policy.Disk, error) {
	live, err := b.repairs.live(ctx)
	if err != nil {
		return nil, err
	}
	disks := b.repairs.disks.candidates(0)
	there := disks[:0]
	for _, d := range disks {
		if u := b.repairs.opt.Fleet.Disk(d.OSD); u != nil && u.Missing() == nil && d.Capacity > 1 {
			d.Failing = d.Failing || d.Used >= d.Capacity
			d.Used = live[d.OSD]
			there = append(there, d)
		}
	}
	return there, nil
}

// shape is which disks there are, and where.
func shape(disks []policy.Disk) string {
	var s []byte
	for _, d := range disks {
		s = fmt.Appendf(s, "%d %t %q %q\n", d.OSD, d.Usable(), d.Node, d.Zone)
	}
	return string(s)
}

// way is one way through objects for better places.
type way struct {
	*rebalancer
	cluster *balance.Cluster
	disk    uint64 // the objects on it; 0: all
	risk    string // of the disks when it began
	looked  int
	bytes   uint64
	errs    []error
}

// run goes on where the way before stopped, if that was for the same.
func (w *way) run(ctx context.Context, hosts []abm.Host, shape string) (more bool, err error) {
	of := fmt.Sprintf("%d %s", w.disk, shape)
	if w.at.of != of {
		w.at = waypoint{of: of}
	}
	for _, h := range hosts {
		if h.Number < w.at.host {
			continue
		}
		if h.Number > w.at.host {
			w.at = waypoint{of: of, host: h.Number}
		}
		host, err := w.repairs.host(h.Number)
		if err == nil {
			err = w.through(ctx, host)
		}
		if errors.Is(err, errEnough) || errors.Is(err, errRiskier) {
			return true, errors.Join(w.errs...)
		}
		if err != nil {
			return false, err // of the managers: begin here again
		}
	}
	w.at = waypoint{}
	switch {
	case len(w.errs) > 0:
		w.again = w.repairs.opt.Now().Add(vainTime)
		return false, errors.Join(w.errs...)
	case w.disk == 0:
		w.spread = shape
		return true, nil // now for the fill
	}
	return w.bytes > 0, nil
}

// through goes through the namespaces of a host.
func (w *way) through(ctx context.Context, host *nsm.Client) error {
	for {
		page, err := host.Namespaces(ctx, max(w.at.ns, 1)-1, nsm.MaxPage, userfn.Consistent)
		if err != nil {
			return err
		}
		for _, ns := range page {
			if ns.Number > w.at.ns {
				w.at.ns, w.at.after = ns.Number, ""
			}
			if ns.State == nsm.NamespaceActive {
				if err := ignoreGone(w.namespace(ctx, host, ns.Number)); err != nil {
					return err
				}
			}
			w.at.ns, w.at.after = ns.Number+1, ""
		}
		if len(page) < nsm.MaxPage {
			return nil
		}
	}
}

// namespace goes through the objects of a namespace.
func (w *way) namespace(ctx context.Context, host *nsm.Client, ns uint64) error {
	for {
		page, next, err := w.page(ctx, host, ns)
		if err != nil {
			return err
		}
		for _, o := range page {
			if err := w.object(ctx, host, ns, o); err != nil {
				return err
			}
			w.at.after = o.Name
		}
		if next == "" {
			return nil
		}
		w.at.after = next
		if w.looked += max(len(page), 1); w.looked > balanceLook {
			return errEnough
		}
	}
}

// page returns objects behind the point, with manifests.
func (w *way) page(ctx context.Context, host *nsm.Client, ns uint64) ([]*nsm.Object, string, error) {
	if w.disk != 0 {
		return host.ListByOSD(ctx, ns, w.disk, w.at.after, nsm.MaxPage, userfn.Consistent)
	}
	list, err := host.List(ctx, ns, "", w.at.after, nsm.MaxPage, userfn.Consistent)
	if err != nil || len(list) == 0 {
		return nil, "", err
	}
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Name
	}
	next := ""
	if len(list) == nsm.MaxPage {
		next = names[len(names)-1]
	}
	page, err := host.MultiGet(ctx, ns, names, userfn.Consistent)
	there := page[:0]
	for _, o := range page {
		if o != nil {
			there = append(there, o)
		}
	}
	return there, next, err
}

// object moves those fragments of an object that are better elsewhere. An error ends the way:
// it is that of ctx, or says that it was enough. All others are kept, and the object is left
// as it is.
func (w *way) object(ctx context.Context, host *nsm.Client, ns uint64, o *nsm.Object) error {
	for chunk := range o.Chunks {
		for range o.Chunks[chunk].Fragments { // each moves once at most
			k := balance.Chunk{
				Policy: policy.Policy{K: o.Policy.K, M: o.Policy.M, C: o.Policy.C, X: o.Policy.X},
				Bytes:  uint64(o.Chunks[chunk].Length), On: make([]uint64, len(o.Chunks[chunk].Fragments)),
			}
			for i, f := range o.Chunks[chunk].Fragments {
				k.On[i] = f.OSD
			}
			m, ok := w.cluster.Best(&k)
			if !ok {
				break
			}
			now, err := w.repairs.move(ctx, host, ns, o, chunk, m)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				if !errors.Is(err, errNowhere) && !errors.Is(err, nsm.ErrConflict) && !errors.Is(err, nsm.ErrNotFound) && len(w.errs) < 10 {
					w.errs = append(w.errs, fmt.Errorf("move of fragment %d of chunk %d of object %s of namespace %d to disk %d: %w", m.Fragment, chunk, o.Name, ns, m.To, err))
				}
				return nil
			}
			o = now
			w.cluster.Moved(k.On[m.Fragment], m.To, k.Bytes)
			w.moved.Add(1)
			w.rebalancer.bytes.Add(k.Bytes)
			w.bytes += k.Bytes
		}
	}
	return w.between(ctx)
}

// between does what cannot wait between two objects.
func (w *way) between(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case w.bytes > balanceBytes:
		return errEnough
	case !w.repairs.meanwhile(ctx):
		return nil
	}
	_ = w.repairs.reported(ctx) // what fails is put off
	if w.repairs.disks.risk() != w.risk {
		return errRiskier
	}
	return nil
}

// move puts a fragment of a chunk on another disk, and returns the object as it is then.
func (r *repairer) move(ctx context.Context, host *nsm.Client, ns uint64, o *nsm.Object, chunk int, m balance.Move) (*nsm.Object, error) {
	mf, err := manifest.Decode(o.Manifest)
	if err != nil {
		return nil, err
	}
	if chunk >= len(mf.Chunks) || m.Fragment >= len(mf.Chunks[chunk].Fragments) {
		return nil, fmt.Errorf("its manifest has no such fragment")
	}
	once := &repair{by: r, host: host, due: due{objectKey: objectKey{ns, o.Name}}, o: o, mf: mf}
	w := once.rewrite(chunk, []lostFragment{{m.Fragment, true}})
	w.to = m.To
	if err := w.round(ctx); err != nil {
		return nil, err
	}
	if len(w.changes) == 0 {
		return nil, errors.Join(append(w.errs, errNowhere)...)
	}
	if err := w.commit(ctx); err != nil {
		return nil, err
	}
	now := *once.o // as NSM has it now
	now.Chunks = append([]nsm.Chunk(nil), o.Chunks...)
	fragments := append([]nsm.Fragment(nil), o.Chunks[chunk].Fragments...)
	fragments[m.Fragment] = w.changes[0].To
	now.Chunks[chunk].Fragments = fragments
	if now.Manifest, err = w.next.Append(nil); err != nil {
		return nil, err
	}
	return &now, nil
}
