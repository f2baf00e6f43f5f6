// Package memstore is a metadata.Store in memory for tests. Crash makes it forget everything
// that was not flushed, and a hook makes operations fail.
package memstore

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"openvstorage/metadata"

	"github.com/google/uuid"
)

// Op names a method of the store for the hook.
type Op string

// Operations that the hook sees.
const (
	Load   Op = "load"
	Save   Op = "save"
	Flush  Op = "flush"
	Delete Op = "delete"
	List   Op = "list"
)

type key struct {
	owner  uuid.UUID
	number uint64
}

// Store is the store. Its zero value is empty and ready.
type Store struct {
	mu      sync.Mutex
	pages   map[key][]byte
	durable map[key][]byte
	hook    func(op Op, owner uuid.UUID, number uint64) error
}

// New returns an empty store.
func New() *Store { return new(Store) }

var _ metadata.Store = (*Store)(nil)

// SetHook makes every operation ask hook first and fail with what it returns.
// For Save it is asked once, with the first page. nil ends it.
func (s *Store) SetHook(hook func(op Op, owner uuid.UUID, number uint64) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

func (s *Store) ask(op Op, owner uuid.UUID, number uint64) error {
	s.mu.Lock()
	hook := s.hook
	s.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(op, owner, number)
}

// Crash forgets everything since the last Flush.
func (s *Store) Crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages = maps.Clone(s.durable)
}

// Damage flips a bit of a page.
func (s *Store) Damage(owner uuid.UUID, number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{owner, number}
	b := bytes.Clone(s.pages[k])
	b[len(b)/2] ^= 1
	s.pages[k] = b
}

// Len returns the number of pages of an owner.
func (s *Store) Len(owner uuid.UUID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for k := range s.pages {
		if k.owner == owner {
			n++
		}
	}
	return n
}

// LoadPage implements metadata.Store.
func (s *Store) LoadPage(ctx context.Context, owner uuid.UUID, number uint64, buf []byte) ([]byte, error) {
	if err := s.ask(Load, owner, number); err != nil {
		return nil, err
	}
	s.mu.Lock()
	b, ok := s.pages[key{owner, number}]
	s.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("memstore: %w", metadata.ErrPageNotFound)
	}
	if err := metadata.CheckPage(b, owner, number); err != nil {
		return nil, fmt.Errorf("memstore: %w", err)
	}
	return append(buf[:0], b...), nil
}

// SavePages implements metadata.Store.
func (s *Store) SavePages(ctx context.Context, owner uuid.UUID, pages []metadata.EncodedPage) error {
	if len(pages) == 0 {
		return nil
	}
	if err := s.ask(Save, owner, pages[0].Number); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pages == nil {
		s.pages = make(map[key][]byte)
	}
	for _, p := range pages {
		s.pages[key{owner, p.Number}] = bytes.Clone(p.Bytes)
	}
	return nil
}

// Flush implements metadata.Store.
func (s *Store) Flush(ctx context.Context) error {
	if err := s.ask(Flush, uuid.Nil, 0); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.durable = maps.Clone(s.pages)
	return nil
}

// DeletePages implements metadata.Store.
func (s *Store) DeletePages(ctx context.Context, owner uuid.UUID, from, to uint64) error {
	if err := s.ask(Delete, owner, from); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.pages, func(k key, _ []byte) bool {
		return k.owner == owner && from <= k.number && k.number < to
	})
	return nil
}

// ListPages implements metadata.Store.
func (s *Store) ListPages(ctx context.Context, owner uuid.UUID, from, to uint64, fn func(number uint64) bool) error {
	if err := s.ask(List, owner, from); err != nil {
		return err
	}
	s.mu.Lock()
	var numbers []uint64
	for k := range s.pages {
		if k.owner == owner && from <= k.number && k.number < to {
			numbers = append(numbers, k.number)
		}
	}
	s.mu.Unlock()
	slices.Sort(numbers)
	for _, n := range numbers {
		if !fn(n) {
			break
		}
	}
	return nil
}
