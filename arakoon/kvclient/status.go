package kvclient

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/internal/wire"
)

// WhoMaster is the member that leads, 0 if none is known to. It asks all members, as often
// as they do not know, until ctx ends; the error is why it gave up.
func (c *Client) WhoMaster(ctx context.Context) (uint64, error) {
	for t := 0; ; t++ {
		leader, err := c.find(ctx)
		if leader != 0 || err != nil {
			return leader, err
		}
		if err := c.ended(ctx); err != nil {
			return 0, c.gaveUp(err, errors.New("nobody is known to lead"))
		}
		c.sleep(ctx, backOff(c.o.First, c.o.Most, t))
	}
}

// ExpectProgress says whether the group would take a write now: the leader has heard from a
// majority that it still leads. Nothing is written. It answers false when ctx ends before.
func (c *Client) ExpectProgress(ctx context.Context) bool {
	_, _, _, err := c.read(ctx, arakoon.Consistent, &request{op: kv.OpSettle, header: kv.AppendRead(nil, arakoon.Consistent)})
	return err == nil
}

// DropMaster has the leader give the lead to another member, to the best other one if to is 0.
// It returns when that leads. arakoon.ErrTransfer says why the leader leads on; after
// arakoon.ErrUnknownOutcome the lead may have changed.
func (c *Client) DropMaster(ctx context.Context, to uint64) error {
	t := &turn{}
	_, err := c.do(ctx, &request{op: kv.OpTransfer, header: kv.AppendTransfer(nil, to)}, t)
	if err != nil && t.unknown != nil && !errors.Is(err, arakoon.ErrUnknownOutcome) {
		err = fmt.Errorf("%w: %w", arakoon.ErrUnknownOutcome, err)
	}
	return err
}

// ChangeMembers has the leader make voters and learners the members, in one joint change. It
// returns when that is done. An error says why it was refused, in the words of
// arakoon.Node.ChangeMembers; after arakoon.ErrUnknownOutcome it may have been done. To ask
// for what there is already changes nothing.
func (c *Client) ChangeMembers(ctx context.Context, voters, learners []uint64) error {
	t := &turn{}
	_, err := c.do(ctx, &request{op: kv.OpChangeMembers, header: kv.AppendMembers(nil, voters, learners)}, t)
	if err != nil && t.unknown != nil && !errors.Is(err, arakoon.ErrUnknownOutcome) {
		err = fmt.Errorf("%w: %w", arakoon.ErrUnknownOutcome, err)
	}
	return err
}

// RequireZones sets in how many zones everything must be held, in the words of
// arakoon.ZoneCalls.RequireZones. What there is already is no change.
func (c *Client) RequireZones(ctx context.Context, zones int, asserted bool) (revision uint64, err error) {
	t := &turn{}
	reply, err := c.do(ctx, &request{op: kv.OpRequireZones, header: kv.AppendRequireZones(nil, uint32(zones), asserted), again: true}, t)
	if err != nil {
		if t.unknown != nil && !errors.Is(err, arakoon.ErrUnknownOutcome) {
			err = fmt.Errorf("%w: %w", arakoon.ErrUnknownOutcome, err)
		}
		return 0, err
	}
	defer reply.Release()
	revision, _, err = kv.ReadWritten(reply.Header)
	return revision, err
}

// Status asks one member for its status. Only that member is asked, once.
func (c *Client) Status(ctx context.Context, id uint64) (s kv.Status, err error) {
	err = c.ask(ctx, id, kv.OpStatus, []byte{kv.Version}, func(header []byte) error {
		s, err = kv.ReadStatus(header)
		return err
	})
	return s, err
}

// Statistics asks one member for the figures of its server.
func (c *Client) Statistics(ctx context.Context, id uint64) (s kv.Statistics, err error) {
	err = c.ask(ctx, id, kv.OpStatistics, []byte{kv.Version}, func(header []byte) error {
		s, err = kv.ReadStatistics(header)
		return err
	})
	return s, err
}

// RaiseLevel has the leader raise the group to a level, for good. Whoever calls it has asked
// every member whether its release knows the level (Level), and sees to it that no other is
// added meanwhile. A group that has the level, or a higher one, stays as it is; after
// arakoon.ErrUnknownOutcome it may have been raised.
func (c *Client) RaiseLevel(ctx context.Context, level uint32) error {
	t := &turn{}
	_, err := c.do(ctx, &request{op: kv.OpRaiseLevel, header: kv.AppendRaise(nil, level), again: true}, t)
	if err != nil && t.unknown != nil && !errors.Is(err, arakoon.ErrUnknownOutcome) {
		err = fmt.Errorf("%w: %w", arakoon.ErrUnknownOutcome, err)
	}
	return err
}

// Level asks one member for the level of the group as it has it, and for the newest that it
// knows. Only that member is asked, once: the process that has it now answers. One of a release
// that does not answer such questions gives an error that matches wire.ErrUnknownOp.
func (c *Client) Level(ctx context.Context, id uint64) (l kv.Level, err error) {
	err = c.ask(ctx, id, kv.OpLevel, []byte{kv.Version}, func(header []byte) error {
		l, err = kv.ReadLevel(header)
		return err
	})
	return l, err
}

// HashAt asks one member for the hash of its state at a revision that arakoon.Node.Hash has
// returned, and waits until that member has it. Only that member is asked, once.
func (c *Client) HashAt(ctx context.Context, id, revision uint64) (sum [32]byte, err error) {
	err = c.ask(ctx, id, kv.OpHashAt, kv.AppendHashAt(nil, revision), func(header []byte) error {
		_, sum, err = kv.ReadHash(header)
		return err
	})
	return sum, err
}

// Hash has all members hash their states at one revision, and returns that, and the member that
// leads with its hash. HashAt asks the others.
func (c *Client) Hash(ctx context.Context) (leader, revision uint64, sum [32]byte, err error) {
	if leader, err = c.WhoMaster(ctx); err != nil {
		return 0, 0, sum, err
	}
	err = c.ask(ctx, leader, kv.OpHashAt, kv.AppendHashAt(nil, 0), func(header []byte) error {
		revision, sum, err = kv.ReadHash(header)
		return err
	})
	return leader, revision, sum, err
}

// ask asks one member, waiting for a connection to it.
func (c *Client) ask(ctx context.Context, id uint64, op uint16, question []byte, read func(header []byte) error) error {
	if err := c.refresh(); err != nil {
		return err
	}
	m := c.member(id)
	if m == nil {
		return fmt.Errorf("arakoon/kvclient: group %q has no member %d", c.o.Group, id)
	}
	if _, err := m.wire.Wait(ctx); err != nil {
		return fmt.Errorf("arakoon/kvclient: group %q, member %d: %w", c.o.Group, id, err)
	}
	reply, err := m.call(ctx, wire.Request{Op: op, Header: question})
	if err != nil {
		return fmt.Errorf("arakoon/kvclient: group %q, member %d: %w", c.o.Group, id, unwrap(err))
	}
	defer reply.Release()
	return read(reply.Header)
}
