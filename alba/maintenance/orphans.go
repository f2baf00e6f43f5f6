package maintenance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
)

const (
	// collectPage is how many keys of a disk are looked at in one step.
	collectPage = 1000
	// orphansMax bounds the orphans that are kept in memory, about 100 bytes each.
	orphansMax = 100_000
)

// Killed processes may leave orphans of so many objects that they were uploading or
// repairing, however little else is stored. Orphans of more objects are too many if they
// are more than one in orphanShare of all fragments.
const (
	orphanObjects = 64
	orphanShare   = 20
)

// tooMany decides whether orphans are more than uploads and repairs can have left.
func tooMany(orphans, objects, fragments int) bool {
	return objects > orphanObjects && orphans > fragments/orphanShare
}

// collection is one pass over the disks.
type collection struct {
	by      *collector
	hosts   []*nsm.Client
	patient bool
	allowed bool // however many there are

	spaces    map[uint64]*space
	fragments int // that were looked at
	found     int // of them, orphans
	objects   map[manifest.ObjectID]struct{}
	orphans   []orphan // those that are kept until all are counted
}

// orphan is a fragment on a disk that no object names.
type orphan struct {
	disk *fleet.Disk
	ns   uint64
	info osd.Info
}

// closed is how far a namespace is closed. Of the fragments that no object names, those
// of epochs before minimum are orphans, and all of them if the namespace is gone.
type closed struct {
	minimum uint64
	gone    bool // both managers know that it was deleted
}

// both is how far a namespace was closed at two collections.
func (c closed) both(o closed) closed { return closed{min(c.minimum, o.minimum), c.gone && o.gone} }

// space is a namespace as a collection found it.
type space struct {
	host  *nsm.Client // nil: no NSM host knows it
	next  uint64      // the first gc epoch that was not opened yet
	now   closed
	may   closed // what this collection may delete
	doubt error  // the managers do not agree on it: nothing of it is touched
}

// run goes through all disks, and then deletes what it found.
func (c *collection) run(ctx context.Context) error {
	// Whoever allows it allows a whole pass.
	c.allowed = !c.patient && c.by.allowed.Swap(false)
	var errs []error
	for _, d := range c.by.opt.Fleet.All() {
		if d.Missing() != nil {
			continue
		}
		if err := c.find(ctx, d); err != nil {
			errs = append(errs, fmt.Errorf("disk %d (%s): %w", d.Number, d.Place, err))
		}
	}
	for _, s := range c.spaces {
		errs = append(errs, s.doubt)
	}
	if !c.allowed && tooMany(c.found, len(c.objects), c.fragments) {
		err := fmt.Errorf("%w: of %d fragments that are stored, %d are named by no object, of more objects than uploads can have left. Nothing was deleted: if metadata was lost, restore it; if `ovs alba backend check` finds all well, say `ovs alba backend resume-deletion`",
			ErrTooMany, c.fragments, c.found)
		c.by.alarm.Store(&err)
		return errors.Join(append(errs, err)...)
	}
	c.by.alarm.Store(nil)
	errs = append(errs, c.deleteFound(ctx))
	c.by.remember(c.spaces)
	return errors.Join(errs...)
}

// space finds out, once, what the managers say of a namespace that has fragments.
func (c *collection) space(ctx context.Context, ns uint64) (*space, error) {
	if s := c.spaces[ns]; s != nil {
		return s, nil
	}
	s, err := c.judge(ctx, ns)
	if err != nil {
		return nil, err
	}
	s.may = s.now
	if c.patient {
		s.may = s.now.both(c.by.closedBefore(ns))
	}
	c.spaces[ns] = s
	return s, nil
}

// judge asks both managers about a namespace.
func (c *collection) judge(ctx context.Context, ns uint64) (*space, error) {
	s := new(space)
	var a answers
	for _, host := range c.hosts {
		info, err := host.Namespaces(ctx, ns-1, 1, userfn.Consistent)
		if err != nil {
			return nil, err
		}
		if len(info) == 1 && info[0].Number == ns {
			s.host, s.next = host, info[0].Epochs.Next
			a.nsm = &info[0].Namespace
			break
		}
	}
	// The ABM is asked after the NSM: it was told first to forget what the NSM has
	// forgotten.
	rec, known, next, err := c.by.namespace(ctx, ns)
	if err != nil {
		return nil, err
	}
	if known {
		a.abm = &rec
	}
	a.next = next
	s.now, s.doubt = settle(ns, a)
	return s, nil
}

