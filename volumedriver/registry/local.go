package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
)

// Local is a registry in a directory. Safe for concurrent use.
//
//	DIR/registry.lock  held while it is open
//	DIR/registry.0     the whole registry
//	DIR/registry.1     the same again
//
// A change writes both files anew (each to a temporary file that is synced
// and then takes the name), syncs the directory, and is acknowledged only
// then. Open finishes a change that was cut short before it returns. So at
// any moment every whole copy holds everything that was ever acknowledged or
// served, and either alone is enough: a damaged one costs nothing, and of two
// whole ones the newer wins. If neither is whole, Open refuses.
type Local struct {
	fs   disk.FS
	dir  string
	lock io.Closer

	change sync.Mutex // one change at a time; before mu
	failed error      // ErrFailed and why; guarded by change

	mu         sync.RWMutex // guards what follows; held only in memory
	closed     bool
	generation uint64
	byID       map[uuid.UUID]Record
	byName     map[string]uuid.UUID
}

const lockName = "registry.lock"

var copies = [...]string{"registry.0", "registry.1"}

// Open opens the registry in dir, which it makes if it is absent. It returns
// disk.ErrLocked if another process has it open, format.ErrCorrupt if neither
// copy is whole, and format.ErrNewer if a newer release wrote one.
func Open(fsys disk.FS, dir string) (*Local, error) {
	l := &Local{fs: fsys, dir: dir}
	if err := l.open(); err != nil {
		if l.lock != nil {
			l.lock.Close()
		}
		return nil, fmt.Errorf("open registry: %w", err)
	}
	return l, nil
}

func (l *Local) open() (err error) {
	if err := l.fs.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	if l.lock, err = l.fs.Lock(path.Join(l.dir, lockName)); err != nil {
		return err
	}
	records, whole, err := l.load()
	if err != nil {
		return err
	}
	l.set(l.generation, records)
	if whole {
		// The process before this one may have died before its last sync.
		return l.fs.SyncDir(l.dir)
	}
	if err := l.write(l.generation+1, records); err != nil {
		return err
	}
	l.generation++
	return l.fs.SyncDir(path.Dir(l.dir))
}

// load reads both copies and returns the newer one's records. whole says that
// both are whole and of one generation.
func (l *Local) load() (records []Record, whole bool, err error) {
	var generations [len(copies)]uint64
	var damage []error
	missing, found := 0, false
	for i, name := range copies {
		name = path.Join(l.dir, name)
		g, r, err := readCopy(l.fs, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing++
		case errors.Is(err, format.ErrNewer):
			return nil, false, fmt.Errorf("%s: %w", name, err)
		case err != nil: // corrupt, or on a bad spot of the disk
			damage = append(damage, fmt.Errorf("%s: %w", name, err))
		default:
			generations[i] = g
			if !found || g > l.generation {
				l.generation, records, found = g, r, true
			}
		}
	}
	if !found && len(damage) > 0 {
		return nil, false, fmt.Errorf("no copy is whole, restore one: %w", errors.Join(damage...))
	}
	return records, missing == 0 && len(damage) == 0 && generations[0] == generations[1], nil
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

// write replaces both copies, durable on return. If it fails before the first
// takes its name, nothing has changed; later, nobody can tell, and no further
// change is taken.
func (l *Local) write(generation uint64, records []Record) error {
	b := encode(generation, records)
	var staging errgroup.Group // one sync after the other would take twice as long
	for _, name := range copies {
		staging.Go(func() error { return l.stage(path.Join(l.dir, name+".tmp"), b) })
	}
	err := staging.Wait()
	if err != nil {
		return fmt.Errorf("write registry: %w", err)
	}
	err = l.publish()
	if err != nil {
		l.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		return l.failed
	}
	return nil
}

func (l *Local) publish() error {
	for _, name := range copies {
		name = path.Join(l.dir, name)
		if err := l.fs.Rename(name+".tmp", name); err != nil {
			return err
		}
	}
	return l.fs.SyncDir(l.dir)
}

func (l *Local) stage(name string, b []byte) error {
	f, err := l.fs.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		l.fs.Remove(name) // what was not synced is never used
	}
	return err
}

