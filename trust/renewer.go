package trust

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"openvstorage/internal/bell"
	"openvstorage/internal/disk"
)

// RenewerOptions are those of NewRenewer.
type RenewerOptions struct {
	Credentials *Credentials
	Cache       *Cache // says which roles the host has by now
	FS          disk.FS
	File        string // where the material is kept
	Names       func() []string
	// Ask has a signing host answer: over a connection of ProtocolJoin, or by
	// Registrar.RenewSelf in this process.
	Ask func(context.Context, *RenewRequest) (*Answer, error)
	Now func() time.Time // nil: time.Now
	// Retry is how long it waits after a failure, at first; each further one doubles it, up
	// to Most. 0: a minute, and an hour. It looks at the clock at least every Most.
	Retry, Most time.Duration
	// Timeout bounds one Ask. 0: 30 s.
	Timeout time.Duration
	// Fault is told of each failure. It may be nil.
	Fault func(error)
}

// Renewer keeps the certificate of a host good: it renews it when it is due, writes it,
// and shows it from then on.
type Renewer struct {
	o    RenewerOptions
	kick bell.Bell
}

// NewRenewer makes the renewer of a host. Run runs it.
func NewRenewer(o RenewerOptions) *Renewer {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Retry == 0 {
		o.Retry = time.Minute
	}
	if o.Most == 0 {
		o.Most = time.Hour
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Fault == nil {
		o.Fault = func(error) {}
	}
	return &Renewer{o: o}
}

// Kick has Run look at once: the host's names have changed.
func (r *Renewer) Kick() { r.kick.Ring() }

// Due reports whether the certificate is to be renewed: by the clock, or because it does
// not say what the host is by now.
func (r *Renewer) Due() bool {
	m := r.o.Credentials.Material()
	if !r.o.Now().Before(m.RenewAt()) {
		return true
	}
	if h, ok := r.o.Cache.Host(m.Identity().Host); ok && h.Roles != m.Identity().Roles {
		return true
	}
	return !sameNames(m, r.o.Names())
}

func sameNames(m *Material, names []string) bool {
	ips, dns, err := hostNames(names)
	return err == nil && slices.Equal(dns, m.Certificate.DNSNames) && slices.EqualFunc(ips, m.Certificate.IPAddresses, net.IP.Equal)
}

// Renew renews the certificate now, with a new key. If it is answered and cannot be
// written, it is shown all the same, and there is an error.
func (r *Renewer) Renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	m := r.o.Credentials.Material()
	key, err := NewKey()
	if err != nil {
		return err
	}
	request, err := NewRequest(key)
	if err != nil {
		return err
	}
	answer, err := r.o.Ask(ctx, &RenewRequest{Names: r.o.Names(), Request: request})
	if err != nil {
		return fmt.Errorf("trust: certificate of %s was not renewed, and is good until %s: %w", m.Identity(), stamp(m.Certificate.NotAfter), err)
	}
	fresh, err := m.Accept(key, answer, r.o.Now())
	if err != nil {
		return err
	}
	r.o.Credentials.Set(fresh)
	return fresh.Write(r.o.FS, r.o.File)
}

// Run renews the certificate whenever it is due, until ctx ends, and returns ctx's error.
func (r *Renewer) Run(ctx context.Context) error {
	failed := time.Duration(0)
	for {
		changed := r.o.Cache.Next() // before looking, so that no change is missed
		if r.Due() {
			err := r.Renew(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			failed = r.next(failed, err)
		} else {
			failed = 0
		}
		t := time.NewTimer(r.wait(failed))
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		case <-r.kick.Rung():
		case <-changed:
		}
		t.Stop()
	}
}

// wait returns how long nothing is to be done, if nobody says anything. failed is how
// long to wait after a failure, 0 if there was none.
func (r *Renewer) wait(failed time.Duration) time.Duration {
	if failed > 0 {
		return failed
	}
	until := r.o.Credentials.Material().RenewAt().Sub(r.o.Now())
	return max(min(until, r.o.Most), time.Second)
}

// next returns how long to wait after an attempt that followed a wait of last.
func (r *Renewer) next(last time.Duration, err error) time.Duration {
	if err == nil {
		return 0
	}
	r.o.Fault(err)
	if last == 0 {
		return r.o.Retry
	}
	return min(2*last, r.o.Most)
}
