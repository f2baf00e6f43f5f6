package trust

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// RegistrarOptions are those of NewRegistrar.
type RegistrarOptions struct {
	Store Store
	Host  uuid.UUID        // the host that this process is of: it is recorded as the signer
	Now   func() time.Time // nil: time.Now
}

// Registrar keeps the records of a cluster, and signs certificates if the authority's
// key is open in it (Open). Several hosts may have one over the same Store: each change
// is one swap, which fails if the records have changed since they were read.
type Registrar struct {
	store Store
	host  uuid.UUID
	now   func() time.Time
	key   atomic.Pointer[Authority]
}

// NewRegistrar makes the registrar of a host. The authority's key is sealed in it.
func NewRegistrar(o RegistrarOptions) *Registrar {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Registrar{store: o.Store, host: o.Host, now: o.Now}
}

// Found records the authority of a cluster that has none, its key sealed under the
// passphrase. It may be called again with the same authority.
func Found(ctx context.Context, store Store, cluster uuid.UUID, a *Authority, passphrase []byte) error {
	if cluster == uuid.Nil {
		return invalid("a cluster without a UUID")
	}
	sealed, err := a.Seal(passphrase)
	if err != nil {
		return err
	}
	return found(ctx, store, cluster, a, sealed)
}

func found(ctx context.Context, store Store, cluster uuid.UUID, a *Authority, sealed []byte) error {
	return update(ctx, store, func(c *change) error {
		old, err := c.get([]byte(authorityKey))
		if err != nil {
			return err
		}
		if old != nil {
			r, err := decodeAuthority(old)
			if err == nil && (!r.cert.Equal(a.cert) || c.meta.cluster != cluster) {
				err = invalid("cluster %s has authority %s already", c.meta.cluster, FingerprintOf(r.cert))
			}
			return err
		}
		c.meta.cluster = cluster
		c.set([]byte(authorityKey), authorityRecord{a.cert, sealed}.encode())
		return nil
	})
}

// authority reads the authority's record as part of a change.
func (c *change) authority() (authorityRecord, error) {
	b, err := c.get([]byte(authorityKey))
	if err != nil {
		return authorityRecord{}, err
	}
	if b == nil {
		return authorityRecord{}, fmt.Errorf("trust: %w", ErrNotFounded)
	}
	return decodeAuthority(b)
}

// Authority returns the authority's certificate, as it is on record. The error matches
// ErrNotFounded if there is none.
func (r *Registrar) Authority(ctx context.Context) (*x509.Certificate, error) {
	a, err := (&change{ctx: ctx, store: r.store}).authority()
	return a.cert, err
}

// Open opens the authority's key in this process, which can sign from now on. It takes
// a tenth of a second of a core: the passphrase's derivation.
func (r *Registrar) Open(ctx context.Context, passphrase []byte) error {
	c := &change{ctx: ctx, store: r.store}
	a, err := c.authority()
	if err != nil {
		return err
	}
	open, err := OpenAuthority(a.cert, a.sealed, passphrase)
	if err == nil {
		r.key.Store(open)
	}
	return err
}

// Close forgets the authority's key.
func (r *Registrar) Close() { r.key.Store(nil) }

// CanSign reports whether the authority's key is open in this process.
func (r *Registrar) CanSign() bool { return r.key.Load() != nil }

// Reseal seals the authority's key under another passphrase. Copies of the older sealed
// key, in backups too, open with the older one for ever.
func (r *Registrar) Reseal(ctx context.Context, passphrase []byte) error {
	a, err := r.open()
	if err != nil {
		return err
	}
	sealed, err := a.Seal(passphrase)
	if err != nil {
		return err
	}
	return update(ctx, r.store, func(c *change) error {
		if err := c.mayBeSignedBy(a); err != nil {
			return err
		}
		c.set([]byte(authorityKey), authorityRecord{a.cert, sealed}.encode())
		return nil
	})
}

// open returns the authority, if this process has its key.
func (r *Registrar) open() (*Authority, error) {
	if a := r.key.Load(); a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("trust: %w: give host %s the passphrase, or ask a host that has it", ErrSealed, r.host)
}

// mayBeSignedBy returns nil if the authority is the one on record.
func (c *change) mayBeSignedBy(a *Authority) error {
	rec, err := c.authority()
	if err == nil && !rec.cert.Equal(a.cert) {
		err = invalid("the cluster's authority is %s by now, not %s: open it again", FingerprintOf(rec.cert), a.Fingerprint())
	}
	return err
}

