package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"

	"github.com/google/uuid"
)

// Remote is a disk of another host. It connects by itself, and again when a connection has
// ended. Each connection is to the OSD of that ID, or there is none.
type Remote interface {
	osd.OSD
	// Ready waits until the OSD has answered, and says why it has not when ctx ends.
	Ready(ctx context.Context) error
	Close() error
}

// readyMax is how long an answer of another host is waited for before its disk is missing.
const readyMax = 3 * time.Second

// remotes are the disks of other hosts, as far as this process reaches them. A disk whose
// host is away is missing, with the reason, and there again when the host answers. Nothing
// that happens to a connection makes it lost.
type remotes struct {
	connect func(node string, id uuid.UUID) (Remote, error) // nil: nobody is reached
	fleet   *fleet.Fleet
	every   time.Duration
	wake    func()
	logger  *slog.Logger

	mu     sync.Mutex
	all    map[uint64]*remote // by number of the disk
	closed bool
}

func newRemotes(of *fleet.Fleet, o *Options, wake func()) *remotes {
	return &remotes{connect: o.Remote, fleet: of, every: o.ReopenEvery, wake: wake, logger: o.Logger, all: make(map[uint64]*remote)}
}

// remote is one of them.
type remote struct {
	of     *remotes
	disk   *fleet.Disk
	osd    Remote
	cancel context.CancelFunc
	done   chan struct{} // closed when nothing asks it any more
}

// follow connects to a disk of another host, unless that is done already.
func (s *remotes) follow(d *fleet.Disk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[d.Number] != nil || s.closed {
		return
	}
	if s.connect == nil {
		d.Detach(fmt.Errorf("it is one of host %s, and this process reaches no other host: start it with --listen", d.Node))
		return
	}
	o, err := s.connect(d.Node, d.UUID)
	if err != nil {
		d.Detach(fmt.Errorf("it is one of host %s: %w", d.Node, err))
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &remote{of: s, disk: d, osd: o, cancel: cancel, done: make(chan struct{})}
	s.all[d.Number] = r
	go r.watch(ctx)
}

// drop ends the connection to a disk, if there is one.
func (s *remotes) drop(number uint64) {
	s.mu.Lock()
	r := s.all[number]
	delete(s.all, number)
	s.mu.Unlock()
	if r != nil {
		r.end()
	}
}

// close ends all connections. None is made any more.
func (s *remotes) close() {
	s.mu.Lock()
	all := s.all
	s.all, s.closed = nil, true
	s.mu.Unlock()
	for _, r := range all {
		r.end()
	}
}

func (r *remote) end() {
	r.cancel()
	_ = r.osd.Close()
	<-r.done // it attaches nothing any more
	r.disk.Detach(errors.New("it is not followed any more"))
}

// settle waits until all disks of other hosts were asked once. After a while it does not
// wait for those that lack, if objects can be stored without them: enough says that.
func (s *remotes) settle(ctx context.Context, enough func(context.Context) bool) {
	s.mu.Lock()
	var all []*remote
	for _, r := range s.all {
		all = append(all, r)
	}
	s.mu.Unlock()
	end, cancel := context.WithTimeout(ctx, settleMost)
	defer cancel()
	began := time.Now()
	for tick := time.NewTicker(settleTick); ; {
		there := true
		for _, r := range all {
			there = there && r.disk.Attached() == nil
		}
		if there || time.Since(began) > openEnough && enough(ctx) {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-end.Done():
			tick.Stop()
			return
		}
	}
}

// settleMost is how long a start waits for the disks of other hosts without which nothing
// can be stored: these hosts may be starting too.
const (
	settleMost = 30 * time.Second
	settleTick = 20 * time.Millisecond
)

// watch asks the disk again and again until ctx ends.
func (r *remote) watch(ctx context.Context) {
	defer close(r.done)
	r.look(ctx)
	tick := time.NewTicker(r.of.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.look(ctx)
		}
	}
}

// look makes the disk missing if it does not answer, and attaches it if it does.
func (r *remote) look(ctx context.Context) {
	d := r.disk
	bounded, cancel := context.WithTimeout(ctx, readyMax)
	err := r.osd.Ready(bounded)
	cancel()
	there := d.Attached() == nil
	switch {
	case ctx.Err() != nil:
	case err != nil:
		if there {
			r.of.logger.Warn("a disk of another host is missing", "disk", d.Number, "host", d.Node, "err", err)
			r.of.wake()
		}
		d.Detach(fmt.Errorf("host %s, which has it, does not answer for it: %w", d.Node, err))
	case there:
		_ = d.Refresh(ctx) // what it says is looked at where it matters
	default:
		d.Attach(r.osd)
		if err := d.Refresh(ctx); err != nil {
			r.of.logger.Warn("a disk does not tell how full it is", "disk", d.Number, "host", d.Node, "err", err)
		}
		r.of.logger.Info("a disk of another host is there", "disk", d.Number, "host", d.Node)
		r.of.wake()
	}
}

// elsewhereEvery is how often the ABM is asked what other hosts have decided.
const elsewhereEvery = 2 * time.Second

// elsewhere follows what other hosts have the ABM decide: which disks they have.
type elsewhere struct {
	of   *Backend
	next time.Time
}

// follow asks the ABM, if it is time, and follows what it has decided. Without other hosts
// it does nothing.
func (e *elsewhere) follow(ctx context.Context) {
	if e.of.opt.Remote == nil || time.Now().Before(e.next) {
		return
	}
	e.next = time.Now().Add(elsewhereEvery)
	all, err := maintenance.AllOSDs(ctx, e.of.abm)
	if err == nil && e.of.asds.differs(all) {
		err = e.of.decisions.settle(ctx)
	}
	if err != nil && ctx.Err() == nil {
		e.of.opt.Logger.Warn("which disks other hosts have is not known", "err", err)
	}
}

// differs reports whether the disks of other hosts are not those that the fleet has.
func (s *asdSet) differs(all []abm.OSD) bool {
	for _, o := range all {
		if s.own(o.Node) || o.Number == 0 || o.State == abm.OSDLost {
			continue
		}
		d := s.fleet.Disk(o.Number)
		if d == nil || d.Node != o.Node || d.Zone() != o.Zone {
			return true
		}
	}
	return false
}

// sayZone tells placement where a machine is.
func sayZone(ctx context.Context, c *abm.Client, at layout, zone string) error {
	if zone == "" {
		return nil
	}
	all, err := c.Nodes(ctx, userfn.Consistent)
	if err != nil {
		return err
	}
	for _, n := range all {
		if n.ID == at.node() && n.Zone == zone {
			return nil
		}
	}
	return c.PutNode(ctx, abm.Node{ID: at.node(), Zone: zone})
}
