package trust

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Person is for whom Issue makes a certificate.
type Person struct {
	Name     string
	Role     Role
	VDisks   string // see Identity.VDisks
	ReadOnly bool
	Days     int    // 0: PersonDays; at most PersonDaysMax
	Request  []byte // NewRequest of a key that was made where the certificate is used
}

// Issue makes a certificate for a person, or for a program that is no host. A name may
// have several: each is revoked by itself.
func (r *Registrar) Issue(ctx context.Context, p Person) (answer *Answer, err error) {
	if p.Days == 0 {
		p.Days = PersonDays
	}
	if p.Days < 0 || p.Days > PersonDaysMax {
		return nil, invalid("a certificate of %d days, 1 to %d", p.Days, PersonDaysMax)
	}
	key, err := parseRequest(p.Request)
	if err != nil {
		return nil, err
	}
	err = r.withRoom(ctx, func(c *change) error {
		id := Identity{Name: p.Name, Role: p.Role, VDisks: p.VDisks, ReadOnly: p.ReadOnly}
		cert, err := r.signRecorded(c, id, nil, key, time.Duration(p.Days)*day)
		if err == nil {
			answer, err = r.answer(cert)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// Revoke revokes one certificate for ever. Hosts refuse it as soon as they have seen the
// record, at the next call on connections that are up too. A host that loses its last
// one joins anew; its key may have been used to get others: see RevokeHost.
func (r *Registrar) Revoke(ctx context.Context, s Serial, reason string) error {
	return update(ctx, r.store, func(c *change) error {
		rec, err := c.certificate(s)
		if err != nil {
			return err
		}
		c.revoke(rec, r.now(), reason)
		if !rec.Identity.IsHost() {
			return nil
		}
		h, err := c.host(rec.Identity.Host)
		if err != nil || h == nil || !slices.Contains(h.Serials, s) {
			return err
		}
		h.Serials = slices.DeleteFunc(h.Serials, func(t Serial) bool { return t == s })
		c.set(hostKey(h.ID), h.encode())
		return nil
	})
}

// Hosts returns all hosts that have ever joined, in order of their UUIDs.
func (r *Registrar) Hosts(ctx context.Context) ([]Host, error) {
	return list(ctx, r.store, hostPrefix, HostsMax, decodeHost)
}

// Certificates returns all certificates that are on record, in order of their serials.
func (r *Registrar) Certificates(ctx context.Context) ([]Certificate, error) {
	return list(ctx, r.store, certificatePrefix, CertificatesMax, decodeCertificate)
}

// Tokens returns all join tokens that are on record, those that were used or have expired
// too.
func (r *Registrar) Tokens(ctx context.Context) ([]TokenRecord, error) {
	return list(ctx, r.store, tokenPrefix, TokensMax, decodeToken)
}

func list[T any](ctx context.Context, store Store, prefix string, most int, decode func([]byte) (T, error)) (all []T, err error) {
	rangeErr := store.Range(ctx, []byte(prefix), func(_, value []byte) bool {
		var one T
		if one, err = decode(value); err == nil && len(all) >= most {
			err = fmt.Errorf("trust: %w records under %q: more than %d", ErrFull, prefix, most)
		}
		if err == nil {
			all = append(all, one)
		}
		return err == nil
	})
	if err = errors.Join(rangeErr, err); err != nil {
		return nil, err
	}
	return all, nil
}

// pruneBatch is how many records one change of Prune removes.
const pruneBatch = 256

// pruneAfter is how long a certificate stays on record after it has expired, for whoever
// asks what it was.
const pruneAfter = 30 * day

// Prune forgets tokens that have expired, and certificates that expired more than 30 days
// ago, revoked ones too: what is not on record is refused. Those that a host may still
// renew stay. It returns how many records went.
func (r *Registrar) Prune(ctx context.Context) (gone int, err error) {
	for {
		n, err := r.pruneSome(ctx)
		if gone += n; n < pruneBatch || err != nil {
			return gone, err
		}
	}
}

func (r *Registrar) pruneSome(ctx context.Context) (n int, err error) {
	err = update(ctx, r.store, func(c *change) error {
		n = 0
		keys, err := r.stale(c)
		if err != nil {
			return err
		}
		for _, key := range keys {
			old, err := c.get(key)
			if err != nil {
				return err
			}
			if old == nil {
				continue
			}
			c.set(key, nil)
			n++
			if hasPrefix(key, tokenPrefix) {
				c.meta.tokens--
			} else {
				c.meta.certs--
			}
		}
		return nil
	})
	return n, err
}

// stale returns the keys of up to pruneBatch records that nobody needs.
func (r *Registrar) stale(c *change) (keys [][]byte, err error) {
	now := r.now()
	good := map[Serial]bool{}
	hosts, err := r.Hosts(c.ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range hosts {
		for _, s := range h.Serials {
			good[s] = true
		}
	}
	tokens, err := r.Tokens(c.ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range tokens {
		if !now.Before(t.Expires) {
			keys = append(keys, tokenKey(t.Hash))
		}
	}
	certs, err := r.Certificates(c.ctx)
	if err != nil {
		return nil, err
	}
	for _, rec := range certs {
		if len(keys) < pruneBatch && !good[rec.Serial] && now.After(rec.Until.Add(pruneAfter)) {
			keys = append(keys, certificateKey(rec.Serial))
		}
	}
	return keys, nil
}

// withRoom is update, which prunes and tries again if a limit of the records is reached.
func (r *Registrar) withRoom(ctx context.Context, fn func(*change) error) error {
	err := update(ctx, r.store, fn)
	if !errors.Is(err, ErrFull) {
		return err
	}
	if n, pruned := r.Prune(ctx); n == 0 || pruned != nil {
		return errors.Join(err, pruned)
	}
	return update(ctx, r.store, fn)
}
