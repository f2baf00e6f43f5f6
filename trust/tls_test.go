package trust_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"openvstorage/trust"
	"openvstorage/trust/trusttest"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

func parse(der []byte) (*x509.Certificate, error) { return x509.ParseCertificate(der) }

const raft = "ovs-raft"

// refusal is what a member's guard said last.
func (m *member) refusal() error {
	if err := m.refused.Swap(nil); err != nil {
		return *err
	}
	return nil
}

func TestHostsKnowEachOther(t *testing.T) {
	w := newWorld(t)
	b := w.join(t, 2, trust.RoleASD|trust.RoleArakoon)
	s, c, serverErr, clientErr := shake(t, w.first.guard.Server(raft), b.guard.Client(t.Context(), trust.Dial{Host: id(1), Protocol: raft}))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	p := must(w.first.guard.Peer(t.Context(), s.ConnectionState(), true))(t)
	if p.Kind != trust.HostPeer || p.Identity.Host != id(2) || p.Identity.Roles != trust.RoleASD|trust.RoleArakoon || !p.Proven || p.Expired {
		t.Errorf("the server knows its client as %+v", p)
	}
	p = must(b.guard.Peer(t.Context(), c.ConnectionState(), false))(t)
	if p.Identity.Host != id(1) || !p.Proven {
		t.Errorf("the client knows its server as %+v", p)
	}
	if v := s.ConnectionState().Version; v != tls.VersionTLS13 {
		t.Errorf("TLS version %#x", v)
	}
}

// The same over a real socket: what a pipe forgives, a network may not.
func TestHostsKnowEachOtherOverTCP(t *testing.T) {
	w := newWorld(t)
	b := w.join(t, 2, trust.AllRoles)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		conn, err := tls.NewListener(l, w.first.guard.Server(raft)).Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
	})
	d := tls.Dialer{Config: b.guard.Client(t.Context(), trust.Dial{Host: id(1), Roles: trust.RoleArakoon, Protocol: raft})}
	conn, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 5)); err != nil {
		t.Error(err)
	}
}

// forge makes a certificate that the world's registrar knows nothing of.
func forge(t *testing.T, parent *x509.Certificate, signer any, uris ...string) *tls.Certificate {
	t.Helper()
	key := must(trust.NewKey())(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "forged"},
		NotBefore: start.Add(-time.Hour), NotAfter: start.Add(days(10)),
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, u := range uris {
		template.URIs = append(template.URIs, must(url.Parse(u))(t))
	}
	if parent == nil {
		parent, signer = template, key
	}
	der := must(x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer))(t)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: must(parse(der))(t)}
}

// userAuthority makes an authority whose key the test has.
func userAuthority(t *testing.T) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := must(trust.NewKey())(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the user's own"}, NotBefore: start.Add(-days(100)), NotAfter: start.Add(days(1000)),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(t)
	return must(parse(der))(t), key
}

