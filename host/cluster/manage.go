package cluster

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"openvstorage/host/roster"
	"openvstorage/internal/control"
	"openvstorage/internal/wire"
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
	if h.First() {
		s.Sealed = !h.registrar.CanSign()
		return s
	}
	c := h.link.conn.Load()
	s.Linked = c != nil && c.Err() == nil
	s.Does = "members of groups; it has no disks and no vDisks in this release"
	return s
}

// kind gives an error of trust its kind of the management protocol.
func kind(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, trust.ErrAbsent):
		return fmt.Errorf("%w: %w", control.ErrNotFound, err)
	case errors.Is(err, trust.ErrInvalid), errors.Is(err, errReads):
		return fmt.Errorf("%w: %w", control.ErrInvalid, err)
	case errors.Is(err, trust.ErrFull), errors.Is(err, trust.ErrContended):
		return fmt.Errorf("%w: %w", control.ErrBusy, err)
	}
	return err
}

// signs returns the registrar, or where there is one.
func (h Management) signs() (*trust.Registrar, error) {
	if h.registrar != nil {
		return h.registrar, nil
	}
	where := "the first host of the cluster"
	for _, r := range h.book.hosts() {
		if r.Config {
			where = fmt.Sprintf("host %s at %s", r.ID, r.Addresses[0])
		}
	}
	return nil, fmt.Errorf("%w: this host keeps no records and signs nothing: run it on %s", control.ErrInvalid, where)
}

// listTime bounds how long a list waits for the first host, before it is made of what was
// seen last.
const listTime = 3 * time.Second

// records returns the hosts on record, and where they are. On a host that has joined these
// are, without an answer of the first host, those of its last contact.
func (h Management) records(ctx context.Context) ([]trust.Host, []roster.Host, error) {
	bounded, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	reader := trust.NewRegistrar(trust.RegistrarOptions{Store: h.store, Host: h.id, Now: h.o.Now})
	hosts, err := reader.Hosts(bounded)
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
	connected := h.connected()
	list := make([]control.ClusterHost, len(hosts))
	for i, r := range hosts {
		c := control.ClusterHost{ID: r.ID, State: r.State.String(), Roles: r.Roles.String(), Joined: r.Joined, Changed: r.Changed, Self: r.ID == h.id}
		c.First, c.Members = r.ID == h.cluster, h.o.Members.On(r.ID)
		if k := slices.IndexFunc(where, func(w roster.Host) bool { return w.ID == r.ID }); k >= 0 {
			w := where[k]
			c.Zone, c.Addresses, c.Storage, c.Insecure, c.Release, c.Generation = w.Zone, w.Addresses, w.Storage, w.Insecure, w.Release, w.Mark.Number
		}
		if len(r.Serials) > 0 {
			if cert, ok := h.cache.Certificate(r.Serials[0]); ok {
				c.Until = &cert.Until
			}
		}
		switch {
		case c.Self:
			c.Connected = new(true)
		case h.First() || c.First:
			c.Connected = new(connected[r.ID])
		}
		list[i] = c
	}
	return list, nil
}

