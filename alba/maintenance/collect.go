package maintenance

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"

	"openvstorage/internal/bell"
)

// ErrTooMany is matched by the error of Collect when so many fragments seem to be
// orphans that a manager is more likely to have lost something.
var ErrTooMany = errors.New("too many orphans")

// collector deletes the fragments that no object names and none ever will: those of
// uploads and repairs that ended before their commit.
type collector struct {
	managers
	opt *Options

	now     bell.Bell             // rung when a collection is not to wait for its time
	alarm   atomic.Pointer[error] // why the last one deleted nothing
	allowed atomic.Bool           // the next one may delete however many there are

	mu     sync.Mutex
	closed map[uint64]closed // namespaces, as the last collection found them

	deleted atomic.Uint64
}

// allow has the next collection run now and delete however many orphans there are.
func (g *collector) allow() {
	g.allowed.Store(true)
	g.now.Ring()
}

// why is why the last collection deleted nothing, or nil.
func (g *collector) why() error {
	if err := g.alarm.Load(); err != nil {
		return *err
	}
	return nil
}

// closedBefore is how far a namespace was closed when the last collection ended.
func (g *collector) closedBefore(ns uint64) closed {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed[ns]
}

// remember keeps how far this collection could go, for a patient one.
func (g *collector) remember(spaces map[uint64]*space) {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.closed) // what has no fragments on any disk need not be known
	for ns, s := range spaces {
		g.closed[ns] = s.now
	}
}

// collect is Maintenance.Collect. If it is patient, it deletes only what the collection
// before it could have deleted too. So the first collection after a start deletes
// nothing, and somebody who started the wrong thing finds everything whole for as long
// as there is between two collections.
func (g *collector) collect(ctx context.Context, grace time.Duration, patient bool) error {
	if err := g.opt.MayDelete(); err != nil {
		return err
	}
	hosts, err := g.hosts(ctx)
	if err != nil {
		return err
	}
	// A namespace of which no epoch is closed is passed over.
	errs := []error{g.openEpochs(ctx, hosts)}
	select {
	case <-time.After(grace):
	case <-ctx.Done():
		return ctx.Err()
	}
	errs = append(errs, g.closeEpochs(ctx, hosts))
	c := &collection{
		by: g, patient: patient,
		spaces: make(map[uint64]*space), objects: make(map[manifest.ObjectID]struct{}),
	}
	for _, h := range hosts {
		host, err := g.host(h.Number)
		if err != nil {
			return errors.Join(append(errs, err)...) // what it knows would seem to be gone
		}
		c.hosts = append(c.hosts, host)
	}
	return errors.Join(append(errs, c.run(ctx))...)
}

func (g *collector) openEpochs(ctx context.Context, hosts []abm.Host) error {
	return g.each(ctx, hosts, func(host *nsm.Client, ns nsm.NamespaceInfo) error {
		if ns.Epochs.Next-ns.Epochs.Minimum > 1 {
			return nil // one that an earlier collection opened will do
		}
		_, err := host.OpenEpoch(ctx, ns.Number, ns.Epochs.Next)
		return err
	})
}

func (g *collector) closeEpochs(ctx context.Context, hosts []abm.Host) error {
	return g.each(ctx, hosts, func(host *nsm.Client, ns nsm.NamespaceInfo) error {
		if ns.Epochs.Next-ns.Epochs.Minimum < 2 {
			return nil // made since the epochs were opened
		}
		_, err := host.CloseEpoch(ctx, ns.Number, ns.Epochs.Next-2)
		return err
	})
}
