package kvclient

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
)

// session is one of the group's, used by one write at a time. request is the number of its
// last write; the id is zero until the group has opened it.
type session struct {
	id      uuid.UUID
	request uint64
}

// sessions are those of a client: free ones, ones that a write uses, and stained ones. In a
// stained one the last write was given up before its outcome was known: its request may
// still come to a member and be done, until a later one in the same session was.
type sessions struct {
	places  chan struct{} // for writes at a time; nil: no sessions
	fence   chan struct{} // held by whoever fences
	stained atomic.Int32  // how many are; a write that sees 0 has nothing to wait for

	mu    sync.Mutex
	free  []*session // last used last: that one is the least likely to have expired
	stain []*session
}

func newSessions(most int) *sessions {
	if most < 0 {
		return nil
	}
	return &sessions{places: make(chan struct{}, most), fence: make(chan struct{}, 1)}
}

// take waits for a place, and takes a session for a write.
func (s *sessions) take(ctx, closed context.Context) (*session, bool) {
	select {
	case s.places <- struct{}{}:
	default:
		select {
		case s.places <- struct{}{}:
		case <-ctx.Done():
			return nil, false
		case <-closed.Done():
			return nil, false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		one := s.free[n-1]
		s.free = s.free[:n-1]
		return one, true
	}
	return &session{}, true
}

// give gives back a session whose last write has a known outcome, and its place.
func (s *sessions) give(one *session) {
	s.mu.Lock()
	s.free = append(s.free, one)
	s.mu.Unlock()
	<-s.places
}

// give back stained: before the write's caller hears that its outcome is unknown, so that
// a write which begins after that finds it.
func (s *sessions) giveStained(one *session) {
	s.mu.Lock()
	s.stain = append(s.stain, one)
	s.stained.Add(1)
	s.mu.Unlock()
	<-s.places
}

// firstStained is a stained session, nil if there is none. Only whoever holds the fence
// may use it.
func (s *sessions) firstStained() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.stain) == 0 {
		return nil
	}
	return s.stain[0]
}

// cleaned takes the first stained session out: nothing of it comes late any more.
func (s *sessions) cleaned() {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.stain[0]
	s.stain = s.stain[1:]
	if one.id != uuid.Nil {
		s.free = append(s.free, one)
	}
	s.stained.Add(-1)
}
