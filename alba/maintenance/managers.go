package maintenance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
)

// managers is the ABM and the NSM hosts of a backend: what several parts ask of all
// of them. It keeps nothing of what they answer.
type managers struct {
	abm  *abm.Client
	host func(number uint64) (*nsm.Client, error) // an NSM host, by its number
}

// hosts returns the NSM hosts that the ABM knows.
func (g managers) hosts(ctx context.Context) ([]abm.Host, error) {
	return g.abm.Hosts(ctx, userfn.Consistent)
}

// hostOf finds the NSM host of a namespace. It returns nil if no host has the
// namespace.
func (g managers) hostOf(ctx context.Context, ns uint64) (*nsm.Client, error) {
	hosts, err := g.hosts(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range hosts {
		host, err := g.host(h.Number)
		if err != nil {
			return nil, err
		}
		if _, err = host.Namespace(ctx, ns, userfn.Consistent); err == nil {
			return host, nil
		} else if !errors.Is(err, nsm.ErrNamespaceNotFound) {
			return nil, err
		}
	}
	return nil, nil
}

// spaces returns all namespaces of a host.
func (g managers) spaces(ctx context.Context, host *nsm.Client) ([]nsm.NamespaceInfo, error) {
	var all []nsm.NamespaceInfo
	for after := uint64(0); ; {
		page, err := host.Namespaces(ctx, after, nsm.MaxKeys, userfn.Consistent)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < nsm.MaxKeys {
			return all, nil
		}
		after = page[len(page)-1].Number
	}
}

// each runs fn on every active namespace of every host. A namespace or a host that
// fails does not keep fn from the others.
func (g managers) each(ctx context.Context, hosts []abm.Host, fn func(host *nsm.Client, ns nsm.NamespaceInfo) error) error {
	var errs []error
	for _, h := range hosts {
		host, err := g.host(h.Number)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		spaces, err := g.spaces(ctx, host)
		errs = append(errs, err)
		for _, ns := range spaces {
			if ns.State != nsm.NamespaceActive {
				continue
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := fn(host, ns); err != nil && !errors.Is(err, nsm.ErrNamespaceNotFound) {
				errs = append(errs, fmt.Errorf("namespace %d: %w", ns.Number, err))
			}
		}
	}
	return errors.Join(errs...)
}

// namespace returns the ABM's record of a namespace, if the ABM has one, and the
// number that the ABM gives to the next namespace.
func (g managers) namespace(ctx context.Context, ns uint64) (rec abm.Namespace, known bool, next uint64, err error) {
	page, err := g.abm.Namespaces(ctx, ns-1, 1, userfn.Consistent)
	if err != nil {
		return rec, false, 0, err
	}
	if len(page) == 1 && page[0].Number == ns {
		rec, known = page[0], true
	}
	b, err := g.abm.Backend(ctx, userfn.Consistent)
	return rec, known, b.NextNamespace, err
}

// recordTypical is about what a recovery record takes, in bytes.
const recordTypical = 256

// held returns how many bytes each disk holds, by its number: those of live fragments
// and those that are still to be deleted, with the records beside them.
func (g managers) held(ctx context.Context) (map[uint64]uint64, error) {
	hosts, err := g.hosts(ctx)
	if err != nil {
		return nil, err
	}
	held := make(map[uint64]uint64)
	for _, h := range hosts {
		host, err := g.host(h.Number)
		if err != nil {
			return nil, err
		}
		for after := uint64(0); ; {
			page, err := host.OSDs(ctx, after, nsm.MaxKeys, userfn.Consistent)
			if err != nil {
				return nil, err
			}
			for _, o := range page {
				held[o.Number] += o.Live.Bytes + o.Obsolete.Bytes + recordTypical*(o.Live.Fragments+o.Obsolete.Fragments)
				after = o.Number
			}
			if len(page) < nsm.MaxKeys {
				break
			}
		}
	}
	return held, nil
}

// ignoreGone drops the error that a namespace is not there: it was deleted meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, nsm.ErrNamespaceNotFound) {
		return nil
	}
	return err
}

// attempts counts the steps that failed. Each of them is tried again.
type attempts struct {
	log    *slog.Logger
	failed atomic.Uint64
}

// try runs a step. If the step fails before ctx ends, the failure is counted and logged.
func (a *attempts) try(ctx context.Context, what string, step func(context.Context) error) {
	if err := step(ctx); err != nil && ctx.Err() == nil {
		a.failed.Add(1)
		a.log.Warn("maintenance: "+what+" failed, to be tried again", "err", err)
	}
}
