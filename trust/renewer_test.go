package trust_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/trust"
)

// renewing is a member whose renewer runs, over a clock that is synctest's.
type renewing struct {
	*member
	renewer *trust.Renewer
	names   atomic.Pointer[[]string]
	asked   atomic.Int32
	fail    atomic.Pointer[error]
	faults  atomic.Int32
}

func (w *world) renewing(t *testing.T, m *member) *renewing {
	t.Helper()
	r := &renewing{member: m}
	r.names.Store(&[]string{})
	fsys := newDisk(t)
	r.renewer = trust.NewRenewer(trust.RenewerOptions{
		Credentials: m.credentials, Cache: m.cache, FS: fsys, File: "d/host.pem", Now: w.now,
		Names: func() []string { return *r.names.Load() },
		Fault: func(error) { r.faults.Add(1) },
		Ask: func(ctx context.Context, q *trust.RenewRequest) (*trust.Answer, error) {
			r.asked.Add(1)
			if err := r.fail.Load(); err != nil {
				return nil, *err
			}
			old := m.credentials.Material()
			peer := trust.Peer{Kind: trust.HostPeer, Identity: old.Identity(), Serial: trust.SerialOf(old.Certificate), Print: trust.FingerprintOf(old.Certificate), Proven: true}
			return w.registrar.Renew(ctx, peer, q)
		},
	})
	return r
}

// follow makes the world's clock the one that synctest moves.
func (w *world) follow() { w.set(time.Now()) }

// advance moves both clocks, an hour at a time.
func (w *world) advance(d time.Duration) {
	for ; d > 0; d -= time.Hour {
		time.Sleep(min(d, time.Hour))
		w.follow()
	}
	synctest.Wait()
}

// TestRenewals: a host's certificate is renewed on day 30 and not before, without a
// restart; what is shown and what is on disk is the new one; failures are tried again.
func TestRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldAt(t, time.Now())
		r := w.renewing(t, w.first)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.renewer.Run(ctx) }()
		before := r.credentials.Material()
		w.advance(days(29))
		if r.asked.Load() != 0 {
			t.Fatal("it renews before day 30")
		}
		away := errors.New("no quorum")
		r.fail.Store(&away)
		w.advance(days(2))
		if n := r.asked.Load(); n < 10 || n > 40 || r.faults.Load() != n {
			t.Errorf("in a day it asked %d times, with %d faults", n, r.faults.Load())
		}
		r.fail.Store(nil)
		w.advance(2 * time.Hour)
		fresh := r.credentials.Material()
		if fresh == before || fresh.Key.Equal(before.Key) {
			t.Fatal("the certificate was not renewed, or its key is the old one")
		}
		s, _, serverErr, clientErr := shakeNow(r.guard.Server(raft), before.TLS(trust.Dial{Protocol: raft}, w.now))
		if serverErr != nil || clientErr != nil {
			t.Fatal("with the certificate before, which is still good:", serverErr, clientErr)
		}
		s.Close()

		// Another name, other roles: at once.
		asked := r.asked.Load()
		r.names.Store(&[]string{"10.0.0.1"})
		r.renewer.Kick()
		synctest.Wait()
		if c := r.credentials.Material().Certificate; r.asked.Load() != asked+1 || c.VerifyHostname("10.0.0.1") != nil {
			t.Error("a new name does not come into the certificate")
		}
		if err := w.registrar.SetRoles(t.Context(), id(1), trust.RoleArakoon); err != nil {
			t.Fatal(err)
		}
		refresh(t, r.cache)
		synctest.Wait()
		if got := r.credentials.Material().Identity().Roles; got != trust.RoleArakoon {
			t.Errorf("the certificate says the roles %s", got)
		}
		w.advance(days(1))
		if r.asked.Load() != asked+2 {
			t.Error("it goes on asking")
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// An Ask that does not answer ends by the timeout, and with Run.
func TestRenewalThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldAt(t, time.Now())
		w.add(days(40))
		asks := make(chan struct{}, 100)
		r := trust.NewRenewer(trust.RenewerOptions{
			Credentials: w.first.credentials, Cache: w.first.cache, Now: w.now, Names: func() []string { return nil },
			Ask: func(ctx context.Context, _ *trust.RenewRequest) (*trust.Answer, error) {
				asks <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		<-asks
		<-asks // the first one has ended by itself
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// Handshakes, calls, renewals and refreshes go on at the same time.
func TestRenewalsUnderLoad(t *testing.T) {
	w := newWorld(t)
	b := w.join(t, 2, trust.AllRoles)
	server := w.first.guard.Server(raft)
	var clients, others sync.WaitGroup
	stop := make(chan struct{})
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			w.add(days(31))
			b.credentials.Set(w.renew(t, b))
			w.first.credentials.Set(w.renew(t, w.first))
			if err := w.first.cache.Refresh(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	for range 3 {
		clients.Go(func() {
			for range 5 {
				s, _, serverErr, clientErr := shakeNow(server, b.guard.Client(t.Context(), trust.Dial{Host: id(1), Protocol: raft}))
				// The clock runs a month at each step: a certificate may be over, or replaced,
				// while it is looked at. Nothing else may be wrong.
				for _, err := range []error{serverErr, clientErr} {
					if err != nil && !errors.Is(err, trust.ErrNotYet) && !errors.Is(err, trust.ErrExpired) && !errors.Is(err, trust.ErrUnrecorded) && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, io.EOF) {
						var alert tls.AlertError
						if !errors.As(err, &alert) && !contains(err.Error(), "remote error") {
							t.Error(err)
						}
					}
				}
				if serverErr == nil {
					if p, err := w.first.guard.Peer(t.Context(), s.ConnectionState(), true); err == nil {
						_ = w.first.guard.Allow(p, "raft/message", trust.Group("abm"))
					}
				}
				s.NetConn().Close()
			}
		})
	}
	clients.Wait()
	close(stop)
	others.Wait()
}
