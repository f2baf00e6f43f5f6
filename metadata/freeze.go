package metadata

import (
	"context"
	"fmt"
	"slices"
)

// Frozen is a state of the map pinned for a checkpoint.
type Frozen struct {
	m     *Map
	state State
	trees []tree
}

// tree is an immutable root, and the kind of tree that it is of.
type tree struct {
	*root
	kind TreeKind
}

// Freeze pins the state that all changes up to seq have made. Its cost does not depend on the
// size. The snapshots made since the last Committed are pinned with it: the map knows them, and
// snapshots may name them again. There may be several Frozen at a time. Each keeps its pages
// until it, or a later one, is Committed.
func (m *Map) Freeze(seq uint64, snapshots []Root) *Frozen {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(seq)
	head := m.head.Load()
	f := &Frozen{m: m, trees: []tree{{head, TreeMap}}, state: State{
		Seq: seq, NextPage: m.next, Generation: m.gen, Root: head.public(), Recount: m.recount.seq,
		Live: Root{Levels: 1, Clusters: m.live.Load().clusters},
	}}
	// Once this is Committed, every page below NextPage may leave memory without being
	// saved. So all pages that the map still needs must be among NewPages (M1).
	f.trees = append(f.trees, m.counterTrees()...)
	if m.recount.seq == 0 { // otherwise Open counts anew
		f.state.Live = m.live.Load().public()
		for i := range m.drops {
			if r := m.drops[i].st.Load(); r.ref != HoleRef {
				f.state.Drops = append(f.state.Drops, Drop{Page: r.ref, Level: uint8(i) + 1})
			}
		}
	}
	f.trees = append(f.trees, m.pinnedTrees()...)
	for _, s := range snapshots {
		f.trees = append(f.trees, tree{m.rootAt(s, TreeMap, nil), TreeMap})
	}
	m.gen++ // M2
	m.frozen = append(m.frozen, f)
	return f
}

// counterTrees returns the trees that counting still needs: the counters, the drops, and the
// root of a recount. m.mu held.
func (m *Map) counterTrees() []tree {
	out := []tree{{m.live.Load(), TreeLive}}
	if r := m.recount.root; r != nil {
		out = append(out, tree{r, TreeMap})
	}
	for i := range m.drops {
		if r := m.drops[i].st.Load(); r.ref != HoleRef {
			out = append(out, tree{r, TreeMap})
		}
	}
	return out
}

// pinnedTrees returns the snapshots that no checkpoint covers yet. m.mu held.
func (m *Map) pinnedTrees() (out []tree) {
	for ref, p := range m.pinned {
		out = append(out, tree{&root{ref: ref, page: p, levels: p.level + 1}, TreeMap})
	}
	return out
}

// State returns what the checkpoint keeps besides pages.
func (f *Frozen) State() State {
	s := f.state
	s.Drops = slices.Clone(s.Drops)
	return s
}

// newPage is a page of a checkpoint; handle may be nil if it is in the store.
type newPage struct {
	number uint64
	handle *page
}

// NewPages calls fn with every page of the checkpoint that the vDisk itself has made and whose
// number is at least from, the NextPage of the checkpoint before. These are pages of the map,
// the counters, the drops and the snapshots. Each comes once, in ascending order, with a number
// below State().NextPage. encoded is valid only during the call. NewPages takes 16 bytes of
// memory for each page.
func (f *Frozen) NewPages(ctx context.Context, from uint64, fn func(number uint64, encoded []byte) error) error {
	var pages []newPage
	w := walker{m: f.m, from: from, visited: make(map[uint64]struct{}), leaf: func(ref PageRef, p *page) {
		pages = append(pages, newPage{ref.Number(), p})
	}}
	for _, t := range f.trees {
		if err := w.walk(ctx, t); err != nil {
			return err
		}
	}
	// Of two entries for a page the one with a handle is kept.
	slices.SortFunc(pages, func(a, b newPage) int {
		switch {
		case a.number < b.number:
			return -1
		case a.number > b.number:
			return 1
		case a.handle != nil && b.handle == nil:
			return -1
		case a.handle == nil && b.handle != nil:
			return 1
		}
		return 0
	})
	pages = slices.CompactFunc(pages, func(a, b newPage) bool { return a.number == b.number })
	buf := make([]byte, 0, MaxPageSize)
	for _, p := range pages {
		var err error
		if p.number >= f.state.NextPage {
			return fmt.Errorf("metadata: vDisk %s: page %d is reached from a checkpoint that ends before page %d", f.m.volume, p.number, f.state.NextPage)
		}
		if buf, err = f.encoded(ctx, p, buf); err != nil {
			return err
		}
		if err := fn(p.number, buf); err != nil {
			return err
		}
	}
	return nil
}