// connected says which hosts this one is connected to.
func (h *Host) connected() map[uuid.UUID]bool {
	all := map[uuid.UUID]bool{}
	if h.link != nil {
		if c := h.link.conn.Load(); c != nil && c.Err() == nil {
			all[c.Peer().Host] = true
		}
	}
	if h.server != nil {
		h.server.Disconnect(func(p *wire.Peer) bool {
			if _, err := h.peers.known(p); err == nil {
				all[p.Host] = true
			}
			return false // it looks at each, and ends none
		}, nil)
	}
	return all
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

// MakeToken implements control.Cluster.
func (h Management) MakeToken(ctx context.Context, roles string) (control.JoinToken, error) {
	r, err := h.signs()
	if err != nil {
		return control.JoinToken{}, err
	}
	of := trust.AllRoles
	if roles != "" {
		if of, err = trust.ParseRoles(roles); err != nil {
			return control.JoinToken{}, kind(err)
		}
	}
	if !r.CanSign() {
		return control.JoinToken{}, fmt.Errorf("a token would let nobody join: %w: start with --ca-passphrase-file or --ca-passphrase-command", trust.ErrSealed)
	}
	t, err := r.MakeToken(ctx, of, h.o.Listeners.Addresses()[:1], "ovs host token on host "+h.id.String())
	if err != nil {
		return control.JoinToken{}, kind(err)
	}
	return control.JoinToken{Line: t.Line(), Roles: of.String(), Expires: t.Expires}, nil
}

// RemoveHost implements control.Cluster.
func (h Management) RemoveHost(ctx context.Context, host string, lost bool) (control.ClusterHost, error) {
	r, err := h.signs()
	if err != nil {
		return control.ClusterHost{}, err
	}
	c, err := h.ShowHost(ctx, host)
	switch {
	case err != nil:
		return c, err
	case c.First:
		return c, fmt.Errorf("%w: host %s is the cluster's first, which has its groups: it cannot be removed", control.ErrInvalid, c.ID)
	case c.State == trust.Removed.String():
		return c, nil
	case !lost && !h.connected()[c.ID]:
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

// Authority implements control.Cluster.
func (h Management) Authority(context.Context) (control.Authority, error) {
	a := h.credentials.Material().Authority
	return control.Authority{
		Cluster: h.cluster, Fingerprint: trust.FingerprintOf(a).String(), From: a.NotBefore, Until: a.NotAfter,
		Open: h.registrar != nil && h.registrar.CanSign(), Certificate: a.Raw,
	}, nil
}

// Certificates implements control.Cluster.
func (h Management) Certificates(ctx context.Context) ([]control.Certificate, error) {
	reader := trust.NewRegistrar(trust.RegistrarOptions{Store: h.store, Host: h.id, Now: h.o.Now})
	all, err := reader.Certificates(ctx)
	if err != nil {
		return nil, kind(err)
	}
	slices.SortFunc(all, func(a, b trust.Certificate) int { return a.Signed.Compare(b.Signed) })
	list := make([]control.Certificate, len(all))
	for i, c := range all {
		id := c.Identity
		list[i] = control.Certificate{
			Serial: c.Serial.String(), Fingerprint: c.Fingerprint.String(), Of: "person", Name: id.Name, Role: id.Role.String(),
			VDisks: id.VDisks, ReadOnly: id.ReadOnly, From: c.From, Until: c.Until, Reason: c.Reason,
		}
		if id.IsHost() {
			list[i].Of, list[i].Name, list[i].Role = "host", id.Host.String(), id.Roles.String()
		}
		if !c.Revoked.IsZero() {
			list[i].Revoked = &c.Revoked
		}
	}
	return list, nil
}

// Issue implements control.Cluster.
func (h Management) Issue(ctx context.Context, q control.IssueRequest) (control.Issued, error) {
	r, err := h.signs()
	if err != nil {
		return control.Issued{}, err
	}
	role, err := trust.ParseRole(q.Role)
	if err != nil {
		return control.Issued{}, kind(err)
	}
	a, err := r.Issue(ctx, trust.Person{Name: q.Name, Role: role, VDisks: q.VDisks, ReadOnly: q.ReadOnly, Days: q.Days, Request: q.Request})
	if err != nil {
		return control.Issued{}, kind(err)
	}
	h.obeyNow(ctx)
	cert, err := x509.ParseCertificate(a.Certificate)
	if err != nil {
		return control.Issued{}, err
	}
	return control.Issued{Certificate: a.Certificate, Authority: a.Authority, Serial: trust.SerialOf(cert).String(), Until: cert.NotAfter}, nil
}

// Revoke implements control.Cluster.
func (h Management) Revoke(ctx context.Context, serial, host, reason string) error {
	r, err := h.signs()
	if err != nil {
		return err
	}
	if (serial == "") == (host == "") {
		return fmt.Errorf("%w: name a certificate by its serial, or a host", control.ErrInvalid)
	}
	if reason == "" {
		reason = "ovs ca revoke"
	}
	if host != "" {
		c, err := h.ShowHost(ctx, host)
		if err != nil {
			return err
		}
		if c.ID == h.id {
			return fmt.Errorf("%w: host %s is this one: without a certificate it could not tell others of the next", control.ErrInvalid, c.ID)
		}
		err = r.RevokeHost(ctx, c.ID, reason)
		h.obeyNow(ctx)
		return kind(err)
	}
	s, err := trust.ParseSerial(serial)
	if err != nil {
		return kind(err)
	}
	if s == trust.SerialOf(h.credentials.Material().Certificate) {
		return fmt.Errorf("%w: certificate %s is the one that this host shows", control.ErrInvalid, s)
	}
	err = r.Revoke(ctx, s, reason)
	h.obeyNow(ctx)
	return kind(err)
}
