package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"

	"github.com/google/uuid"
)

// Older releases kept the registry in a directory, the whole of it twice:
//
//	DIR/registry.lock  held while it is open
//	DIR/registry.0     the whole registry
//	DIR/registry.1     the same again
//
// Every change wrote both files anew, one after the other. So one whole file is enough,
// and of two whole files the newer holds all that was ever acknowledged.
const lockName = "registry.lock"

var copies = [...]string{"registry.0", "registry.1"}

// ImportedSuffix is appended to the names of files that were imported. Nothing reads
// these files again.
const ImportedSuffix = ".imported"

// Bounds of one swap of an import.
const (
	importRecords = 256
	importBytes   = 1 << 20
)

// Import imports the records that an older release kept in dir, if there are any, and
// renames the files. It is called before Open, and returns how many vDisks it has
// imported. An import that was cut short is begun anew by the next call; until it is
// finished, Open refuses the registry.
//
// Errors: disk.ErrLocked: the older release runs; ErrImport: the registry is in use
// already, and began with other files or none; format.ErrCorrupt: neither file is whole.
func Import(ctx context.Context, keys Keys, fsys disk.FS, dir string) (int, error) {
	present, err := presentCopies(fsys, dir)
	if err != nil || len(present) == 0 {
		return 0, err
	}
	fail := func(err error) (int, error) {
		return 0, fmt.Errorf("import the registry files of an older release from %s: %w", dir, err)
	}
	lock, err := fsys.Lock(path.Join(dir, lockName))
	if err != nil {
		return fail(err)
	}
	defer lock.Close()
	n, err := importFiles(ctx, keys, fsys, dir)
	if err != nil {
		return fail(err)
	}
	for _, name := range present {
		name = path.Join(dir, name)
		if err := fsys.Rename(name, name+ImportedSuffix); err != nil {
			return fail(err)
		}
	}
	if err := fsys.SyncDir(dir); err != nil {
		return fail(err)
	}
	return n, nil
}

// Importable reports whether an older release has left files in dir that Import would
// import.
func Importable(fsys disk.FS, dir string) (bool, error) {
	present, err := presentCopies(fsys, dir)
	return len(present) > 0, err
}

