// Package kvclient reads and writes the keys of a group from outside of its members. A
// Client has the methods of *arakoon.Node that users of a group need, with the same
// meanings and errors, so that they need not know which of the two they have.
//
// # What is promised
//
//   - A client follows whoever leads: by the hint of a member that does not, otherwise by
//     asking all. It goes on over a change of the lead until ctx ends. A ctx without a
//     deadline waits for as long as nobody leads.
//   - Each write is applied once at most, however often it had to be sent: it goes through a
//     session (package state keeps the last request of each, with its result). An error says
//     that it was not applied, unless it matches arakoon.ErrUnknownOutcome.
//   - A write that begins after another was given up (its ctx has ended) comes behind that
//     one, or that one never happens: what could still be on its way is fenced off first.
//   - Consistent reads are linearizable. AtLeast and Local reads go to the nearest member.
//   - A range is read in pages of Options.PageSize. All of a page is as at one moment, and no
//     page is as at an earlier moment than the one before. So what fits a page is as at one
//     moment.
//
// # Bounds
//
// A client has a connection and a goroutine for each member, at most Options.Sessions writes
// at a time, and one search for the lead at a time, whoever waits for it. Tries are apart by
// a back-off with jitter. It touches no clock but for these waits.
package kvclient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/internal/wire"
)

// Client is a client of one group. Its methods are safe for concurrent use.
type Client struct {
	*router
	sessions *sessions // nil: none
}

// router finds the members, and among them whoever can answer a request.
type router struct {
	o      Options
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	master atomic.Uint64            // who leads as far as is known, 0: nobody
	stands atomic.Pointer[obstacle] // in the way of writes, as members said when they were asked last; nil: nothing

	mu      sync.Mutex
	members []*member
	search  *search // that is under way
	closed  bool
	running sync.WaitGroup
}

// member is a member, and the connection to it.
type member struct {
	id    uint64
	wire  *wire.Redialer
	asked atomic.Bool // who leads, and has not answered yet
}

// New makes a client, and begins to connect. It does not wait for any member.
func New(o Options) (*Client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{router: &router{o: o}, sessions: newSessions(o.Sessions)}
	c.ctx, c.stop = context.WithCancel(context.Background())
	if err := c.refresh(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends all that waits, with arakoon.ErrClosed, and the connections. It returns when
// nothing is left.
func (c *Client) Close() {
	c.stop()
	c.mu.Lock()
	c.closed = true
	members := c.members
	c.members = nil
	c.mu.Unlock()
	for _, m := range members {
		m.wire.Close()
	}
	c.running.Wait()
}

// refresh takes up the members as they are now.
func (c *router) refresh() error {
	list := c.o.Members()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	known := map[uint64]*member{}
	for _, m := range c.members {
		known[m.id] = m
	}
	var failed error
	members := make([]*member, 0, len(list))
	for _, to := range list {
		m := known[to.ID]
		delete(known, to.ID)
		if m == nil {
			r, err := wire.NewRedialer(wire.RedialOptions{Target: func(context.Context) (wire.DialOptions, error) { return c.target(to.ID) }})
			if err != nil {
				failed = err
				continue
			}
			m = &member{id: to.ID, wire: r}
		}
		members = append(members, m)
	}
	c.members = members
	for _, gone := range known {
		c.running.Go(gone.wire.Close)
	}
	c.mu.Unlock()
	return failed
}

// target says how to get to a member now.
func (c *router) target(id uint64) (wire.DialOptions, error) {
	for _, m := range c.o.Members() {
		if m.ID == id {
			m.Dial.Service, m.Dial.Group = kv.Service, c.o.Group
			return m.Dial, nil
		}
	}
	return wire.DialOptions{}, fmt.Errorf("arakoon/kvclient: group %q has no member %d any more", c.o.Group, id)
}

// known returns the members, nearest first. The list is not changed.
func (c *router) known() []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members
}

func (c *router) member(id uint64) *member {
	for _, m := range c.known() {
		if m.id == id {
			return m
		}
	}
	return nil
}

// errAway is of an attempt that was given up because another member leads.
var errAway = errors.New("another member leads")

// ended is why nothing more is tried, nil while it is.
func (c *router) ended(ctx context.Context) error {
	if c.ctx.Err() != nil {
		return fmt.Errorf("%w: client of group %q", arakoon.ErrClosed, c.o.Group)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
