package registrytest

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"openvstorage/internal/disk"
	"openvstorage/volumedriver/registry"
)

// Files is a store of keys in the file DIR/keys. A swap writes a whole new file and
// renames it over the old one. Since each change costs as much as the whole store, Files
// is for tests.
type Files struct {
	fs  disk.FS
	dir string

	mu     sync.Mutex
	all    map[string][]byte
	failed error
}

var _ registry.Keys = (*Files)(nil)

// Open opens the store in dir, and makes it if it is absent.
func Open(fsys disk.FS, dir string) (*Files, error) {
	f := &Files{fs: fsys, dir: dir, all: map[string][]byte{}}
	if err := errors.Join(fsys.MkdirAll(dir, 0o700), fsys.SyncDir(path.Dir(dir))); err != nil {
		return nil, err
	}
	b, err := read(fsys, path.Join(dir, "keys"))
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = gob.NewDecoder(bytes.NewReader(b)).Decode(&f.all)
	}
	if err == nil { // its name may not be durable yet
		err = fsys.SyncDir(dir)
	}
	return f, err
}

func read(fsys disk.FS, name string) ([]byte, error) {
	file, err := fsys.OpenFile(name, 0, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	n, err := file.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err = file.ReadAt(b, 0)
	return b, err
}

// write makes the keys durable as a whole: after a power cut either all changes are
// there or none.
func (f *Files) write(all map[string][]byte) error {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(all); err != nil {
		return err
	}
	name := path.Join(f.dir, "keys")
	file, err := f.fs.OpenFile(name+".tmp", disk.Write|disk.Create|disk.Truncate, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(b.Bytes(), 0)
	if err == nil {
		err = file.Datasync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = f.fs.Rename(name+".tmp", name)
	}
	if err == nil {
		err = f.fs.SyncDir(f.dir)
	}
	return err
}

// Get implements registry.Keys.
func (f *Files) Get(ctx context.Context, key []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.Clone(f.all[string(key)]), errors.Join(ctx.Err(), f.failed)
}

// Range implements registry.Keys.
func (f *Files) Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	f.mu.Lock()
	all := maps.Clone(f.all)
	err := errors.Join(ctx.Err(), f.failed)
	f.mu.Unlock()
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(key, string(prefix)) && !fn([]byte(key), bytes.Clone(all[key])) {
			break
		}
	}
	return nil
}

// Swap implements registry.Keys. After a failure the store takes no swaps any more.
func (f *Files) Swap(ctx context.Context, swaps []registry.Swap) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(ctx.Err(), f.failed); err != nil {
		return false, fmt.Errorf("%w: %w", registry.ErrNotSwapped, err)
	}
	all := maps.Clone(f.all)
	for _, s := range swaps {
		if old, ok := f.all[string(s.Key)]; ok != (s.Old != nil) || !bytes.Equal(old, s.Old) {
			return false, nil
		}
		if s.New == nil {
			delete(all, string(s.Key))
		} else {
			all[string(s.Key)] = bytes.Clone(s.New)
		}
	}
	if err := f.write(all); err != nil {
		f.failed = fmt.Errorf("%w: %w", registry.ErrFailed, err)
		return false, f.failed
	}
	f.all = all
	return true, nil
}

// Settle implements registry.Keys. A swap that failed has broken the store, so that
// nothing can be under way.
func (f *Files) Settle(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(ctx.Err(), f.failed)
}

// Close ends the store.
func (f *Files) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = registry.ErrClosed
	return nil
}