func presentCopies(fsys disk.FS, dir string) (names []string, err error) {
	for _, name := range copies {
		switch _, err := fsys.Stat(path.Join(dir, name)); {
		case err == nil:
			names = append(names, name)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return names, nil
}

func importFiles(ctx context.Context, keys Keys, fsys disk.FS, dir string) (int, error) {
	features, err := unchanged(ctx, keys)
	if err != nil {
		return 0, err
	}
	m, raw, err := loadMeta(ctx, keys)
	if err != nil {
		return 0, err
	}
	generation, records, err := loadFiles(fsys, dir)
	switch {
	case m.state == imported && (err != nil || generation <= m.generation):
		return 0, nil // all but the renaming of the files was done
	case err != nil:
		return 0, err
	case m.state == imported:
		return 0, fmt.Errorf("%w: they are of generation %d, generation %d was imported, and the registry was in use since; move away the files that are wrong", ErrImport, generation, m.generation)
	case m.state == 0 && raw != nil:
		return 0, fmt.Errorf("%w: the registry has %d vDisks of its own; move the files away", ErrImport, m.records)
	}
	begun := meta{state: importing, generation: generation}.encode()
	if err := swap(ctx, keys, []Swap{{Key: []byte(metaKey), Old: raw, New: begun}, features}); err != nil {
		return 0, err
	}
	if raw != nil {
		if err := undoImport(ctx, keys); err != nil {
			return 0, err
		}
	}
	if err := swapEach(ctx, keys, records, adds); err != nil {
		return 0, err
	}
	done := meta{state: imported, records: uint32(len(records)), generation: generation}.encode()
	return len(records), swap(ctx, keys, []Swap{{Key: []byte(metaKey), Old: begun, New: done}, features})
}

// undoImport removes the records of an import that was cut short. This release may have
// begun it, or the one before, whose values differ: so the values are those that were
// read.
func undoImport(ctx context.Context, keys Keys) error {
	var records []Record
	raw := make(map[uuid.UUID][]byte)
	err := each(ctx, keys, func(rec Record, value []byte) {
		records, raw[rec.ID] = append(records, rec), value
	})
	if err != nil {
		return err
	}
	return swapEach(ctx, keys, records, func(rec *Record) []Swap {
		return []Swap{
			{Key: idKey(rec.ID), Old: raw[rec.ID]},
			{Key: nameKey(rec.Name), Old: rec.ID[:]},
		}
	})
}

// swapEach makes the swaps of all records, those of many records in one step.
func swapEach(ctx context.Context, keys Keys, records []Record, of func(*Record) []Swap) error {
	var swaps []Swap
	size := 0
	for i := range records {
		swaps = append(swaps, of(&records[i])...)
		size += 2 * (valueFixed + len(records[i].Name) + len(records[i].Owner))
		if i+1 < len(records) && len(swaps) < 2*importRecords && size < importBytes {
			continue
		}
		if err := swap(ctx, keys, swaps); err != nil {
			return err
		}
		swaps, size = swaps[:0], 0
	}
	return nil
}

// swap makes swaps of an import. Nobody else may change the keys meanwhile (ErrImport).
func swap(ctx context.Context, keys Keys, swaps []Swap) error {
	done, err := keys.Swap(ctx, swaps)
	if err == nil && !done {
		err = fmt.Errorf("%w: somebody else changes the registry", ErrImport)
	}
	return err
}

// loadFiles reads both copies and returns the newer one's records.
func loadFiles(fsys disk.FS, dir string) (generation uint64, records []Record, err error) {
	var damage []error
	found := false
	for _, name := range copies {
		name = path.Join(dir, name)
		g, r, err := readCopy(fsys, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, format.ErrNewer):
			return 0, nil, fmt.Errorf("%s: %w", name, err)
		case err != nil: // corrupt, or on a bad spot of the disk
			damage = append(damage, fmt.Errorf("%s: %w", name, err))
		case !found || g > generation:
			generation, records, found = g, r, true
		}
	}
	if !found {
		return 0, nil, fmt.Errorf("no copy is whole, restore one: %w", errors.Join(damage...))
	}
	return generation, records, nil
}

func readCopy(fsys disk.FS, name string) (uint64, []Record, error) {
	f, err := fsys.OpenFile(name, 0, 0)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil {
		return 0, nil, err
	}
	if n > fileMax {
		return 0, nil, corrupt("it has %d bytes, more than any registry", n)
	}
	b := make([]byte, n)
	if got, err := f.ReadAt(b, 0); got < len(b) {
		return 0, nil, fmt.Errorf("%d of %d bytes: %w", got, n, err)
	}
	return decode(b)
}

// Check verifies that the indexes and the number of records agree, and that nothing has
// both a record and an intent. It reads all keys, and
// nothing may change them meanwhile: it is for tests and offline checks.
func Check(ctx context.Context, keys Keys) error {
	m, _, err := loadMeta(ctx, keys)
	if err != nil {
		return err
	}
	records, err := list(ctx, keys)
	if err != nil {
		return err
	}
	ids := make(map[string]uuid.UUID, len(records))
	for i := range records {
		ids[records[i].Name] = records[i].ID
	}
	if m.state != importing && int(m.records) != len(records) || len(ids) != len(records) {
		return corrupt("registry: it counts %d vDisks, there are %d with %d names", m.records, len(records), len(ids))
	}
	var wrong error
	err = keys.Range(ctx, []byte(namePrefix), func(key, value []byte) bool {
		name := string(key[len(namePrefix):])
		if id, ok := ids[name]; !ok || string(id[:]) != string(value) {
			wrong = corrupt("registry: the name %q is that of vDisk %x", name, value)
		}
		delete(ids, name)
		return wrong == nil
	})
	if err = errors.Join(err, wrong); err != nil {
		return err
	}
	for name, id := range ids {
		return corrupt("registry: vDisk %s is not found by its name %q", id, name)
	}
	return checkIntents(ctx, keys)
}

func checkIntents(ctx context.Context, keys Keys) error {
	list, err := intents(ctx, keys)
	if err != nil {
		return err
	}
	for _, in := range list {
		if have, err := keys.Get(ctx, idKey(in.ID)); err != nil {
			return err
		} else if have != nil {
			return corrupt("registry: vDisk %s is there, and there is an intent to %v it", in.ID, in.Kind)
		}
	}
	_, err = entries(ctx, keys)
	return err
}
