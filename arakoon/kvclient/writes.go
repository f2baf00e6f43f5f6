package kvclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/arakoon/state"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// Write does a sequence, and returns when its effects are durable and visible. index is
// its revision, for arakoon.AtLeast. An error says that it was not done, unless it matches
// arakoon.ErrUnknownOutcome. Those of a step that failed are *arakoon.ErrAssert,
// *arakoon.ErrNotFound and *arakoon.Error.
func (c *Client) Write(ctx context.Context, seq *arakoon.Sequence) (index uint64, results []arakoon.Result, err error) {
	body, err := seq.Encode()
	if err != nil {
		return 0, nil, err
	}
	if c.sessions == nil {
		q := &request{op: kv.OpWrite, header: kv.AppendWrite(nil, uuid.Nil, 0), body: body, steps: seq.Len()}
		return c.written(ctx, q, new(turn))
	}
	if err := c.fence(ctx); err != nil {
		return 0, nil, err
	}
	s, ok := c.sessions.take(ctx, c.ctx)
	if !ok {
		return 0, nil, c.gaveUp(c.ended(ctx), errors.New("no session was free"))
	}
	index, results, err = c.writeIn(ctx, s, body, seq.Len())
	if errors.Is(err, arakoon.ErrUnknownOutcome) && !errors.Is(err, errResultLost) {
		c.sessions.giveStained(s)
	} else {
		c.sessions.give(s)
	}
	return index, results, err
}

// Do is Write without the index.
func (c *Client) Do(ctx context.Context, seq *arakoon.Sequence) ([]arakoon.Result, error) {
	_, results, err := c.Write(ctx, seq)
	return results, err
}

// Call calls a user function and returns what it returns.
func (c *Client) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	results, err := c.Do(ctx, new(arakoon.Sequence).Call(name, version, arg))
	if err != nil {
		return nil, err
	}
	return results[0].Value, nil
}

// openings is how often a session is opened for one write. One that is gone before it was
// used shows that the group has more clients than sessions.
const openings = 3

// writeIn does a sequence in a session that this caller alone uses. The number of a request
// is taken before it is first sent, and is never taken for another sequence: after an
// unknown outcome the next request of the session has the next number.
func (c *Client) writeIn(ctx context.Context, s *session, body []byte, steps int) (uint64, []arakoon.Result, error) {
	for range openings {
		if s.id == uuid.Nil {
			if err := c.open(ctx, s); err != nil {
				return 0, nil, err
			}
		}
		s.request++
		t := &turn{}
		q := &request{op: kv.OpWrite, header: kv.AppendWrite(nil, s.id, s.request), body: body, steps: steps, again: true}
		index, results, err := c.written(ctx, q, t)
		var e *arakoon.Error
		if !errors.As(err, &e) || e.Code != state.CodeSessionExpired || t.unknown != nil {
			return index, results, err
		}
		*s = session{} // so nothing was done in it
	}
	return 0, nil, fmt.Errorf("%w: group %q: sessions expire before they are used: more than %d are in use", arakoon.ErrBusy, c.o.Group, state.SessionsMax)
}

// open opens a session. If an answer was lost the next try opens another one: the id is the
// member's choice, so that no request that comes late can begin a session anew.
func (c *Client) open(ctx context.Context, s *session) error {
	reply, err := c.do(ctx, &request{op: kv.OpOpenSession, header: []byte{kv.Version}, again: true}, new(turn))
	if err != nil {
		return err
	}
	defer reply.Release()
	_, id, err := kv.ReadWritten(reply.Header)
	if err == nil && len(id) != len(s.id) {
		err = fmt.Errorf("%w: a session of %d bytes", kv.ErrBadInput, len(id))
	}
	if err != nil {
		return fmt.Errorf("arakoon/kvclient: group %q: the answer to the opening of a session: %w", c.o.Group, err)
	}
	copy(s.id[:], id)
	return nil
}

