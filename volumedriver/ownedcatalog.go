package volumedriver

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"openvstorage/backend"
	"openvstorage/internal/ctxlock"
	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
)

// ownedCatalog is the catalog of a vDisk that this process owns: what is known to be in
// the backend, and the only way to change that. Numbers of SCOs, TLogs and page objects
// are reserved in it before they are used.
//
// put is held while a catalog is put or objects are deleted, which takes as long as the
// backend does; mu guards the values, for a moment.
type ownedCatalog struct {
	*core
	// adopted hears of each catalog that is now known to be in the backend.
	adopted func(c *catalog.Catalog)

	put   ctxlock.Lock
	doubt catalogDoubt // whoever has put

	mu       sync.Mutex
	value    *catalog.Catalog // replaced whole, never changed
	version  backend.Version
	segments []string // names of the segments in use

	nextObject uint64 // next page object number; the storer's
}

// newOwnedCatalog is the catalog of a vDisk before it is read. created is known by then.
func newOwnedCatalog(c *core, created time.Time, adopted func(*catalog.Catalog)) *ownedCatalog {
	return &ownedCatalog{core: c, adopted: adopted, put: ctxlock.New(), value: &catalog.Catalog{Created: created}}
}

// current is the catalog in the backend, as far as is known. It is not to be changed: the
// next put puts another in its place.
func (o *ownedCatalog) current() *catalog.Catalog {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.value
}

// withCurrent calls fn with the catalog that current returns, and no other takes its place
// before fn returns. fn must not wait.
func (o *ownedCatalog) withCurrent(fn func(c *catalog.Catalog)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fn(o.value)
}

// load reads the catalog from the backend. Of a vDisk that was made just now it is taken
// from memory.
func (o *ownedCatalog) load(ctx context.Context, made *unnamed) error {
	if n := made; n != nil && n.root != nil {
		return o.take(n.root, n.version, true, func(name string) ([]byte, error) {
			i := slices.IndexFunc(n.segments, func(s catalog.Segment) bool { return s.Name == name })
			if i < 0 {
				return nil, fmt.Errorf("%s: %w", name, backend.ErrNotFound)
			}
			return n.segments[i].Data, nil
		})
	}
	ns := o.namespace()
	info, err := ns.Stat(ctx, catalog.ObjectName)
	if err != nil {
		return fmt.Errorf("catalog: %w", unanswered(err))
	}
	if info.Size > catalog.RootMax {
		return fmt.Errorf("catalog: %w: it has %d bytes, none has more than %d", backend.ErrCorrupt, info.Size, catalog.RootMax)
	}
	root := make([]byte, info.Size)
	if err := get(ctx, ns, catalog.ObjectName, root, 0); err != nil {
		return unanswered(err)
	}
	return o.take(root, info.Version, made != nil, func(name string) ([]byte, error) {
		info, err := ns.Stat(ctx, name)
		if err != nil {
			return nil, unanswered(err)
		}
		if info.Size > catalog.SegmentMax {
			return nil, fmt.Errorf("%w: it has %d bytes, none has more than %d", backend.ErrCorrupt, info.Size, catalog.SegmentMax)
		}
		b := make([]byte, info.Size)
		return b, unanswered(get(ctx, ns, name, b, 0))
	})
}

// take checks a catalog and takes it as the one in the backend. segment returns its
// segments by name; first says that no earlier epoch had the vDisk.
func (o *ownedCatalog) take(root []byte, version backend.Version, first bool, segment func(name string) ([]byte, error)) error {
	c, err := catalog.Decode(root, segment)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	if c.Volume != o.id {
		return fmt.Errorf("catalog: %w: it is of %s", backend.ErrCorrupt, c.Volume)
	}
	if c.Epoch >= o.epoch && !first {
		return fmt.Errorf("catalog is of epoch %d, this owner has %d: the registry is older than the backend", c.Epoch, o.epoch)
	}
	if o.segments, err = catalog.Segments(root); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	o.value, o.version, o.nextObject = c, version, c.NextObject
	if first {
		o.nextObject = 1 // none was used
	}
	return nil
}

