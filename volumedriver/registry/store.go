package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// Registry holds the records of a vPool's vDisks. Every change is one swap of all the
// keys that it depends on, and is durable when the call returns. A Registry is safe for
// concurrent use, also beside other registries on the same keys.
type Registry struct {
	keys   Keys
	size   sync.Mutex // held by changes of the number of vDisks: their swaps would collide
	unsure unsure

	mu     sync.RWMutex // held for reading by every call
	closed bool
}

// Open opens the registry that is kept in keys. Without any keys the registry is empty.
// What an older release wrote stays as it is until it is changed.
//
// Errors: ErrImport if an import was begun and not finished, format.ErrNewer if a newer
// release wrote the registry, format.ErrCorrupt.
func Open(ctx context.Context, keys Keys) (*Registry, error) {
	if _, err := unchanged(ctx, keys); err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	m, _, err := loadMeta(ctx, keys)
	if err == nil && m.state == importing {
		err = ErrImport
	}
	if err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	return &Registry{keys: keys}, nil
}

// Close waits for the calls under way and ends the registry. The caller closes the keys
// afterwards.
func (r *Registry) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

// begin refuses calls on a closed registry, and keeps Close waiting until end. It first
// finds out what became of swaps that were not answered, so that none of them changes
// later what the call reads.
func (r *Registry) begin(ctx context.Context) (end func(), err error) {
	r.mu.RLock()
	if err = ctx.Err(); r.closed {
		err = ErrClosed
	}
	if err == nil {
		err = r.settle(ctx)
	}
	if err != nil {
		r.mu.RUnlock()
		return nil, err
	}
	return r.mu.RUnlock, nil
}

func loadMeta(ctx context.Context, keys Keys) (m meta, raw []byte, err error) {
	if raw, err = keys.Get(ctx, []byte(metaKey)); err != nil {
		return m, nil, err
	}
	m, err = decodeMeta(raw)
	return m, raw, err
}

// unchanged returns a swap that leaves the features as they are, or format.ErrNewer if
// this release does not know one of them. It is part of every change: the change fails
// if another release begins to use a feature meanwhile.
func unchanged(ctx context.Context, keys Keys) (Swap, error) {
	raw, err := keys.Get(ctx, []byte(featuresKey))
	if err == nil {
		err = checkFeatures(raw)
	}
	return Swap{Key: []byte(featuresKey), Old: raw, New: raw}, err
}

// record returns a record with its bytes, or ErrNotFound.
func (r *Registry) record(ctx context.Context, id uuid.UUID) (Record, []byte, error) {
	raw, err := r.keys.Get(ctx, idKey(id))
	if err != nil {
		return Record{}, nil, err
	}
	if raw == nil {
		return Record{}, nil, fmt.Errorf("%w: id %s", ErrNotFound, id)
	}
	rec, err := decodeValue(id, raw)
	return rec, raw, err
}

// attempts bounds how often a call begins anew because others have changed the keys
// that it depends on.
const attempts = 100

