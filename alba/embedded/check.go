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

// Check is what a cross-check of managers and disks has found. It reads no
// fragment, but asks each disk for what should be on it.
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

// Check compares what each of the managers, and whoever stands on the backend,
// knows with the others and with what is on the disks. It changes nothing, and
// takes as long as it takes to list everything.
func (b *Backend) Check(ctx context.Context) (Check, error) {
	var c Check
	spaces, unknown, err := b.namespaces(ctx)
	if err != nil {
		return c, err
	}
	lost, err := b.lostNamespaces(ctx, spaces, unknown)
	if err != nil {
		return c, err
	}
	for i := range lost {
		c.problem("%s", lost[i].Judge().Reason)
	}
	c.Namespaces = len(spaces)
	named := uint64(0)
	for _, n := range spaces {
		for after := ""; ; {
			page, err := b.nsm.List(ctx, n.Number, "", after, nsm.MaxPage, userfn.Consistent)
			if err != nil {
				return c, fmt.Errorf("namespace %s: %w", n.Name, err)
			}
			found, err := b.checkObjects(ctx, &c, n.Number, page)
			if err != nil {
				return c, err
			}
			named += found
			if len(page) < nsm.MaxPage {
				break
			}
			after = page[len(page)-1].Name
		}
	}
	for _, d := range b.fleet.All() {
		if why := d.Reason(); why != nil {
			c.Missing++
			c.problem("disk %d (%s) is missing: %v", d.Number, d.Place, why)
			continue
		}
		u, err := d.Usage(ctx)
		if err != nil {
			return c, fmt.Errorf("disk %d (%s): %w", d.Number, d.Place, err)
		}
		c.Fragments += u.Keys
	}
	c.Unnamed = c.Fragments - min(named, c.Fragments)
	c.Passed = len(lost) == 0 && c.Unreadable == 0
	return c, nil
}

// checkObjects looks for the fragments of a page of objects, and returns how many
// there are.
func (b *Backend) checkObjects(ctx context.Context, c *Check, ns uint64, page []nsm.Object) (named uint64, err error) {
	type place struct{ object, chunk int }
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
				keys[f.OSD] = append(keys[f.OSD], k.Append(nil))
				places[f.OSD] = append(places[f.OSD], place{i, j})
			}
		}
	}
	for number, list := range keys {
		d := b.fleet.Disk(number)
		if d == nil || d.Missing() != nil {
			continue
		}
		for first := 0; first < len(list); first += osd.RangeMax {
			infos, err := d.Stat(ctx, list[first:min(first+osd.RangeMax, len(list))])
			if err != nil {
				return named, fmt.Errorf("disk %d (%s): %w", number, d.Place, err)
			}
			for i, info := range infos {
				if info.Found {
					at := places[number][first+i]
					there[at.object][at.chunk]++
					named++
				}
			}
		}
	}
	for i := range page {
		b.judgeObject(c, ns, &page[i], there[i])
	}
	return named, nil
}

func (b *Backend) judgeObject(c *Check, ns uint64, o *nsm.Object, there []int) {
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

// Resume lets deletion on disks go on after it was suspended, or after a
// collection found too many orphans: a person has confirmed that what this
// backend knows is all that there is. It checks first, and refuses with ErrCheck
// if something cannot be read.
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
