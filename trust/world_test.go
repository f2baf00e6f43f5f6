package trust_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"openvstorage/trust"
	"openvstorage/trust/trusttest"
)

var passphrase = []byte("correct horse battery")

// start is when all tests begin.
var start = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// clock is a clock that stands until it is moved.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.at.Store(start.Unix())
	return c
}

func (c *clock) now() time.Time      { return time.Unix(c.at.Load(), 0).UTC() }
func (c *clock) add(d time.Duration) { c.at.Add(int64(d / time.Second)) }
func (c *clock) set(t time.Time)     { c.at.Store(t.Unix()) }
func days(n float64) time.Duration   { return time.Duration(n * 24 * float64(time.Hour)) }
func id(n byte) (u uuid.UUID)        { u[0], u[15] = 0xaa, n; return u }
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// world is a cluster of one signing host, host 1.
type world struct {
	*clock
	cluster   uuid.UUID
	store     *trusttest.Store
	authority *trust.Authority
	registrar *trust.Registrar
	first     *member
}

// member is a host of a world.
type member struct {
	id          uuid.UUID
	credentials *trust.Credentials
	cache       *trust.Cache
	guard       *trust.Guard
	refused     atomic.Pointer[error]
}

func newWorld(t testing.TB) *world { return newWorldOf(t, id(0xc1)) }

func newWorldOf(t testing.TB, cluster uuid.UUID) *world {
	t.Helper()
	return newWorldAs(t, cluster, start)
}

func newWorldAt(t testing.TB, at time.Time) *world { return newWorldAs(t, id(0xc1), at) }

func newWorldAs(t testing.TB, cluster uuid.UUID, at time.Time) *world {
	t.Helper()
	w := &world{clock: newClock(), cluster: cluster, store: trusttest.NewStore()}
	w.set(at)
	w.authority = must(trust.NewAuthority(cluster, w.now()))(t)
	w.registrar = trust.NewRegistrar(trust.RegistrarOptions{Store: w.store, Host: id(1), Now: w.now})
	if err := trust.FoundAndOpen(t.Context(), w.registrar, cluster, w.authority, passphrase); err != nil {
		t.Fatal(err)
	}
	key := must(trust.NewKey())(t)
	answer := must(w.registrar.Admit(t.Context(), id(1), trust.AllRoles, nil, must(trust.NewRequest(key))(t)))(t)
	w.first = w.member(t, w.accept(t, key, id(1), trust.AllRoles, answer))
	return w
}

// accept makes the material of an answer, as a joiner whose token says the roles.
func (w *world) accept(t testing.TB, key *ecdsa.PrivateKey, host uuid.UUID, roles trust.Roles, a *trust.Answer) *trust.Material {
	t.Helper()
	token := &trust.Token{Cluster: w.cluster, Authority: w.authority.Fingerprint(), Roles: roles}
	return must(token.Accept(key, host, a, w.now()))(t)
}

func (w *world) member(t testing.TB, m *trust.Material) *member {
	t.Helper()
	n := &member{id: m.Identity().Host, credentials: trust.NewCredentials(m)}
	n.cache = must(trust.OpenCache(trust.CacheOptions{Cluster: w.cluster, Store: w.store, Now: w.now, Fault: func(err error) { t.Error(err) }}))(t)
	n.guard = trust.NewGuard(trust.GuardOptions{Credentials: n.credentials, Cache: n.cache, Now: w.now, Refused: func(err error) { n.refused.Store(&err) }})
	return n
}

func (w *world) token(t testing.TB, roles trust.Roles) *trust.Token {
	t.Helper()
	return must(w.registrar.MakeToken(t.Context(), roles, []string{"10.0.0.1:26400"}, "test"))(t)
}

// join makes a host join with a token, without a network.
func (w *world) join(t testing.TB, n byte, roles trust.Roles) *member {
	t.Helper()
	token, key := w.token(t, roles), must(trust.NewKey())(t)
	q := must(token.Request(key, id(n), nil))(t)
	return w.member(t, w.accept(t, key, id(n), roles, must(w.registrar.Join(t.Context(), q))(t)))
}

// person makes the certificate of a person.
func (w *world) person(t testing.TB, p trust.Person) *trust.Material {
	t.Helper()
	key := must(trust.NewKey())(t)
	p.Request = must(trust.NewRequest(key))(t)
	a := must(w.registrar.Issue(t.Context(), p))(t)
	_, cert, keyPEM, err := (&trust.Material{Key: key, Certificate: must(parse(a.Certificate))(t), Authority: w.authority.Certificate()}).PEM()
	if err != nil {
		t.Fatal(err)
	}
	ca, _, _, _ := w.first.credentials.Material().PEM()
	return must(trust.ParseMaterial(append(append(keyPEM, cert...), ca...)))(t)
}

// shake makes a TLS connection over a pipe and returns what either side says of it. The
// client reads the server's word, so that it sees a refusal.
func shake(t testing.TB, server, client *tls.Config) (s, c *tls.Conn, serverErr, clientErr error) {
	t.Helper()
	s, c, serverErr, clientErr = shakeNow(server, client)
	t.Cleanup(func() { s.NetConn().Close(); c.NetConn().Close() })
	return s, c, serverErr, clientErr
}

func shakeNow(server, client *tls.Config) (s, c *tls.Conn, serverErr, clientErr error) {
	a, b := net.Pipe()
	s, c = tls.Server(a, server), tls.Client(b, client)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		err := s.HandshakeContext(ctx)
		if err == nil {
			_, err = s.Write([]byte("."))
		}
		if err != nil {
			a.Close()
		}
		done <- err
	}()
	clientErr = c.HandshakeContext(ctx)
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	if clientErr != nil {
		b.Close()
	}
	return s, c, <-done, clientErr
}

// wants fails unless err matches target and says all the words.
func wants(t testing.TB, what string, err, target error, words ...string) {
	t.Helper()
	if target == nil {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	if !errors.Is(err, target) {
		t.Errorf("%s: %v, which is not %q", what, err, target)
		return
	}
	for _, word := range words {
		if !contains(err.Error(), word) {
			t.Errorf("%s: %v, which does not say %q", what, err, word)
		}
	}
}
