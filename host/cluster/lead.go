package cluster

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"

	"openvstorage/host/roster"
	"openvstorage/internal/generation"
	"openvstorage/trust"
)

// ErrMissing: something is missing without which this host is not what it was. Nothing is
// made in its place (P8).
var ErrMissing = errors.New("missing")

// leading is a host that becomes the first of a cluster, or is it again.
type leading struct{ *Host }

func leads(h *Host) leading { return leading{h} }

// Lead makes this machine, whose config group is store, the first host of a cluster, or
// opens what it made before. mark is that of this start, as it is in the directory's
// history.
//
// The order of what is durable, each step before the next (P8, and so that a crash at any
// point is repeated by the next start):
//
//  1. the passphrase, if it is made here: a key that is sealed under one that is lost is
//     lost too;
//  2. the authority's certificate and its sealed key, one change of the records. A crash
//     before it leaves a passphrase that nothing is sealed under, and the next start uses
//     it. From then on no other authority is made;
//  3. this host's key, in host.pem;
//  4. its record, with its certificate's, one change. Whoever lost the answer asks again
//     for the key that is in host.pem;
//  5. its certificate, in host.pem, which is replaced as a whole;
//  6. its record of where it is.
//
// The address is answered on behind all of them, by Host.Serve.
func Lead(ctx context.Context, o Options, store trust.Store, mark generation.Mark) (_ *Host, err error) {
	o.ensureDefaults()
	h := newHost(o, o.Dir.ID)
	h.store, h.mark, h.history = store, mark, o.Dir.Record().History
	h.registrar = trust.NewRegistrar(trust.RegistrarOptions{Store: store, Host: h.id, Now: o.Now})
	defer func() {
		if err != nil {
			h.cancel()
			h.registrar.Close()
			o.Listeners.Close()
			err = fmt.Errorf("first host of cluster %s: %w", h.cluster, err)
		}
	}()
	if o.Roles != 0 {
		if err := mayLead(o.Roles); err != nil {
			return nil, fmt.Errorf("--roles: %w", err)
		}
	}
	if err := o.makeDir(); err != nil {
		return nil, err
	}
	m, err := leads(h).lead(ctx)
	if err != nil {
		return nil, err
	}
	if err := h.open(m); err != nil {
		return nil, err
	}
	if err := leads(h).settle(ctx); err != nil {
		return nil, err
	}
	return h, nil
}

