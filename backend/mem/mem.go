// Package mem is an object store in memory, for tests: the whole contract of
// package backend, except that nothing outlives the process.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"openvstorage/backend"
)

// Store implements backend.Store. Safe for concurrent use.
type Store struct {
	max uint64 // bytes of objects; 0: no bound

	mu      sync.Mutex // guards all below, and the maps in m
	m       map[string]map[string]object
	used    uint64
	version backend.Version // the newest given out
}

// object is an object. Its data never changes.
type object struct {
	data    []byte
	version backend.Version
}

// New returns an empty store that holds at most max bytes of objects, and refuses more
// with backend.ErrNoSpace. A max of 0 sets no bound.
func New(max uint64) *Store {
	return &Store{max: max, m: make(map[string]map[string]object)}
}

// CreateNamespace implements backend.Store.
func (s *Store) CreateNamespace(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[name] != nil {
		return fmt.Errorf("%w: %s", backend.ErrNamespaceExists, name)
	}
	s.m[name] = make(map[string]object)
	return nil
}

// Namespace implements backend.Store.
func (s *Store) Namespace(name string) backend.Namespace { return &namespace{s, name} }

// DeleteNamespace implements backend.Store.
func (s *Store) DeleteNamespace(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	objects, err := s.objectsLocked(name)
	if err != nil {
		return err
	}
	for _, o := range objects {
		s.used -= uint64(len(o.data))
	}
	delete(s.m, name)
	return nil
}

// ListNamespaces implements backend.Store.
func (s *Store) ListNamespaces(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return sortedKeys(s.m), nil
}

// Usage implements backend.Store.
func (s *Store) Usage(ctx context.Context) (used, free uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	free = 1 << 62
	if s.max > 0 {
		free = s.max - s.used
	}
	return s.used, free, ctx.Err()
}

func check(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := backend.CheckName(name); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (s *Store) objectsLocked(namespace string) (map[string]object, error) {
	objects := s.m[namespace]
	if objects == nil {
		return nil, fmt.Errorf("%w: %s", backend.ErrNamespaceNotFound, namespace)
	}
	return objects, nil
}

type namespace struct {
	s    *Store
	name string
}

// putLocked stores data under a name that is absent or may be replaced.
func (n *namespace) putLocked(objects map[string]object, name string, data []byte) (backend.Version, error) {
	used := n.s.used - uint64(len(objects[name].data)) + uint64(len(data))
	if n.s.max > 0 && used > n.s.max {
		return 0, fmt.Errorf("put %s/%s: %w", n.name, name, backend.ErrNoSpace)
	}
	n.s.used = used
	n.s.version++
	objects[name] = object{data: bytes.Clone(data), version: n.s.version}
	return n.s.version, nil
}

// Put implements backend.Namespace.
func (n *namespace) Put(ctx context.Context, name string, data []byte) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	objects, err := n.s.objectsLocked(n.name)
	if err != nil {
		return err
	}
	if o, taken := objects[name]; taken {
		if !bytes.Equal(o.data, data) {
			return fmt.Errorf("%w: %s/%s", backend.ErrExists, n.name, name)
		}
		return nil
	}
	_, err = n.putLocked(objects, name, data)
	return err
}

// PutIf implements backend.Namespace.
func (n *namespace) PutIf(ctx context.Context, name string, data []byte, version backend.Version) (backend.Version, error) {
	if err := check(ctx, name); err != nil {
		return 0, err
	}
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	objects, err := n.assertLocked(&backend.Condition{Name: name, Version: version})
	if err != nil {
		return 0, err
	}
	return n.putLocked(objects, name, data)
}

func (n *namespace) assertLocked(cond *backend.Condition) (map[string]object, error) {
	objects, err := n.s.objectsLocked(n.name)
	if err != nil || cond == nil {
		return objects, err
	}
	if have := objects[cond.Name].version; have != cond.Version {
		return nil, fmt.Errorf("%w: %s/%s is at %d, not %d", backend.ErrConflict, n.name, cond.Name, have, cond.Version)
	}
	return objects, nil
}

func (n *namespace) find(ctx context.Context, name string) (object, error) {
	if err := check(ctx, name); err != nil {
		return object{}, err
	}
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	objects, err := n.s.objectsLocked(n.name)
	if err != nil {
		return object{}, err
	}
	o, ok := objects[name]
	if !ok {
		return object{}, fmt.Errorf("%w: %s/%s", backend.ErrNotFound, n.name, name)
	}
	return o, nil
}

// Get implements backend.Namespace.
func (n *namespace) Get(ctx context.Context, name string, p []byte, off int64) (int, error) {
	o, err := n.find(ctx, name)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("%s/%s: offset %d is negative", n.name, name, off)
	}
	got := copy(p, o.data[min(off, int64(len(o.data))):])
	if got < len(p) {
		return got, io.EOF
	}
	return got, nil
}

// Stat implements backend.Namespace.
func (n *namespace) Stat(ctx context.Context, name string) (backend.Info, error) {
	o, err := n.find(ctx, name)
	if err != nil {
		return backend.Info{}, err
	}
	return backend.Info{Name: name, Size: int64(len(o.data)), Version: o.version}, nil
}

// Delete implements backend.Namespace.
func (n *namespace) Delete(ctx context.Context, names []string, cond *backend.Condition) error {
	if err := check(ctx, names...); err != nil {
		return err
	}
	if cond != nil {
		if err := check(ctx, cond.Name); err != nil {
			return err
		}
	}
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	objects, err := n.assertLocked(cond)
	if err != nil {
		return err
	}
	for _, name := range names {
		n.s.used -= uint64(len(objects[name].data))
		delete(objects, name)
	}
	return nil
}

// List implements backend.Namespace.
func (n *namespace) List(ctx context.Context, prefix string, fn func(backend.Info) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n.s.mu.Lock()
	objects, err := n.s.objectsLocked(n.name)
	var infos []backend.Info
	for _, name := range sortedKeys(objects) {
		if strings.HasPrefix(name, prefix) {
			infos = append(infos, backend.Info{Name: name, Size: int64(len(objects[name].data)), Version: objects[name].version})
		}
	}
	n.s.mu.Unlock()
	if err != nil {
		return err
	}
	for _, i := range infos {
		if !fn(i) {
			return nil
		}
	}
	return nil
}
