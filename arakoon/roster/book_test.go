package roster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"openvstorage/internal/format"
	"openvstorage/internal/keyswap"
)

// store is a Store in memory.
type store struct {
	mu     sync.Mutex
	values map[string][]byte
	before func() // each swap
	err    error
}

func newStore() *store { return &store{values: make(map[string][]byte)} }

func (s *store) Range(_ context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range s.values {
		if len(k) >= len(prefix) && k[:len(prefix)] == string(prefix) && !fn([]byte(k), v) {
			break
		}
	}
	return nil
}

func (s *store) Swap(_ context.Context, swaps []keyswap.Swap) (bool, error) {
	if s.before != nil {
		s.before()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false, s.err
	}
	for _, w := range swaps {
		if old, has := s.values[string(w.Key)]; has != (w.Old != nil) || string(old) != string(w.Old) {
			return false, nil
		}
	}
	for _, w := range swaps {
		if w.New == nil {
			delete(s.values, string(w.Key))
		} else {
			s.values[string(w.Key)] = w.New
		}
	}
	return true, nil
}

func TestBook(t *testing.T) {
	s := newStore()
	s.values["trust/a"] = []byte("not of the roster")
	b := Book{s}
	r, err := b.Read(t.Context())
	if err != nil || r.Revision != 0 || len(r.Hosts)+len(r.Groups) > 0 {
		t.Fatal(r, err)
	}
	want := sample()
	change := func(fn func(*Roster) error) {
		t.Helper()
		if err := b.Change(t.Context(), fn); err != nil {
			t.Fatal(err)
		}
	}
	change(func(r *Roster) error {
		for _, h := range want.Hosts {
			r.PutHost(h)
		}
		for _, g := range slices.Backward(want.Groups) { // in any order
			r.PutGroup(g)
		}
		return nil
	})
	r, err = b.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want.Revision = 1; string(r.Encode(cluster, 1)) != string(want.Encode(cluster, 1)) {
		t.Errorf("%+v", r)
	}
	// A change of nothing is not written.
	change(func(*Roster) error { return nil })
	// A host goes, with what is on it.
	change(func(r *Roster) error {
		r.Hosts = r.Hosts[:2]
		r.Groups[1].Members = r.Groups[1].Members[:2]
		return nil
	})
	if r, err = b.Read(t.Context()); err != nil || r.Revision != 2 || len(r.Hosts) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	// What nobody could mean is refused, and changes nothing.
	err = b.Change(t.Context(), func(r *Roster) error { r.Hosts = r.Hosts[:1]; return nil })
	if !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	why := errors.New("why")
	if err := b.Change(t.Context(), func(*Roster) error { return why }); err != why {
		t.Error(err)
	}
	if r, _ = b.Read(t.Context()); r.Revision != 2 || len(s.values) != 6 {
		t.Errorf("%+v, %d keys", r, len(s.values))
	}
}

// Two hosts join at the same moment: the one that comes second begins anew, and neither is
// lost.
func TestBookTwoAtOnce(t *testing.T) {
	s := newStore()
	b := Book{s}
	once := sync.OnceFunc(func() {
		err := b.Change(t.Context(), func(r *Roster) error { r.PutHost(Host{ID: id(2)}); return nil })
		if err != nil {
			t.Error(err)
		}
	})
	inner := false
	s.before = func() {
		if !inner {
			inner = true
			once()
		}
	}
	calls := 0
	err := b.Change(t.Context(), func(r *Roster) error { calls++; r.PutHost(Host{ID: id(1)}); return nil })
	r, readErr := b.Read(t.Context())
	if err != nil || readErr != nil || calls != 2 || len(r.Hosts) != 2 || r.Revision != 2 {
		t.Errorf("%d calls, %v, %+v, %v", calls, err, r, readErr)
	}
}

func TestBookThatCannotBeRead(t *testing.T) {
	s := newStore()
	h := sample().Hosts[0]
	s.values[string(h.Key())] = append([]byte{9}, h.Append(nil)[1:]...)
	if _, err := (Book{s}).Read(t.Context()); !errors.Is(err, format.ErrNewer) {
		t.Error(err)
	}
	err := Book{s}.Change(t.Context(), func(r *Roster) error { r.Hosts = nil; return nil })
	if !errors.Is(err, format.ErrNewer) || len(s.values) != 1 {
		t.Errorf("%v: a later release's record was changed", err)
	}
	s = newStore()
	s.err = errors.New("no quorum")
	if err := (Book{s}).Change(t.Context(), func(r *Roster) error { r.PutHost(h); return nil }); !errors.Is(err, s.err) {
		t.Error(err)
	}
}
