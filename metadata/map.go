package metadata

import (
	"context"
	"errors"
	"fmt"
	"math"

	"openvstorage/sco"

	"github.com/google/uuid"
)

// Options says which vDisk the map is of, and where its pages are kept.
type Options struct {
	Volume   uuid.UUID
	Origins  []uuid.UUID // origin table; the last entry is Volume
	Clusters uint64      // size of the vDisk; Open and NewClone take it from the root
	Cache    *Cache      // shared by the maps of a host
	Store    Store       // pages of this vDisk and of its origins
}

func (o *Options) validate() error {
	switch {
	case o.Cache == nil || o.Store == nil:
		return errors.New("metadata: Options without Cache or Store")
	case len(o.Origins) == 0 || len(o.Origins) > int(sco.MaxOrigin)+1:
		return fmt.Errorf("metadata: vDisk %s: has %d origins, not 1 to %d", o.Volume, len(o.Origins), int(sco.MaxOrigin)+1)
	case o.Origins[len(o.Origins)-1] != o.Volume:
		return fmt.Errorf("metadata: vDisk %s: is not the last of its origins", o.Volume)
	}
	return nil
}

// Map is the map of one vDisk. All methods are safe for concurrent use. Changes must be made
// in the order of their seq (O9).
type Map struct {
	pager
	counters

	head stem // tree of locations

	// Under pager.mu.
	drops     [maxLevels + 2]drops
	pinned    map[PageRef]*page // roots of snapshots that no checkpoint covers yet
	frozen    []*Frozen         // not committed, oldest first
	committed State             // of the newest checkpoint
}

// New makes the map of a new, empty vDisk.
func New(o Options) (*Map, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	return newMap(o, State{NextPage: 1, Root: Root{Levels: levelsFor(o.Clusters), Clusters: o.Clusters}}, nil), nil
}

// NewClone makes the map of a clone of a snapshot. The snapshot is of the vDisk before the
// clone in the origin table, and r is its root. view may be nil, or a view of the snapshot in
// the parent's map: the clone then shares the pages that are in memory. A checkpoint of the
// parent must cover the snapshot before the parent's map is closed.
func NewClone(o Options, r Root, view *View) (*Map, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if r.Page.IsPage() && int(r.Page.Origin()) >= len(o.Origins)-1 {
		return nil, fmt.Errorf("metadata: vDisk %s: root %v of its parent is of no ancestor", o.Volume, r.Page)
	}
	return newMap(o, State{NextPage: 1, Root: r}, view), nil
}

// Open makes the map of a checkpoint. It deletes the pages from the store that the vDisk
// saved after the checkpoint, as no checkpoint covers them. The caller replays the entries
// after State.Seq with Set, Fill, Grow, Snapshot and Rollback.
func Open(ctx context.Context, o Options, s State) (*Map, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	for _, r := range []Root{s.Root, s.Live} {
		if r.Levels > maxLevels || r.Page.IsPage() && (int(r.Page.Origin()) >= len(o.Origins) || r.Levels == 0) {
			return nil, fmt.Errorf("metadata: vDisk %s: checkpoint at seq %d has no valid root (%v, %d levels)", o.Volume, s.Seq, r.Page, r.Levels)
		}
	}
	for _, d := range s.Drops {
		if !d.Page.IsPage() || d.Level == 0 || int(d.Level) > maxLevels+2 {
			return nil, fmt.Errorf("metadata: vDisk %s: checkpoint at seq %d has no valid drop (%v, level %d)", o.Volume, s.Seq, d.Page, d.Level)
		}
	}
	if err := o.Store.DeletePages(ctx, o.Volume, s.NextPage, math.MaxUint64); err != nil {
		return nil, fmt.Errorf("metadata: vDisk %s: delete pages after the checkpoint: %w", o.Volume, err)
	}
	return newMap(o, s, nil), nil
}

func newMap(o Options, s State, view *View) *Map {
	m := &Map{
		pager: pager{
			volume: o.Volume, origins: o.Origins, self: sco.Origin(len(o.Origins) - 1),
			cache: o.Cache, store: o.Store,
			gen: s.Generation + 1, next: max(s.NextPage, 1), seq: s.Seq,
		},
		pinned: make(map[PageRef]*page), committed: s,
	}
	m.counters.pager = &m.pager
	m.savedBelow.Store(m.next)
	if s.Root.Levels == 0 {
		s.Root.Levels = levelsFor(s.Root.Clusters)
	}
	m.head.Store(m.rootAt(s.Root, TreeMap, view))
	for i := range m.drops {
		m.drops[i].init(uint8(i))
	}
	m.resetLive()
	if s.Recount != 0 {
		// The checkpoint does not say how far the recount had come, so its root is
		// counted again from nothing. The drops are left out: that root does not reach
		// them.
		m.startRecount(s.Recount, m.head.Load())
		return m
	}
	if s.Live.Levels > 0 {
		m.live.Store(m.rootAt(s.Live, TreeLive, nil))
		if s.Live.Page.IsPage() {
			m.held.below = 0
		}
	}
	for _, d := range s.Drops {
		m.drops[d.Level-1].reopen(&m.pager, d)
	}
	return m
}

// Close takes the map's pages out of the cache, and saves nothing. The map and its views must
// not be used afterwards. Clones that share pages may be used on, and load them again.
func (m *Map) Close() { m.cache.forget(&m.pager) }

// Volume returns the vDisk's id.
func (m *Map) Volume() uuid.UUID { return m.volume }

// Seq returns the newest seq applied.
func (m *Map) Seq() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seq
}

// Clusters returns the size of the vDisk.
func (m *Map) Clusters() uint64 { return m.head.Load().clusters }

// rootAt returns r with a handle. That of the view, or a pinned one, is used if it is of the
// same page, as only it leads to unsaved pages; otherwise a new one is made.
func (m *Map) rootAt(r Root, kind TreeKind, view *View) *root {
	out := &root{ref: r.Page, levels: r.Levels, clusters: r.Clusters}
	if !r.Page.IsPage() {
		return out
	}
	if view != nil && view.m.cache == m.cache {
		if v := view.st.Load(); v.ref == r.Page {
			out.page = v.page
			return out
		}
	}
	if out.page = m.pinned[r.Page]; out.page == nil {
		out.page = m.newHandle(r.Page, r.Levels-1, kind)
	}
	return out
}