// errResultLost is of a write that was done, and whose result is gone.
var errResultLost = errors.New("the write was done, and its result is lost")

// written sends a write and reads its answer. If a try before the last one may have done
// it, an error that is not the outcome of the sequence itself says nothing of that try.
func (c *Client) written(ctx context.Context, q *request, t *turn) (uint64, []arakoon.Result, error) {
	reply, err := c.do(ctx, q, t)
	if err != nil {
		var e *arakoon.Error
		switch {
		case errors.As(err, &e) && e.Code == state.CodeResultLost:
			err = fmt.Errorf("%w: %w: %w", arakoon.ErrUnknownOutcome, errResultLost, err)
		case t.unknown != nil && !isOutcome(err) && !errors.Is(err, arakoon.ErrUnknownOutcome):
			err = fmt.Errorf("%w: %w", arakoon.ErrUnknownOutcome, err)
		}
		return 0, nil, err
	}
	defer reply.Release()
	index, _, err := kv.ReadWritten(reply.Header)
	var results []arakoon.Result
	if err == nil {
		results, err = state.DecodeResults(bytes.Clone(reply.Body))
	}
	if err == nil && len(results) != q.steps {
		err = fmt.Errorf("%d results of %d steps", len(results), q.steps)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("%w: group %q: the write was answered, and the answer cannot be read: %w", arakoon.ErrUnknownOutcome, c.o.Group, err)
	}
	return index, results, nil
}

// isOutcome says whether an error is what became of a sequence that was applied, which is
// the same however often it is sent.
func isOutcome(err error) bool {
	var (
		absent *arakoon.ErrNotFound
		assert *arakoon.ErrAssert
		step   *arakoon.Error
	)
	if errors.As(err, &step) {
		switch step.Code {
		case state.CodeSessionExpired, state.CodeStale, state.CodeTooLarge, state.CodeBadCommand:
			return false
		}
		return true
	}
	return errors.As(err, &absent) || errors.As(err, &assert)
}

// fence makes sure that no write which was given up before can be done later. A write's
// request may be in a queue of some member that is slow; the group does it only while no
// later one of the same session was done. So an empty sequence goes through each session
// that was left in doubt, and every write that begins meanwhile waits for that. Without
// it, a caller that has looked at what became of a write, and goes on from there, could be
// overtaken by it.
func (c *Client) fence(ctx context.Context) error {
	if c.sessions.stained.Load() == 0 {
		return nil
	}
	select {
	case c.sessions.fence <- struct{}{}:
	case <-ctx.Done():
		return c.gaveUp(c.ended(ctx), nil)
	case <-c.ctx.Done():
		return c.gaveUp(c.ended(ctx), nil)
	}
	defer func() { <-c.sessions.fence }()
	for {
		s := c.sessions.firstStained()
		if s == nil {
			return nil
		}
		// The first that knows the session decides: if it does, what comes late is stale;
		// if it has expired, what comes late is refused. Either way it is not done.
		s.request++
		q := &request{op: kv.OpWrite, header: kv.AppendWrite(nil, s.id, s.request), again: true}
		reply, err := c.do(ctx, q, new(turn))
		if err == nil {
			reply.Release()
		} else if expired(err) {
			*s = session{}
		} else {
			return fmt.Errorf("nothing was sent, as a write before is in doubt: %w", hide(err))
		}
		c.sessions.cleaned()
	}
}

func expired(err error) bool {
	var e *arakoon.Error
	return errors.As(err, &e) && e.Code == state.CodeSessionExpired
}

// hide makes an error of a fence say nothing of the write that waited for it.
func hide(err error) error {
	if errors.Is(err, arakoon.ErrUnknownOutcome) || errors.Is(err, wire.ErrOutcomeUnknown) {
		return fmt.Errorf("%w: %v", arakoon.ErrBusy, err)
	}
	return err
}
