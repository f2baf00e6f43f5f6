package cluster

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"weak"

	"github.com/google/uuid"

	"openvstorage/host/roster"
	"openvstorage/internal/generation"
	"openvstorage/internal/wire"
	"openvstorage/trust"
)

// peers has who the other sides of connections are, which is found out once for each. It
// has as many entries as there are connections.
type peers struct {
	mu  sync.Mutex
	all map[weak.Pointer[wire.Peer]]admitted
}

// admitted is a peer, and what its host could do when its connection was made.
type admitted struct {
	peer trust.Peer
	had  trust.Roles
}

var errStranger = fmt.Errorf("%w: it was not admitted", trust.ErrRefused)

func (p *peers) known(of *wire.Peer) (trust.Peer, error) {
	a, err := p.admitted(of)
	return a.peer, err
}

func (p *peers) admitted(of *wire.Peer) (admitted, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.all[weak.Make(of)]
	if !ok {
		return admitted{}, errStranger
	}
	return a, nil
}

func (p *peers) keep(of *wire.Peer, a admitted) {
	key := weak.Make(of)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[weak.Pointer[wire.Peer]]admitted{}
	}
	if _, ok := p.all[key]; !ok {
		runtime.AddCleanup(of, p.forget, key)
	}
	p.all[key] = a
}

func (p *peers) forget(key weak.Pointer[wire.Peer]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, key)
}

// Admit says whether the other side of a connection is a host of the cluster, the one that
// it says that it is, and no older copy of it. It is the Admit of a wire.Service; Allow is
// then asked for each call.
func (h *Host) Admit(ctx context.Context, p *wire.Peer) error {
	peer, err := h.identify(ctx, p)
	if err == nil && peer.Kind != trust.HostPeer {
		err = fmt.Errorf("%w: %s is no host", trust.ErrRefused, peer)
	}
	if err == nil && peer.Identity.Host != p.Host {
		err = fmt.Errorf("%w: %s says that it is host %s", trust.ErrWrongPeer, peer, p.Host)
	}
	if err == nil {
		if newest := h.marks.of(p.Host); p.Generation < newest.Number {
			err = fmt.Errorf("host %s: %w, an older one: it is of generation %d, and generation %d was seen", p.Host, roster.ErrCopy, p.Generation, newest.Number)
		}
	}
	if err != nil {
		h.refused(err)
		return err
	}
	h.peers.keep(p, admitted{peer, h.roles(peer)})
	return nil
}

// roles are what a peer's host may do, by its certificate and the records that are cached.
func (h *Host) roles(peer trust.Peer) trust.Roles {
	r, known := h.cache.Host(peer.Identity.Host)
	if !known {
		return peer.Identity.Roles
	}
	return peer.Identity.Roles & r.Roles
}

func (h *Host) identify(ctx context.Context, p *wire.Peer) (trust.Peer, error) {
	address := ""
	if p.Addr != nil {
		address = p.Addr.String()
	}
	if p.TLS == nil {
		peer := trust.Claimed(trust.Identity{Cluster: p.Cluster, Host: p.Host, Roles: trust.AllRoles}, address)
		return peer, h.guard.Still(peer)
	}
	peer, err := h.guard.Peer(ctx, *p.TLS, true)
	peer.Address = address
	return peer, err
}

// Allow says whether a peer that was admitted may make a call of the table of package
// trust now. It does no I/O.
func (h *Host) Allow(p *wire.Peer, call string, on trust.Object) error {
	peer, err := h.peers.known(p)
	if err != nil {
		return err
	}
	return h.guard.Allow(peer, call, on)
}

// marks are the newest generations of data directories that were seen, one for each host.
type marks struct {
	mu  sync.Mutex
	all map[uuid.UUID]generation.Mark
}

func (m *marks) of(id uuid.UUID) generation.Mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all[id]
}

// see remembers a mark that is newer than the one before. There are at most as many as
// hosts are on record.
func (m *marks) see(id uuid.UUID, mark generation.Mark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		m.all = map[uuid.UUID]generation.Mark{}
	}
	if old, ok := m.all[id]; (ok || len(m.all) < roster.HostsMax) && mark.Number >= old.Number {
		m.all[id] = mark
	}
}
