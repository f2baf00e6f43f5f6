package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"openvstorage/backend"
	"openvstorage/backend/mem"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/volumedriver/registry"
	"openvstorage/volumedriver/registry/registrytest"

	"github.com/google/uuid"
)

var errDead = errors.New("the host is dead")

// mortal counts the swaps and backend calls of a host. At one of them it calls at, before
// the call has its effect or after it. When it is dead no call has an effect.
type mortal struct {
	hooks sync.WaitGroup // calls of at
	mu    sync.Mutex
	dead  bool
	left  int // calls up to the one at which at is called; 0: none
	after bool
	at    func()
}

func (m *mortal) arm(n int, after bool, at func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left, m.after, m.at = n, after, at
}

// disarm is the end of arm: on return at has been called, or never will be. A call of the
// background may have been the one, when the operation was done.
func (m *mortal) disarm() {
	m.arm(0, false, nil)
	m.hooks.Wait()
}

func (m *mortal) die() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
}

func (m *mortal) isDead() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return errDead
	}
	return nil
}

func (m *mortal) call(do func() error) error {
	m.mu.Lock()
	hit, after, at := false, m.after, m.at
	if m.left > 0 && !m.dead {
		m.left--
		if hit = m.left == 0; hit {
			m.hooks.Add(1)
		}
	}
	m.mu.Unlock()
	if hit && !after {
		at()
		m.hooks.Done()
	}
	if err := m.isDead(); err != nil {
		return err
	}
	err := do()
	if hit && after {
		at()
		m.hooks.Done()
	}
	return errors.Join(m.isDead(), err)
}

type mortalKeys struct {
	*mortal
	registry.Keys
}

func (k mortalKeys) Get(ctx context.Context, key []byte) ([]byte, error) {
	if err := k.isDead(); err != nil {
		return nil, err
	}
	return k.Keys.Get(ctx, key)
}

func (k mortalKeys) Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	if err := k.isDead(); err != nil {
		return err
	}
	return k.Keys.Range(ctx, prefix, fn)
}

func (k mortalKeys) Swap(ctx context.Context, swaps []registry.Swap) (done bool, err error) {
	err = k.call(func() error { done, err = k.Keys.Swap(ctx, swaps); return err })
	return done, err
}

func (k mortalKeys) Settle(ctx context.Context) error { return errors.Join(k.isDead(), ctx.Err()) }

type mortalStore struct {
	*mortal
	backend.Store
}

func (s mortalStore) CreateNamespace(ctx context.Context, name string) error {
	return s.call(func() error { return s.Store.CreateNamespace(ctx, name) })
}

func (s mortalStore) DeleteNamespace(ctx context.Context, name string) error {
	return s.call(func() error { return s.Store.DeleteNamespace(ctx, name) })
}

func (s mortalStore) ListNamespaces(ctx context.Context) (names []string, err error) {
	err = s.call(func() error { names, err = s.Store.ListNamespaces(ctx); return err })
	return names, err
}

func (s mortalStore) Namespace(name string) backend.Namespace {
	return mortalNamespace{s.mortal, s.Store.Namespace(name)}
}

type mortalNamespace struct {
	*mortal
	ns backend.Namespace
}

func (n mortalNamespace) Put(ctx context.Context, name string, data []byte) error {
	return n.call(func() error { return n.ns.Put(ctx, name, data) })
}

func (n mortalNamespace) PutIf(ctx context.Context, name string, data []byte, version backend.Version) (next backend.Version, err error) {
	err = n.call(func() error { next, err = n.ns.PutIf(ctx, name, data, version); return err })
	return next, err
}

func (n mortalNamespace) Get(ctx context.Context, name string, p []byte, off int64) (got int, err error) {
	err = n.call(func() error {
		if got, err = n.ns.Get(ctx, name, p, off); err == io.EOF {
			return nil
		}
		return err
	})
	if err == nil && got < len(p) {
		err = io.EOF
	}
	return got, err
}

func (n mortalNamespace) Stat(ctx context.Context, name string) (i backend.Info, err error) {
	err = n.call(func() error { i, err = n.ns.Stat(ctx, name); return err })
	return i, err
}

func (n mortalNamespace) Delete(ctx context.Context, names []string, cond *backend.Condition) error {
	return n.call(func() error { return n.ns.Delete(ctx, names, cond) })
}

func (n mortalNamespace) List(ctx context.Context, prefix string, fn func(backend.Info) bool) error {
	return n.call(func() error { return n.ns.List(ctx, prefix, fn) })
}

// twins are two hosts with disks of their own, on one registry and one backend.
type twins struct {
	t    *testing.T
	back *mem.Store
	keys *registrytest.Files
	of   [2]*side
}

// side is one of two hosts.
type side struct {
	*twins
	id    uuid.UUID
	fs    *crashdisk.FS
	m     *mortal
	reg   *registry.Registry
	host  *Host
	alive context.Context
	end   context.CancelFunc
}

