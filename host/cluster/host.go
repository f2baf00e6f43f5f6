package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"openvstorage/host/roster"
	"openvstorage/internal/ctxlock"
	"openvstorage/internal/generation"
	"openvstorage/internal/wire"
	"openvstorage/trust"
)

// Host is a host of a cluster that runs.
type Host struct {
	o           Options
	id, cluster uuid.UUID
	mark        generation.Mark // of this start
	history     generation.History
	credentials *trust.Credentials
	cache       *trust.Cache
	guard       *trust.Guard
	renewer     *trust.Renewer
	registrar   *trust.Registrar            // nil on a host that has joined, and cannot change records
	store       trust.Store                 // of records: the group's, or link
	link        *link                       // to a host that holds the config group; nil on the first host
	others      *link                       // by which any other host is asked: link, if there is one
	held        atomic.Pointer[trust.Store] // of a host that has joined, and holds the config group
	peers       peers
	marks       marks
	book        book
	faults      faults
	keying      ctxlock.Lock  // of what opens, seals or keeps the authority's key
	gaveUp      atomic.Bool   // the authority's key was open here, and this host lost the role for it
	joins       chan struct{} // one for each join or renewal that is being answered

	server *wire.Server // of connections with TLS
	plain  *wire.Server // of those without; nil: there are none

	ctx    context.Context // ends when Close is called
	cancel context.CancelFunc
	work   sync.WaitGroup
	failed chan error
}

// joinsMax is how many joins and renewals are answered at a time. Each takes the time of
// two signatures and of one change of the records.
const joinsMax = 8

func newHost(o Options, cluster uuid.UUID) *Host {
	h := &Host{o: o, id: o.Dir.ID, cluster: cluster, joins: make(chan struct{}, joinsMax), keying: ctxlock.New(), failed: make(chan error, 1)}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.faults.logger = o.Logger
	h.others = newLink(h)
	return h
}

// Wait returns when the host has been closed, with nil, or what ends it: a listener that
// failed, or a copy of its data directory that took its place.
func (h *Host) Wait() error {
	select {
	case err := <-h.failed:
		return err
	case <-h.ctx.Done():
		return nil
	}
}

func (h *Host) fail(err error) {
	select {
	case h.failed <- err:
	default: // one is enough
	}
}

// Address is where other hosts reach this one.
func (h *Host) Address() string { return h.o.Listeners.Addresses()[0] }

// ID is the host's UUID, Cluster that of its cluster.
func (h *Host) ID() uuid.UUID      { return h.id }
func (h *Host) Cluster() uuid.UUID { return h.cluster }

// Guard is what says who others are. Whoever serves something else than package wire asks
// it itself.
func (h *Host) Guard() *trust.Guard { return h.guard }

// First reports whether this host is the first of its cluster, which has the groups.
func (h *Host) First() bool { return h.link == nil }

// open makes what both sorts of hosts have, of the material that the host shows.
func (h *Host) open(m *trust.Material) (err error) {
	h.credentials = trust.NewCredentials(m)
	h.cache, err = trust.OpenCache(trust.CacheOptions{
		Cluster: h.cluster, Store: h.store, FS: h.o.FS, File: h.o.file("records"), Every: h.o.Every, Now: h.o.Now, Fault: h.faults.tell,
	})
	if err != nil {
		return err
	}
	h.guard = trust.NewGuard(trust.GuardOptions{Credentials: h.credentials, Cache: h.cache, Now: h.o.Now, Refused: h.refused})
	h.renewer = trust.NewRenewer(trust.RenewerOptions{
		Credentials: h.credentials, Cache: h.cache, FS: h.o.FS, File: h.o.file("host.pem"), Names: h.o.Listeners.names,
		Ask: h.renew, Now: h.o.Now, Fault: h.faults.tell,
	})
	return nil
}

// renew has this host's certificate renewed: by itself if it has the authority's key.
func (h *Host) renew(ctx context.Context, q *trust.RenewRequest) (*trust.Answer, error) {
	if h.canSign() {
		return h.registrar.RenewSelf(ctx, q)
	}
	return h.others.renew(ctx, q)
}

// canSign reports whether the authority's key is open here.
func (h *Host) canSign() bool { return h.registrar != nil && h.registrar.CanSign() }

// Hold has a host that has joined answer with records: it holds a member of the config
// group, which store is. nil: it does no more.
func (h *Host) Hold(store trust.Store) {
	if store == nil {
		h.held.Store(nil)
		return
	}
	h.held.Store(&store)
}

// records is the config group for others, nil if this host holds no member of it.
func (h *Host) records() trust.Store {
	if h.First() {
		return h.store
	}
	if s := h.held.Load(); s != nil {
		return *s
	}
	return nil
}

// Reads is the config group as this host reads it, also without a member of it; it changes
// nothing on a host that has joined.
func (h *Host) Reads() trust.Store { return h.store }

// Knows returns the record of a host as of the last contact: what it may do, and whether it
// was removed.
func (h *Host) Knows(id uuid.UUID) (trust.Host, bool) { return h.cache.Host(id) }

