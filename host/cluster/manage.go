package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"openvstorage/host/roster"
	"openvstorage/internal/control"
	"openvstorage/trust"
)

// Management is a host as the management socket shows it.
type Management struct{ *Host }

var _ control.Cluster = Management{}

// Self implements control.Cluster, as the methods below do.
func (h *Host) Self() control.ClusterSelf {
	m := h.credentials.Material()
	s := control.ClusterSelf{
		Cluster: h.cluster, Host: h.id, First: h.First(), Roles: m.Identity().Roles.String(), Address: h.o.Listeners.Addresses()[0],
		Linked: true, Insecure: h.o.Insecure, Until: m.Certificate.NotAfter,
		Does: "members of groups, the disks and the vDisks of its own data directory, and the cluster's certificates", Groups: h.o.Members.Safety(), Alarms: h.o.Members.Alarms(),
	}
	s.Draining, s.Maintenance = h.o.Members.Mode(h.id)
	s.Signs = h.canSign()
	if h.First() {
		s.Sealed = !s.Signs
		return s
	}
	s.Linked = h.link.up()
	s.Does = "members of groups, and the disks that were given to it; it has no vDisks in this release"
	return s
}

// Roles are what h may do, by its certificate and the records that are cached.
func (h *Host) Roles() trust.Roles {
	return h.roles(trust.Peer{Identity: h.credentials.Material().Identity()})
}

// kind gives an error of trust its kind of the management protocol.
func kind(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, trust.ErrAbsent):
		return fmt.Errorf("%w: %w", control.ErrNotFound, err)
	case errors.Is(err, trust.ErrInvalid), errors.Is(err, errReads), errors.Is(err, trust.ErrPassphrase):
		return fmt.Errorf("%w: %w", control.ErrInvalid, err)
	case errors.Is(err, trust.ErrFull), errors.Is(err, trust.ErrContended):
		return fmt.Errorf("%w: %w", control.ErrBusy, err)
	}
	return err
}

// writes returns the registrar by which this host changes records, or says who changes any.
func (h Management) writes() (*trust.Registrar, error) {
	if err := h.mayHaveKey(); err == nil {
		return h.registrar, nil
	}
	where := "a host with the role arakoon"
	for _, r := range h.cache.Hosts() {
		if r.ID == h.id || r.State != trust.Joined || r.Roles&trust.RoleArakoon == 0 {
			continue
		}
		if k := slices.IndexFunc(h.book.hosts(), func(b roster.Host) bool { return b.ID == r.ID }); k >= 0 {
			where = fmt.Sprintf("host %s at %s", r.ID, h.book.hosts()[k].Addresses[0])
			break
		}
	}
	return nil, fmt.Errorf("%w: %w: run it on %s", control.ErrInvalid, errNoKeys, where)
}

// listTime bounds how long a list waits for the records, before it is made of what was seen
// last.
const listTime = 3 * time.Second

// records returns the hosts on record, and where they are. On a host that has joined these
// are, without an answer of the config group, those of its last contact.
func (h Management) records(ctx context.Context) ([]trust.Host, []roster.Host, error) {
	bounded, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	hosts, err := h.reader().Hosts(bounded)
	if err == nil {
		var where []roster.Host
		if where, err = roster.List(bounded, h.store, h.faults.tell); err == nil {
			return hosts, where, nil
		}
	}
	if h.First() || ctx.Err() != nil {
		return nil, nil, err
	}
	h.faults.tell(fmt.Errorf("hosts are listed as they were at the last contact: %w", err))
	return h.cache.Hosts(), h.book.hosts(), nil
}

