package embedded

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
)

// ErrCheck is matched by the error of Resume if the check finds something that
// cannot be read.
var ErrCheck = errors.New("the check did not pass")

// checkProblems bounds the problems that a Check lists.
const checkProblems = 20

// Check is what a cross-check of managers and disks has found. The check asks each disk
// whether it has the fragments that should be on it, and reads none.
type Check struct {
	Passed     bool     `json:"passed"`
	Namespaces int      `json:"namespaces"`
	Objects    uint64   `json:"objects"`
	Unreadable uint64   `json:"unreadable"` // objects of which too few fragments are there
	Weak       uint64   `json:"weak"`       // objects that miss some, and can be read
	Fragments  uint64   `json:"fragments"`  // on the disks that are there
	Unnamed    uint64   `json:"unnamed"`    // of those, named by no object: a collection may delete them
	Missing    int      `json:"missing"`    // disks that could not be asked
	Problems   []string `json:"problems,omitempty"`
}

func (c *Check) problem(format string, args ...any) {
	if len(c.Problems) < checkProblems {
		c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
	}
}

// Check compares what each of the managers knows with what the other manager knows,
// with what is on the disks, and with what Expect says. It changes nothing, and takes as
// long as it takes to list everything.
func (i *Inventory) Check(ctx context.Context) (Check, error) {
	c := crossCheck{in: i}
	err := c.run(ctx)
	return c.Check, err
}

// crossCheck is a Check that is being made.
type crossCheck struct {
	Check
	in      *Inventory
	named   uint64 // fragments on disks that objects name
	records uint64 // recovery records of those, and of inline objects
}

func (c *crossCheck) run(ctx context.Context) error {
	spaces, unknown, err := c.in.namespaces(ctx)
	if err != nil {
		return err
	}
	lost, err := c.in.lostNamespaces(ctx, spaces, unknown)
	if err != nil {
		return err
	}
	for i := range lost {
		c.problem("%s", lost[i].Judge().Reason)
	}
	c.Namespaces = len(spaces)
	for i := range spaces {
		if err := c.checkNamespace(ctx, &spaces[i]); err != nil {
			return err
		}
	}
	if err := c.countFragments(ctx); err != nil {
		return err
	}
	c.Fragments -= min(c.records, c.Fragments)
	c.Unnamed = c.Fragments - min(c.named, c.Fragments)
	c.Passed = len(lost) == 0 && c.Unreadable == 0
	return nil
}

func (c *crossCheck) checkNamespace(ctx context.Context, n *Namespace) error {
	for after := ""; ; {
		page, err := c.in.nsm.List(ctx, n.Number, "", after, nsm.MaxPage, userfn.Consistent)
		if err != nil {
			return fmt.Errorf("namespace %s: %w", n.Name, err)
		}
		if err := c.checkObjects(ctx, n.Number, page); err != nil {
			return err
		}
		if len(page) < nsm.MaxPage {
			return nil
		}
		after = page[len(page)-1].Name
	}
}

// countFragments asks the disks how many fragments and recovery records they hold.
func (c *crossCheck) countFragments(ctx context.Context) error {
	for _, d := range c.in.fleet.All() {
		if why := d.Reason(); why != nil {
			c.Missing++
			c.problem("disk %d (%s) is missing: %v", d.Number, d.Place, why)
			continue
		}
		u, err := d.Usage(ctx)
		if err != nil {
			return fmt.Errorf("disk %d (%s): %w", d.Number, d.Place, err)
		}
		c.Fragments += u.Keys
	}
	return nil
}

// checkObjects looks for the fragments of a page of objects of a namespace.
func (c *crossCheck) checkObjects(ctx context.Context, ns uint64, page []nsm.Object) error {
	type place struct{ object, chunk int }
	recordAt := place{-1, -1} // of the key before it
	keys, places := make(map[uint64][][]byte), make(map[uint64][]place)
	there := make([][]int, len(page)) // fragments of each chunk
	for i := range page {
		o := &page[i]
		there[i] = make([]int, len(o.Chunks))
		for j, chunk := range o.Chunks {
			for n, f := range chunk.Fragments {
				if f.OSD == 0 {
					continue
				}
				k := manifest.Key{Namespace: ns, Object: o.ID, Chunk: uint32(j), Fragment: uint8(n), Version: f.Version}
				keys[f.OSD] = append(keys[f.OSD], k.Append(nil), k.AppendRecovery(nil))
				places[f.OSD] = append(places[f.OSD], place{i, j}, recordAt)
			}
		}
	}
	for _, k := range inlineRecords(ns, page) { // it may be on any disk
		for _, d := range c.in.fleet.All() {
			keys[d.Number], places[d.Number] = append(keys[d.Number], k), append(places[d.Number], recordAt)
		}
	}
	for number, list := range keys {
		d := c.in.fleet.Disk(number)
		if d == nil || d.Missing() != nil {
			continue
		}
		for first := 0; first < len(list); first += osd.RangeMax {
			infos, err := d.Stat(ctx, list[first:min(first+osd.RangeMax, len(list))])
			if err != nil {
				return fmt.Errorf("disk %d (%s): %w", number, d.Place, err)
			}
			for i, info := range infos {
				switch at := places[number][first+i]; {
				case !info.Found:
				case at == recordAt:
					c.records++
				default:
					there[at.object][at.chunk]++
					c.named++
				}
			}
		}
	}
	for i := range page {
		c.judgeObject(ns, &page[i], there[i])
	}
	return nil
}

// inlineRecords are the keys of the recovery records of those objects that have no fragments.
func inlineRecords(ns uint64, page []nsm.Object) (keys [][]byte) {
	for i := range page {
		if len(page[i].Chunks) == 0 {
			keys = append(keys, manifest.InlineKey(ns, page[i].Name).AppendRecovery(nil))
		}
	}
	return keys
}

// judgeObject counts an object of whose chunks so many fragments are there.
func (c *crossCheck) judgeObject(ns uint64, o *nsm.Object, there []int) {
	c.Objects++
	weak := false
	for j, chunk := range o.Chunks {
		if there[j] < int(o.Policy.K) {
			c.Unreadable++
			c.problem("object %s of namespace %d cannot be read: %d fragments of chunk %d are there, and it takes %d", o.Name, ns, there[j], j, o.Policy.K)
			return
		}
		weak = weak || there[j] < len(chunk.Fragments)
	}
	if weak {
		c.Weak++
	}
}

// Resume lets deletion on disks go on after it was suspended, or after a collection
// found too many orphans. By calling it a person confirms that this backend knows of
// all objects. It checks first, and refuses with ErrCheck if something cannot be read.
func (b *Backend) Resume(ctx context.Context) (Check, error) {
	c, err := b.Check(ctx)
	if err != nil {
		return c, err
	}
	if !c.Passed {
		return c, fmt.Errorf("%w, and deletion stays as it is: %v", ErrCheck, c.Problems)
	}
	if !b.groups.Suspended().IsZero() {
		if err := b.groups.Resume(); err != nil {
			return c, err
		}
	}
	b.work.Allow()
	b.work.Wake()
	return c, nil
}
