package trust

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Admit takes a host into the cluster without a token, and answers with its certificate.
// It is for the cluster's first host, which asks it of itself: no listener offers it.
// Whoever lost the answer asks again.
func (r *Registrar) Admit(ctx context.Context, host uuid.UUID, roles Roles, names []string, request []byte) (*Answer, error) {
	return r.admit(ctx, host, names, request, func(*change, [32]byte) (Roles, bool, error) {
		return roles, true, roles.Check()
	})
}

// RenewSelf gives the host that this process is of another certificate, by the key of the
// authority that is open in it. Nothing but its own word says that it may.
func (r *Registrar) RenewSelf(ctx context.Context, q *RenewRequest) (*Answer, error) {
	return r.admit(ctx, r.host, q.Names, q.Request, func(c *change, _ [32]byte) (Roles, bool, error) {
		h, err := c.host(r.host)
		if err == nil && (h == nil || len(h.Serials) == 0) {
			err = fmt.Errorf("trust: host %s: %w as a member with a certificate that is good", r.host, ErrAbsent)
		}
		if err != nil {
			return 0, false, err
		}
		return h.Roles, true, nil
	})
}

// Join takes a host into the cluster that shows the secret of a token, and answers with
// its certificate. The token is used from then on: the same host gets an answer again for
// the same key, until the token expires, and nobody else does.
//
// A host that has joined before is refused, unless all its certificates were revoked
// (RevokeHost): its data directory may be a copy. One that was removed is refused for ever.
func (r *Registrar) Join(ctx context.Context, q *JoinRequest) (*Answer, error) {
	return r.admit(ctx, q.Host, q.Names, q.Request, func(c *change, key [32]byte) (Roles, bool, error) {
		t, err := c.token(q.Secret, r.now())
		if err != nil {
			return 0, false, err
		}
		again, err := c.use(t, q.Host, key)
		if err != nil || !again {
			return t.Roles, false, err
		}
		h, err := c.host(q.Host)
		if err == nil && (h == nil || len(h.Serials) == 0) {
			err = fmt.Errorf("trust: %w: the certificates of host %s were revoked since it joined with it: make another (`ovs host token`)", ErrToken, q.Host)
		}
		return t.Roles, true, err
	})
}

