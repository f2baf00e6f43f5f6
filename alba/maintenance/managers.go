package maintenance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"openvstorage/alba/abm"
	"openvstorage/alba/maintenance/share"
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

// eachSpace runs fn on every namespace of a host, until fn fails. It keeps one page of them in
// memory.
func eachSpace(ctx context.Context, host *nsm.Client, fn func(ns nsm.NamespaceInfo) error) error {
	for after := uint64(0); ; {
		page, err := host.Namespaces(ctx, after, nsm.MaxPage, userfn.Consistent)
		if err != nil {
			return err
		}
		for _, ns := range page {
			if err := fn(ns); err != nil {
				return err
			}
		}
		if len(page) < nsm.MaxPage {
			return nil
		}
		after = page[len(page)-1].Number
	}
}

// each runs fn on every active namespace of every host. A namespace or a host that
// fails does not keep fn from the others, unless the error is one of those that end a way
// through all objects (ends). Of the errors it returns the first errorsMax.
func (g managers) each(ctx context.Context, hosts []abm.Host, fn func(host *nsm.Client, ns nsm.NamespaceInfo) error) error {
	const errorsMax = 10
	var errs []error
	add := func(err error) {
		if err != nil && len(errs) < errorsMax {
			errs = append(errs, err)
		}
	}
	for _, h := range hosts {
		host, err := g.host(h.Number)
		if err != nil {
			add(err)
			continue
		}
		err = eachSpace(ctx, host, func(ns nsm.NamespaceInfo) error {
			if ns.State != nsm.NamespaceActive {
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			err := fn(host, ns)
			if ends(err) {
				return err
			}
			if err != nil && !errors.Is(err, nsm.ErrNamespaceNotFound) {
				add(fmt.Errorf("namespace %d: %w", ns.Number, err))
			}
			return nil
		})
		if ctx.Err() != nil || ends(err) {
			return errors.Join(append(errs, err)...)
		}
		add(err)
	}
	return errors.Join(errs...)
}

// ends reports whether an error ends a way through all objects.
func ends(err error) bool {
	for _, e := range []error{errRiskier, errFound, errOthers, share.ErrLost} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
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

// room is what fragments take on a disk, with the records beside them, in bytes.
func room(u nsm.Usage) uint64 { return u.Bytes + recordTypical*u.Fragments }

// held returns how many bytes each disk holds, by its number: those of live fragments
// and those that are still to be deleted, with the records beside them.
func (g managers) held(ctx context.Context) (map[uint64]uint64, error) {
	return g.stored(ctx, func(o *nsm.OSD) uint64 { return room(o.Live) + room(o.Obsolete) })
}

// live is held without what is still to be deleted.
func (g managers) live(ctx context.Context) (map[uint64]uint64, error) {
	return g.stored(ctx, func(o *nsm.OSD) uint64 { return room(o.Live) })
}

func (g managers) stored(ctx context.Context, bytes func(o *nsm.OSD) uint64) (map[uint64]uint64, error) {
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
				held[o.Number] += bytes(&o)
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