// record is what the cluster is told of this host.
func (h *Host) record() roster.Host {
	a := h.o.Listeners.Addresses()
	return roster.Host{
		ID: h.id, Mark: h.mark, Level: Level, Insecure: h.o.Insecure, Config: h.First(), Zone: h.o.Zone, Release: short(h.o.Release),
		Addresses: a[:1], Storage: a[1:],
	}
}

func short(release string) string { return release[:min(len(release), roster.ReleaseMax)] }

// identity is what the host says in prefaces.
func (h *Host) identity() wire.Identity {
	return wire.Identity{Cluster: h.cluster, Host: h.id, Generation: h.mark.Number, Level: Level}
}

// Serve begins to answer other hosts, and to keep certificate and records good.
func (h *Host) Serve() error {
	if err := h.listen(); err != nil {
		return err
	}
	h.work.Go(func() { _ = h.cache.Run(h.ctx) })
	h.work.Go(func() { _ = h.renewer.Run(h.ctx) })
	h.work.Go(h.obey)
	if h.registrar != nil {
		h.work.Go(h.prune)
	}
	if h.registrar != nil && !h.First() {
		h.work.Go(keyOf(h).openKey)
	}
	return nil
}

// obey ends what the records refuse, each time that they have changed.
func (h *Host) obey() {
	look := time.NewTicker(learnEvery)
	defer look.Stop()
	for {
		next := h.cache.Next()
		h.expel()
		keyOf(h).giveKeyUp()
		h.o.Changed(h)
		if h.link != nil {
			h.link.learn(h.ctx)
		} else {
			bounded, cancel := context.WithTimeout(h.ctx, learnTime)
			h.relearn(bounded)
			cancel()
		}
		select {
		case <-next:
		case <-look.C:
		case <-h.ctx.Done():
			return
		}
	}
}

// learnEvery is how often a host that has joined looks where the others are. It writes
// nothing unless that has changed.
const learnEvery = time.Minute

// learnTime bounds how long the first host waits for the records to say where the others are.
const learnTime = 10 * time.Second

// expel ends the connections of those who are no peers any more, and of hosts that have lost
// a role since: some services ask only when a connection is made what its host may.
func (h *Host) expel() {
	gone := func(p *wire.Peer) bool {
		a, err := h.peers.admitted(p)
		return err == nil && (h.guard.Still(a.peer) != nil || a.had&^h.roles(a.peer) != 0)
	}
	n := h.server.Disconnect(gone, wire.ErrDenied)
	if h.plain != nil {
		n += h.plain.Disconnect(gone, wire.ErrDenied)
	}
	if n > 0 {
		h.o.Logger.Info("connections were ended: certificates were revoked, or hosts removed, or roles taken away", "connections", n)
	}
}

// pruneEvery is how often records that nobody needs are looked for.
const pruneEvery = 24 * time.Hour

// prune forgets expired records from time to time. It writes nothing if there are none.
func (h *Host) prune() {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		n, err := 0, error(nil)
		if h.First() || h.canSign() { // not each host of a large cluster
			n, err = h.registrar.Prune(h.ctx)
		}
		switch {
		case h.ctx.Err() != nil:
			return
		case err != nil:
			h.faults.tell(err)
		case n > 0:
			h.o.Logger.Info("expired tokens and certificates were forgotten", "records", n)
		}
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			return
		}
	}
}

// Close ends the host: no further connection is taken, requests in flight are answered
// until ctx ends. It returns when nothing of it is left.
func (h *Host) Close(ctx context.Context) error {
	h.cancel()
	var errs []error
	if h.link != nil {
		h.link.close()
	}
	for _, s := range []*wire.Server{h.server, h.plain} {
		if s == nil {
			continue
		}
		if err := s.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			errs = append(errs, fmt.Errorf("listener of other hosts: %w", err))
		}
	}
	h.o.Listeners.Close()
	h.work.Wait()
	h.others.close()
	if h.registrar != nil {
		h.registrar.Close()
	}
	return errors.Join(errs...)
}

// refused logs who was refused.
func (h *Host) refused(err error) { h.faults.tell(fmt.Errorf("refused: %w", err)) }

// faults logs what goes wrong, the same at most once a minute: what goes wrong every ten
// seconds does not fill a log.
type faults struct {
	logger *slog.Logger

	mu    sync.Mutex
	since time.Time
	told  map[string]bool // since then, at most faultsMax
}

const (
	faultsMax  = 64
	faultsTell = time.Minute
)

func (f *faults) tell(err error) {
	text := err.Error()
	f.mu.Lock()
	now := time.Now()
	if f.told == nil || now.Sub(f.since) >= faultsTell {
		f.since, f.told = now, map[string]bool{}
	}
	said := f.told[text] || len(f.told) >= faultsMax
	if !said {
		f.told[text] = true
	}
	f.mu.Unlock()
	if !said {
		f.logger.Warn("cluster: "+text, "err", err)
	}
}