// signRecorded signs a certificate as part of a change, and puts its record there.
func (r *Registrar) signRecorded(c *change, id Identity, names []string, key any, life time.Duration) (*x509.Certificate, error) {
	a, err := r.open()
	if err != nil {
		return nil, err
	}
	if err := c.mayBeSignedBy(a); err != nil {
		return nil, err
	}
	if c.meta.certs >= CertificatesMax {
		return nil, fmt.Errorf("trust: %w certificates: %d are on record; revoke and prune those that nobody needs", ErrFull, c.meta.certs)
	}
	id.Cluster = c.meta.cluster
	now := r.now()
	cert, err := a.sign(id, names, key, now, life)
	if err != nil {
		return nil, err
	}
	rec := Certificate{
		Serial: SerialOf(cert), Fingerprint: FingerprintOf(cert), Identity: id,
		From: cert.NotBefore, Until: cert.NotAfter, Signed: now, By: r.host,
	}
	old, err := c.get(certificateKey(rec.Serial))
	if err != nil {
		return nil, err
	}
	if old != nil {
		return nil, fmt.Errorf("trust: serial number %s was drawn twice: the random numbers of this machine are not random", rec.Serial)
	}
	c.set(certificateKey(rec.Serial), rec.encode())
	c.meta.certs++
	return cert, nil
}

// host reads the record of a host as part of a change, nil if there is none.
func (c *change) host(id uuid.UUID) (*Host, error) {
	b, err := c.get(hostKey(id))
	if b == nil || err != nil {
		return nil, err
	}
	h, err := decodeHost(b)
	return &h, err
}

// certificate reads the record of a certificate as part of a change.
func (c *change) certificate(s Serial) (*Certificate, error) {
	b, err := c.get(certificateKey(s))
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, fmt.Errorf("trust: certificate %s: %w", s, ErrAbsent)
	}
	rec, err := decodeCertificate(b)
	return &rec, err
}

// signHost gives a host a certificate as part of a change, and its record the serial.
// Of more than serialsMax, the oldest goes.
func (r *Registrar) signHost(c *change, h *Host, key any) (*Answer, error) {
	cert, err := r.signRecorded(c, Identity{Host: h.ID, Roles: h.Roles}, h.Names, key, HostLife)
	if err != nil {
		return nil, err
	}
	h.Serials = append([]Serial{SerialOf(cert)}, h.Serials...)
	for len(h.Serials) > serialsMax {
		last := len(h.Serials) - 1
		old, err := c.get(certificateKey(h.Serials[last]))
		if err != nil {
			return nil, err
		}
		if old != nil {
			c.set(certificateKey(h.Serials[last]), nil)
			c.meta.certs--
		}
		h.Serials = h.Serials[:last]
	}
	if _, err := c.get(hostKey(h.ID)); err != nil {
		return nil, err
	}
	c.set(hostKey(h.ID), h.encode())
	return r.answer(cert)
}

func (r *Registrar) answer(cert *x509.Certificate) (*Answer, error) {
	a, err := r.open()
	if err != nil {
		return nil, err
	}
	return &Answer{Certificate: cert.Raw, Authority: a.cert.Raw}, nil
}