// set replaces the state in memory.
func (l *Local) set(generation uint64, records []Record) {
	byID := make(map[uuid.UUID]Record, len(records))
	byName := make(map[string]uuid.UUID, len(records))
	for _, r := range records {
		byID[r.ID], byName[r.Name] = r, r.ID
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.generation, l.byID, l.byName = generation, byID, byName
}

// update makes one change durable, and then visible. edit gets a copy of the
// records, sorted by name, and returns them changed.
func (l *Local) update(ctx context.Context, edit func([]Record) ([]Record, error)) error {
	l.change.Lock()
	defer l.change.Unlock()
	records, err := l.List(ctx)
	if err != nil {
		return err
	}
	if l.failed != nil {
		return l.failed
	}
	if records, err = edit(records); err != nil {
		return err
	}
	slices.SortFunc(records, byName)
	if err := l.write(l.generation+1, records); err != nil {
		return err
	}
	l.set(l.generation+1, records)
	return nil
}

func byName(a, b Record) int { return strings.Compare(a.Name, b.Name) }

// updateOne changes the record of id.
func (l *Local) updateOne(ctx context.Context, id uuid.UUID, edit func(*Record) error) error {
	return l.update(ctx, func(records []Record) ([]Record, error) {
		i := slices.IndexFunc(records, func(r Record) bool { return r.ID == id })
		if i < 0 {
			return nil, fmt.Errorf("%w: id %s", ErrNotFound, id)
		}
		if err := edit(&records[i]); err != nil {
			return nil, err
		}
		return records, records[i].validate()
	})
}

// ready refuses calls on a closed registry. The caller holds mu.
func (l *Local) readyLocked(ctx context.Context) error {
	if l.closed {
		return ErrClosed
	}
	return ctx.Err()
}

// Register adds a vDisk, durable on return. It returns ErrName, ErrNameTaken,
// ErrIDTaken or ErrFull.
func (l *Local) Register(ctx context.Context, r Record) error {
	if err := r.validate(); err != nil {
		return err
	}
	r.Created = r.Created.UTC().Round(0) // as it will be read back
	return l.update(ctx, func(records []Record) ([]Record, error) {
		for _, have := range records {
			if have.ID == r.ID {
				return nil, fmt.Errorf("%w: %s is %q", ErrIDTaken, r.ID, have.Name)
			}
			if have.Name == r.Name {
				return nil, fmt.Errorf("%w: %q", ErrNameTaken, r.Name)
			}
		}
		if len(records) == RecordsMax {
			return nil, fmt.Errorf("%w: %d vDisks", ErrFull, RecordsMax)
		}
		return append(records, r), nil
	})
}

// Lookup returns the vDisk with that name, or ErrNotFound.
func (l *Local) Lookup(ctx context.Context, name string) (Record, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if err := l.readyLocked(ctx); err != nil {
		return Record{}, err
	}
	id, ok := l.byName[name]
	if !ok {
		return Record{}, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	return l.byID[id], nil
}

// Get returns the vDisk with that id, or ErrNotFound.
func (l *Local) Get(ctx context.Context, id uuid.UUID) (Record, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if err := l.readyLocked(ctx); err != nil {
		return Record{}, err
	}
	r, ok := l.byID[id]
	if !ok {
		return Record{}, fmt.Errorf("%w: id %s", ErrNotFound, id)
	}
	return r, nil
}

// List returns all vDisks, sorted by name.
func (l *Local) List(ctx context.Context) ([]Record, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if err := l.readyLocked(ctx); err != nil {
		return nil, err
	}
	records := make([]Record, 0, len(l.byID)+1)
	for _, r := range l.byID {
		records = append(records, r)
	}
	slices.SortFunc(records, byName)
	return records, nil
}

// Rename gives a vDisk another name, durable on return. It returns ErrName,
// ErrNotFound or ErrNameTaken.
func (l *Local) Rename(ctx context.Context, id uuid.UUID, name string) error {
	if err := ValidateName(name); err != nil {
		return err
	}
	return l.updateOne(ctx, id, func(r *Record) error {
		// No change is under way but this one, so that the names stay as they are.
		if other, err := l.Lookup(ctx, name); err == nil && other.ID != id {
			return fmt.Errorf("%w: %q", ErrNameTaken, name)
		}
		r.Name = name
		return nil
	})
}

// Claim makes owner the owner of a vDisk and returns the next epoch, which is
// durable and was never returned before (P4). A vDisk that is being deleted
// can be claimed too, by whoever finishes that.
func (l *Local) Claim(ctx context.Context, id uuid.UUID, owner string) (epoch uint64, err error) {
	err = l.updateOne(ctx, id, func(r *Record) error {
		r.Owner = owner
		r.Epoch++
		epoch = r.Epoch
		return nil
	})
	if err != nil {
		return 0, err
	}
	return epoch, nil
}

// MarkDeleting notes that a vDisk is being deleted, durable on return.
func (l *Local) MarkDeleting(ctx context.Context, id uuid.UUID) error {
	return l.updateOne(ctx, id, func(r *Record) error {
		r.Deleting = true
		return nil
	})
}

// Remove forgets a vDisk and frees its name, durable on return. Removing one
// that is absent returns ErrNotFound.
func (l *Local) Remove(ctx context.Context, id uuid.UUID) error {
	return l.update(ctx, func(records []Record) ([]Record, error) {
		n := len(records)
		records = slices.DeleteFunc(records, func(r Record) bool { return r.ID == id })
		if len(records) == n {
			return nil, fmt.Errorf("%w: id %s", ErrNotFound, id)
		}
		return records, nil
	})
}

// Close lets go of the directory once a change under way is finished.
func (l *Local) Close() error {
	l.change.Lock()
	defer l.change.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	return l.lock.Close()
}
