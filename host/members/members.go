package members

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"openvstorage/arakoon/groups"
	"openvstorage/arakoon/kv"
	"openvstorage/arakoon/membership"
	"openvstorage/arakoon/roster"
	"openvstorage/arakoon/transport"
	"openvstorage/host/cluster"
	"openvstorage/host/groupkeys"
	"openvstorage/internal/ctxlock"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/wire"
	"openvstorage/trust"
)

// Config is the name of the config group, which the roster is in.
const Config = "registry"

// rosterFile is the roster of a host, in its data directory.
const rosterFile = "roster"

// Options for Open. All must be given.
type Options struct {
	Cluster uuid.UUID // in which the groups were made
	Self    uuid.UUID // this host
	FS      disk.FS
	Dir     *datadir.Directory
	Logger  *slog.Logger
	Zone    string // of this host, as it was started; "": none
	// RequireZones is in how many zones everything is to be held, if nobody has said so
	// before; 0: nothing is said. For the first host alone.
	RequireZones int
	// Groups are those of the cluster: names and functions.
	Groups []groups.Spec
}

// Members are the members on a host, and the way to all groups of its cluster.
type Members struct {
	o    Options
	file *roster.File
	// refusals are by hosts of learners, which a restart does not forget.
	refusals *refusals

	raft   *transport.Groups
	server *kv.Server
	all    map[string]*group // by name
	ctx    context.Context   // ends with Close
	cancel context.CancelFunc
	loops  context.Context // ends with End
	end    context.CancelFunc
	work   sync.WaitGroup

	host   atomic.Pointer[cluster.Host]
	opened atomic.Pointer[groups.Groups]
	making ctxlock.Lock  // one Make or Drop at a time
	bound  chan struct{} // closed when host is there
	wake   chan struct{} // for the steward: has room for one
}