// MakeToken makes a token that lets one host join with some of the roles' work. by is
// whoever asked for it, for the list. The addresses are those of hosts that answer joins.
// Where TokensMax are on record, those that have expired make room, and then the oldest one
// that was used: its host has joined, and does not ask again but for an answer that it lost.
func (r *Registrar) MakeToken(ctx context.Context, roles Roles, addresses []string, by string) (*Token, error) {
	secret, err := newSecret()
	if err != nil {
		return nil, err
	}
	now := r.now()
	t := &Token{Addresses: addresses, Roles: roles, Expires: now.Add(TokenLife).UTC().Truncate(time.Second), Secret: secret}
	if err := errors.Join(roles.Check(), checkAddresses(addresses)); err != nil {
		return nil, err
	}
	if len(by) > ReasonMax {
		by = by[:ReasonMax]
	}
	err = update(ctx, r.store, func(c *change) error {
		a, err := c.authority()
		if err != nil {
			return err
		}
		if c.meta.tokens >= TokensMax {
			if err := r.forgetTokens(c); err != nil {
				return err
			}
		}
		t.Cluster, t.Authority = c.meta.cluster, FingerprintOf(a.cert)
		rec := TokenRecord{Hash: secret.hash(), Roles: roles, Made: now, Expires: t.Expires, By: by}
		if _, err := c.get(tokenKey(rec.Hash)); err != nil {
			return err
		}
		c.set(tokenKey(rec.Hash), rec.encode())
		c.meta.tokens++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// forgetTokens makes room for a token as part of a change: of those that expired all go,
// and otherwise the oldest one that was used.
func (r *Registrar) forgetTokens(c *change) error {
	all, err := r.Tokens(c.ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b TokenRecord) int { return a.Made.Compare(b.Made) })
	now := r.now()
	expired := slices.DeleteFunc(slices.Clone(all), func(t TokenRecord) bool { return now.Before(t.Expires) })
	used := slices.DeleteFunc(all, func(t TokenRecord) bool { return t.UsedBy == uuid.Nil })
	gone := expired
	if len(gone) == 0 {
		gone = used[:min(len(used), 1)]
	}
	for _, t := range gone {
		if err := c.forgetToken(t.Hash); err != nil {
			return err
		}
	}
	if c.meta.tokens >= TokensMax {
		return fmt.Errorf("trust: %w join tokens: %d were made within a day and are not used: withdraw those that nobody needs (`ovs host token list`)", ErrFull, c.meta.tokens)
	}
	return nil
}

// forgetToken takes a token off record as part of a change.
func (c *change) forgetToken(hash [sha256.Size]byte) error {
	old, err := c.get(tokenKey(hash))
	if old == nil || err != nil {
		return err
	}
	c.set(tokenKey(hash), nil)
	c.meta.tokens--
	return nil
}

// WithdrawToken ends a token before it is used. That it is not there is no error. The error
// matches ErrInvalid if a host has joined with it: then it is good for nobody else any more,
// and stays on record, which says who.
func (r *Registrar) WithdrawToken(ctx context.Context, hash [sha256.Size]byte) error {
	return update(ctx, r.store, func(c *change) error {
		b, err := c.get(tokenKey(hash))
		if b == nil || err != nil {
			return err
		}
		t, err := decodeToken(b)
		if err == nil && t.Used() {
			err = invalid("host %s has joined with this token, so it is too late to withdraw it; if that host should not be there, `ovs host remove %s`", t.UsedBy, t.UsedBy)
		}
		if err != nil {
			return err
		}
		return c.forgetToken(hash)
	})
}

// HasToken returns nil if a token is on record, used or expired too. The error matches
// ErrToken if it is not.
func (r *Registrar) HasToken(ctx context.Context, s Secret) error {
	b, err := r.store.Get(ctx, tokenKey(s.hash()))
	if b == nil && err == nil {
		err = errNoToken
	}
	return err
}

var errNoToken = fmt.Errorf("trust: %w: it is not known here: it is wrong, was withdrawn, or has expired long ago", ErrToken)

// token reads and checks the record of a token's secret as part of a change.
func (c *change) token(s Secret, now time.Time) (*TokenRecord, error) {
	b, err := c.get(tokenKey(s.hash()))
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, errNoToken
	}
	t, err := decodeToken(b)
	if err != nil {
		return nil, err
	}
	if !now.Before(t.Expires) {
		return nil, fmt.Errorf("trust: %w: it has expired at %s, and the clock here says %s: make another (`ovs host token`)", ErrToken, stamp(t.Expires), stamp(now))
	}
	return &t, nil
}

// use binds a token to the host and the key that it was used for. Whoever asks again for
// the same does so because the answer was lost.
func (c *change) use(t *TokenRecord, host uuid.UUID, key [sha256.Size]byte) (again bool, err error) {
	if t.UsedBy != uuid.Nil {
		if t.UsedBy != host || !bytes.Equal(t.usedKey[:], key[:]) {
			return false, fmt.Errorf("trust: %w: host %s has joined with it, and it is good for one: make another (`ovs host token`)", ErrToken, t.UsedBy)
		}
		return true, nil
	}
	t.UsedBy, t.usedKey = host, key
	c.set(tokenKey(t.Hash), t.encode())
	return false, nil
}
