package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"openvstorage/backend"
	"openvstorage/volumedriver/catalog"
)

// putMax bounds how long a put of the catalog is waited for. It is not given up
// before: its outcome would be unknown.
const putMax = time.Minute

// updateCatalog is changeCatalog for those who look at the catalog again when it
// fails.
func (v *Volume) updateCatalog(ctx context.Context, fn func(c *catalog.Catalog) error) error {
	return v.changeCatalog(ctx, fn, func(bool) {})
}

// changeCatalog changes the catalog by fn and puts it under this owner's
// epoch (O6). Transient errors of the backend are retried until ctx ends;
// another owner's catalog halts the vDisk (P4).
//
// An error that matches ErrUnknownOutcome says that the put may have taken
// effect, or may do so yet. Then nothing else is put or deleted until settle has
// found out. known is called once, when it is known whether the put took effect,
// if fn returned nil; nobody puts a catalog meanwhile.
func (v *Volume) changeCatalog(ctx context.Context, fn func(c *catalog.Catalog) error, known func(took bool)) error {
	return v.holding(ctx, func(ctx context.Context, f *flight) error { return v.changeLocked(ctx, f, fn, known) })
}

// changeLocked is changeCatalog; put is held.
func (v *Volume) changeLocked(ctx context.Context, f *flight, fn func(c *catalog.Catalog) error, known func(took bool)) error {
	if err := v.Err(); err != nil {
		return err
	}
	if err := v.resolve(ctx); err != nil {
		return err
	}
	c, version, old := v.known()
	if err := fn(c); err != nil {
		return err
	}
	c.Generation++
	next := &candidate{c: c, known: known}
	if err := v.encode(ctx, next); err != nil {
		known(false)
		return err
	}
	if !f.begin() {
		known(false)
		return ctx.Err()
	}
	version, unsure, err := v.putRoot(ctx, next.root, version)
	switch {
	case err == nil:
		v.adopt(next, version)
		ctx, cancel := v.putContext(ctx)
		defer cancel()
		v.deleteSegments(ctx, old)
		return nil
	case unsure:
		v.doubt.note(err, next)
		return fmt.Errorf("catalog of %s: %w: %w", v.Name(), ErrUnknownOutcome, err)
	}
	known(false)
	if errors.Is(err, backend.ErrConflict) {
		return v.anotherOwner(err)
	}
	return fmt.Errorf("catalog of %s: %w", v.Name(), err)
}

func (v *Volume) anotherOwner(err error) error {
	v.halt(fmt.Errorf("another owner has changed the catalog: %w", err))
	return v.Err()
}

// known is a copy of the catalog as it is in the backend, as far as is known,
// with its version and its segments.
func (v *Volume) known() (*catalog.Catalog, backend.Version, []string) {
	v.cat.Lock()
	defer v.cat.Unlock()
	return v.cat.Clone(), v.cat.version, v.cat.segments
}

// encode makes the root of a candidate, and puts its segments.
func (v *Volume) encode(ctx context.Context, n *candidate) error {
	n.c.Epoch = v.epoch
	root, segments, err := catalog.Encode(n.c)
	if err != nil {
		return fmt.Errorf("catalog of %s: %w", v.Name(), err)
	}
	for _, s := range segments {
		if err := retry(ctx, func() error { return v.namespace().Put(ctx, s.Name, s.Data) }); err != nil {
			return fmt.Errorf("catalog of %s: %w", v.Name(), err)
		}
		n.segments = append(n.segments, s.Name)
	}
	n.root = root
	return nil
}

// adopt takes a catalog that is in the backend as the one that is known there.
func (v *Volume) adopt(n *candidate, version backend.Version) {
	v.cat.Lock()
	v.cat.Catalog, v.cat.version, v.cat.segments = *n.c, version, n.segments
	v.cat.Unlock()
	v.mu.Lock()
	for _, s := range v.snapshots {
		listed := n.c.Snapshot(s.ID)
		s.HasRoot = listed != nil && listed.HasRoot
	}
	v.mu.Unlock()
	if n.known != nil {
		n.known(true)
	}
}

// deleteSegments deletes those of some segments that the catalog does not have.
// What is left of them is collected at the next start.
func (v *Volume) deleteSegments(ctx context.Context, old []string) {
	v.cat.Lock()
	names := v.cat.segments
	v.cat.Unlock()
	old = slices.DeleteFunc(slices.Clone(old), func(n string) bool { return slices.Contains(names, n) })
	_ = v.deleteNow(ctx, old)
}

