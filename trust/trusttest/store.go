package trusttest

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"openvstorage/internal/keyswap"
	"openvstorage/trust"
)

// Store is a trust.Store in memory. Its methods are safe for concurrent use.
type Store struct {
	mu     sync.Mutex
	values map[string][]byte

	// Fail, if it is set, is asked before each call, by the name of the method: its error
	// is the call's, and nothing is done. Lose is asked after each swap that was made: its
	// error is the answer, as of an outcome that got lost. Both are set before the store
	// is shared.
	Fail func(method string) error
	Lose func() error
}

var _ trust.Store = (*Store)(nil)

// NewStore returns an empty store.
func NewStore() *Store { return &Store{values: map[string][]byte{}} }

// Copy returns a store that has what s has now: an older state, once s goes on.
func (s *Store) Copy() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Store{values: maps.Clone(s.values)}
}

// Become makes s what from is now.
func (s *Store) Become(from *Store) {
	values := from.Copy().values
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = values
}

// Put sets a key, whatever it has.
func (s *Store) Put(key, value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[string(key)] = bytes.Clone(value)
}

// Len is how many keys there are.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.values)
}

func (s *Store) begin(ctx context.Context, method string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.Fail != nil {
		return s.Fail(method)
	}
	return nil
}

// Get implements trust.Store.
func (s *Store) Get(ctx context.Context, key []byte) ([]byte, error) {
	if err := s.begin(ctx, "Get"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.values[string(key)]), nil
}

// Range implements trust.Store.
func (s *Store) Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	if err := s.begin(ctx, "Range"); err != nil {
		return err
	}
	s.mu.Lock()
	values := maps.Clone(s.values)
	s.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if strings.HasPrefix(key, string(prefix)) && !fn([]byte(key), bytes.Clone(values[key])) {
			return nil
		}
	}
	return nil
}

// Swap implements trust.Store.
func (s *Store) Swap(ctx context.Context, swaps []keyswap.Swap) (bool, error) {
	if err := s.begin(ctx, "Swap"); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range swaps {
		if has, ok := s.values[string(w.Key)]; ok != (w.Old != nil) || !bytes.Equal(has, w.Old) {
			return false, nil
		}
	}
	for _, w := range swaps {
		if w.New == nil {
			delete(s.values, string(w.Key))
		} else {
			s.values[string(w.Key)] = bytes.Clone(w.New)
		}
	}
	if s.Lose != nil {
		if err := s.Lose(); err != nil {
			return false, err
		}
	}
	return true, nil
}