// Hosts implements control.Cluster.
func (h Management) Hosts(ctx context.Context) ([]control.ClusterHost, error) {
	hosts, where, err := h.records(ctx)
	if err != nil {
		return nil, kind(err)
	}
	seen := asks(h.Host).survey(ctx, slices.DeleteFunc(slices.Clone(where), func(w roster.Host) bool {
		return !slices.ContainsFunc(hosts, func(r trust.Host) bool { return r.ID == w.ID && r.State == trust.Joined })
	}))
	list := make([]control.ClusterHost, len(hosts))
	for i, r := range hosts {
		c := control.ClusterHost{ID: r.ID, State: r.State.String(), Roles: r.Roles.String(), Joined: r.Joined, Changed: r.Changed, Self: r.ID == h.id}
		c.First, c.Members = r.ID == h.cluster, h.o.Members.On(r.ID)
		c.InSync = h.o.InSync(r.ID)
		c.Draining, c.Maintenance = h.o.Members.Mode(r.ID)
		if k := slices.IndexFunc(where, func(w roster.Host) bool { return w.ID == r.ID }); k >= 0 {
			w := where[k]
			c.Zone, c.Addresses, c.Storage, c.Insecure, c.Release, c.Generation = w.Zone, w.Addresses, w.Storage, w.Insecure, w.Release, w.Mark.Number
		}
		if len(r.Serials) > 0 {
			if cert, ok := h.cache.Certificate(r.Serials[0]); ok {
				c.Until = &cert.Until
			}
		}
		c.Connected, c.Signs = new(seen[r.ID].there), seen[r.ID].signs
		list[i] = c
	}
	return list, nil
}

// ShowHost implements control.Cluster.
func (h Management) ShowHost(ctx context.Context, host string) (control.ClusterHost, error) {
	list, err := h.Hosts(ctx)
	if err != nil {
		return control.ClusterHost{}, err
	}
	host = strings.ToLower(host)
	var found []control.ClusterHost
	for _, c := range list {
		if host != "" && strings.HasPrefix(c.ID.String(), host) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return control.ClusterHost{}, fmt.Errorf("host %q: %w: `ovs host list` has all", host, control.ErrNotFound)
	}
	return control.ClusterHost{}, fmt.Errorf("%w: %d hosts begin with %q: give more of the UUID", control.ErrInvalid, len(found), host)
}

// RemoveHost implements control.Cluster.
func (h Management) RemoveHost(ctx context.Context, host string, lost bool) (control.ClusterHost, error) {
	r, err := h.writes()
	if err != nil {
		return control.ClusterHost{}, err
	}
	c, err := h.ShowHost(ctx, host)
	switch {
	case err != nil:
		return c, err
	case c.State == trust.Removed.String():
		return c, nil
	case c.Self && c.First:
		return c, fmt.Errorf("%w: host %s is this one, the cluster's first, which has its vDisks and disks: it cannot be removed", control.ErrInvalid, c.ID)
	case c.Self:
		return c, fmt.Errorf("%w: host %s is this one: run it on another host, which is there when it is done", control.ErrInvalid, c.ID)
	case c.First && !lost:
		return c, fmt.Errorf("%w: host %s is the cluster's first, which has its vDisks and disks: it is removed only with --lost, when they are gone for ever", control.ErrInvalid, c.ID)
	case !lost && !*c.Connected:
		return c, fmt.Errorf("host %s is not connected, so nobody can tell what it does: %w: start it, or give --lost if it never comes back", c.ID, control.ErrBusy)
	}
	reason := "the host was removed"
	if lost {
		reason = "the host was given up as lost"
	}
	if err := h.o.Members.Leave(ctx, c.ID, lost); err != nil {
		return c, fmt.Errorf("host %s: %w: %w", c.ID, control.ErrBusy, err)
	}
	if err := r.RemoveHost(ctx, c.ID, reason); err != nil {
		return c, kind(err)
	}
	h.obeyNow(ctx)
	return h.ShowHost(ctx, c.ID.String())
}

// obeyNow has this host obey a change of the records at once. If that fails it does so
// within CacheOptions.Every.
func (h Management) obeyNow(ctx context.Context) {
	if err := h.cache.Refresh(ctx); err != nil {
		h.faults.tell(err)
	}
}