// deleteNow deletes objects while the catalog has the version that is known.
// Whoever has put calls it, with nothing in doubt.
func (v *Volume) deleteNow(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	_, version, _ := v.known()
	err := v.namespace().Delete(ctx, names, &backend.Condition{Name: catalog.ObjectName, Version: version})
	if backend.Unknown(err) {
		// It may come yet, and take what is put under such a name meanwhile.
		v.doubt.note(err)
	}
	return err
}

// candidate is a catalog that may be the one in the backend.
type candidate struct {
	c        *catalog.Catalog
	root     []byte
	segments []string
	known    func(took bool) // nil: nobody wants to know
}

// catalogDoubt is what is not known of the catalog in the backend: a put may have
// taken effect, or a delete under the known version be under way still.
type catalogDoubt struct {
	cause      atomic.Pointer[error] // nil: there is none
	flying     atomic.Bool           // a put goes on whose caller has gone; as a doubt it is until it ends
	candidates []*candidate          // at most one, and what resolve puts; all put in place of the known one
}

func (d *catalogDoubt) note(cause error, n ...*candidate) {
	d.cause.Store(&cause)
	d.candidates = append(d.candidates, n...)
}

// settle finds out what is not known of the catalog. Who owns a part of it (the
// storer TLogs, pages and checkpoint, management snapshots and clones) settles
// before it looks at that part: what it put itself may have taken effect.
func (v *Volume) settle(ctx context.Context) error {
	if !v.inDoubt() {
		return nil
	}
	return v.holding(ctx, func(ctx context.Context, _ *flight) error { return v.resolve(ctx) })
}

// inDoubt reports whether it is not known what the catalog in the backend is.
func (v *Volume) inDoubt() bool { return v.doubt.flying.Load() || v.doubt.cause.Load() != nil }

// resolve ends what is in doubt. The catalog itself tells if a put took effect. If
// not, the put may take effect yet: so a catalog is put in the same place, with
// which all that is under way under the known version comes to nothing. Whoever
// has put calls it.
func (v *Volume) resolve(ctx context.Context) (err error) {
	cause := v.doubt.cause.Load()
	if cause == nil {
		return nil
	}
	defer func() {
		if err != nil && v.Err() == nil {
			// Not %w: what is asked for now has not begun.
			err = fmt.Errorf("catalog of %s: %w: whether an earlier change took effect is not known yet (%v): %w", v.Name(), ErrBusy, *cause, err)
		}
	}()
	if found, err := v.recognise(ctx); found || err != nil {
		return err
	}
	fence := v.doubt.fence()
	if fence == nil {
		c, _, _ := v.known()
		c.Generation += 2 // another than that of the put in doubt
		fence = &candidate{c: c}
		if err := v.encode(ctx, fence); err != nil {
			return err
		}
		v.doubt.note(*cause, fence)
	}
	_, version, old := v.known()
	ctx, cancel := v.putContext(ctx)
	defer cancel()
	version, err = v.namespace().PutIf(ctx, catalog.ObjectName, fence.root, version)
	switch {
	case err == nil:
		v.decide(fence, version)
		v.deleteSegments(ctx, old)
		return nil
	case !errors.Is(err, backend.ErrConflict):
		return err
	}
	if found, rerr := v.recognise(ctx); found || rerr != nil {
		return rerr
	}
	return v.anotherOwner(err)
}

// recognise looks whether the catalog in the backend is one that is in doubt.
func (v *Volume) recognise(ctx context.Context) (found bool, err error) {
	for _, n := range v.doubt.candidates {
		info, same, err := holds(ctx, v.namespace(), n.root)
		if err != nil {
			return false, err
		}
		if same {
			_, _, old := v.known()
			v.decide(n, info.Version)
			v.deleteSegments(ctx, old)
			return true, nil
		}
	}
	return false, nil
}

// decide ends the doubt: the catalog is one of the candidates, and the others,
// which were to be put in the same place, never will be.
func (v *Volume) decide(n *candidate, version backend.Version) {
	list := v.doubt.candidates
	v.doubt.candidates = nil
	v.doubt.cause.Store(nil)
	v.adopt(n, version)
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

// putRoot puts the catalog's root. When a put fails without telling whether it
// took effect, it is asked again, and the object itself: unsure says that nobody
// could tell.
func (v *Volume) putRoot(ctx context.Context, root []byte, version backend.Version) (next backend.Version, unsure bool, err error) {
	ns := v.namespace()
	err = retry(ctx, func() (err error) {
		put, cancel := v.putContext(ctx)
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