// TestWrongClients: every kind of wrong certificate is refused by name, by the server.
func TestWrongClients(t *testing.T) {
	w := newWorld(t)
	other := newWorldOf(t, id(0xc2))
	b := w.join(t, 2, trust.RoleASD)
	stolenCert, stolenKey := userAuthority(t)
	host := trust.Identity{Cluster: w.cluster, Host: id(2), Roles: trust.RoleASD}.URI()
	person := w.person(t, trust.Person{Name: "eve", Role: trust.Admin, Days: 20})
	revoked := w.person(t, trust.Person{Name: "mallory", Role: trust.Admin})
	if err := w.registrar.Revoke(t.Context(), trust.SerialOf(revoked.Certificate), "left"); err != nil {
		t.Fatal(err)
	}
	removed := w.join(t, 3, trust.AllRoles)
	if err := w.registrar.RemoveHost(t.Context(), id(3), "lost"); err != nil {
		t.Fatal(err)
	}
	short := person.Certificate.NotAfter
	show := func(c *tls.Certificate) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{raft}, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, nil }}
	}
	for _, c := range []struct {
		name   string
		config *tls.Config
		at     time.Time
		want   error
		says   string
	}{
		{"good", show(b.credentials.Material().TLSCertificate()), start, nil, ""},
		{"good, its clock a day behind ours", show(b.credentials.Material().TLSCertificate()), start.Add(days(1)), nil, ""},
		{"good, our clock a day behind", show(b.credentials.Material().TLSCertificate()), start.Add(-days(1)), nil, ""},
		{"good on the last day", show(b.credentials.Material().TLSCertificate()), start.Add(days(90)), nil, ""},
		{"not yet", show(b.credentials.Material().TLSCertificate()), start.Add(-days(1) - time.Second), trust.ErrNotYet, "set the clocks"},
		{"expired host", show(b.credentials.Material().TLSCertificate()), start.Add(days(90) + time.Second), trust.ErrExpired, id(2).String()},
		{"expired person", show(person.TLSCertificate()), short.Add(time.Second), trust.ErrExpired, `admin "eve"`},
		{"another cluster", show(other.first.credentials.Material().TLSCertificate()), start, trust.ErrOtherCluster, other.cluster.String()},
		{"another authority", show(forge(t, stolenCert, stolenKey, host)), start, trust.ErrOtherCA, "the user's own"},
		{"signed by itself", show(forge(t, nil, nil, host)), start, trust.ErrOtherCA, id(2).String()},
		{"signed by a host", show(forge(t, b.credentials.Material().Certificate, b.credentials.Material().Key, host)), start, trust.ErrOtherCA, id(2).String()},
		{"no identity", show(forge(t, nil, nil)), start, trust.ErrCertificate, "no identity"},
		{"two identities", show(forge(t, nil, nil, host, host+"x")), start, trust.ErrCertificate, "2 URIs"},
		{"revoked", show(revoked.TLSCertificate()), start, trust.ErrRevoked, "left"},
		{"removed host", show(removed.credentials.Material().TLSCertificate()), start, trust.ErrRevoked, "lost"},
		{"none", &tls.Config{InsecureSkipVerify: true, NextProtos: []string{raft}}, start, trust.ErrNoCertificate, raft},
	} {
		w.set(c.at)
		_, _, serverErr, clientErr := shake(t, w.first.guard.Server(raft), c.config)
		wants(t, c.name, serverErr, c.want, c.says)
		if (clientErr == nil) != (c.want == nil) {
			t.Errorf("%s: the client sees %v", c.name, clientErr)
		}
		if refusal := w.first.refusal(); (refusal == nil) != (c.want == nil) {
			t.Errorf("%s: the log has %v", c.name, refusal)
		}
	}
	w.set(start)
	if _, _, err, _ := shake(t, w.first.guard.Server(raft), &tls.Config{InsecureSkipVerify: true}); err == nil || !contains(err.Error(), "names no protocol") {
		t.Errorf("a client that names no protocol: %v", err)
	}
	if _, _, err, _ := shake(t, w.first.guard.Server(raft), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 is spoken")
	}
}

// Whoever has the authority's key and not the records can make no certificate that is
// taken: neither one without a record, nor one with the number of another.
func TestRecordsAndNotTheChain(t *testing.T) {
	ca, key := userAuthority(t)
	w := worldUnder(t, ca, key)
	uri := trust.Identity{Cluster: w.cluster, Name: "root", Role: trust.Admin}.URI()
	forged := forge(t, ca, key, uri)
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{raft}, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return forged, nil }}
	_, _, err, _ := shake(t, w.first.guard.Server(raft), config)
	wants(t, "without a record", err, trust.ErrUnrecorded, `admin "root"`)

	admin := w.person(t, trust.Person{Name: "root", Role: trust.Admin})
	template := *admin.Certificate
	template.NotAfter = start.Add(days(5000))
	thief := must(trust.NewKey())(t)
	der := must(x509.CreateCertificate(rand.Reader, &template, ca, thief.Public(), key))(t)
	forged = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: thief}
	_, _, err, _ = shake(t, w.first.guard.Server(raft), config)
	wants(t, "with the number of another", err, trust.ErrUnrecorded, "has the number of another")
}

