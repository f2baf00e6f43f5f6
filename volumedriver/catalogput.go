package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/backend"
	"openvstorage/volumedriver/catalog"
)

// putMax is how long a put of the catalog is waited for. It is not given up earlier,
// because its outcome would be unknown then.
const putMax = time.Minute

// update is change for callers that look at the catalog again when it fails, and need not
// hear what became of this put.
func (o *ownedCatalog) update(ctx context.Context, fn func(c *catalog.Catalog) error) error {
	return o.change(ctx, fn, func(bool) {})
}

// change has fn change a copy of the catalog, and puts that under this owner's epoch
// (O6). Transient errors of the backend are retried until ctx ends; another owner's
// catalog halts the vDisk (P4).
//
// An error that matches ErrUnknownOutcome says that the put may have taken effect, or
// may do so yet. Nothing else is put or deleted then until settle has found out. If fn
// returns nil, known is called once, as soon as it is known whether the put took effect,
// and no catalog is put before known returns.
func (o *ownedCatalog) change(ctx context.Context, fn func(c *catalog.Catalog) error, known func(took bool)) error {
	return o.holding(ctx, func(ctx context.Context, f *flight) error { return o.changeLocked(ctx, f, fn, known) })
}

// changeLocked is change for whoever holds put.
func (o *ownedCatalog) changeLocked(ctx context.Context, f *flight, fn func(c *catalog.Catalog) error, known func(took bool)) error {
	if err := o.Err(); err != nil {
		return err
	}
	if err := o.resolve(ctx); err != nil {
		return err
	}
	c, version, old := o.known()
	if err := fn(c); err != nil {
		return err
	}
	c.Generation++
	next := &candidate{c: c, known: known}
	if err := o.encode(ctx, next); err != nil {
		known(false)
		return err
	}
	if !f.begin() {
		known(false)
		return ctx.Err()
	}
	version, unsure, err := o.putRoot(ctx, next.root, version)
	switch {
	case err == nil:
		o.adopt(next, version)
		ctx, cancel := o.putContext(ctx)
		defer cancel()
		o.deleteSegments(ctx, old)
		return nil
	case unsure:
		o.doubt.note(err, next)
		return fmt.Errorf("catalog of %s: %w: %w", o.Name(), ErrUnknownOutcome, err)
	}
	known(false)
	if errors.Is(err, backend.ErrConflict) {
		return o.anotherOwner(err)
	}
	return fmt.Errorf("catalog of %s: %w", o.Name(), err)
}

// anotherOwner halts the vDisk: the catalog is neither what this owner put nor what it
// was about to put, so somebody else has taken the vDisk over (P4).
func (o *ownedCatalog) anotherOwner(err error) error {
	o.halt(fmt.Errorf("another owner has changed the catalog: %w", err))
	return o.Err()
}

// known is a copy of the catalog that current returns, which may be changed, with its version
// and its segments.
func (o *ownedCatalog) known() (*catalog.Catalog, backend.Version, []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.value.Clone(), o.version, o.segments
}

// encode makes the root of a candidate, and puts its segments. They have names of their
// own, so nothing that the catalog in the backend names is touched before the root is put.
func (o *ownedCatalog) encode(ctx context.Context, n *candidate) error {
	n.c.Epoch = o.epoch
	root, segments, err := catalog.Encode(n.c)
	if err != nil {
		return fmt.Errorf("catalog of %s: %w", o.Name(), err)
	}
	for _, s := range segments {
		if err := retry(ctx, func() error { return o.namespace().Put(ctx, s.Name, s.Data) }); err != nil {
			return fmt.Errorf("catalog of %s: %w", o.Name(), err)
		}
		n.segments = append(n.segments, s.Name)
	}
	n.root = root
	return nil
}

// adopt notes that a candidate is the catalog in the backend, and tells those who wait to
// know.
func (o *ownedCatalog) adopt(n *candidate, version backend.Version) {
	o.mu.Lock()
	o.value, o.version, o.segments = n.c, version, n.segments
	o.mu.Unlock()
	o.adopted(n.c)
	if n.known != nil {
		n.known(true)
	}
}

// putRoot puts the catalog's root in place of version. If a put fails without telling
// whether it took effect, putRoot puts again, and if that conflicts, compares the object
// with root. unsure says that even this gave no answer.
func (o *ownedCatalog) putRoot(ctx context.Context, root []byte, version backend.Version) (next backend.Version, unsure bool, err error) {
	ns := o.namespace()
	err = retry(ctx, func() (err error) {
		put, cancel := o.putContext(ctx)
		defer cancel()
		next, err = ns.PutIf(put, catalog.ObjectName, root, version)
		switch {
		case err == nil:
			unsure = false
		case unsure && errors.Is(err, backend.ErrConflict):
			info, same, herr := holds(put, ns, root)
			if herr != nil {
				return herr // ask again
			}
			unsure = false
			if same {
				next, err = info.Version, nil
			}
		default:
			unsure = unsure || backend.Unknown(err)
		}
		return err
	})
	return next, unsure, err
}
