package host

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	albahere "openvstorage/alba/embedded"
	"openvstorage/arakoon/groups"
	"openvstorage/host/members"
	"openvstorage/internal/disk"
	"openvstorage/trust"
)

// joined is what a host that has joined a cluster holds: members of its groups.
type joined struct {
	members *members.Members
	opt     groups.Options

	ctx    context.Context // ends with close
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	groups *groups.Groups // nil: not open yet, or closed
	closed bool
}

// openJoined reads what this host knows of the cluster. The members are opened by run: that
// may have to wait for other hosts.
func (d *daemon) openJoined(fsys disk.FS) (_ *joined, err error) {
	of := d.dir.Record().Cluster
	if of == uuid.Nil {
		token, err := trust.ParseToken(d.opt.Cluster.Join)
		if err != nil {
			return nil, err
		}
		of = token.Cluster
	}
	specs := allSpecs()
	for i := range specs {
		specs[i].After = nil // they were made by the first host
	}
	d.members, err = members.Open(members.Options{Cluster: of, Self: d.dir.ID, FS: fsys, Dir: d.dir, Logger: d.logger, Groups: specs, Zone: d.opt.Cluster.Zone})
	if err != nil {
		return nil, err
	}
	j := &joined{members: d.members, opt: groups.Options{FS: fsys, Dir: d.dir.Path, ID: of, Host: d.dir.ID, Ledger: d.dir, Logger: d.logger}}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	return j, nil
}

// start begins to open the members, and returns what waits for that: see run.
func (j *joined) start() (run func() error) {
	j.done.Add(1)
	return j.run
}

// run opens the members that are on this host, and has them serve. It waits until a majority
// of each group answers. It returns what ends the process, or nil.
func (j *joined) run() error {
	defer j.done.Done()
	specs, err := j.members.Specs()
	if err != nil {
		return err
	}
	g, err := groups.Open(j.ctx, j.opt, specs...)
	if err != nil {
		return j.failure(err)
	}
	if err := g.Claim(j.ctx, 0, false); err != nil {
		return errors.Join(j.failure(err), g.Close())
	}
	j.mu.Lock()
	closed := j.closed
	if j.groups = g; closed {
		j.groups = nil
	}
	j.mu.Unlock()
	if closed {
		return g.Close()
	}
	j.members.Serve(g)
	return nil
}

// opened are the members that are open; nil: none yet, or no more.
func (j *joined) opened() *groups.Groups {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.groups
}

// Describe implements prometheus.Collector, for what is only known while it runs.
func (j *joined) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (j *joined) Collect(ch chan<- prometheus.Metric) {
	open := j.opened()
	if open == nil {
		return
	}
	for _, name := range open.Names() {
		albahere.GroupCollector{Name: name, Of: open}.Collect(ch)
	}
}

func (j *joined) failure(err error) error {
	if j.ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, groups.ErrMissing) {
		err = fmt.Errorf("%w; or give this host up and replace it: `ovs host remove %s --lost` on the first host, and join with an empty directory", err, j.opt.Host)
	}
	return err
}

// close closes the members. The lead of groups goes to other hosts first.
func (j *joined) close() error {
	j.cancel()
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	j.done.Wait()
	j.members.End()
	j.mu.Lock()
	g := j.groups
	j.groups = nil
	j.mu.Unlock()
	if g == nil {
		return nil
	}
	return g.Close()
}
