package catalog

import (
	"slices"
	"sort"

	"openvstorage/sco"

	"github.com/google/uuid"
)

// FindSnapshot returns the snapshot with that name, which points into
// c.Snapshots, or nil.
func (c *Catalog) FindSnapshot(name string) *Snapshot {
	if name == "" { // automatic snapshots may have none
		return nil
	}
	i := slices.IndexFunc(c.Snapshots, func(s Snapshot) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Snapshots[i]
}

// Snapshot returns the snapshot with that id, which points into c.Snapshots,
// or nil.
func (c *Catalog) Snapshot(id uuid.UUID) *Snapshot {
	i := slices.IndexFunc(c.Snapshots, func(s Snapshot) bool { return s.ID == id })
	if i < 0 {
		return nil
	}
	return &c.Snapshots[i]
}

// ChildrenOf returns the clones that hang off a snapshot.
func (c *Catalog) ChildrenOf(snapshot uuid.UUID) []Child {
	var children []Child
	for _, k := range c.Children {
		if k.Snapshot == snapshot {
			children = append(children, k)
		}
	}
	return children
}

// PageObject returns the object whose range of page numbers covers page. The object
// holds that page only if the page was live when the object was made.
func (c *Catalog) PageObject(page uint64) (PageObject, bool) {
	i := sort.Search(len(c.Pages), func(i int) bool { return c.Pages[i].End > page })
	if i == len(c.Pages) || c.Pages[i].First > page {
		return PageObject{}, false
	}
	return c.Pages[i], true
}

// Self returns the origin index that stands for the vDisk itself.
func (c *Catalog) Self() sco.Origin { return sco.Origin(len(c.Origins) - 1) }

// Clone returns a copy that shares nothing with c. To change the catalog, change a copy,
// put it, and replace c by it when the put has returned.
func (c *Catalog) Clone() *Catalog {
	n := *c
	n.Config = slices.Clone(c.Config)
	n.Epochs = slices.Clone(c.Epochs)
	n.Origins = slices.Clone(c.Origins)
	n.Children = slices.Clone(c.Children)
	n.TLogs = slices.Clone(c.TLogs)
	n.Snapshots = slices.Clone(c.Snapshots)
	n.Pages = slices.Clone(c.Pages)
	n.Checkpoint.Drops = slices.Clone(c.Checkpoint.Drops)
	return &n
}
