package members

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"openvstorage/arakoon"
	"openvstorage/arakoon/groups"
	"openvstorage/arakoon/kv"
	"openvstorage/arakoon/kvclient"
)

// Store is a group for its users on this host: the member here while that leads, and
// otherwise a client that follows the master. While the group has no other member there
// is no client, and nothing between a user and the member but two comparisons.
//
// A read that the member here refuses, as it leads no more or has failed, is asked of the
// client. A write goes to the member here only while it is alone: otherwise a change of the
// master could leave its outcome unknown, which a client's session finds out.
type Store struct {
	of *group

	mu     sync.Mutex
	client *kvclient.Client
	closed bool

	writes atomic.Uint64 // that users made; claims are not among them
}

var _ groups.Store = claims{}

// alone returns the member here if it is the group's only one.
func (s *Store) alone() *arakoon.Node {
	n := s.of.node.Load()
	if n == nil {
		return nil
	}
	m := n.Members()
	if len(m.Voters) != 1 || len(m.Learners) > 0 || len(m.Outgoing) > 0 || m.Voters[0] != s.of.member.Load() {
		return nil
	}
	return n
}

// leading returns the member here if it leads, as far as it knows.
func (s *Store) leading() *arakoon.Node {
	if n := s.of.node.Load(); n != nil && n.Leader() == s.of.member.Load() {
		return n
	}
	return nil
}

// remote returns the client, which is made when it is first needed.
func (s *Store) remote() (*kvclient.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, arakoon.ErrClosed
	}
	if s.client == nil {
		c, err := kvclient.New(kvclient.Options{Group: s.of.name, Members: s.of.places})
		if err != nil {
			return nil, err
		}
		s.client = c
	}
	return s.client, nil
}

func (s *Store) close() {
	s.mu.Lock()
	c := s.client
	s.client, s.closed = nil, true
	s.mu.Unlock()
	if c != nil {
		c.Close()
	}
}

// reader and writer are what a member and a client have in common.
type (
	reader interface {
		Get(ctx context.Context, c arakoon.Consistency, key []byte) ([]byte, error)
		MultiGet(ctx context.Context, c arakoon.Consistency, keys ...[]byte) ([][]byte, error)
		Range(ctx context.Context, c arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error
		Prefix(ctx context.Context, c arakoon.Consistency, prefix []byte, limit int, fn func(key, value []byte) bool) error
	}
	writer interface {
		Do(ctx context.Context, seq *arakoon.Sequence) ([]arakoon.Result, error)
		Write(ctx context.Context, seq *arakoon.Sequence) (index uint64, results []arakoon.Result, err error)
		Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error)
	}
)

var (
	_ reader = (*arakoon.Node)(nil)
	_ reader = (*kvclient.Client)(nil)
	_ writer = (*arakoon.Node)(nil)
	_ writer = (*kvclient.Client)(nil)
)

// elsewhere reports whether an error of the member here says that it has done nothing, and
// that the client is to ask whoever leads: it leads no more, or has failed. A member of the
// group's own that is closed for good has no client either.
func elsewhere(err error) bool {
	return !errors.Is(err, arakoon.ErrUnknownOutcome) && (errors.Is(err, arakoon.ErrNotLeader) || groups.Refused(err))
}

// read has the member here answer, or the client if that member does not lead.
func (s *Store) read(fn func(reader) error) error {
	if n := s.leading(); n != nil {
		if err := fn(n); !elsewhere(err) && !errors.Is(err, arakoon.ErrZones) {
			return err
		}
	}
	c, err := s.remote()
	if err != nil {
		return err
	}
	return fn(c)
}

// write has the member here write if it is alone, and otherwise the client. A refusal by the
// member, as it leads no more, says that nothing was done.
func (s *Store) write(fn func(writer) error) error {
	if n := s.alone(); n != nil {
		if err := fn(n); !elsewhere(err) {
			return err
		}
	}
	c, err := s.remote()
	if err != nil {
		return err
	}
	return fn(c)
}

// Get is as at *arakoon.Node, as are the methods below.
func (s *Store) Get(ctx context.Context, c arakoon.Consistency, key []byte) (value []byte, err error) {
	err = s.read(func(r reader) error {
		value, err = r.Get(ctx, c, key)
		return err
	})
	return value, err
}

// MultiGet returns the values of keys at one moment, nil for those absent.
func (s *Store) MultiGet(ctx context.Context, c arakoon.Consistency, keys ...[]byte) (values [][]byte, err error) {
	err = s.read(func(r reader) error {
		values, err = r.MultiGet(ctx, c, keys...)
		return err
	})
	return values, err
}