// answers is what the managers say of a namespace.
type answers struct {
	nsm  *nsm.Namespace // nil: no NSM host has it
	abm  *abm.Namespace // nil: the ABM does not have it
	next uint64         // the number that the ABM gives to the next namespace
}

// settle decides how far a namespace is closed. If an NSM host has the namespace, the ABM
// must know it. If no host does, the namespace is gone only if the ABM once gave its number
// away and has deleted it or is removing it: a number is not used again. Everything else
// is a doubt: one of the managers is not what it was.
func settle(ns uint64, a answers) (closed, error) {
	switch {
	case a.nsm != nil && a.nsm.State != nsm.NamespaceActive:
		return closed{}, nil // its cleanup comes first
	case a.nsm != nil && a.abm == nil:
		return closed{}, fmt.Errorf("namespace %d has objects at its NSM host, and the ABM does not know it: %w", ns, errDisagree)
	case a.nsm != nil && a.abm.State == abm.NamespaceRecovering:
		return closed{}, nil // some of its objects may not have been found yet
	case a.nsm != nil:
		return closed{minimum: a.nsm.Epochs.Minimum}, nil
	case ns >= a.next:
		return closed{}, fmt.Errorf("there are fragments of namespace %d, and the ABM has not got that far (%d is its next): %w", ns, a.next, errDisagree)
	case a.abm != nil && a.abm.State != abm.NamespaceRemoving:
		return closed{}, fmt.Errorf("namespace %d (%s) is not known to any NSM host: %w", ns, a.abm.Name, errDisagree)
	}
	return closed{gone: true}, nil
}

// errDisagree is what the managers' disagreement on a namespace means.
var errDisagree = errors.New("one of the groups under arakoon/ is not what it was; nothing of this namespace is deleted: restore them from one copy")

// find goes through the keys of a disk.
func (c *collection) find(ctx context.Context, d *fleet.Disk) error {
	var first []byte
	for ctx.Err() == nil {
		page, err := d.Range(ctx, first, nil, collectPage)
		if err != nil || len(page) == 0 {
			return err
		}
		var last manifest.ObjectID
		var o *nsm.Object
		for _, info := range page {
			k, err := manifest.ParseKey(info.Key)
			if err != nil {
				if err := c.record(ctx, d, info); err != nil {
					return err
				}
				continue
			}
			c.fragments++
			s, err := c.space(ctx, k.Namespace)
			if err != nil {
				return err
			}
			if !s.mayBeOrphan(info.Epoch, k.Namespace) {
				continue
			}
			if s.host != nil && (o == nil || last != k.Object) {
				if o, err = lookup(ctx, s.host, k); err != nil {
					return err
				}
				last = k.Object
			}
			if s.host == nil || !names(o, k, d.Number) {
				if err := c.add(ctx, k.Object, orphan{d, k.Namespace, info}); err != nil {
					return err
				}
			}
		}
		first = append(page[len(page)-1].Key, 0)
	}
	return ctx.Err()
}

// mayBeOrphan reports whether the collection may delete a fragment of a gc epoch if no
// object names it.
func (s *space) mayBeOrphan(epoch, ns uint64) bool {
	switch {
	case s.doubt != nil:
		return false
	case s.host == nil:
		return s.may.gone
	case epoch >= s.next:
		s.doubt = fmt.Errorf("there are fragments of gc epoch %d of namespace %d, and its NSM host has not got that far (%d is its next): %w", epoch, ns, s.next, errDisagree)
		return false
	}
	return epoch < s.may.minimum // later ones may still be committed
}

// add counts an orphan and keeps it to be deleted.
func (c *collection) add(ctx context.Context, id manifest.ObjectID, o orphan) error {
	c.found++
	if len(c.objects) <= orphanObjects {
		c.objects[id] = struct{}{}
	}
	return c.keep(ctx, o)
}