// admit takes a host in, if may says with which roles. again: it may have joined before.
func (r *Registrar) admit(ctx context.Context, host uuid.UUID, names []string, request []byte, may func(c *change, key [32]byte) (roles Roles, again bool, err error)) (answer *Answer, err error) {
	if host == uuid.Nil {
		return nil, invalid("a join without the UUID of a host")
	}
	key, err := parseRequest(request)
	if err != nil {
		return nil, err
	}
	hash, err := keyHash(key)
	if err != nil {
		return nil, err
	}
	if _, err := r.open(); err != nil {
		return nil, err
	}
	err = r.withRoom(ctx, func(c *change) error {
		roles, again, err := may(c, hash)
		if err != nil {
			return err
		}
		h, err := c.host(host)
		if err != nil {
			return err
		}
		now := r.now()
		switch {
		case h == nil:
			if c.meta.hosts >= HostsMax {
				return fmt.Errorf("trust: %w hosts: %d have joined this cluster, and a UUID is never used again", ErrFull, c.meta.hosts)
			}
			c.meta.hosts++
			h = &Host{ID: host, State: Joined, Joined: now}
		case h.State != Joined:
			return invalid("host %s was removed from the cluster at %s: its UUID is never used again; join with an empty data directory", host, stamp(h.Changed))
		case !again && len(h.Serials) > 0:
			return invalid("host %s has joined the cluster at %s: is this a copy of its data directory? If it has lost its key, revoke its certificates first", host, stamp(h.Joined))
		}
		if err := c.rename(h, names); err != nil {
			return err
		}
		h.Roles, h.Changed = roles, now
		answer, err = r.signHost(c, h, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// rename gives a host its names, if no other host of the cluster has one of them: clients
// that are not ours know a host by its name.
func (c *change) rename(h *Host, names []string) error {
	if _, _, err := hostNames(names); err != nil {
		return err
	}
	if slices.Equal(names, h.Names) {
		return nil
	}
	var fault error
	err := c.store.Range(c.ctx, []byte(hostPrefix), func(_, value []byte) bool {
		other, err := decodeHost(value)
		if fault = err; err != nil {
			return false
		}
		if other.ID == h.ID || other.State != Joined {
			return true
		}
		for _, n := range names {
			if slices.Contains(other.Names, n) {
				fault = invalid("host %s has name %q already: it is not given to host %s too", other.ID, n, h.ID)
				return false
			}
		}
		return true
	})
	h.Names = slices.Clone(names)
	if err == nil {
		err = fault
	}
	return err
}

// Renew gives a host another certificate. peer is who asks, as a Guard knows it; its
// certificate may have expired. It is refused (ErrTooEarly) if the present one is younger
// than RenewAfter, unless roles or names have changed since: so a host's certificates
// do not pile up.
func (r *Registrar) Renew(ctx context.Context, peer Peer, q *RenewRequest) (answer *Answer, err error) {
	if peer.Kind != HostPeer || !peer.Proven {
		return nil, refuse(peer, "join/renew", Nothing, "only a host renews, with its own certificate", nil)
	}
	key, err := parseRequest(q.Request)
	if err != nil {
		return nil, err
	}
	if _, err := r.open(); err != nil {
		return nil, err
	}
	err = r.withRoom(ctx, func(c *change) error {
		rec, err := c.certificate(peer.Serial)
		if err != nil {
			return err
		}
		h, err := c.host(peer.Identity.Host)
		if err != nil {
			return err
		}
		switch {
		case rec.Identity.Host != peer.Identity.Host || rec.Fingerprint != peer.Print:
			return refuse(peer, "join/renew", Nothing, "another certificate has that number on record", ErrUnrecorded)
		case !rec.Revoked.IsZero():
			return refuse(peer, "join/renew", Nothing, "its certificate was revoked at "+stamp(rec.Revoked), ErrRevoked)
		case h == nil || h.State != Joined || !slices.Contains(h.Serials, peer.Serial):
			return refuse(peer, "join/renew", Nothing, "the host was removed, or this certificate of it is not good any more", ErrRemoved)
		}
		now := r.now()
		same := rec.Identity.Roles == h.Roles && slices.Equal(q.Names, h.Names)
		if at := rec.Signed.Add(RenewAfter); same && now.Before(at) && now.Before(rec.Until.Add(-RenewAfter)) {
			return fmt.Errorf("trust: certificate %s of host %s: %w: from %s on", rec.Serial, h.ID, ErrTooEarly, stamp(at))
		}
		if !slices.Equal(q.Names, h.Names) {
			h.Changed = now
		}
		if err := c.rename(h, q.Names); err != nil {
			return err
		}
		answer, err = r.signHost(c, h, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// SetRoles changes what a host may do: what is taken away at once, what is given with its
// next certificate, which it asks for when it hears of it.
func (r *Registrar) SetRoles(ctx context.Context, host uuid.UUID, roles Roles) error {
	if err := roles.Check(); err != nil {
		return err
	}
	return r.changeHost(ctx, host, func(_ *change, h *Host, now time.Time) error {
		if h.State != Joined {
			return invalid("host %s was removed at %s", host, stamp(h.Changed))
		}
		if h.Roles != roles {
			h.Roles, h.Changed = roles, now
		}
		return nil
	})
}

// RemoveHost ends a host's membership: nobody speaks with it any more, and its
// certificates are revoked. Its UUID is never used again.
func (r *Registrar) RemoveHost(ctx context.Context, host uuid.UUID, reason string) error {
	return r.changeHost(ctx, host, func(c *change, h *Host, now time.Time) error {
		if h.State == Removed {
			return nil
		}
		h.State, h.Changed = Removed, now
		return c.revokeAll(h, now, reason)
	})
}

// RevokeHost revokes all certificates of a host that stays a member: its key may be
// known, or is lost. The host joins anew, with a token and the UUID that it has.
func (r *Registrar) RevokeHost(ctx context.Context, host uuid.UUID, reason string) error {
	return r.changeHost(ctx, host, func(c *change, h *Host, now time.Time) error { return c.revokeAll(h, now, reason) })
}

func (r *Registrar) changeHost(ctx context.Context, host uuid.UUID, fn func(c *change, h *Host, now time.Time) error) error {
	return update(ctx, r.store, func(c *change) error {
		h, err := c.host(host)
		if err == nil && h == nil {
			err = fmt.Errorf("trust: host %s: %w", host, ErrAbsent)
		}
		if err == nil {
			err = fn(c, h, r.now())
		}
		if err != nil {
			return err
		}
		c.set(hostKey(host), h.encode())
		return nil
	})
}

func (c *change) revokeAll(h *Host, now time.Time, reason string) error {
	for _, s := range h.Serials {
		rec, err := c.certificate(s)
		if err != nil {
			return err
		}
		c.revoke(rec, now, reason)
	}
	h.Serials = nil
	return nil
}

// revoke marks the record of a certificate, which this change has read.
func (c *change) revoke(rec *Certificate, now time.Time, reason string) {
	if len(reason) > ReasonMax {
		reason = reason[:ReasonMax]
	}
	if rec.Revoked.IsZero() {
		rec.Revoked, rec.Reason = now, reason
		c.set(certificateKey(rec.Serial), rec.encode())
	}
}

// ProvisionalLife is how long a provisional certificate is good.
const ProvisionalLife = day

// Provisional signs a certificate for this host itself, whose own has expired while
// nobody could renew it: every host of the cluster was off for long. It is not on record,
// since without a quorum nothing is. Others take it as that of a host that was renewed
// while they could not read the records. So hosts that have the passphrase find each
// other, and once they have a quorum each gets another at once: by RenewSelf, as a
// provisional one renews nothing.
func (r *Registrar) Provisional(m *Material, request []byte) (*Answer, error) {
	a, err := r.open()
	if err != nil {
		return nil, err
	}
	id, now := m.Identity(), r.now()
	switch {
	case id.Host != r.host || !a.cert.Equal(m.Authority):
		return nil, invalid("a provisional certificate of %s by host %s: a host makes one for itself, of its own authority", id, r.host)
	case !now.After(m.Certificate.NotAfter):
		return nil, fmt.Errorf("trust: provisional certificate of %s: %w: its own is good until %s", id, ErrTooEarly, stamp(m.Certificate.NotAfter))
	}
	key, err := parseRequest(request)
	if err != nil {
		return nil, err
	}
	names := slices.Clone(m.Certificate.DNSNames)
	for _, ip := range m.Certificate.IPAddresses {
		names = append(names, ip.String())
	}
	cert, err := a.sign(id, names, key, now, ProvisionalLife)
	if err != nil {
		return nil, err
	}
	return r.answer(cert)
}
