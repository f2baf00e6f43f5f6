package local

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"openvstorage/backend"
)

// space is one namespace, from its creation to its deletion.
type space struct {
	name string
	dir  string
	gen  uint64 // counts drops; guarded by cache.mu

	mu      sync.Mutex // order of changes to names
	gone    bool       // deleted
	counted bool       // used is right
	used    int64      // bytes of its files

	changes atomic.Uint64 // of names; raised after each, with mu held
	syncing sync.Mutex    // held during a sync
	synced  uint64        // all changes up to here are durable; guarded by syncing
}

// newSpace returns a namespace that counts as not synced: an earlier process may have
// died between a change and its sync.
func (s *Store) newSpace(name string) *space {
	sp := &space{name: name, dir: path.Join(s.dir, name)}
	sp.changes.Store(1)
	return sp
}

func (sp *space) path(name string) string { return sp.dir + "/" + name }

// sync makes the namespace's names durable as they were when changes had the value want.
// Callers that arrive during a sync share the next one.
func (sp *space) sync(s *Store, want uint64) error {
	sp.syncing.Lock()
	defer sp.syncing.Unlock()
	if sp.synced >= want {
		return nil
	}
	now := sp.changes.Load()
	if err := s.syncDir(sp.dir); err != nil {
		return err
	}
	sp.synced = now
	return nil
}

func (s *Store) space(name string) (*space, error) {
	s.spaces.mu.RLock()
	sp := s.spaces.m[name]
	s.spaces.mu.RUnlock()
	if sp != nil {
		return sp, nil
	}
	if err := backend.CheckName(name); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %s", backend.ErrNamespaceNotFound, name)
}

// isGone reports whether sp is no longer the namespace of its name.
func (s *Store) isGone(sp *space) bool {
	s.spaces.mu.RLock()
	defer s.spaces.mu.RUnlock()
	return s.spaces.m[sp.name] != sp
}

// CreateNamespace implements backend.Store.
func (s *Store) CreateNamespace(ctx context.Context, name string) error {
	if err := backend.CheckName(name); err != nil {
		return err
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	if err := s.writable(ctx); err != nil {
		return err
	}
	if _, err := s.space(name); err == nil {
		return fmt.Errorf("%w: %s", backend.ErrNamespaceExists, name)
	}
	sp := s.newSpace(name)
	sp.counted = true
	if err := s.fs.MkdirAll(sp.dir, 0o700); err != nil {
		return failure("create namespace "+name, err)
	}
	if err := s.syncDir(s.dir); err != nil {
		return err
	}
	s.spaces.mu.Lock()
	s.spaces.m[name] = sp
	s.spaces.mu.Unlock()
	return nil
}

// DeleteNamespace implements backend.Store. It takes one rename; the files
// are removed in the background.
func (s *Store) DeleteNamespace(ctx context.Context, name string) error {
	s.admin.Lock()
	defer s.admin.Unlock()
	if err := s.writable(ctx); err != nil {
		return err
	}
	sp, err := s.space(name)
	if err != nil {
		return err
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.syncing.Lock() // no sync runs while the directory moves
	defer sp.syncing.Unlock()
	trash := fmt.Sprintf("%s%016x", trashPrefix, rand.Uint64())
	if err := s.fs.Rename(sp.dir, path.Join(s.dir, trash)); err != nil {
		return failure("delete namespace "+name, err)
	}
	sp.gone, sp.synced = true, math.MaxUint64
	s.spaces.mu.Lock()
	delete(s.spaces.m, name)
	s.spaces.mu.Unlock()
	s.cache.dropSpace(sp)
	if err := s.syncDir(s.dir); err != nil {
		return err
	}
	s.sweep(trash)
	return nil
}

// sweep removes a deleted namespace's directory in the background. After an error, or
// when the store is closed, the next Open removes the rest.
func (s *Store) sweep(trash string) {
	s.sweeps.Go(func() {
		s.sweepMu.Lock()
		defer s.sweepMu.Unlock()
		dir := path.Join(s.dir, trash)
		names, err := s.fs.ReadDir(dir)
		if err != nil {
			return
		}
		for _, name := range names {
			if s.closed.Load() || s.fs.Remove(path.Join(dir, name)) != nil {
				return
			}
		}
		s.fs.Remove(dir)
	})
}

// ListNamespaces implements backend.Store.
func (s *Store) ListNamespaces(ctx context.Context) ([]string, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	s.spaces.mu.RLock()
	names := make([]string, 0, len(s.spaces.m))
	for name := range s.spaces.m {
		names = append(names, name)
	}
	s.spaces.mu.RUnlock()
	slices.Sort(names)
	return names, nil
}

// Usage implements backend.Store. used is the length of all object files. The first call
// after Open stats each file, and later calls stat none.
func (s *Store) Usage(ctx context.Context) (used, free uint64, err error) {
	names, err := s.ListNamespaces(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, name := range names {
		sp, err := s.space(name)
		if err != nil {
			continue // deleted meanwhile
		}
		n, err := s.count(ctx, sp)
		if err != nil {
			return 0, 0, err
		}
		used += uint64(n)
	}
	u, err := s.fs.Statfs(s.dir)
	return used, u.Free, err
}

func (s *Store) count(ctx context.Context, sp *space) (int64, error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.gone || sp.counted {
		return sp.used, nil
	}
	names, err := s.fs.ReadDir(sp.dir)
	if err != nil {
		return 0, err
	}
	var used int64
	for _, name := range names {
		fi, err := s.fs.Stat(sp.path(name))
		if err = errors.Join(err, ctx.Err()); err != nil {
			return 0, err
		}
		used += fi.Size()
	}
	sp.used, sp.counted = used, true
	return used, nil
}