// worldUnder is a world with the user's own authority.
func worldUnder(t *testing.T, ca *x509.Certificate, key *ecdsa.PrivateKey) *world {
	t.Helper()
	a := must(trust.ImportAuthority(pemOf("CERTIFICATE", ca.Raw), pemOf("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key))(t)), start))(t)
	w := newWorld(t)
	w.authority, w.store = a, trusttest.NewStore()
	w.registrar = trust.NewRegistrar(trust.RegistrarOptions{Store: w.store, Host: id(1), Now: w.now})
	if err := trust.FoundAndOpen(t.Context(), w.registrar, w.cluster, a, passphrase); err != nil {
		t.Fatal(err)
	}
	k := must(trust.NewKey())(t)
	answer := must(w.registrar.Admit(t.Context(), id(1), trust.AllRoles, nil, must(trust.NewRequest(k))(t)))(t)
	w.first = w.member(t, w.accept(t, k, id(1), trust.AllRoles, answer))
	return w
}

// TestWrongServers: a client that is let in by its own look at the server.
func TestWrongServers(t *testing.T) {
	w := newWorld(t)
	other := newWorldOf(t, id(0xc2))
	b := w.join(t, 2, trust.RoleASD)
	eve := w.person(t, trust.Person{Name: "eve", Role: trust.Admin})
	with := func(c *tls.Certificate) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{*c}, NextProtos: []string{raft}, ClientAuth: tls.RequestClientCert}
	}
	mine := w.first.credentials.Material().TLSCertificate()
	for _, c := range []struct {
		name   string
		server *tls.Config
		dial   trust.Dial
		want   error
		says   string
	}{
		{"good", with(mine), trust.Dial{Host: id(1), Roles: trust.RoleArakoon, Protocol: raft}, nil, ""},
		{"any host", with(mine), trust.Dial{Protocol: raft}, nil, ""},
		{"another host", with(mine), trust.Dial{Host: id(9), Protocol: raft}, trust.ErrWrongPeer, id(9).String()},
		{"without the role", with(b.credentials.Material().TLSCertificate()), trust.Dial{Roles: trust.RoleArakoon, Protocol: raft}, trust.ErrWrongPeer, "arakoon"},
		{"another cluster", with(other.first.credentials.Material().TLSCertificate()), trust.Dial{Protocol: raft}, trust.ErrOtherCluster, other.cluster.String()},
		{"a person", with(eve.TLSCertificate()), trust.Dial{Protocol: raft}, trust.ErrCertificate, "not for this use"},
		{"signed by itself", with(forge(t, nil, nil, b.credentials.Material().Identity().URI())), trust.Dial{Protocol: raft}, trust.ErrOtherCA, id(2).String()},
	} {
		_, _, _, err := shake(t, c.server, b.guard.Client(t.Context(), c.dial))
		wants(t, c.name, err, c.want, c.says)
		if c.name == "without the role" {
			continue // whoever has no records knows the roles of the certificate alone, too
		}
		_, _, _, err = shake(t, c.server, eve.TLS(c.dial, w.now))
		wants(t, c.name+", asked by a person", err, c.want, c.says)
	}
}

// An expired certificate of a host may renew, and do nothing else; somebody without one
// may join, and do nothing else.
func TestExpiredMayOnlyRenew(t *testing.T) {
	w := newWorld(t)
	b := w.join(t, 2, trust.AllRoles)
	w.add(days(45))
	fresh := w.renew(t, w.first)
	w.first.credentials.Set(fresh)
	w.add(days(60)) // that of b is over since day 90, that of the first not yet
	server := w.first.guard.Server(raft, trust.ProtocolJoin)

	_, _, err, _ := shake(t, server, b.guard.Client(t.Context(), trust.Dial{Protocol: raft}))
	wants(t, "raft", err, trust.ErrExpired)
	s, _, serverErr, clientErr := shake(t, server, b.guard.Client(t.Context(), trust.Dial{Protocol: trust.ProtocolJoin}))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	p := must(w.first.guard.Peer(t.Context(), s.ConnectionState(), true))(t)
	if !p.Expired || p.Kind != trust.HostPeer {
		t.Fatalf("the server knows it as %+v", p)
	}
	for _, r := range trust.Rules() {
		err := w.first.guard.Allow(p, r.Call, trust.Object{Kind: r.Object, Name: id(2).String()})
		if r.Call == "join/renew" {
			wants(t, r.Call, err, nil)
		} else {
			wants(t, r.Call, err, trust.ErrRefused, "expired")
		}
	}
	key := must(trust.NewKey())(t)
	answer := must(w.registrar.Renew(t.Context(), p, &trust.RenewRequest{Request: must(trust.NewRequest(key))(t)}))(t)
	b.credentials.Set(must(b.credentials.Material().Accept(key, answer, w.now()))(t))
	if _, _, serverErr, clientErr := shake(t, server, b.guard.Client(t.Context(), trust.Dial{Protocol: raft})); serverErr != nil || clientErr != nil {
		t.Error("after the renewal:", serverErr, clientErr)
	}

	token := w.token(t, trust.RoleASD)
	s, _, serverErr, clientErr = shake(t, server, token.TLS(w.now))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	if p = must(w.first.guard.Peer(t.Context(), s.ConnectionState(), true))(t); p.Kind != trust.Nobody || p.Proven {
		t.Errorf("a joiner is known as %+v", p)
	}
}

// renew renews the certificate of a member in this process.
func (w *world) renew(t testing.TB, m *member) *trust.Material {
	t.Helper()
	old := m.credentials.Material()
	peer := trust.Peer{Kind: trust.HostPeer, Identity: old.Identity(), Serial: trust.SerialOf(old.Certificate), Print: trust.FingerprintOf(old.Certificate), Proven: true}
	key := must(trust.NewKey())(t)
	answer := must(w.registrar.Renew(t.Context(), peer, &trust.RenewRequest{Request: must(trust.NewRequest(key))(t)}))(t)
	return must(old.Accept(key, answer, w.now()))(t)
}

// The joiner tells its secret to nobody but a host of the token's cluster.
func TestJoinerKnowsTheServer(t *testing.T) {
	w, other := newWorld(t), newWorldOf(t, id(0xc2))
	token := w.token(t, trust.RoleASD)
	_, _, _, err := shake(t, other.first.guard.Server(trust.ProtocolJoin), token.TLS(other.now))
	wants(t, "another cluster", err, trust.ErrOtherCA, "fingerprint")

	// Somebody who has the authority's certificate, which is public, and not its key.
	fake := forge(t, nil, nil, w.first.credentials.Material().Identity().URI())
	fake.Certificate = append(fake.Certificate, w.authority.Certificate().Raw)
	_, _, _, err = shake(t, &tls.Config{Certificates: []tls.Certificate{*fake}, NextProtos: []string{trust.ProtocolJoin}}, token.TLS(w.now))
	wants(t, "the authority's certificate shown by another", err, trust.ErrOtherCA)

	// A person of the cluster is no host.
	eve := w.person(t, trust.Person{Name: "eve", Role: trust.Admin})
	_, _, _, err = shake(t, &tls.Config{Certificates: []tls.Certificate{*eve.TLSCertificate()}, NextProtos: []string{trust.ProtocolJoin}}, token.TLS(w.now))
	wants(t, "a person", err, trust.ErrCertificate)
}

// What is revoked is refused at the next call, on connections that are up.
func TestRevokedWhileConnected(t *testing.T) {
	w := newWorld(t)
	b := w.join(t, 2, trust.RoleArakoon|trust.RoleASD)
	s, _, serverErr, clientErr := shake(t, w.first.guard.Server(raft), b.guard.Client(t.Context(), trust.Dial{Protocol: raft}))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	g, p := w.first.guard, must(w.first.guard.Peer(t.Context(), s.ConnectionState(), true))(t)
	wants(t, "before", g.Allow(p, "raft/message", trust.Group("abm")), nil)
	wants(t, "of another role", g.Allow(p, "dtl/write", trust.VDisk("v")), trust.ErrRefused, "host "+id(2).String(), "dtl/write", `vDisk "v"`, "driver")

	changed := w.first.cache.Next()
	if err := w.registrar.SetRoles(t.Context(), id(2), trust.RoleASD); err != nil {
		t.Fatal(err)
	}
	wants(t, "before the host has heard of it", g.Allow(p, "raft/message", trust.Group("abm")), nil)
	if err := w.first.cache.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-changed
	wants(t, "without the role", g.Allow(p, "raft/message", trust.Group("abm")), trust.ErrRefused, "arakoon")
	wants(t, "without the role", g.Still(p), nil)

	if err := w.registrar.RevokeHost(t.Context(), id(2), "its key was seen"); err != nil {
		t.Fatal(err)
	}
	if err := w.first.cache.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	wants(t, "revoked", g.Allow(p, "kv/read", trust.Group("abm")), trust.ErrRefused, "its key was seen")
	wants(t, "revoked", g.Allow(p, "kv/read", trust.Group("abm")), trust.ErrRevoked)
	wants(t, "revoked", g.Still(p), trust.ErrRevoked)
}

// The records that are cached are obeyed without a store. A host whose certificate was
// renewed meanwhile is known by it, and nobody else whom they do not have.
func TestWithoutQuorum(t *testing.T) {
	w := newWorld(t)
	b := w.join(t, 2, trust.AllRoles)
	eve := w.person(t, trust.Person{Name: "eve", Role: trust.NBD})
	if err := w.registrar.Revoke(t.Context(), trust.SerialOf(eve.Certificate), "gone"); err != nil {
		t.Fatal(err)
	}
	if err := w.first.cache.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.add(days(31))
	renewed := w.renew(t, b)
	late := w.person(t, trust.Person{Name: "late", Role: trust.NBD})
	away := errors.New("no quorum")
	w.store.Fail = func(string) error { return away }

	server := w.first.guard.Server(raft)
	_, _, err, _ := shake(t, server, eve.TLS(trust.Dial{Protocol: raft}, w.now))
	wants(t, "revoked", err, trust.ErrRevoked)
	_, _, err, _ = shake(t, server, late.TLS(trust.Dial{Protocol: raft}, w.now))
	wants(t, "a person of whom nothing is cached", err, trust.ErrUnrecorded, "no quorum")
	wants(t, "a person of whom nothing is cached", err, away)
	s, _, err, _ := shake(t, server, renewed.TLS(trust.Dial{Protocol: raft}, w.now))
	wants(t, "a renewed host", err, nil)
	var asked int
	w.store.Fail = func(string) error { asked++; return away }
	p := must(w.first.guard.Peer(t.Context(), s.ConnectionState(), true))(t)
	if p.Identity.Host != id(2) || asked != 0 {
		t.Errorf("it is known as %s, and the store was asked %d times more", p, asked)
	}
	wants(t, "a call of it", w.first.guard.Allow(p, "raft/message", trust.Group("abm")), nil)
	other := p
	other.Print[0]++
	wants(t, "a call of another", w.first.guard.Allow(other, "raft/message", trust.Group("abm")), trust.ErrUnrecorded)
	w.store.Fail = nil
	if err := w.first.cache.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	wants(t, "once it is on record here", w.first.guard.Allow(p, "raft/message", trust.Group("abm")), nil)
	if err := w.registrar.RevokeHost(t.Context(), id(2), "stolen"); err != nil {
		t.Fatal(err)
	}
	if err := w.first.cache.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _, err, _ = shake(t, server, renewed.TLS(trust.Dial{Protocol: raft}, w.now))
	wants(t, "a renewed host that was revoked", err, trust.ErrRevoked)
}

// A refresh whose connection needs the records itself does not wait for itself.
func TestRefreshOverItsOwnConnection(t *testing.T) {
	w := newWorld(t)
	b := w.join(t, 2, trust.AllRoles)
	if err := b.cache.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.add(days(31))
	w.first.credentials.Set(w.renew(t, w.first))
	store := &dialing{Store: w.store}
	cache := must(trust.OpenCache(trust.CacheOptions{Cluster: w.cluster, Store: store, Now: w.now}))(t)
	guard := trust.NewGuard(trust.GuardOptions{Credentials: b.credentials, Cache: cache, Now: w.now, Wait: time.Hour})
	store.dial = func(ctx context.Context) error {
		_, _, _, err := shake(t, w.first.guard.Server(raft), guard.Client(ctx, trust.Dial{Host: id(1), Protocol: raft}))
		return err
	}
	for range 2 { // with no records, and then with those of before another renewal
		if err := cache.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.add(days(31))
		w.first.credentials.Set(w.renew(t, w.first))
		b.credentials.Set(w.renew(t, b))
	}
}

// A cluster that was off until all certificates had expired comes up again: hosts with the
// passphrase know each other by provisional certificates, as long as no records can be read.
func TestAllExpired(t *testing.T) {
	w := newWorld(t)
	b, c := w.join(t, 2, trust.AllRoles), w.join(t, 3, trust.RoleASD)
	for _, m := range []*member{w.first, b, c} {
		refresh(t, m.cache)
	}
	provisional := func(m *member) (*trust.Material, error) {
		r := trust.NewRegistrar(trust.RegistrarOptions{Store: w.store, Host: m.id, Now: w.now})
		if err := r.Open(t.Context(), passphrase); err != nil {
			return nil, err
		}
		key := must(trust.NewKey())(t)
		answer, err := r.Provisional(m.credentials.Material(), must(trust.NewRequest(key))(t))
		if err != nil {
			return nil, err
		}
		return m.credentials.Material().Accept(key, answer, w.now())
	}
	_, err := provisional(b)
	wants(t, "while its own is good", err, trust.ErrTooEarly)
	_, err = w.registrar.Provisional(b.credentials.Material(), nil)
	wants(t, "for another host", err, trust.ErrInvalid)

	w.add(days(100))
	raftTo := func(from, to *member) error {
		_, _, serverErr, clientErr := shake(t, to.guard.Server(raft, trust.ProtocolJoin), from.guard.Client(t.Context(), trust.Dial{Host: to.id, Protocol: raft}))
		return errors.Join(serverErr, clientErr)
	}
	wants(t, "all expired", raftTo(b, w.first), trust.ErrExpired)
	for _, m := range []*member{w.first, b} {
		m.credentials.Set(must(provisional(m))(t))
		if at := m.credentials.Material().RenewAt(); at.After(w.now()) {
			t.Errorf("a provisional certificate is renewed at %s", at)
		}
	}
	away := errors.New("no quorum")
	w.store.Fail = func(string) error { return away }
	wants(t, "without a quorum", raftTo(b, w.first), nil)
	wants(t, "without a quorum", raftTo(w.first, b), nil)
	wants(t, "an expired one", raftTo(c, w.first), trust.ErrExpired)
	s, _, _, _ := shake(t, w.first.guard.Server(raft), b.guard.Client(t.Context(), trust.Dial{Host: id(1), Protocol: raft}))
	p := must(w.first.guard.Peer(t.Context(), s.ConnectionState(), true))(t)
	wants(t, "a call without a quorum", w.first.guard.Allow(p, "raft/message", trust.Group("config")), nil)
	w.store.Fail = nil
	wants(t, "with a quorum", raftTo(b, w.first), trust.ErrUnrecorded)
	refresh(t, w.first.cache)
	wants(t, "a call with a quorum", w.first.guard.Allow(p, "raft/message", trust.Group("config")), trust.ErrUnrecorded)

	key := must(trust.NewKey())(t)
	answer := must(w.registrar.RenewSelf(t.Context(), &trust.RenewRequest{Request: must(trust.NewRequest(key))(t)}))(t)
	w.first.credentials.Set(must(w.first.credentials.Material().Accept(key, answer, w.now()))(t))
	_, _, serverErr, clientErr := shake(t, w.first.guard.Server(trust.ProtocolJoin), c.guard.Client(t.Context(), trust.Dial{Host: id(1), Protocol: trust.ProtocolJoin}))
	if serverErr != nil || clientErr != nil {
		t.Error("an expired host that is to renew:", serverErr, clientErr)
	}
}

// Without TLS a host is what it says, as far as the records have it; a person is nobody; a
// login is known by itself.
func TestInsecure(t *testing.T) {
	w := newWorld(t)
	b := w.join(t, 2, trust.RoleASD|trust.RoleArakoon)
	if err := w.registrar.SetRoles(t.Context(), id(2), trust.RoleArakoon); err != nil {
		t.Fatal(err)
	}
	refresh(t, w.first.cache)
	g := w.first.guard
	all := b.credentials.Material().Identity()
	all.Roles = trust.AllRoles
	p := trust.Claimed(all, "10.0.0.2:400")
	wants(t, "a role it has", g.Allow(p, "raft/message", trust.Group("abm")), nil)
	wants(t, "a role it says that it has", g.Allow(p, "dtl/write", trust.VDisk("v")), trust.ErrRefused, "(unproven) at 10.0.0.2:400")
	wants(t, "what needs proof", g.Allow(p, "trust/write", trust.Group("config")), trust.ErrRefused, "--insecure")
	all.Host = id(9)
	wants(t, "no member", g.Allow(trust.Claimed(all, ""), "raft/message", trust.Group("abm")), trust.ErrRemoved)
	admin := trust.Identity{Cluster: w.cluster, Name: "joe", Role: trust.Admin}
	wants(t, "a person who says so", g.Allow(trust.Claimed(admin, ""), "vdisk/list", trust.Nothing), trust.ErrRefused, "login")
	wants(t, "a login", g.Allow(trust.LoggedIn(admin, ""), "vdisk/list", trust.Nothing), nil)
	wants(t, "the owner", g.Allow(trust.Local(), "ca/open", trust.Nothing), nil)
	wants(t, "a joiner", g.Allow(trust.Peer{}, "vdisk/list", trust.Nothing), trust.ErrRefused, "without a certificate")
}