func newTwins(t *testing.T) *twins {
	keys, err := registrytest.Open(crashdisk.New(), "/keys")
	must(t, err)
	w := &twins{t: t, back: mem.New(0), keys: keys}
	for i := range w.of {
		fs := crashdisk.New()
		must(t, errors.Join(fs.MkdirAll("/data/buffer", 0o755), fs.SyncDir("/data"), fs.SyncDir("/")))
		w.of[i] = &side{twins: w, id: uuid.UUID{0: byte(i + 1), 6: 0x40, 8: 0x80}, fs: fs}
		must(t, w.of[i].open(0, false))
	}
	t.Cleanup(func() {
		for _, s := range w.of {
			s.close()
		}
	})
	return w
}

// open starts the host. If n is not 0, it dies at call n of its start.
func (s *side) open(n int, after bool) (err error) {
	s.m = &mortal{}
	s.alive, s.end = context.WithCancel(context.Background())
	if n > 0 {
		s.m.arm(n, after, s.die)
	}
	s.host = nil
	if s.reg, err = registry.Open(s.alive, mortalKeys{s.m, s.keys}); err != nil {
		return err
	}
	host, err := Open(s.alive, Options{
		FS: s.fs, Dir: "/data", WriteBuffer: 64 << 20, MapCache: 1 << 20, Backend: mortalStore{s.m, s.back}, Registry: s.reg,
		Host: s.id, Owner: fmt.Sprintf("twin %d", s.id[0]), IdleSeal: time.Hour,
	})
	if err == nil {
		s.host = host
	}
	return err
}

// die kills the host's process: what is on its disks stays as it is.
func (s *side) die() {
	s.m.die()
	s.fs = s.fs.Kill()
	s.end()
}

// close stops the host, whether it is dead or not.
func (s *side) close() {
	s.t.Helper()
	if s.host != nil {
		err := s.host.Close(context.WithoutCancel(s.alive))
		if s.m.isDead() == nil {
			must(s.t, err)
		}
	}
	s.host = nil
	s.end()
}

// restart starts the host anew. If it is dead, its start may be killed, too: at call n,
// for each n that draw returns, until draw returns 0.
func (s *side) restart(draw func() (n int, after bool)) {
	s.t.Helper()
	for {
		s.close()
		n, after := draw()
		err := s.open(n, after)
		if n == 0 {
			must(s.t, err)
			return
		}
		if s.m.disarm(); s.m.isDead() == nil {
			must(s.t, err)
			return
		}
	}
}

func unharmed() (int, bool) { return 0, false }

// has returns what the host says it has, in order of name. Something that is not running
// fails the test.
func (s *side) has() (names []string) {
	s.t.Helper()
	list, err := s.host.List(context.Background())
	must(s.t, err)
	for _, i := range list {
		switch {
		case i.State == StateRunning && i.Host == s.id:
			names = append(names, i.Name)
		case i.State != StateElsewhere || i.Host == s.id:
			s.t.Fatalf("host %d: vDisk %s is %s on %s: %s", s.id[0], i.Name, i.State, i.Host, i.Reason)
		}
	}
	return names
}

// owns checks which vDisks are this host's, whether they are open or halted.
func (s *side) owns(want ...string) {
	s.t.Helper()
	list, err := s.host.List(context.Background())
	must(s.t, err)
	var names []string
	for _, i := range list {
		if i.Host == s.id {
			names = append(names, i.Name)
		}
	}
	if !slices.Equal(names, want) {
		s.t.Errorf("host %d has %v, want %v", s.id[0], names, want)
	}
}

// content is the pattern that a vDisk holds, -1 if it was never written.
func (s *side) content(name string) int {
	s.t.Helper()
	d := open(s.t, s.host, name)
	p := make([]byte, 4*4096)
	must(s.t, d.Read(context.Background(), p, 0))
	for k := range 256 {
		if diff(p, pattern(k, 4)) < 0 {
			return k
		}
	}
	if diff(p, make([]byte, len(p))) < 0 {
		return -1
	}
	s.t.Fatalf("host %d: vDisk %s holds what nobody wrote", s.id[0], name)
	return 0
}

// whole checks that there is nothing but what has a record: no intent, no namespace.
func (w *twins) whole() {
	w.t.Helper()
	ctx := context.Background()
	must(w.t, registry.Check(ctx, w.keys))
	r, err := registry.Open(ctx, w.keys)
	must(w.t, err)
	intents, err := r.Intents(ctx)
	must(w.t, err)
	records, err := r.List(ctx)
	must(w.t, err)
	namespaces, err := w.back.ListNamespaces(ctx)
	must(w.t, err)
	var ids []string
	for _, rec := range records {
		ids = append(ids, rec.ID.String())
		if rec.Deleting {
			w.t.Errorf("vDisk %q is still being deleted", rec.Name)
		}
	}
	slices.Sort(ids)
	if len(intents) > 0 || !slices.Equal(ids, namespaces) {
		w.t.Fatalf("intents %+v\nrecords %+v\nnamespaces %v", intents, records, namespaces)
	}
}
