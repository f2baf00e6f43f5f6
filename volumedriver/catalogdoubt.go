package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"openvstorage/backend"
	"openvstorage/volumedriver/catalog"
)

// candidate is a catalog that was put, or is about to be: it may be the one in the
// backend.
type candidate struct {
	c        *catalog.Catalog
	root     []byte          // its encoding, by which it is recognised
	segments []string        // names of its segments
	known    func(took bool) // hears whether it is the one; nil: a fence, which nobody asks after
}

// catalogDoubt is what is not known about the catalog in the backend: whether a put has
// taken effect, or whether a delete under the known version is still under way.
type catalogDoubt struct {
	cause      atomic.Pointer[error] // nil: there is none
	flying     atomic.Bool           // a put goes on whose caller has gone; its outcome is in doubt until it ends
	candidates []*candidate          // all put in place of the known one: at most one change, and the fence of resolve
}

// note notes a doubt, and which catalogs may be in the backend because of it.
func (d *catalogDoubt) note(cause error, n ...*candidate) {
	d.cause.Store(&cause)
	d.candidates = append(d.candidates, n...)
}

// settle finds out what is not known about the catalog. Each part of the catalog has one
// user that changes it: the storer the TLogs, pages and checkpoint, management the
// snapshots and clones. That user settles before it looks at its part, because what it
// put itself may have taken effect.
func (o *ownedCatalog) settle(ctx context.Context) error {
	if !o.inDoubt() {
		return nil
	}
	return o.holding(ctx, func(ctx context.Context, _ *flight) error { return o.resolve(ctx) })
}

// inDoubt reports whether it is not known what the catalog in the backend is.
func (o *ownedCatalog) inDoubt() bool { return o.doubt.flying.Load() || o.doubt.cause.Load() != nil }

// resolve ends the doubt about a put. The catalog in the backend tells whether the put
// has taken effect. If it has not, it may do so yet. So resolve puts a fence in the same
// place: a catalog of the same content. After that, every put that is still under way
// under the known version fails. The caller holds put.
func (o *ownedCatalog) resolve(ctx context.Context) (err error) {
	cause := o.doubt.cause.Load()
	if cause == nil {
		return nil
	}
	defer func() {
		if err != nil && o.Err() == nil {
			// Not %w: what is asked for now has not begun.
			err = fmt.Errorf("catalog of %s: %w: whether an earlier change took effect is not known yet (%v): %w", o.Name(), ErrBusy, *cause, err)
		}
	}()
	if found, err := o.recognise(ctx); found || err != nil {
		return err
	}
	fence := o.doubt.fence()
	if fence == nil {
		c, _, _ := o.known()
		c.Generation += 2 // another than that of the put in doubt
		fence = &candidate{c: c}
		if err := o.encode(ctx, fence); err != nil {
			return err
		}
		o.doubt.note(*cause, fence)
	}
	_, version, old := o.known()
	ctx, cancel := o.putContext(ctx)
	defer cancel()
	version, err = o.namespace().PutIf(ctx, catalog.ObjectName, fence.root, version)
	switch {
	case err == nil:
		o.decide(fence, version)
		o.deleteSegments(ctx, old)
		return nil
	case !errors.Is(err, backend.ErrConflict):
		return err
	}
	if found, rerr := o.recognise(ctx); found || rerr != nil {
		return rerr
	}
	return o.anotherOwner(err)
}

// recognise compares the catalog in the backend with the candidates. If it is one of
// them, the doubt ends.
func (o *ownedCatalog) recognise(ctx context.Context) (found bool, err error) {
	for _, n := range o.doubt.candidates {
		info, same, err := holds(ctx, o.namespace(), n.root)
		if err != nil {
			return false, err
		}
		if same {
			_, _, old := o.known()
			o.decide(n, info.Version)
			o.deleteSegments(ctx, old)
			return true, nil
		}
	}
	return false, nil
}

// decide ends the doubt: n is the catalog in the backend. The other candidates were to be
// put in the same place, so they never take effect.
func (o *ownedCatalog) decide(n *candidate, version backend.Version) {
	list := o.doubt.candidates
	o.doubt.candidates = nil
	o.doubt.cause.Store(nil)
	o.adopt(n, version)
	for _, other := range list {
		if other != n && other.known != nil {
			other.known(false)
		}
	}
}

// fence is the candidate that resolve has put before, or nil.
func (d *catalogDoubt) fence() *candidate {
	for _, n := range d.candidates {
		if n.known == nil {
			return n
		}
	}
	return nil
}

// holds reports whether the catalog object is root.
func holds(ctx context.Context, ns backend.Namespace, root []byte) (info backend.Info, same bool, err error) {
	info, err = ns.Stat(ctx, catalog.ObjectName)
	if err != nil || info.Size != int64(len(root)) {
		return info, false, err
	}
	have := make([]byte, len(root))
	err = get(ctx, ns, catalog.ObjectName, have, 0)
	return info, err == nil && slices.Equal(have, root), err
}

// doubted is why it is not known what the catalog in the backend is, nil if it is known.
func (o *ownedCatalog) doubted() *error { return o.doubt.cause.Load() }
