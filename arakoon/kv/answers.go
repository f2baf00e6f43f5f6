package kv

import (
	"fmt"
	"net"
	"net/netip"
	"sync"

	"openvstorage/arakoon"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// answers are the bytes of values that are on their way out, in all and for each peer. One peer
// that asks and does not read gets half of the room at most: so the others go on.
type answers struct {
	limit int64

	mu   sync.Mutex
	held int64
	by   map[asks]int64 // for those that have some
}

// asks is who asks: a host, or an address of whoever names no host. All connections of one share.
type asks struct {
	host uuid.UUID
	addr netip.Addr
}

func whoAsks(p *wire.Peer) asks {
	if p.Host != uuid.Nil {
		return asks{host: p.Host}
	}
	if a, ok := p.Addr.(*net.TCPAddr); ok {
		return asks{addr: a.AddrPort().Addr().Unmap()}
	}
	return asks{}
}

// full says why no further answer may be made for a peer, nil if one may. The last one may
// go beyond the limit.
func (a *answers) full(p *wire.Peer) error {
	who := whoAsks(p)
	a.mu.Lock()
	held, mine := a.held, a.by[who]
	a.mu.Unlock()
	switch {
	case held > a.limit:
		return fmt.Errorf("%w: %d bytes of answers are on their way out", arakoon.ErrBusy, held)
	case mine > a.limit/2:
		return fmt.Errorf("%w: %d bytes of answers are on their way to this peer, half of what there may be", arakoon.ErrBusy, mine)
	}
	return nil
}

// add counts n more bytes, or less, for a peer.
func (a *answers) add(who asks, n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held += n
	if mine := a.by[who] + n; mine > 0 {
		a.by[who] = mine
	} else {
		delete(a.by, who)
	}
}

// total is how many bytes are on their way out.
func (a *answers) total() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held
}

// body is a body that counts as an answer on its way out until it has left.
func (s *Server) body(p *wire.Peer, b []byte) *wire.Buffer {
	if len(b) == 0 {
		return nil
	}
	who, size := whoAsks(p), int64(len(b))
	s.answers.add(who, size)
	return wire.Wrap(func() { s.answers.add(who, -size) }, b)
}