// reserveAhead numbers are reserved ahead of those in use by every catalog put, so that
// opening a file seldom waits for one. Numbers that a crash leaves unused are lost (O11).
const reserveAhead = 4096

// reserveNumbers has c reserve numbers from the next ones of the log on.
func reserveNumbers(c *catalog.Catalog, scos sco.Number, tlogs tlog.ID) {
	c.NextSCO = max(c.NextSCO, min(scos+reserveAhead, sco.MaxNumber+1))
	c.NextTLog = max(c.NextTLog, uint64(tlogs)+reserveAhead)
}

// reserved are the numbers below which the log may open files.
func (o *ownedCatalog) reserved() (sco.Number, tlog.ID) {
	c := o.current()
	return c.NextSCO, tlog.ID(c.NextTLog)
}

// reserve implements writebuffer.Owner (see logOwner): it puts a catalog with new limits, and
// returns them.
func (o *ownedCatalog) reserve(ctx context.Context, scos sco.Number, tlogs tlog.ID) (sco.Number, tlog.ID, error) {
	if scos > sco.MaxNumber {
		return 0, 0, fmt.Errorf("vDisk %q: used up its SCO numbers", o.Name())
	}
	err := o.update(ctx, func(c *catalog.Catalog) error {
		reserveNumbers(c, scos, tlogs)
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	scos, tlogs = o.reserved()
	return scos, tlogs, nil
}

// storedSeq is the seq up to which the catalog has everything.
func (o *ownedCatalog) storedSeq() uint64 {
	return o.current().StoredSeq
}

// checkpointSeq is the seq up to which the checkpoint in the catalog has everything.
func (o *ownedCatalog) checkpointSeq() uint64 {
	return o.current().Checkpoint.Seq
}

// objectNumber takes the next of the page object numbers that the catalog has reserved,
// and reserves more when there is none. Only the storer calls it.
func (o *ownedCatalog) objectNumber(ctx context.Context) (uint64, error) {
	if o.nextObject >= o.current().NextObject {
		err := o.update(ctx, func(c *catalog.Catalog) error {
			o.reserveObjects(c, reserveAhead)
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	o.nextObject++
	return o.nextObject - 1, nil
}

// reserveObjects has c reserve the numbers of n more page objects.
func (o *ownedCatalog) reserveObjects(c *catalog.Catalog, n uint64) {
	c.NextObject = max(c.NextObject, o.nextObject+n)
}

// parentSnapshot is the snapshot that the vDisk, a clone, was made from, and the vDisk that
// has it. errParentClosed if that is not open.
func (o *ownedCatalog) parentSnapshot() (*Volume, *snapshot, error) {
	from := o.current().Origins[o.self-1]
	parent := o.host.table.byID(from.Volume)
	if r, ok := o.host.table.foreignID(from.Volume); parent == nil && ok {
		return nil, nil, fmt.Errorf("%w: a clone without a map of its own needs its parent on the same host: %v", errParentClosed, elsewhereError(r))
	}
	if parent == nil {
		return nil, nil, fmt.Errorf("vDisk %q: a clone of vDisk %s, which is not there: %w", o.Name(), from.Volume, errParentClosed)
	}
	// One that is opened anew gets another map: the roots of this one end with it.
	if parent.m == nil || parent.closedBy() != nil {
		return nil, nil, fmt.Errorf("vDisk %q: %w", o.Name(), parentClosed(parent))
	}
	s := parent.tree.find(from.Snapshot)
	if s == nil {
		return nil, nil, fmt.Errorf("vDisk %q: a clone of snapshot %s of vDisk %q, which is not there", o.Name(), from.Snapshot, parent.Name())
	}
	return parent, s, nil
}
