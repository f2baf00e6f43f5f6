package arakoon

import (
	"context"
	"fmt"
	"sync"

	"openvstorage/arakoon/state"

	"github.com/google/uuid"
)

// proposal is a command that a client waits for.
type proposal struct {
	command state.Command
	done    chan answer
}

type answer struct {
	outcome state.Outcome
	err     error
}

// Write does a sequence and returns the index of the entry that it happened
// in, for AtLeast. A failed step is *ErrAssert, *ErrNotFound or *Error, and
// then nothing was done. It returns when the effects are durable and visible.
func (n *Node) Write(ctx context.Context, seq *Sequence) (index uint64, results []Result, err error) {
	return n.write(ctx, seq, uuid.Nil, 0)
}

// Do is Write without the index.
func (n *Node) Do(ctx context.Context, seq *Sequence) ([]Result, error) {
	_, results, err := n.Write(ctx, seq)
	return results, err
}

// Call calls a user function and returns what it returns.
func (n *Node) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	results, err := n.Do(ctx, new(Sequence).Call(name, version, arg))
	if err != nil {
		return nil, err
	}
	return results[0].Value, nil
}

func (n *Node) write(ctx context.Context, seq *Sequence, session uuid.UUID, request uint64) (uint64, []Result, error) {
	body, err := seq.Encode()
	if err == nil {
		err = seq.Check(n.functions)
	}
	if err == nil && seq.MayStop(n.functions) {
		err = n.try(ctx, body)
	}
	if err != nil {
		return 0, nil, err
	}
	out, err := n.propose(ctx, state.Command{Session: session, Request: request, Body: body})
	if err != nil {
		return 0, nil, err
	}
	return out.Index, out.Results, translate(out.Err)
}

// try refuses what would stop the members: once it is in the log, there is no way
// past it.
func (n *Node) try(ctx context.Context, body []byte) error {
	end, err := n.begin(ctx, Local)
	if err != nil {
		return err
	}
	defer end()
	if err := n.state.Try(body); err != nil {
		return fmt.Errorf("arakoon: %s: not proposed, as it would stop every member: %w", n.opt.Dir, err)
	}
	return nil
}

// propose has a command applied.
func (n *Node) propose(ctx context.Context, c state.Command) (state.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return state.Outcome{}, err
	}
	p := &proposal{command: c, done: make(chan answer, 1)}
	size := int64(c.Size())
	n.mu.Lock()
	if n.err != nil {
		defer n.mu.Unlock()
		return state.Outcome{}, n.err
	}
	if n.count >= n.opt.Proposals || n.count > 0 && n.bytes+size > n.opt.ProposalBytes {
		defer n.mu.Unlock()
		return state.Outcome{}, fmt.Errorf("%w: %d proposals of %d bytes are under way", ErrBusy, n.count, n.bytes)
	}
	n.count++
	n.bytes += size
	n.work.put(p) // under mu: whatever ends the node finds it
	n.mu.Unlock()
	select {
	case a := <-p.done:
		return a.outcome, a.err
	case <-ctx.Done():
		err := fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
		if why := n.stalled.Load(); why != nil {
			err = fmt.Errorf("%w: %w", err, *why)
		}
		return state.Outcome{}, err
	case <-n.failed:
	case <-n.stop:
	}
	select {
	case a := <-p.done:
		return a.outcome, a.err
	default:
		return state.Outcome{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, n.Err())
	}
}

// expect notes who waits for a batch that is about to be proposed.
func (n *Node) expect(number uint64, list []*proposal) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		n.finish(list, answer{err: fmt.Errorf("%w: %w", ErrUnknownOutcome, n.err)})
		return false
	}
	n.batches[number] = list
	return true
}

func (n *Node) forget(number uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.batches, number)
}

// finish answers proposals; mu is held.
func (n *Node) finish(list []*proposal, a answer) {
	for _, p := range list {
		n.count--
		n.bytes -= int64(p.command.Size())
		p.done <- a
	}
}

func (n *Node) refuse(list []*proposal, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.finish(list, answer{err: err})
}

// drop answers all that is proposed with an error.
func (n *Node) drop(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for number, list := range n.batches {
		n.finish(list, answer{err: err})
		delete(n.batches, number)
	}
}

// answer tells those who wait for a batch what became of it.
func (n *Node) answer(a state.Applied) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, p := range n.batches[a.Number] {
		n.finish([]*proposal{p}, answer{outcome: a.Outcomes[i]})
	}
	delete(n.batches, a.Number)
}

// Session makes writes that can be asked for again: a retry is applied once
// and gets the same result. The cluster keeps the newest 4096 sessions by their
// last write, each with the result of its last write up to 64 KiB.
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

// Retry is the session's last write again. It happens if it had not.
func (s *Session) Retry(ctx context.Context, seq *Sequence) (index uint64, results []Result, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node.write(ctx, seq, s.id, s.request)
}
