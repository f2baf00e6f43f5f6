package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/preset"
	"openvstorage/backend"
)

// presetAge is how long a preset is used before it is asked for again.
const presetAge = 30 * time.Second

// space is what the client keeps of a namespace while its name stands for it.
type space struct {
	in     *spaces
	name   string
	number uint64
	nsm    *nsm.Client
	preset string

	seen    atomic.Uint64 // the newest object version that was seen
	demands atomic.Uint32 // the preset's cipher and one; 0: not asked for yet

	mu       sync.Mutex
	epoch    uint64
	asked    time.Time // when epoch was true; zero: ask
	scheme   preset.Preset
	schemeAt time.Time
}

// spaces is the namespaces that the client knows, by name.
type spaces struct {
	abm      *abm.Client
	host     func(number uint64) (*nsm.Client, error) // an NSM host, by its number
	epochAge time.Duration                            // how long a gc epoch is used before it is asked for again

	mu    sync.Mutex
	known map[string]*space
}

// find returns the namespace with a name, or backend.ErrNamespaceNotFound.
func (a *spaces) find(ctx context.Context, name string) (*space, error) {
	a.mu.Lock()
	s := a.known[name]
	a.mu.Unlock()
	if s != nil {
		return s, nil
	}
	if err := backend.CheckName(name); err != nil {
		return nil, err
	}
	n, err := a.abm.Namespace(ctx, name, userfn.Consistent)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, translate(err))
	}
	host, err := a.host(n.Host)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	if n.State == abm.NamespaceCreating { // whoever created it has not told the host
		if err := a.abm.Carry(ctx, n.Host, host); err != nil {
			return nil, fmt.Errorf("namespace %s: %w", name, err)
		}
	}
	s = &space{in: a, name: name, number: n.Number, nsm: host, preset: n.Preset}
	a.mu.Lock()
	defer a.mu.Unlock()
	if other := a.known[name]; other != nil {
		return other, nil
	}
	a.known[name] = s
	return s, nil
}

// forget drops what is kept of a namespace.
func (a *spaces) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.known, name)
}

// lost reports whether err says that s is gone, and forgets it then: another namespace may
// have its name by now.
func (a *spaces) lost(s *space, err error) bool {
	if !errors.Is(err, nsm.ErrNamespaceNotFound) {
		return false
	}
	a.drop(s)
	return true
}

// drop forgets s, unless another one is known under its name already.
func (a *spaces) drop(s *space) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known[s.name] == s {
		delete(a.known, s.name)
	}
}

// currentEpoch returns the gc epoch to upload under.
func (s *space) currentEpoch(ctx context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked.IsZero() || time.Since(s.asked) > s.in.epochAge {
		at := time.Now()
		e, err := s.nsm.Epochs(ctx, s.number, userfn.Consistent)
		if err != nil {
			return 0, err
		}
		s.epoch, s.asked = e.Next-1, at
	}
	return s.epoch, nil
}

// see notes an object version that the NSM has given.
func (s *space) see(version uint64) {
	for was := s.seen.Load(); was < version && !s.seen.CompareAndSwap(was, version); was = s.seen.Load() {
	}
}

// staleEpoch has the next upload ask for the epoch again.
func (s *space) staleEpoch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = time.Time{}
}

// storage returns the preset of a namespace, at most presetAge old.
func (s *space) storage(ctx context.Context) (preset.Preset, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.schemeAt.IsZero() || time.Since(s.schemeAt) > presetAge {
		p, err := s.in.preset(ctx, s.preset)
		if err != nil {
			return preset.Preset{}, err
		}
		s.scheme, s.schemeAt = p, time.Now()
	}
	return s.scheme, nil
}

// ErrWeaker is matched by the error of reading an object that is not sealed as its
// namespace demands. No client stores such an object: its manifest was changed.
var ErrWeaker = errors.New("its cipher is weaker than that of its namespace")

// demanded returns the weakest cipher that objects of a namespace may have. It is asked for
// once: a namespace keeps its preset, and a preset in use its cipher.
func (s *space) demanded(ctx context.Context) (preset.Cipher, error) {
	if known := s.demands.Load(); known != 0 {
		return preset.Cipher(known - 1), nil
	}
	p, err := s.in.preset(ctx, s.preset)
	if err != nil {
		return 0, err
	}
	s.demands.Store(uint32(p.Scheme.Cipher) + 1)
	return p.Scheme.Cipher, nil
}

// preset fetches a preset, "" being the default one.
func (a *spaces) preset(ctx context.Context, name string) (preset.Preset, error) {
	rec, err := a.abm.Preset(ctx, name, userfn.Consistent)
	if err != nil {
		return preset.Preset{}, fmt.Errorf("preset %q: %w", name, err)
	}
	p, err := preset.Decode(rec.Data)
	if err != nil {
		return preset.Preset{}, fmt.Errorf("preset %q: %w", name, err)
	}
	return p, nil
}
