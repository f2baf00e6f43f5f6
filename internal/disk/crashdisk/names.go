package crashdisk

import (
	"io/fs"
	"maps"
	"slices"
	"time"
)

// node is a file or a directory, whatever names lead to it.
type node struct {
	id      uint64 // order of creation
	mode    fs.FileMode
	changed time.Time
	file    *content   // one of file and dir is nil
	dir     *directory //
}

// directory is a set of names: as programs see it, as a power cut leaves it at
// least, and the changes between the two in order.
type directory struct {
	id      uint64
	names   map[string]*node
	durable map[string]*node
	pending []change
}

// change is one step of a directory: every name is set to its node, or removed
// if that is nil. A rename between directories is two changes of one number,
// each of which knows the other's directory.
type change struct {
	number uint64
	set    []entry
	peer   *directory
}

type entry struct {
	name string
	node *node
}

func newDirectory(id uint64) *directory {
	return &directory{id: id, names: map[string]*node{}, durable: map[string]*node{}}
}

// apply makes a change, pending until it is committed.
func (d *directory) apply(c change) {
	set(d.names, c.set)
	d.pending = append(d.pending, c)
}

func set(names map[string]*node, entries []entry) {
	for _, e := range entries {
		if e.node == nil {
			delete(names, e.name)
		} else {
			names[e.name] = e.node
		}
	}
}

// commit makes the first n pending changes durable, and with a rename from or
// to another directory what happened there up to it.
func (d *directory) commit(n int) {
	done := d.pending[:n]
	d.pending = slices.Clone(d.pending[n:])
	for _, c := range done {
		set(d.durable, c.set)
		if c.peer != nil {
			if i := c.peer.find(c.number); i >= 0 {
				c.peer.commit(i + 1)
			}
		}
	}
}

// find returns the index of the pending change with a number, or -1.
func (d *directory) find(number uint64) int {
	return slices.IndexFunc(d.pending, func(c change) bool { return c.number == number })
}

// cutNames chooses how many pending changes of each directory a power cut
// keeps: what pick says, less what would split a rename.
func cutNames(dirs []*directory, pick func(n int) int) map[*directory]int {
	kept := make(map[*directory]int, len(dirs))
	for _, d := range dirs {
		kept[d] = pick(len(d.pending) + 1)
	}
	for changed := true; changed; {
		changed = false
		for _, d := range dirs {
			for i, c := range d.pending[:kept[d]] {
				if c.peer == nil {
					continue
				}
				if j := c.peer.find(c.number); j >= kept[c.peer] {
					kept[d] = i
					changed = true
					break
				}
			}
		}
	}
	return kept
}

// directories returns every directory that any name, old or new, leads to, in
// order of creation.
func directories(root *node) []*directory {
	var found []*directory
	seen := map[*directory]bool{}
	var walk func(n *node)
	walk = func(n *node) {
		if n == nil || n.dir == nil || seen[n.dir] {
			return
		}
		seen[n.dir] = true
		found = append(found, n.dir)
		for _, names := range []map[string]*node{n.dir.names, n.dir.durable} {
			for _, below := range names {
				walk(below)
			}
		}
		for _, c := range n.dir.pending {
			for _, e := range c.set {
				walk(e.node)
			}
			if c.peer != nil && !seen[c.peer] {
				walk(&node{dir: c.peer})
			}
		}
	}
	walk(root)
	slices.SortFunc(found, func(a, b *directory) int { return int(a.id) - int(b.id) })
	return found
}

// copier copies a tree of nodes, each once, whatever number of names it has.
type copier struct {
	nodes map[*node]*node
	dirs  map[*directory]*directory
	// contents copies a file's content.
	contents func(*content) *content
	// names returns a directory's names, and whether what is pending is copied
	// along with it.
	names func(*directory) (names map[string]*node, pending bool)
}

func (c *copier) node(n *node) *node {
	if n == nil {
		return nil
	}
	if m := c.nodes[n]; m != nil {
		return m
	}
	m := &node{id: n.id, mode: n.mode, changed: n.changed}
	c.nodes[n] = m
	if n.dir != nil {
		m.dir = c.directory(n.dir)
	} else {
		m.file = c.contents(n.file)
	}
	return m
}

func (c *copier) directory(d *directory) *directory {
	if m := c.dirs[d]; m != nil {
		return m
	}
	m := newDirectory(d.id)
	c.dirs[d] = m
	names, pending := c.names(d)
	c.copyNames(m.names, names)
	if !pending {
		m.durable = maps.Clone(m.names)
		return m
	}
	c.copyNames(m.durable, d.durable)
	m.pending = make([]change, len(d.pending))
	for i, old := range d.pending {
		n := change{number: old.number, set: make([]entry, len(old.set))}
		for j, e := range old.set {
			n.set[j] = entry{e.name, c.node(e.node)}
		}
		if old.peer != nil {
			n.peer = c.directory(old.peer)
		}
		m.pending[i] = n
	}
	return m
}

// copyNames goes through from in order, so that a power cut's choices depend
// on nothing but its random numbers.
func (c *copier) copyNames(to, from map[string]*node) {
	for _, name := range slices.Sorted(maps.Keys(from)) {
		to[name] = c.node(from[name])
	}
}