// Reopen opens the first host of a cluster by its own files, nil if these have no
// certificate yet: then it is Lead that makes it one. Its groups may need other hosts by
// now, which it reaches by what is returned, and which reach it after Host.Serve. Nothing is
// asked of store before. When the groups answer, the caller calls Host.Settle.
//
// The start is counted in the directory's record before anybody is told of it. The groups
// claim a later generation, when they are there.
func Reopen(o Options, store trust.Store) (_ *Host, err error) {
	o.ensureDefaults()
	m, err := trust.ReadMaterial(o.FS, o.file("host.pem"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && m.Certificate == nil {
		return nil, nil
	}
	h := newHost(o, o.Dir.ID)
	h.store = store
	h.registrar = trust.NewRegistrar(trust.RegistrarOptions{Store: store, Host: h.id, Now: o.Now})
	defer func() {
		if err != nil {
			h.cancel()
			h.registrar.Close()
			o.Listeners.Close()
			err = fmt.Errorf("first host of cluster %s: %w", h.cluster, err)
		}
	}()
	if err != nil {
		return nil, err
	}
	if id := m.Identity(); id.Host != h.id || id.Cluster != h.cluster {
		return nil, fmt.Errorf("%w: its host.pem is of %s, the directory is host %s: was it put together from two?", ErrOther, id, h.id)
	}
	if err := h.claim(); err != nil {
		return nil, err
	}
	h.marks.see(h.id, h.mark)
	if err := h.open(m); err != nil {
		return nil, err
	}
	return h, nil
}

// Settle makes a host that was reopened the first of its cluster again, when its groups
// answer: it can sign certificates, and others find it.
func (h *Host) Settle(ctx context.Context) error {
	if _, err := leads(h).lead(ctx); err != nil {
		return fmt.Errorf("first host of cluster %s: %w", h.cluster, err)
	}
	if err := leads(h).settle(ctx); err != nil {
		return fmt.Errorf("first host of cluster %s: %w", h.cluster, err)
	}
	return nil
}

// settle looks at the records, and puts this host on record: step 6.
func (h leading) settle(ctx context.Context) error {
	if err := h.cache.Refresh(ctx); err != nil {
		return err
	}
	if h.renewer.Due() {
		if err := h.renewer.Renew(ctx); err != nil {
			h.faults.tell(err) // Run tries again
		}
	}
	all, err := roster.List(ctx, h.store, h.faults.tell)
	if err != nil {
		return err
	}
	for _, r := range all {
		h.marks.see(r.ID, r.Mark)
	}
	h.book.know(all)
	if err := roster.Register(ctx, h.store, h.record(), h.history); err != nil {
		return err
	}
	h.marks.see(h.id, h.mark)
	return nil
}

// lead returns what this host shows: steps 1 to 5.
func (h leading) lead(ctx context.Context) (*trust.Material, error) {
	m, err := trust.ReadMaterial(h.o.FS, h.o.file("host.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		m, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	has := m != nil && m.Certificate != nil
	authority, err := h.registrar.Authority(ctx)
	switch {
	case errors.Is(err, trust.ErrNotFounded):
		if err := h.mayFound(has); err != nil {
			return nil, err
		}
		if err := h.found(ctx); err != nil {
			return nil, err
		}
		if authority, err = h.registrar.Authority(ctx); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case has && !m.Authority.Equal(authority):
		return nil, fmt.Errorf("%w: %s has a certificate of authority %s, and the cluster's is %s: was the directory put together from two?",
			trust.ErrOtherCA, h.o.file("host.pem"), trust.FingerprintOf(m.Authority), trust.FingerprintOf(authority))
	}
	if err := keyOf(h.Host).unseal(ctx); err != nil {
		if !has {
			return nil, fmt.Errorf("this host has no certificate yet, and can sign none: %w", err)
		}
		h.o.Logger.Error("the authority's key stays sealed here: this host signs nothing", "err", err, "cure", "`ovs ca open`, or a start with the passphrase; another host that has it signs meanwhile")
	}
	if has {
		h.o.tellRoles(m.Identity().Roles)
		return m, nil
	}
	return h.admitSelf(ctx, m, trust.FingerprintOf(authority))
}

// mayFound refuses to make an authority where there was one.
func (h leading) mayFound(has bool) error {
	if !has {
		_, err := h.o.FS.Stat(h.o.file("records"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("the records of hosts and certificates are %w in group %q, and %s says that there were some: restore the data directory; nothing was changed", ErrMissing, group, h.o.file(""))
}

// found makes the authority and records it: steps 1 and 2.
func (h leading) found(ctx context.Context) error {
	passphrase, err := keyOf(h.Host).passphrase(ctx, true)
	if err != nil {
		return err
	}
	a, err := trust.NewAuthority(h.cluster, h.o.Now())
	if err != nil {
		return err
	}
	if err := trust.Found(ctx, h.store, h.cluster, a, passphrase); err != nil {
		return err
	}
	h.o.Logger.Info("this is the first host of a cluster now", "cluster", h.cluster, "authority", a.Fingerprint().String())
	return nil
}

// admitSelf gives this host its certificate: steps 3 to 5.
func (h leading) admitSelf(ctx context.Context, m *trust.Material, authority trust.Fingerprint) (*trust.Material, error) {
	key, err := h.o.key(m)
	if err != nil {
		return nil, err
	}
	request, err := trust.NewRequest(key)
	if err != nil {
		return nil, err
	}
	roles := h.o.Roles
	if roles == 0 {
		roles = trust.AllRoles
	}
	answer, err := h.registrar.Admit(ctx, h.id, roles, h.o.Listeners.names(), request)
	if err != nil {
		return nil, err
	}
	want := trust.Identity{Cluster: h.cluster, Host: h.id, Roles: roles}
	m, err = answer.Accept(key, want, authority, h.o.Now())
	if err != nil {
		return nil, err
	}
	return m, m.Write(h.o.FS, h.o.file("host.pem"))
}

// key returns the key of a host that has no certificate yet, and has it durable: that of an
// earlier try, or a new one.
func (o *Options) key(m *trust.Material) (*ecdsa.PrivateKey, error) {
	if m != nil {
		return m.Key, nil
	}
	key, err := trust.NewKey()
	if err != nil {
		return nil, err
	}
	return key, trust.WriteKey(o.FS, o.file("host.pem"), key)
}
