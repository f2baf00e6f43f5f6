// Package local is an object store in a directory: one directory for each
// namespace, one file for each object, with checksums of its own over every
// 4 KiB (format.go).
//
//	DIR/.lock       held while the store is open: one process owns DIR
//	DIR/.store      a header that says what DIR is, and its format
//	DIR/.tmp/       objects being written; emptied at open
//	DIR/.trash-*    deleted namespaces, removed in the background
//	DIR/NAMESPACE/  the namespace's objects, each under its own name
//
// The objects of a namespace lie in one flat directory, so that a list is one pass. With
// SCOs of 4-64 MiB, even a vDisk of 10 TB has few enough entries for the hashed
// directories of ext4 and XFS.
//
// An object is written to .tmp and synced, then linked to its name, and then the
// directory is synced. The link fails if the name is taken. After a failed directory
// sync it is unknown which names are on the medium: the store then refuses every change
// until it is opened again, and goes on reading.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"sync/atomic"

	"openvstorage/backend"
	"openvstorage/internal/disk"
	"openvstorage/internal/format"
)

// Options are the bounds of a Store.
type Options struct {
	// Files is how many object files stay open. A read of a file that is not open
	// costs an open and a read of its table, 4 KiB for each 4 MiB of the object.
	// Default 128.
	Files int
	// TableBytes bounds the CRC tables of the open files. Default 16 MiB.
	TableBytes int64
}

func (o *Options) ensureDefaults() {
	if o.Files <= 0 {
		o.Files = 128
	}
	if o.TableBytes <= 0 {
		o.TableBytes = 16 << 20
	}
}

const (
	lockName    = ".lock"
	storeName   = ".store"
	tmpName     = ".tmp"
	trashPrefix = ".trash-"
)

// Store is a directory of namespaces. It implements backend.Store. Safe for
// concurrent use.
type Store struct {
	fs    disk.FS
	dir   string
	lock  io.Closer
	cache *cache
	pool  *pool
	temps atomic.Uint64 // names files in .tmp

	failed atomic.Pointer[error] // why nothing is changed any more
	closed atomic.Bool

	sweeps  sync.WaitGroup
	sweepMu sync.Mutex // one removal at a time

	// Locks, in order: changing, admin, space.mu, space.syncing, cache.mu, spaces.mu.
	changing sync.RWMutex // read-held by changes to objects, so that Close waits for them
	admin    sync.Mutex   // creating and deleting namespaces
	spaces   struct {
		mu sync.RWMutex
		m  map[string]*space
	}
}

// Open opens the store in dir, creates dir if it is absent, and finishes deletions that
// a crash cut short. It returns disk.ErrLocked if another process has the store open.
func Open(fsys disk.FS, dir string, o Options) (*Store, error) {
	o.ensureDefaults()
	s := &Store{fs: fsys, dir: dir, cache: newCache(o.Files, o.TableBytes), pool: newPool()}
	s.spaces.m = make(map[string]*space)
	if err := s.claim(); err != nil {
		if s.lock != nil {
			s.lock.Close()
		}
		return nil, fmt.Errorf("open object store %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) claim() error {
	if err := s.fs.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := s.fs.SyncDir(path.Dir(s.dir)); err != nil {
		return err
	}
	lock, err := s.fs.Lock(path.Join(s.dir, lockName))
	if err != nil {
		return err
	}
	s.lock = lock
	if err := s.fs.RemoveAll(path.Join(s.dir, tmpName)); err != nil {
		return err
	}
	if err := s.fs.MkdirAll(path.Join(s.dir, tmpName), 0o700); err != nil {
		return err
	}
	entries, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var trash []string
	for _, name := range entries {
		if strings.HasPrefix(name, trashPrefix) {
			trash = append(trash, name)
		}
		if backend.CheckName(name) != nil {
			continue
		}
		fi, err := s.fs.Stat(path.Join(s.dir, name))
		if err != nil {
			return err
		}
		if !fi.IsDir() {
			return fmt.Errorf("%s is not a directory: remove it", path.Join(s.dir, name))
		}
		s.spaces.m[name] = s.newSpace(name)
	}
	if err := s.checkRecord(); err != nil {
		return err
	}
	for _, name := range trash {
		s.sweep(name)
	}
	return nil
}

// checkRecord reads DIR/.store, or writes it if the directory is new.
func (s *Store) checkRecord() error {
	name := path.Join(s.dir, storeName)
	f, err := s.fs.OpenFile(name, 0, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if len(s.spaces.m) > 0 {
			return fmt.Errorf("it has directories in it and no %s: it is not an object store, or was damaged", storeName)
		}
		return s.writeRecord(name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, format.HeaderSize)
	if n, err := f.ReadAt(b, 0); n < len(b) && err != io.EOF {
		return err
	}
	if _, err = format.DecodeHeader(b, format.KindDirectory, version, 0); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (s *Store) writeRecord(name string) error {
	b := format.AppendHeader(nil, format.Header{Kind: format.KindDirectory, Version: version, MinReader: version})
	tmp := path.Join(s.dir, tmpName, "store")
	f, err := s.fs.OpenFile(tmp, disk.Write|disk.Create|disk.Exclusive, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := s.fs.Rename(tmp, name); err != nil {
		return err
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return err
	}
	return s.fs.SyncDir(path.Dir(s.dir))
}

// Close waits for changes under way and unlocks the directory. Reads under way finish or
// fail. The files of deleted namespaces that are left are removed after the next Open.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.admin.Lock()
	defer s.admin.Unlock()
	s.sweeps.Wait()
	s.cache.dropSpace(nil)
	return s.lock.Close()
}

// Stats returns the state of the cache, for metrics.
func (s *Store) Stats() Stats { return s.cache.stats() }

// Err returns why the store takes no changes until it is opened again, nil if it takes
// them.
func (s *Store) Err() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// ready refuses a call on a closed store or with a cancelled context.
func (s *Store) ready(ctx context.Context) error {
	if s.closed.Load() {
		return fmt.Errorf("object store %s: %w", s.dir, backend.ErrClosed)
	}
	return ctx.Err()
}

// writable refuses a change to a store that has failed.
func (s *Store) writable(ctx context.Context) error {
	if err := s.failed.Load(); err != nil {
		return fmt.Errorf("object store %s: %w, %s: a sync has failed: %w", s.dir, backend.ErrFailed, disk.Cure(*err), *err)
	}
	return s.ready(ctx)
}

// syncDir makes the names in dir durable. It has one caller at a time for each dir: the
// kernel reports a failure only once. The next caller must see the failure in s.failed,
// as its own sync would succeed.
func (s *Store) syncDir(dir string) error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	err := s.fs.SyncDir(dir)
	if err != nil {
		err = fmt.Errorf("sync directory %s: %w", dir, err)
		if disk.SyncBegun(err) {
			s.failed.CompareAndSwap(nil, &err)
		}
	}
	return err
}

// failure wraps an error of the disk. An error for want of room is also ErrNoSpace.
func failure(what string, err error) error {
	if disk.CauseOf(err) == disk.Full {
		return fmt.Errorf("%s: %w: %w", what, backend.ErrNoSpace, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