// Open reads what this host knows of the cluster's groups. It connects to nobody.
func Open(o Options) (*Members, error) {
	m := &Members{
		o: o, raft: transport.NewGroups(), all: map[string]*group{},
		making: ctxlock.New(), bound: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.loops, m.end = context.WithCancel(m.ctx)
	var err error
	if m.file, err = roster.Load(o.FS, path.Join(o.Dir.Path, rosterFile), o.Cluster); err != nil {
		return nil, fmt.Errorf("where the members of groups are: %w: copy the file from another host of the cluster that runs", err)
	}
	if m.refusals, err = loadRefusals(o.FS, o.Dir.Path, o.Logger); err != nil {
		return nil, err
	}
	for _, s := range o.Groups {
		g := &group{of: m, name: s.Name, spec: s}
		g.store = &Store{of: g}
		g.check = g.checker()
		m.all[s.Name] = g
	}
	m.server, err = kv.NewServer(kv.Options{Groups: m.group, Admit: m.admit, Allow: m.allow})
	return m, err
}

// Others reports whether, as the data directory of a first host knows, other hosts hold
// members of its groups.
func Others(fsys disk.FS, dir *datadir.Directory) (bool, error) {
	f, err := roster.Load(fsys, path.Join(dir.Path, rosterFile), dir.ID)
	if err != nil {
		return false, err
	}
	for _, g := range f.Now().Groups {
		if slices.ContainsFunc(g.Members, func(m roster.Member) bool { return m.Host != dir.ID }) {
			return true, nil
		}
	}
	return false, nil
}

// Bind gives the members the host that they are on, whose listener has Services: from now on
// they reach others.
func (m *Members) Bind(h *cluster.Host) {
	if m.host.CompareAndSwap(nil, h) {
		close(m.bound)
	}
}

// Services are what the host's listener is to offer.
func (m *Members) Services() map[string]*wire.Service {
	raft := m.raft.Service()
	admit := raft.Admit
	raft.Admit = func(ctx context.Context, p *wire.Peer) error {
		if err := m.admit(ctx, p); err != nil {
			return err
		}
		if admit != nil {
			return admit(ctx, p)
		}
		return nil
	}
	return map[string]*wire.Service{
		transport.ServiceName: raft,
		kv.Service:            m.server.Service(),
		membership.Service:    membership.NewService(m.o.Cluster, keeper{m}, m.admit),
	}
}

// admit lets the hosts of the cluster in that may hold members, once this host knows them.
func (m *Members) admit(ctx context.Context, p *wire.Peer) error {
	h := m.host.Load()
	if h == nil {
		return fmt.Errorf("host %s has not come up yet", m.o.Self)
	}
	if err := h.Admit(ctx, p); err != nil {
		return err
	}
	return h.Allow(p, "raft/propose", trust.Group(p.Group))
}

// allow is asked for each operation on keys. Whoever may hold members has all keys of all
// groups on its disks, or may have: so the role is what counts, and no key.
func (m *Members) allow(p *wire.Peer, _ uint16) error {
	h := m.host.Load()
	if h == nil {
		return fmt.Errorf("host %s has not come up yet", m.o.Self)
	}
	return h.Allow(p, "raft/propose", trust.Group(p.Group))
}

// group is what the server of keys answers for.
func (m *Members) group(name string) (kv.Group, bool) {
	g := m.all[name]
	if g == nil {
		return kv.Group{}, false
	}
	n := g.node.Load()
	if n == nil {
		return kv.Group{}, false
	}
	listed, _ := m.file.Now().Group(name)
	return kv.Group{Node: n, Life: listed.Life}, true
}

// Store is a group for its users on this host.
func (m *Members) Store(name string) *Store { return m.all[name].store }

// Records is the config group as the store of records.
func (m *Members) Records() trust.Store { return &groupkeys.Keys{Node: quiet{m.all[Config].store}} }

// book is the roster in the config group.
func (m *Members) book() roster.Book { return roster.Book{Store: m.Records()} }

// Known reports whether this host knows a roster: it was in use as a host of a cluster.
func (m *Members) Known() bool { return m.file.Now().Revision > 0 }

// Holders are the hosts with members of the config group, as this host knows.
func (m *Members) Holders() (list []cluster.Place) {
	r := m.file.Now()
	g, _ := r.Group(Config)
	for _, of := range g.Members {
		if h, known := r.Host(of.Host); known {
			list = append(list, cluster.Place{Host: h.ID, Addresses: h.Addresses})
		}
	}
	return list
}

// Specs are the members that this host has by its record. Those of a first host that is
// made now are all groups' first ones. A group whose member was dropped on the first host is
// used there all the same.
func (m *Members) Specs() (specs []groups.Spec, err error) {
	record := m.o.Dir.Record()
	for _, s := range m.o.Groups {
		number, found := uint64(0), false
		for _, name := range record.Groups {
			n, ok := memberOf(name, s.Name)
			if ok && found {
				return nil, fmt.Errorf("%s has two members of group %s: %d and %d", datadir.FormatFile, s.Name, number, n)
			}
			if ok {
				number, found = n, true
			}
		}
		if !found && m.o.Self != m.o.Cluster {
			continue // none is here yet
		}
		if away := record.Made(groups.AwayName(s.Name)); away {
			if found {
				return nil, fmt.Errorf("%s has member %d of group %s, and says that it was dropped", datadir.FormatFile, number, s.Name)
			}
			specs = append(specs, m.all[s.Name].away())
			continue
		}
		spec, err := m.all[s.Name].with(number, false)
		if err != nil {
			return nil, err
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

// memberOf is the number of a member of a group, by the name of its directory.
func memberOf(dir, group string) (number uint64, ok bool) {
	if dir == group {
		return 1, true
	}
	rest, ok := strings.CutPrefix(dir, group+".")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(rest, 10, 64)
	return n, err == nil && n > 1
}

// hold has a host answer for the config group's records if it holds a member of that.
func (m *Members) hold() {
	h := m.host.Load()
	switch {
	case h == nil || h.First():
	case m.all[Config].node.Load() != nil:
		h.Hold(m.Records())
	default:
		h.Hold(nil)
	}
}

// dial makes the options of a connection to the host of another member.
func (m *Members) dial(ctx context.Context, a transport.Address) (wire.DialOptions, error) {
	select {
	case <-m.bound:
	case <-ctx.Done():
		return wire.DialOptions{}, ctx.Err()
	}
	return m.host.Load().DialOptions(ctx, a.Host, transport.ServiceName), nil
}

// address is where a host is reached. Of this one the roster may have the address of its start
// before: until the groups answer, nobody can change that.
func (m *Members) address(h roster.Host) string {
	if self := m.host.Load(); self != nil && h.ID == m.o.Self {
		return self.Address()
	}
	return h.Addresses[0]
}

// take takes a newer roster up: for connections, and for the next start.
func (m *Members) take(r *roster.Roster) error {
	before := m.file.Now()
	err := m.file.Put(r)
	if m.file.Now() == before {
		return err
	}
	for _, g := range m.all {
		g.mu.Lock()
		if g.transport != nil {
			g.transport.Update()
		}
		g.mu.Unlock()
	}
	m.stir()
	return err
}

// stir wakes the steward.
func (m *Members) stir() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Serve keeps the roster of this host, and makes and drops members, in groups that are open
// and have claimed a generation, until Close. The host must be bound.
func (m *Members) Serve(g *groups.Groups) {
	m.opened.Store(g)
	m.hold()
	m.work.Go(m.follow)
	m.work.Go(m.sweep)
	m.work.Go(m.steward)
	for _, g := range m.all {
		m.work.Go(func() { g.check.Run(m.loops) })
	}
	m.work.Go(Zoning{m}.want)
}

// yieldTime is how long End waits for others to take over what is led here.
const yieldTime = 2 * time.Second

// End ends what Serve began, and gives away the lead of each group that has other members,
// so that nobody waits for an election. What is here still answers, so that the groups can
// be closed.
func (m *Members) End() {
	m.end()
	m.work.Wait()
	ctx, cancel := context.WithTimeout(m.ctx, yieldTime)
	defer cancel()
	var all sync.WaitGroup
	for _, g := range m.all {
		if n := g.store.leading(); n != nil && g.store.alone() == nil {
			all.Go(func() {
				if err := n.Transfer(ctx, 0); err != nil {
					m.o.Logger.Info("nobody took the lead of a group over", "group", g.name, "err", err)
				}
			})
		}
	}
	all.Wait()
}

// Close ends everything else, after the groups were closed.
func (m *Members) Close() {
	m.end()
	m.work.Wait()
	m.cancel()
	for _, g := range m.all {
		g.store.close()
		g.detach()
	}
	m.refusals.close()
}

// errNotOpen: the groups of this host are not open yet.
var errNotOpen = errors.New("the groups of this host are not open yet")

// listed is the member of a group on a host, by the roster that this host knows.
func (m *Members) listed(group string, host uuid.UUID) (roster.Member, bool) {
	g, _ := m.file.Now().Group(group)
	return g.MemberOn(host)
}

// Names are the groups' names, in order.
func (m *Members) Names() (names []string) {
	for name := range m.all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
