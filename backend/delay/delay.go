// Package delay is a decorator that makes a store slow: every call has a latency, and
// all calls share one line of limited bandwidth.
package delay

import (
	"context"
	"sync"
	"time"

	"openvstorage/backend"
)

// Options say how slow. Zero values slow nothing down.
type Options struct {
	ReadLatency  time.Duration // of Get, Stat, List, ListNamespaces and Usage
	WriteLatency time.Duration // of all others

	// BytesPerSecond is the bandwidth of the line, over which the data of Get, Put and
	// PutIf goes one call after the other. 0: no limit.
	BytesPerSecond int64

	// Now and Sleep are the clock; nil: the system's. Sleep returns early with
	// the context's error if that ends.
	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration) error
}

func (o *Options) ensureDefaults() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Store decorates a store. Safe for concurrent use.
type Store struct {
	inner backend.Store
	o     Options

	mu   sync.Mutex
	free time.Time // when the line has sent the data of all calls
}

// New returns inner, slower.
func New(inner backend.Store, o Options) *Store {
	o.ensureDefaults()
	return &Store{inner: inner, o: o}
}

// wait takes the time of a call that moves size bytes.
func (s *Store) wait(ctx context.Context, latency time.Duration, size int) error {
	d := latency
	if s.o.BytesPerSecond > 0 && size > 0 {
		s.mu.Lock()
		now := s.o.Now()
		if s.free.Before(now) {
			s.free = now
		}
		s.free = s.free.Add(time.Duration(float64(size) / float64(s.o.BytesPerSecond) * float64(time.Second)))
		d += s.free.Sub(now)
		s.mu.Unlock()
	}
	if d <= 0 {
		return nil
	}
	return s.o.Sleep(ctx, d)
}

// CreateNamespace implements backend.Store.
func (s *Store) CreateNamespace(ctx context.Context, name string) error {
	if err := s.wait(ctx, s.o.WriteLatency, 0); err != nil {
		return err
	}
	return s.inner.CreateNamespace(ctx, name)
}

// DeleteNamespace implements backend.Store.
func (s *Store) DeleteNamespace(ctx context.Context, name string) error {
	if err := s.wait(ctx, s.o.WriteLatency, 0); err != nil {
		return err
	}
	return s.inner.DeleteNamespace(ctx, name)
}

// ListNamespaces implements backend.Store.
func (s *Store) ListNamespaces(ctx context.Context) ([]string, error) {
	if err := s.wait(ctx, s.o.ReadLatency, 0); err != nil {
		return nil, err
	}
	return s.inner.ListNamespaces(ctx)
}

// Usage implements backend.Store.
func (s *Store) Usage(ctx context.Context) (used, free uint64, err error) {
	if err := s.wait(ctx, s.o.ReadLatency, 0); err != nil {
		return 0, 0, err
	}
	return s.inner.Usage(ctx)
}

// Namespace implements backend.Store.
func (s *Store) Namespace(name string) backend.Namespace {
	return &namespace{s: s, inner: s.inner.Namespace(name)}
}

type namespace struct {
	s     *Store
	inner backend.Namespace
}

// Put implements backend.Namespace.
func (n *namespace) Put(ctx context.Context, name string, data []byte) error {
	if err := n.s.wait(ctx, n.s.o.WriteLatency, len(data)); err != nil {
		return err
	}
	return n.inner.Put(ctx, name, data)
}

// PutIf implements backend.Namespace.
func (n *namespace) PutIf(ctx context.Context, name string, data []byte, version backend.Version) (backend.Version, error) {
	if err := n.s.wait(ctx, n.s.o.WriteLatency, len(data)); err != nil {
		return 0, err
	}
	return n.inner.PutIf(ctx, name, data, version)
}

// Get implements backend.Namespace.
func (n *namespace) Get(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := n.s.wait(ctx, n.s.o.ReadLatency, len(p)); err != nil {
		return 0, err
	}
	return n.inner.Get(ctx, name, p, off)
}

// Stat implements backend.Namespace.
func (n *namespace) Stat(ctx context.Context, name string) (backend.Info, error) {
	if err := n.s.wait(ctx, n.s.o.ReadLatency, 0); err != nil {
		return backend.Info{}, err
	}
	return n.inner.Stat(ctx, name)
}

// Delete implements backend.Namespace.
func (n *namespace) Delete(ctx context.Context, names []string, cond *backend.Condition) error {
	if err := n.s.wait(ctx, n.s.o.WriteLatency, 0); err != nil {
		return err
	}
	return n.inner.Delete(ctx, names, cond)
}

// List implements backend.Namespace.
func (n *namespace) List(ctx context.Context, prefix string, fn func(backend.Info) bool) error {
	if err := n.s.wait(ctx, n.s.o.ReadLatency, 0); err != nil {
		return err
	}
	return n.inner.List(ctx, prefix, fn)
}
