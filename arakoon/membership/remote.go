package membership

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"openvstorage/arakoon/placement"
	"openvstorage/arakoon/roster"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// Caller is a connection to the service of a host; a *wire.Redialer.
type Caller interface {
	CallWait(ctx context.Context, q wire.Request) (*wire.Reply, error)
}

// Remote is the hosts of a cluster, by the wire. Its fields must all be given, but for Work;
// they are not changed any more. Its methods are safe for concurrent use.
type Remote struct {
	Cluster uuid.UUID
	Self    uuid.UUID // the host of this process, whose members Local makes
	Local   Keeper
	// Dial returns the connection to a host that the roster lists. It does not wait.
	Dial func(host roster.Host) (Caller, error)
	// Place says whether a host may hold members, and whether it is about to leave.
	Place func(host uuid.UUID) (holds, leaves bool)
	// Patience is how long a host may take to say that it is there.
	Patience time.Duration
	// Work is how long another host may take to make or to drop a member; 0: 2 min. One that is
	// away costs Patience, or this if it goes away meanwhile; other groups wait no longer for it.
	Work time.Duration
	// Roster returns the newest roster, which a host gets with each member that it is to make.
	Roster func() *roster.Roster
}

var _ Hosts = (*Remote)(nil)

// Places implements Hosts: it asks all hosts at the same time whether they are there.
func (h *Remote) Places(ctx context.Context, r *roster.Roster) []placement.Host {
	places := make([]placement.Host, len(r.Hosts))
	var all sync.WaitGroup
	for i, host := range r.Hosts {
		all.Go(func() {
			p := placement.Host{ID: host.ID, Zone: host.Zone}
			p.Holds, p.Leaves = h.Place(host.ID)
			// One in maintenance counts as away: its members stay, and it gets no others.
			p.Alive = !host.Maintenance && (host.ID == h.Self || h.ask(ctx, host) == nil)
			places[i] = p
		})
	}
	all.Wait()
	return places
}

func (h *Remote) ask(ctx context.Context, host roster.Host) error {
	ctx, cancel := context.WithTimeout(ctx, h.Patience)
	defer cancel()
	return h.call(ctx, host, opAsk, "", 0, nil)
}

// Make implements Hosts.
func (h *Remote) Make(ctx context.Context, host uuid.UUID, group string, member uint64) error {
	r := h.Roster()
	if host == h.Self {
		return h.Local.Make(ctx, group, member, r)
	}
	to, known := r.Host(host)
	if !known {
		return fmt.Errorf("host %s is not in the roster", host)
	}
	return h.work(ctx, to, opMake, group, member, wire.Wrap(nil, r.Encode(h.Cluster, 1)))
}

// Drop implements Hosts.
func (h *Remote) Drop(ctx context.Context, host uuid.UUID, group string, member uint64) error {
	if host == h.Self {
		return h.Local.Drop(ctx, group, member)
	}
	to, known := h.Roster().Host(host)
	if !known {
		return fmt.Errorf("host %s is not in the roster", host)
	}
	return h.work(ctx, to, opDrop, group, member, nil)
}

const workTime = 2 * time.Minute

// work asks a host to do something, if it is there.
func (h *Remote) work(ctx context.Context, host roster.Host, op uint16, group string, member uint64, body *wire.Buffer) error {
	if err := h.ask(ctx, host); err != nil {
		body.Release()
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(h.Work, workTime))
	defer cancel()
	return h.call(ctx, host, op, group, member, body)
}

func (h *Remote) call(ctx context.Context, host roster.Host, op uint16, group string, member uint64, body *wire.Buffer) error {
	c, err := h.Dial(host)
	if err != nil {
		body.Release()
		return fmt.Errorf("host %s: %w", host.ID, err)
	}
	reply, err := c.CallWait(ctx, wire.Request{Op: op, Priority: wire.Maintenance, Header: appendRequest(nil, group, member), Body: body, Sum: true})
	if err != nil {
		return fmt.Errorf("host %s: %w", host.ID, err)
	}
	defer reply.Release()
	switch reply.Status {
	case uint16(wire.CodeOK):
		return nil
	case statusUsed:
		return fmt.Errorf("host %s: %w: %s", host.ID, ErrUsed, reply.Header)
	}
	return fmt.Errorf("host %s says: %s (status %d)", host.ID, reply.Header, reply.Status)
}