// keep keeps an orphan to be deleted.
func (c *collection) keep(ctx context.Context, o orphan) error {
	if len(c.orphans) == orphansMax {
		if !c.allowed {
			return nil // the next collection finds it, if this is not too many
		}
		if err := c.deleteFound(ctx); err != nil {
			return err
		}
	}
	c.orphans = append(c.orphans, o)
	return nil
}

// deleteFound deletes the orphans that are kept, except those of namespaces that have come
// into doubt meanwhile.
func (c *collection) deleteFound(ctx context.Context) error {
	var errs []error
	for len(c.orphans) > 0 && ctx.Err() == nil {
		d := c.orphans[0].disk
		var some []osd.Info
		n := 0
		for n < len(c.orphans) && n < osd.UpdatesMax && c.orphans[n].disk == d {
			if c.spaces[c.orphans[n].ns].doubt == nil {
				some = append(some, c.orphans[n].info)
			}
			n++
		}
		if err := c.delete(ctx, d, some); err != nil {
			errs = append(errs, fmt.Errorf("disk %d (%s): %w", d.Number, d.Place, err))
		}
		c.orphans = c.orphans[n:]
	}
	c.orphans = nil
	return errors.Join(append(errs, ctx.Err())...)
}

// delete deletes keys that no object named when they were looked up, each only if it is
// still of the epoch that it had then. So a fragment that an object names is never
// deleted (rule O7), whoever else is at work:
//
//   - The epoch was closed before the look-up. What was committed under the epoch was
//     committed before it was closed, and the look-up would have shown it.
//   - A repair may write the same key again if a repair before it did not get to its
//     commit: both take the object's next revision. The later repair writes under an
//     epoch that is open, and commits only then. Nothing writes over that under an older
//     epoch (rewrite.write). If the write comes first, the key is of a newer epoch and
//     the delete is refused; else the delete comes before the write and does no harm.
func (c *collection) delete(ctx context.Context, d *fleet.Disk, orphans []osd.Info) error {
	for len(orphans) > 0 {
		if err := c.by.opt.MayDelete(); err != nil {
			return err
		}
		asserts, updates := make([]osd.Assert, len(orphans)), make([]osd.Update, len(orphans))
		for i, info := range orphans {
			asserts[i] = osd.Assert{Kind: osd.NotNewer, Key: info.Key, Epoch: info.Epoch}
			updates[i] = osd.Update{Key: info.Key, Delete: true}
		}
		err := d.ApplyAside(ctx, asserts, updates)
		var newer *osd.AssertError
		if errors.As(err, &newer) {
			left := len(orphans)
			orphans = slices.DeleteFunc(orphans, func(o osd.Info) bool { return bytes.Equal(o.Key, newer.Key) })
			if len(orphans) < left {
				continue // all or none: the rest once more
			}
		}
		if err != nil {
			return err
		}
		fragments := 0
		for _, o := range orphans {
			if _, err := manifest.ParseKey(o.Key); err == nil { // else a recovery record
				fragments++
			}
		}
		c.by.deleted.Add(uint64(fragments))
		c.by.opt.Logger.Info("deleted fragments that no object names", "disk", d.Number, "fragments", fragments, "records", len(orphans)-fragments)
		return nil
	}
	return nil
}

// lookup returns the object with the id of a key, or one without chunks if there is none.
func lookup(ctx context.Context, host *nsm.Client, k manifest.Key) (*nsm.Object, error) {
	o, err := host.GetByID(ctx, k.Namespace, k.Object, userfn.Consistent)
	if errors.Is(err, nsm.ErrNotFound) || errors.Is(err, nsm.ErrNamespaceNotFound) {
		return new(nsm.Object), nil
	}
	return o, err
}

// names reports whether an object has this fragment on this disk.
func names(o *nsm.Object, k manifest.Key, disk uint64) bool {
	if int(k.Chunk) >= len(o.Chunks) || int(k.Fragment) >= len(o.Chunks[k.Chunk].Fragments) {
		return false
	}
	f := o.Chunks[k.Chunk].Fragments[k.Fragment]
	return f.OSD == disk && f.Version == k.Version
}