// change makes the swaps that plan returns. If others have changed the keys meanwhile,
// plan is called again. A swap that was not answered is made again once it is known that
// it was not made; after unansweredMax of them change gives up.
func (r *Registry) change(ctx context.Context, plan func() ([]Swap, error)) error {
	for unanswered, try := 0, 0; try < attempts; try++ {
		features, err := unchanged(ctx, r.keys)
		if err != nil {
			return fmt.Errorf("change registry: %w", err)
		}
		swaps, err := plan()
		if err != nil || len(swaps) == 0 {
			return err
		}
		if !slices.ContainsFunc(swaps, func(s Swap) bool { return string(s.Key) == featuresKey }) {
			swaps = append(swaps, features)
		}
		done, err := r.keys.Swap(ctx, swaps)
		if err != nil && !errors.Is(err, ErrNotSwapped) {
			if done, err = r.findOut(ctx, swaps, err); err == nil && !done {
				if unanswered++; unanswered == unansweredMax {
					err = fmt.Errorf("%w: it was tried %d times and not answered", ErrNotSwapped, unanswered)
				}
			}
		}
		if err != nil {
			return fmt.Errorf("change registry: %w", err)
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("change registry: others changed it %d times meanwhile; try again", attempts)
}

// changeOne changes the record of id for by, who has it: else ErrNotOwner.
func (r *Registry) changeOne(ctx context.Context, id uuid.UUID, by Holder, edit func(*Record)) error {
	end, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return r.change(ctx, func() ([]Swap, error) {
		rec, raw, err := r.record(ctx, id)
		if err != nil {
			return nil, err
		}
		if err := rec.heldBy(by); err != nil {
			return nil, err
		}
		edit(&rec)
		if err := rec.validate(); err != nil {
			return nil, err
		}
		return []Swap{{Key: idKey(id), Old: raw, New: encodeValue(&rec)}}, nil
	})
}

// Register adds a vDisk that is whole already. One that is being made has an intent, and
// is added by Finish. Register returns ErrName, ErrNameTaken, ErrIDTaken or ErrFull.
func (r *Registry) Register(ctx context.Context, rec Record) error {
	return r.add(ctx, rec, func() ([]Swap, error) { return nil, nil })
}

// add adds a vDisk, and makes in the same step what along returns.
func (r *Registry) add(ctx context.Context, rec Record, along func() ([]Swap, error)) error {
	if err := rec.validate(); err != nil {
		return err
	}
	end, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	r.size.Lock()
	defer r.size.Unlock()
	return r.change(ctx, func() ([]Swap, error) {
		swaps, err := along()
		if err != nil {
			return nil, err
		}
		switch have, _, err := r.record(ctx, rec.ID); {
		case err == nil:
			return nil, fmt.Errorf("%w: %s is %q", ErrIDTaken, rec.ID, have.Name)
		case !errors.Is(err, ErrNotFound):
			return nil, err
		}
		if err := r.free(ctx, rec.Name); err != nil {
			return nil, err
		}
		m, raw, err := loadMeta(ctx, r.keys)
		if err != nil {
			return nil, err
		}
		if m.records == RecordsMax {
			return nil, fmt.Errorf("%w: %d vDisks", ErrFull, RecordsMax)
		}
		m.records++
		swaps = append(swaps, adds(&rec)...)
		return append(swaps, Swap{Key: []byte(metaKey), Old: raw, New: m.encode()}), nil
	})
}

// adds are the swaps that put a new vDisk into the indexes.
func adds(rec *Record) []Swap {
	return []Swap{
		{Key: idKey(rec.ID), New: encodeValue(rec)},
		{Key: nameKey(rec.Name), New: bytes.Clone(rec.ID[:])},
	}
}

// free returns ErrNameTaken if a vDisk has the name.
func (r *Registry) free(ctx context.Context, name string) error {
	taken, err := r.keys.Get(ctx, nameKey(name))
	if err == nil && taken != nil {
		err = fmt.Errorf("%w: %q", ErrNameTaken, name)
	}
	return err
}

// Lookup returns the vDisk with that name, or ErrNotFound.
func (r *Registry) Lookup(ctx context.Context, name string) (Record, error) {
	end, err := r.begin(ctx)
	if err != nil {
		return Record{}, err
	}
	defer end()
	for range attempts {
		raw, err := r.keys.Get(ctx, nameKey(name))
		if err != nil {
			return Record{}, err
		}
		if raw == nil {
			break
		}
		id, err := uuid.FromBytes(raw)
		if err != nil {
			return Record{}, corrupt("name %q: %v", name, err)
		}
		rec, _, err := r.record(ctx, id)
		if err == nil && rec.Name == name {
			return rec, nil
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return Record{}, err
		}
		// The vDisk was removed or renamed in between: another may have the name now.
	}
	return Record{}, fmt.Errorf("%w: %q", ErrNotFound, name)
}

// Get returns the vDisk with that id, or ErrNotFound.
func (r *Registry) Get(ctx context.Context, id uuid.UUID) (Record, error) {
	end, err := r.begin(ctx)
	if err != nil {
		return Record{}, err
	}
	defer end()
	rec, _, err := r.record(ctx, id)
	return rec, err
}

// List returns all vDisks as they are at one moment, sorted by name.
func (r *Registry) List(ctx context.Context) ([]Record, error) {
	end, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	records, err := list(ctx, r.keys)
	if err != nil {
		return nil, fmt.Errorf("list registry: %w", err)
	}
	slices.SortFunc(records, byName)
	return records, nil
}

// list returns all records, in order of id.
func list(ctx context.Context, keys Keys) ([]Record, error) {
	records := []Record{}
	err := each(ctx, keys, func(rec Record, _ []byte) { records = append(records, rec) })
	if err != nil {
		return nil, err
	}
	return records, nil
}

// each calls fn with all records of one moment, in order of id, and with their values.
// fn may keep both.
func each(ctx context.Context, keys Keys, fn func(rec Record, raw []byte)) error {
	var failed error
	err := keys.Range(ctx, []byte(idPrefix), func(key, value []byte) bool {
		id, err := uuid.FromBytes(key[len(idPrefix):])
		if err != nil {
			failed = corrupt("key %q: %v", key, err)
			return false
		}
		rec, err := decodeValue(id, value)
		if err != nil {
			failed = err
			return false
		}
		fn(rec, value)
		return true
	})
	return errors.Join(err, failed)
}

func byName(a, b Record) int { return strings.Compare(a.Name, b.Name) }

// Renaming gives the vDisk with that id another name. By has it.
type Renaming struct {
	ID   uuid.UUID
	Name string
	By   Holder
}

// RenamesMax bounds the vDisks of one RenameAll, so that with the longest names they
// still fit one command of the store.
const RenamesMax = 1000

// Rename gives a vDisk that by has another name. It returns ErrName, ErrNotFound,
// ErrNotOwner or ErrNameTaken.
func (r *Registry) Rename(ctx context.Context, id uuid.UUID, by Holder, name string) error {
	return r.RenameAll(ctx, []Renaming{{id, name, by}}, Beside{})
}

// Beside is a change of what others keep in the same store beside the registry, made
// in one step with a change of the registry. Whoever makes it knows its keys; those
// who hand it on need not. The zero value changes nothing.
type Beside struct{ swaps []Swap }

// NewBeside is the change that makes all swaps. It keeps the slice.
func NewBeside(swaps []Swap) Beside { return Beside{swaps} }

// RenameAll gives vDisks other names, and changes what is beside the registry: all in
// one step, or nothing. No name may be one that a vDisk has, even if that vDisk is
// renamed too. It returns ErrName, ErrNotFound, ErrNotOwner, ErrNameTaken or ErrMany.
func (r *Registry) RenameAll(ctx context.Context, list []Renaming, beside Beside) error {
	if len(list) > RenamesMax {
		return fmt.Errorf("%w: %d vDisks at once, %d are allowed", ErrMany, len(list), RenamesMax)
	}
	names := make(map[string]bool, len(list))
	for _, n := range list {
		if err := validateKept(n.Name); err != nil {
			return err
		}
		if names[n.Name] {
			return fmt.Errorf("%w: %q, by two at once", ErrNameTaken, n.Name)
		}
		names[n.Name] = true
	}
	end, err := r.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return r.change(ctx, func() ([]Swap, error) {
		swaps := slices.Clone(beside.swaps)
		for _, n := range list {
			one, err := r.renaming(ctx, n)
			if err != nil {
				return nil, err
			}
			swaps = append(swaps, one...)
		}
		return swaps, nil
	})
}

// renaming returns the swaps of one renaming, none if the vDisk has the name already.
func (r *Registry) renaming(ctx context.Context, n Renaming) ([]Swap, error) {
	rec, raw, err := r.record(ctx, n.ID)
	if err == nil {
		err = rec.heldBy(n.By)
	}
	if err != nil || rec.Name == n.Name {
		return nil, err
	}
	if err := r.free(ctx, n.Name); err != nil {
		return nil, err
	}
	old := rec.Name
	rec.Name = n.Name
	return []Swap{
		{Key: idKey(n.ID), Old: raw, New: encodeValue(&rec)},
		{Key: nameKey(old), Old: n.ID[:], New: nil},
		{Key: nameKey(n.Name), Old: nil, New: n.ID[:]},
	}, nil
}
