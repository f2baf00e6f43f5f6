package arakoon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/arakoon/state"
	"openvstorage/internal/disk"

	"github.com/google/uuid"
)

// Write does a sequence, and returns when its effects are durable and visible. index is
// that of its entry, for AtLeast. If a step fails the error is *ErrAssert, *ErrNotFound
// or *Error, and the sequence has had no effect.
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
	if need := seq.Level(n.functions); err == nil && need > n.state.Level() {
		err = n.comeTo(ctx, need)
	}
	if err == nil && seq.MayStop(n.functions) {
		err = n.try(ctx, body)
	}
	if err == nil && seq.MayAnswerMuch() && n.state.Level() < state.LevelBounded {
		err = n.boundResults(ctx, body, session)
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

// try refuses a sequence that would stop every member that applies it. Once it is in
// the log no member could get past it, and no restart would help.
func (n *Node) try(ctx context.Context, body []byte) error {
	end, err := n.readers.begin(ctx, Local)
	if err != nil {
		return err
	}
	defer end()
	if err := n.state.Try(body); err != nil {
		return fmt.Errorf("arakoon: %s: not proposed, as it would stop every member: %w", n.opt.Dir, err)
	}
	return nil
}

// boundResults is for a sequence that may return a lot, in a group of a level at which results
// have no bound yet. If they would be too long, a group of one comes to the level that has the
// bound, and refuses the sequence then; others refuse it here. But not in a session: this may be
// the retry of a write that was done, and only the state can tell.
func (n *Node) boundResults(ctx context.Context, body []byte, session uuid.UUID) error {
	end, err := n.readers.begin(ctx, Local)
	if err != nil {
		return err
	}
	failed := n.state.TryResults(body)
	end()
	if failed == nil {
		return nil
	}
	var level *LevelError
	if err := n.comeTo(ctx, state.LevelBounded); !errors.As(err, &level) {
		return err
	}
	if session != uuid.Nil {
		return nil
	}
	return failed
}

// propose has a command applied, and waits for what becomes of it.
func (n *Node) propose(ctx context.Context, c state.Command) (state.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return state.Outcome{}, err
	}
	p := &proposal{command: c, done: make(chan answer, 1)}
	if err := n.proposals.admit(p); err != nil {
		return state.Outcome{}, err
	}
	began := time.Now()
	defer func() { n.figures.proposals.add(time.Since(began)) }()
	n.work.put(p)
	select {
	case a := <-p.done:
		return a.outcome, a.err
	case <-ctx.Done():
		err := fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
		if why := n.appender.stalled.Load(); why != nil {
			if disk.CauseOf(*why) == disk.Full {
				err = fmt.Errorf("%w: %w", err, ErrFull)
			}
			err = fmt.Errorf("%w: %w", err, *why)
		}
		if why := n.missing.Load(); why != nil {
			err = fmt.Errorf("%w: %w", err, why)
		}
		return state.Outcome{}, err
	case <-n.end.failed:
	case <-n.end.stop:
	}
	// The answer may have come at the same moment: a known outcome is worth more.
	select {
	case a := <-p.done:
		return a.outcome, a.err
	default:
		return state.Outcome{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, n.Err())
	}
}
