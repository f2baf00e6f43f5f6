package host

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"github.com/google/uuid"

	albahere "openvstorage/alba/embedded"
	"openvstorage/alba/osd"
	"openvstorage/alba/osdwire"
	"openvstorage/host/cluster"
	"openvstorage/internal/mounts"
	"openvstorage/internal/wire"
	"openvstorage/trust"
	"openvstorage/writebuffer"
)

// served are the disks of a host that other hosts may use.
type served interface {
	Served(id uuid.UUID) (osd.OSD, bool)
}

// shared are the disks that hosts of a cluster use of each other.
type shared struct {
	cluster atomic.Pointer[cluster.Host] // once it is bound
	own     atomic.Pointer[served]       // disks of this host, once there are any
	stop    func()                       // of a host that has joined; nil: they do not run
}

// service answers other hosts for the disks of this one. The table of package trust says
// who may do what.
func (d *shared) service() *wire.Service {
	s := osdwire.NewServer(osdwire.ServerOptions{
		Open: func(id uuid.UUID) (osd.OSD, bool) {
			of := d.own.Load()
			if of == nil {
				return nil, false
			}
			return (*of).Served(id)
		},
		Admit: d.admit,
	}).Service()
	return &s
}

// admit lets hosts of the cluster use a disk: what of it, is asked for each call.
func (d *shared) admit(ctx context.Context, p *wire.Peer, id uuid.UUID) (func(op uint16) error, error) {
	h := d.cluster.Load()
	if h == nil {
		return nil, errors.New("this host does not know the cluster yet")
	}
	if err := h.Admit(ctx, p); err != nil {
		return nil, err
	}
	may := func(op uint16) error { return h.Allow(p, osdCall(op), trust.OSD(id.String())) }
	return may, h.Allow(p, "osd/read", trust.OSD(id.String()))
}

// osdCall is which call of the table an operation on a disk is.
func osdCall(op uint16) string {
	if osdwire.Writes(op) {
		return "osd/write"
	}
	return "osd/read"
}

// serve makes disks of this host those that others use.
func (d *shared) serve(of served) { d.own.Store(&of) }

// connect makes the way to a disk of another host. It connects to nobody yet.
func (d *shared) connect(node string, id uuid.UUID) (albahere.Remote, error) {
	host, err := uuid.Parse(node)
	if err != nil {
		return nil, fmt.Errorf("node %q is no host of the cluster: %w", node, err)
	}
	var attempts atomic.Uint64
	return osdwire.NewClient(osdwire.Options{ID: id, Target: func(ctx context.Context) (wire.DialOptions, error) {
		h := d.cluster.Load()
		if h == nil {
			return wire.DialOptions{}, errors.New("this host does not know the cluster yet")
		}
		return cluster.Target(ctx, h, host, osdwire.Service, attempts.Add(1)-1)
	}})
}

// ownDisks are the disks of a host that has joined.
func (d *daemon) ownDisks() (*albahere.HostDisks, error) {
	o := albahere.HostOptions{
		FS: d.dir.Guard(), Dir: d.dir.Path, Backend: d.joined.opt.ID, Host: d.dir.ID, Zone: d.opt.Cluster.Zone,
		ABM: d.members.Store(albahere.Specs()[0].Name), Record: d.dir.Record,
		Absent: mountTable().Absent, Resolve: mounts.Resolve, AllowUnmounted: d.opt.ALBA.AllowUnmounted, Logger: d.logger,
	}
	if u, err := o.FS.Statfs(d.dir.Path); err == nil {
		o.Leave = uint64(writebuffer.Reserve(u.Total) / 2)
	}
	for _, dir := range d.opt.ALBA.Dirs {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		o.Dirs = append(o.Dirs, abs)
	}
	return albahere.NewHostDisks(o), nil
}

// startDisks has the disks of a host that has joined open and served, until shared.stop.
func (d *daemon) startDisks() error {
	own, err := d.ownDisks()
	if err != nil {
		return err
	}
	d.shared.serve(own)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	d.shared.stop = func() { cancel(); <-done }
	d.run("the disks of this host", func() error {
		defer close(done)
		err := own.Run(ctx)
		if err != nil && ctx.Err() != nil { // it was told to stop
			d.logger.Warn("close of disks", "err", err)
			return nil
		}
		return err
	})
	return nil
}