// encoded returns the page's bytes: from memory, or from the store if the page has left memory,
// for which it was saved.
func (f *Frozen) encoded(ctx context.Context, p newPage, buf []byte) ([]byte, error) {
	m := f.m
	if p.handle != nil {
		if w := p.handle.content(); w != nil {
			h := PageHeader{Kind: p.handle.kind, Level: p.handle.level, Birth: p.handle.birth, Seq: p.handle.seq}
			return AppendPage(buf[:0], m.volume, p.number, h, (*[fanout]uint64)(w)), nil
		}
	}
	b, err := m.store.LoadPage(ctx, m.volume, p.number, buf[:0])
	if err == nil {
		err = CheckPage(b, m.volume, p.number)
	}
	if err != nil {
		return nil, fmt.Errorf("metadata: vDisk %s: checkpoint at seq %d: page %d: %w", m.volume, f.state.Seq, p.number, err)
	}
	return b, nil
}

// Committed tells the map that the catalog has the checkpoint, and that all its NewPages are
// durable in the store. They may now leave memory without being saved.
func (m *Map) Committed(f *Frozen) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cache.mu.Lock()
	defer m.cache.mu.Unlock()
	m.savedBelow.Store(max(m.savedBelow.Load(), f.state.NextPage))
	m.committed = f.state
	for ref := range m.pinned {
		if ref.Number() < f.state.NextPage {
			delete(m.pinned, ref)
		}
	}
	m.frozen = slices.DeleteFunc(m.frozen, func(g *Frozen) bool { return g.state.Seq <= f.state.Seq })
}

// walker visits the pages of the vDisk's own below immutable roots. It reads interior pages
// only, each of them once.
type walker struct {
	m       *Map
	from    uint64 // pages below are not visited
	visited map[uint64]struct{}
	leaf    func(ref PageRef, p *page) // every page, interior ones too; p may be nil
}

func (w *walker) walk(ctx context.Context, t tree) error {
	return w.visit(ctx, t.ref, t.page, t.levels-1, t.kind)
}

func (w *walker) visit(ctx context.Context, ref PageRef, p *page, level uint8, kind TreeKind) error {
	if !ref.IsPage() || ref.Origin() != w.m.self || ref.Number() < w.from {
		return nil
	}
	if level == 0 {
		w.leaf(ref, p)
		return nil
	}
	if _, ok := w.visited[ref.Number()]; ok {
		return nil
	}
	w.visited[ref.Number()] = struct{}{}
	w.leaf(ref, p)
	if p != nil {
		if in := p.inner.Load(); in != nil {
			return w.children(ctx, &in.refs, in, level, kind)
		}
	}
	_, refs, err := w.m.read(ctx, ref, level, kind)
	if err != nil {
		return err
	}
	return w.children(ctx, refs, nil, level, kind)
}

func (w *walker) children(ctx context.Context, refs *words, in *inner, level uint8, kind TreeKind) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for i, ref := range refs {
		var p *page
		if in != nil {
			p = in.kids[i].Load()
		}
		if err := w.visit(ctx, PageRef(ref), p, level-1, kind); err != nil {
			return err
		}
	}
	return nil
}
