package members

import (
	"sync"
	"sync/atomic"

	"openvstorage/arakoon"
	"openvstorage/arakoon/compare"
	"openvstorage/arakoon/groups"
	"openvstorage/arakoon/transport"
	"openvstorage/internal/wire"
)

// group is a group of the cluster, as it is seen from this host.
type group struct {
	of     *Members
	name   string
	spec   groups.Spec
	store  *Store
	node   atomic.Pointer[arakoon.Node] // the member here; nil: none
	member atomic.Uint64                // its number
	life   atomic.Uint64                // of the group, in which it was opened
	check  *compare.Checker

	mu        sync.Mutex
	transport *transport.Transport
}

// with makes the spec of a member here, and its transport. joining: it is made now.
func (g *group) with(number uint64, joining bool) (groups.Spec, error) {
	number = max(number, 1)
	m := g.of
	listed, _ := m.file.Now().Group(g.name)
	g.life.Store(listed.Life)
	t, err := transport.New(transport.Options{
		Member: number, Cluster: m.o.Cluster, Group: g.name, Life: listed.Life,
		Peers: g.peer, Dial: m.dial, Belongs: g.belongs, FS: m.o.FS, Logger: m.o.Logger,
	})
	if err != nil {
		return groups.Spec{}, err
	}
	g.mu.Lock()
	g.transport = t
	g.mu.Unlock()
	s := g.spec
	s.Member = number
	s.Link = groups.Link{
		Transport: t, Store: claims{g.store}, Changed: g.store.writes.Load,
		Tune: func(o *arakoon.Options) {
			o.Fetcher, o.Joining = t, joining
			o.Zone = func(member uint64) string {
				if member == number {
					return m.o.Zone // where this process is, whatever others know
				}
				return g.zone(member)
			}
			o.Life, o.SameLife = listed.Life, true
			o.SyncPatience = arakoon.SyncPatience
		},
		Attach: func(n *arakoon.Node) {
			for _, by := range m.refusals.of(g.name, listed.Life, number) { // before anybody is connected to
				n.ReportRefused(by, true)
			}
			g.attach(number, t, n, func(by uint64, now bool) {
				m.refusals.note(refusal{Group: g.name, Life: listed.Life, Member: number, By: by}, now)
			})
		},
		Detach: func() { g.silence(t) },
	}
	return s, nil
}

// away makes the spec of a group whose member here was dropped: its users here go to others.
func (g *group) away() groups.Spec {
	s := g.spec
	s.Away, s.After = true, nil
	s.Link = groups.Link{Store: claims{g.store}, Changed: g.store.writes.Load}
	return s
}

// attach has others reach a member by a transport, unless it is dropped just now. refused notes
// whose host refuses it.
func (g *group) attach(number uint64, t *transport.Transport, n *arakoon.Node, refused func(by uint64, now bool)) {
	m := g.of
	g.mu.Lock()
	if g.transport != t {
		g.mu.Unlock()
		return
	}
	g.member.Store(number)
	g.node.Store(n)
	err := m.raft.Add(t, heard{n, refused}, transport.SnapshotsOf(n))
	g.mu.Unlock()
	if err != nil {
		m.o.Logger.Error("a member is not reached by others", "group", g.name, "member", number, "err", err)
	}
	if g.name == Config {
		m.hold()
	}
}

// silence has others reach a member no more, which has failed, until it is attached again. Its
// users here go to whoever leads.
func (g *group) silence(t *transport.Transport) {
	g.mu.Lock()
	if g.transport == t {
		g.node.Store(nil)
		g.of.raft.Remove(t)
	}
	g.mu.Unlock()
	if g.name == Config {
		g.of.hold()
	}
}

// detach has others reach a member no more, which is about to be closed.
func (g *group) detach() {
	g.mu.Lock()
	g.node.Store(nil)
	t := g.transport
	g.transport = nil
	g.mu.Unlock()
	if t != nil {
		g.of.raft.Remove(t)
		t.Close()
	}
	if g.name == Config {
		g.of.hold()
	}
}

// peer is where a member of the group is.
func (g *group) peer(member uint64) (transport.Address, bool) {
	h, known := g.of.file.Now().Place(g.name, member)
	if !known || len(h.Addresses) == 0 {
		return transport.Address{}, false
	}
	return transport.Address{Network: "tcp", Address: g.of.address(h), Host: h.ID}, true
}

// belongs says whether a member is on the host at the other end of a connection.
func (g *group) belongs(member uint64, p *wire.Peer) bool {
	h, known := g.of.file.Now().Place(g.name, member)
	return known && h.ID == p.Host
}

// zone is where a member is.
func (g *group) zone(member uint64) string {
	h, _ := g.of.file.Now().Place(g.name, member)
	return h.Zone
}
