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
	name   string
	number uint64
	nsm    *nsm.Client
	preset string

	demands atomic.Uint32 // the preset's cipher and one; 0: not asked for yet

	mu       sync.Mutex
	epoch    uint64
	asked    time.Time // when epoch was true; zero: ask
	scheme   preset.Preset
	schemeAt time.Time
}

// space returns the namespace with a name, or backend.ErrNamespaceNotFound.
func (c *Client) space(ctx context.Context, name string) (*space, error) {
	if c.closed.Load() {
		return nil, backend.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	s := c.spaces[name]
	c.mu.Unlock()
	if s != nil {
		return s, nil
	}
	if err := backend.CheckName(name); err != nil {
		return nil, err
	}
	n, err := c.opt.ABM.Namespace(ctx, name, userfn.Consistent)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, translate(err))
	}
	host, err := c.opt.Host(n.Host)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	if n.State == abm.NamespaceCreating { // whoever made it did not get to that
		if err := c.opt.ABM.Carry(ctx, n.Host, host); err != nil {
			return nil, fmt.Errorf("namespace %s: %w", name, err)
		}
	}
	s = &space{name: name, number: n.Number, nsm: host, preset: n.Preset}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.spaces[name]; other != nil {
		return other, nil
	}
	c.spaces[name] = s
	return s, nil
}

// forget drops what is kept of a namespace.
func (c *Client) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.spaces, name)
}

// lost reports whether err says that s is not there any more: its name may
// stand for another by now.
func (c *Client) lost(s *space, err error) bool {
	if !errors.Is(err, nsm.ErrNamespaceNotFound) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spaces[s.name] == s {
		delete(c.spaces, s.name)
	}
	return true
}

// currentEpoch returns the gc epoch to upload under.
func (c *Client) currentEpoch(ctx context.Context, s *space) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked.IsZero() || time.Since(s.asked) > c.opt.EpochAge {
		at := time.Now()
		e, err := s.nsm.Epochs(ctx, s.number, userfn.Consistent)
		if err != nil {
			return 0, err
		}
		s.epoch, s.asked = e.Next-1, at
	}
	return s.epoch, nil
}

// staleEpoch has the epoch asked for again.
func (s *space) staleEpoch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = time.Time{}
}

// storage returns the preset of a namespace.
func (c *Client) storage(ctx context.Context, s *space) (preset.Preset, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.schemeAt.IsZero() || time.Since(s.schemeAt) > presetAge {
		p, err := c.preset(ctx, s.preset)
		if err != nil {
			return preset.Preset{}, err
		}
		s.scheme, s.schemeAt = p, time.Now()
	}
	return s.scheme, nil
}

// ErrWeaker: an object is not sealed as its namespace demands. Nobody stores such a
// one: its manifest was changed.
var ErrWeaker = errors.New("its cipher is weaker than that of its namespace")

// demands returns the cipher that objects of a namespace have at least. A namespace
// keeps its preset, and a preset in use its cipher, so it is asked for once.
func (c *Client) demands(ctx context.Context, s *space) (preset.Cipher, error) {
	if known := s.demands.Load(); known != 0 {
		return preset.Cipher(known - 1), nil
	}
	p, err := c.preset(ctx, s.preset)
	if err != nil {
		return 0, err
	}
	s.demands.Store(uint32(p.Scheme.Cipher) + 1)
	return p.Scheme.Cipher, nil
}

// preset fetches a preset, "" being the default one.
func (c *Client) preset(ctx context.Context, name string) (preset.Preset, error) {
	rec, err := c.opt.ABM.Preset(ctx, name, userfn.Consistent)
	if err != nil {
		return preset.Preset{}, fmt.Errorf("preset %q: %w", name, err)
	}
	p, err := preset.Decode(rec.Data)
	if err != nil {
		return preset.Preset{}, fmt.Errorf("preset %q: %w", name, err)
	}
	return p, nil
}

// master returns the master key of a scheme, nil if it has no cipher.
func (c *Client) master(s preset.Scheme) ([]byte, error) {
	if s.Cipher == preset.CipherNone {
		return nil, nil
	}
	if c.opt.Key == nil {
		return nil, fmt.Errorf("%w: master key %d is needed and no key file was given", backend.ErrKey, s.Key)
	}
	key, err := c.opt.Key(s.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", backend.ErrKey, err)
	}
	return key, nil
}

// CreateNamespace implements backend.Store: under the default preset.
func (c *Client) CreateNamespace(ctx context.Context, name string) error {
	return c.CreateWithPreset(ctx, name, "")
}

// CreateWithPreset is CreateNamespace under a preset, "" being the default.
func (c *Client) CreateWithPreset(ctx context.Context, name, preset string) error {
	if err := c.check(ctx, name); err != nil {
		return err
	}
	n, err := c.opt.ABM.CreateNamespace(ctx, name, preset)
	if err != nil {
		return fmt.Errorf("create namespace %s: %w", name, translate(err))
	}
	return c.carry(ctx, n)
}

// check refuses calls on a closed client, with an ended context, or with what
// is no name.
func (c *Client) check(ctx context.Context, name string) error {
	if c.closed.Load() {
		return backend.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return backend.CheckName(name)
}

// carry tells the NSM host of a namespace what the ABM has decided.
func (c *Client) carry(ctx context.Context, n abm.Namespace) error {
	host, err := c.opt.Host(n.Host)
	if err != nil {
		return err
	}
	if err := c.opt.ABM.Carry(ctx, n.Host, host); err != nil {
		return fmt.Errorf("namespace %s: tell NSM host %d: %w", n.Name, n.Host, err)
	}
	return nil
}

// DeleteNamespace implements backend.Store. What was in it is deleted by
// maintenance.
func (c *Client) DeleteNamespace(ctx context.Context, name string) error {
	if err := c.check(ctx, name); err != nil {
		return err
	}
	n, err := c.opt.ABM.DeleteNamespace(ctx, name)
	c.forget(name) // whatever became of it: the ABM is asked again
	if err != nil {
		return fmt.Errorf("delete namespace %s: %w", name, translate(err))
	}
	err = c.carry(ctx, n)
	c.opt.Deleted()
	return err
}

// ListNamespaces implements backend.Store.
func (c *Client) ListNamespaces(ctx context.Context) ([]string, error) {
	if c.closed.Load() {
		return nil, backend.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var all []string
	for after := ""; ; {
		page, err := c.opt.ABM.NamespaceNames(ctx, after, abm.MaxPage, userfn.Consistent)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < abm.MaxPage {
			return all, nil
		}
		after = page[len(page)-1]
	}
}

// Namespace implements backend.Store.
func (c *Client) Namespace(name string) backend.Namespace { return &namespace{c: c, name: name} }
