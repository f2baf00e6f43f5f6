package volumedriver

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/registry"

	"github.com/google/uuid"
)

// table is the vDisks of a host, by id and by name. Beside them it has the records of other
// hosts' vDisks, as of the last look at the registry: these are no vDisks here.
//
// A vDisk whose renaming has no known outcome is there under both names. Looking something
// up waits for nobody.
type table struct {
	changes atomic.Uint64                 // of what is listed, snapshots too
	watch   atomic.Pointer[func(*Volume)] // of tests: sees what has just been listed

	mu      sync.Mutex // for a moment, never during I/O
	ids     map[uuid.UUID]*Volume
	names   map[string]*Volume
	opening map[uuid.UUID]*Volume      // not listed yet, and their pages are needed
	others  map[string]registry.Record // of other hosts, by name; replaced whole, never changed
}

func newTable() *table {
	return &table{ids: make(map[uuid.UUID]*Volume), names: make(map[string]*Volume), opening: make(map[uuid.UUID]*Volume)}
}

// byID returns the vDisk with the id, nil if none is listed.
func (t *table) byID(id uuid.UUID) *Volume {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ids[id]
}

// named returns the vDisk with the name, or ErrElsewhere if another host has it, or
// ErrNotFound.
func (t *table) named(name string) (*Volume, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v := t.names[name]; v != nil {
		return v, nil
	}
	if r, ok := t.others[name]; ok {
		return nil, elsewhereError(r)
	}
	return nil, fmt.Errorf("vDisk %q: %w", name, ErrNotFound)
}

// all returns the vDisks in order of name.
func (t *table) all() []*Volume {
	list := t.appendTo(nil)
	slices.SortFunc(list, func(a, b *Volume) int { return strings.Compare(a.Name(), b.Name()) })
	return list
}

// appendTo appends the vDisks to list, in no order.
func (t *table) appendTo(list []*Volume) []*Volume {
	t.mu.Lock()
	defer t.mu.Unlock()
	list = slices.Grow(list, len(t.ids))
	for _, v := range t.ids {
		list = append(list, v)
	}
	return list
}

// below returns the vDisks that have, or may have, a name below one of dirs.
func (t *table) below(dirs ...string) (list []*Volume) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, v := range t.names {
		if slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(name, dir+"/") }) {
			list = append(list, v)
		}
	}
	return list
}

// setForeign replaces the records of other hosts' vDisks.
func (t *table) setForeign(list []registry.Record) {
	var others map[string]registry.Record
	if len(list) > 0 {
		others = make(map[string]registry.Record, len(list))
	}
	for _, r := range list {
		others[r.Name] = r
	}
	t.mu.Lock()
	differ := !maps.Equal(t.others, others)
	t.others = others
	t.mu.Unlock()
	if differ {
		t.changed()
	}
}

// foreigners returns the records of other hosts' vDisks, in no order.
func (t *table) foreigners() []registry.Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Values(t.others))
}

// foreign returns the record of another host's vDisk.
func (t *table) foreign(name string) (registry.Record, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.others[name]
	return r, ok
}

// foreignID is foreign by id.
func (t *table) foreignID(id uuid.UUID) (registry.Record, bool) {
	for _, r := range t.foreigners() {
		if r.ID == id {
			return r, true
		}
	}
	return registry.Record{}, false
}

// foreignBelow returns ErrElsewhere if a vDisk of another host has a name below dir.
func (t *table) foreignBelow(dir string) error {
	for _, r := range t.foreigners() {
		if strings.HasPrefix(r.Name, dir+"/") {
			return elsewhereError(r)
		}
	}
	return nil
}

// namesOf returns the names of clones, in order. A clone that is not listed has its id
// for a name.
func (t *table) namesOf(children []catalog.Child) []string {
	var names []string
	for _, c := range children {
		if v := t.byID(c.Volume); v != nil {
			names = append(names, v.Name())
		} else if r, ok := t.foreignID(c.Volume); ok {
			names = append(names, r.Name)
		} else {
			names = append(names, c.Volume.String())
		}
	}
	slices.Sort(names)
	return names
}

// open makes owner find v while v is being opened.
func (t *table) open(v *Volume) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.opening[v.id] = v
}

// opened ends what open began.
func (t *table) opened(v *Volume) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.opening, v.id)
}

// owner returns the vDisk with the id, listed or being opened, nil if there is none: it
// knows where its map pages are.
func (t *table) owner(id uuid.UUID) *Volume {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v := t.ids[id]; v != nil {
		return v
	}
	return t.opening[id]
}

// list lists v in place of the vDisk that has its id.
func (t *table) list(v *Volume) {
	if watch := t.watch.Load(); watch != nil {
		defer (*watch)(v)
	}
	defer t.changed()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ids[v.id] = v
	t.names[v.Name()] = v
}

// unlist takes a vDisk out, under whatever names it is there.
func (t *table) unlist(id uuid.UUID) {
	defer t.changed()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ids, id)
	t.dropNames(id)
}

// dropNames takes all names of a vDisk out. t.mu is held.
func (t *table) dropNames(id uuid.UUID) {
	for name, v := range t.names {
		if v.id == id {
			delete(t.names, name)
		}
	}
}

// answer lists v under one more name, which it may have got.
func (t *table) answer(v *Volume, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.names[name] = v
}

// settleName gives v a name, and no other.
func (t *table) settleName(v *Volume, name string) {
	defer t.changed()
	t.mu.Lock()
	defer t.mu.Unlock()
	v.setName(name)
	t.dropNames(v.id)
	t.names[name] = v
}

// rename makes renamings that are in the registry.
func (t *table) rename(list []renaming) {
	defer t.changed()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range list {
		delete(t.names, r.old)
		t.names[r.new] = r.v
	}
	for _, r := range list {
		r.v.setName(r.new)
	}
}

// changed notes that a vDisk or a snapshot has come, gone or got another name.
func (t *table) changed() { t.changes.Add(1) }

// version is another number after each changed.
func (t *table) version() uint64 { return t.changes.Load() }
