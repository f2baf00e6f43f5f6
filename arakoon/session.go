package arakoon

import (
	"context"
	"sync"

	"openvstorage/arakoon/state"

	"github.com/google/uuid"
)

// Session makes writes that can be repeated: however often one is, it is applied once,
// and each time the result is the same. The cluster keeps 4096 sessions, those that
// wrote last, each with the result of its last write if that has at most 64 KiB.
type Session struct {
	node    *Node
	id      uuid.UUID
	mu      sync.Mutex // one write at a time
	request uint64
}

// NewSession opens a session.
func (n *Node) NewSession(ctx context.Context) (*Session, error) {
	s := n.ResumeSession(uuid.New(), 0)
	out, err := n.propose(ctx, state.Command{Open: true, Session: s.id})
	if err == nil {
		err = translate(out.Err)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// ResumeSession goes on with a session, after its request number request.
func (n *Node) ResumeSession(id uuid.UUID, request uint64) *Session {
	return &Session{node: n, id: id, request: request}
}

// ID is what ResumeSession needs, with the number of the last request.
func (s *Session) ID() (id uuid.UUID, request uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id, s.request
}

// Do is the session's next write. After ErrUnknownOutcome, ErrBusy or
// ErrNotLeader, Retry with the same sequence.
func (s *Session) Do(ctx context.Context, seq *Sequence) (index uint64, results []Result, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.request++
	return s.node.write(ctx, seq, s.id, s.request)
}

// Retry repeats the session's last write, which happens now if it had not before.
func (s *Session) Retry(ctx context.Context, seq *Sequence) (index uint64, results []Result, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node.write(ctx, seq, s.id, s.request)
}
