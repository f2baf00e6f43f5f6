package cluster

import (
	"context"
	"runtime"

	"github.com/google/uuid"

	"openvstorage/internal/wire"
)

// LinkDone is closed when the connection to the first host has ended.
func (h *Host) LinkDone() <-chan struct{} { return h.link.conn.Load().Done() }

// AwaitGone returns when no connection of a host is left.
func (h *Host) AwaitGone(id uuid.UUID) {
	for h.has(id) {
		runtime.Gosched()
	}
}

func (h *Host) has(id uuid.UUID) (found bool) {
	h.server.Disconnect(func(p *wire.Peer) bool {
		_, err := h.peers.known(p)
		found = found || err == nil && p.Host == id
		return false // it looks at each, and ends none
	}, nil)
	return found
}

// Learn looks where the hosts are, as a host that has joined does from time to time.
func (h *Host) Learn(ctx context.Context) { h.link.learn(ctx) }

// Keys asks the first host for the keys that begin with a prefix, and counts them.
func (h *Host) Keys(ctx context.Context, prefix string) (n int, err error) {
	err = h.link.Range(ctx, []byte(prefix), func(_, _ []byte) bool { n++; return true })
	return n, err
}

// Renew has the host's certificate renewed now.
func (h *Host) Renew(ctx context.Context) error { return h.renewer.Renew(ctx) }

// ServeAsBefore answers hosts on the first address as the release did that knew no question
// for who signs.
func (h *Host) ServeAsBefore() (*wire.Server, error) {
	unknown := func(context.Context, *wire.Incoming) wire.Answer {
		return wire.Answer{Status: uint16(wire.CodeUnknownOp)}
	}
	s, err := wire.NewServer(wire.ServerOptions{
		Services: map[string]*wire.Service{ServiceHosts: {Handler: wire.HandlerFunc(unknown), Admit: h.Admit}},
		Identity: h.identity, TLS: h.guard.Server(ServiceHosts),
	})
	if err == nil {
		go s.Serve(h.o.Listeners.all[0])
	}
	return s, err
}

// Obey has the host obey the records as they are now.
func (h *Host) Obey(ctx context.Context) error {
	err := h.cache.Refresh(ctx)
	keyOf(h).giveKeyUp()
	return err
}