// Range calls fn with the keys in [first, last). A member settles a read before it calls fn,
// so that no key comes twice when another member has to answer. If one fails after that, that
// is told.
func (s *Store) Range(ctx context.Context, c arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error {
	o := once{fn: fn}
	return s.read(func(r reader) error {
		return o.read(func() error { return r.Range(ctx, c, first, last, limit, o.call) })
	})
}

// once keeps a list from being told twice.
type once struct {
	fn    func(key, value []byte) bool
	began bool
	err   error // of the member that had begun to tell
}

func (o *once) call(key, value []byte) bool {
	o.began = true
	return o.fn(key, value)
}

func (o *once) read(list func() error) error {
	if o.began {
		return o.err
	}
	o.err = list()
	return o.err
}

// Prefix is Range over all keys with a prefix.
func (s *Store) Prefix(ctx context.Context, c arakoon.Consistency, prefix []byte, limit int, fn func(key, value []byte) bool) error {
	o := once{fn: fn}
	return s.read(func(r reader) error { return o.read(func() error { return r.Prefix(ctx, c, prefix, limit, o.call) }) })
}

// Do does a sequence.
func (s *Store) Do(ctx context.Context, seq *arakoon.Sequence) (results []arakoon.Result, err error) {
	s.writes.Add(1)
	err = s.write(func(w writer) error {
		results, err = w.Do(ctx, seq)
		return err
	})
	return results, err
}

// Call calls a user function.
func (s *Store) Call(ctx context.Context, name string, version uint32, arg []byte) (out []byte, err error) {
	s.writes.Add(1)
	err = s.write(func(w writer) error {
		out, err = w.Call(ctx, name, version, arg)
		return err
	})
	return out, err
}

// claims is the store for claims of generations, whose writes are no reasons for claims.
type claims struct{ *Store }

// Write implements groups.Store.
func (s claims) Write(ctx context.Context, seq *arakoon.Sequence) (index uint64, results []arakoon.Result, err error) {
	err = s.write(func(w writer) error {
		index, results, err = w.Write(ctx, seq)
		return err
	})
	return index, results, err
}

// quiet is the store for what the steward and the hosts' records write.
type quiet struct{ *Store }

func (s quiet) Do(ctx context.Context, seq *arakoon.Sequence) (results []arakoon.Result, err error) {
	_, results, err = claims{s.Store}.Write(ctx, seq)
	return results, err
}

// places are the group's members for the client, nearest first: the one here, if there is
// one.
func (g *group) places() []kvclient.Member {
	h := g.of.host.Load()
	if h == nil {
		return nil // the host is not opened yet
	}
	r := g.of.file.Now()
	listed, _ := r.Group(g.name)
	var list []kvclient.Member
	for _, m := range listed.Members {
		at, known := r.Host(m.Host)
		if !known || len(at.Addresses) == 0 {
			continue
		}
		o := h.DialOptions(g.of.ctx, m.Host, kv.Service)
		o.Network, o.Address, o.Life = "tcp", g.of.address(at), listed.Life
		one := kvclient.Member{ID: m.ID, Dial: o}
		if m.Host == g.of.o.Self {
			list = slices.Insert(list, 0, one)
		} else {
			list = append(list, one)
		}
	}
	return list
}

// acquire takes a lease of the group.
func (s *Store) acquire(ctx context.Context, name string, owner uuid.UUID, ttl time.Duration) (arakoon.Lease, error) {
	if n := s.alone(); n != nil {
		return n.Acquire(ctx, name, owner, ttl)
	}
	c, err := s.remote()
	if err != nil {
		return arakoon.Lease{}, err
	}
	return c.Acquire(ctx, name, owner, ttl)
}

// release gives a lease back.
func (s *Store) release(ctx context.Context, held arakoon.Lease) error {
	if n := s.alone(); n != nil {
		return n.Release(ctx, held)
	}
	c, err := s.remote()
	if err != nil {
		return err
	}
	return c.Release(ctx, held)
}

// change changes the group's members.
func (s *Store) change(ctx context.Context, voters, learners []uint64) error {
	if n := s.alone(); n != nil {
		return n.ChangeMembers(ctx, arakoon.Members{Voters: voters, Learners: learners})
	}
	c, err := s.remote()
	if err != nil {
		return err
	}
	return c.ChangeMembers(ctx, voters, learners)
}

// raise brings the group to a level that all its members know.
func (s *Store) raise(ctx context.Context, level uint32) error {
	if n := s.alone(); n != nil {
		return n.RaiseLevel(ctx, level, false)
	}
	c, err := s.remote()
	if err != nil {
		return err
	}
	return c.RaiseLevel(ctx, level)
}

// require sets in how many zones the group must hold everything.
func (s *Store) require(ctx context.Context, zones int, asserted bool) error {
	if n := s.alone(); n != nil {
		_, err := n.RequireZones(ctx, zones, asserted)
		return err
	}
	c, err := s.remote()
	if err != nil {
		return err
	}
	_, err = c.RequireZones(ctx, zones, asserted)
	return err
}
