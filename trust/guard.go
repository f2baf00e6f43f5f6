package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// ProtocolJoin is the protocol (ALPN) of joins and renewals. It is the only one that
// somebody without a certificate, or with one that has expired, may speak.
const ProtocolJoin = "ovs-join"

// GuardOptions are those of NewGuard.
type GuardOptions struct {
	Credentials *Credentials // of this host: cluster and authority are theirs
	Cache       *Cache
	Now         func() time.Time // nil: time.Now
	// Wait is how long a handshake waits for the records if the peer's certificate is
	// none of those that are cached: it may be new. 0: 3 s. Only what the authority signed
	// gets that far.
	Wait time.Duration
	// Refused is told of each connection that is refused, with the peer's name. It may be
	// nil. It is called in the handshake, and must not wait.
	Refused func(error)
}

// Guard makes the configurations of a host's TLS connections, and says of each peer who
// it is and what it may do. Its configurations check all by themselves; that package tls
// is told to skip its own check means that it does not do so twice.
type Guard struct {
	o       GuardOptions
	cluster uuid.UUID

	mu sync.Mutex
	// unread has hosts' certificates that are taken although the cache does not have them,
	// each with how many times it had been refreshed then: the next refresh ends that. At
	// most HostsMax.
	unread map[Fingerprint]uint64
}

// NewGuard makes the guard of a host.
func NewGuard(o GuardOptions) *Guard {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wait == 0 {
		o.Wait = 3 * time.Second
	}
	if o.Refused == nil {
		o.Refused = func(error) {}
	}
	return &Guard{o: o, cluster: o.Credentials.Material().Identity().Cluster, unread: map[Fingerprint]uint64{}}
}

func (g *Guard) authority() *x509.Certificate { return g.o.Credentials.Material().Authority }

// Server returns the configuration of a listener. With protocols, a client has to speak
// one of them; without, it need not name one (NBD). Clients show certificates, but for
// those of ProtocolJoin. It may be used for any number of listeners.
func (g *Guard) Server(protocols ...string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(g.authority())
	base := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: slices.Clone(protocols),
		// One that is shown is asked for; VerifyConnection demands it, and says why.
		ClientAuth:             tls.RequestClientCert,
		ClientCAs:              pool, // clients choose by it
		SessionTicketsDisabled: true, // every connection is checked anew
		Time:                   g.o.Now,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return g.o.Credentials.show() },
	}
	base.VerifyConnection = func(cs tls.ConnectionState) error {
		return g.admit(context.Background(), cs, protocols)
	}
	config := base.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		ctx, own := hello.Context(), base.Clone()
		own.VerifyConnection = func(cs tls.ConnectionState) error { return g.admit(ctx, cs, protocols) }
		return own, nil
	}
	return config
}

// admit checks the client of a connection. Its key is proven only behind this: a wrong one
// ends the handshake.
func (g *Guard) admit(ctx context.Context, cs tls.ConnectionState, protocols []string) (err error) {
	defer func() { g.note(err) }()
	if len(protocols) > 0 && cs.NegotiatedProtocol == "" {
		return fmt.Errorf("trust: the client names no protocol; here it is %q", protocols)
	}
	p, err := g.peer(ctx, cs, x509.ExtKeyUsageClientAuth, true)
	if err != nil {
		return err
	}
	if cs.NegotiatedProtocol == ProtocolJoin || p.Kind != Nobody && !p.Expired {
		return nil
	}
	if p.Kind == Nobody {
		return fmt.Errorf("trust: client of %q: %w", cs.NegotiatedProtocol, ErrNoCertificate)
	}
	return fmt.Errorf("trust: client of %q: %w: that of %s", cs.NegotiatedProtocol, ErrExpired, p)
}

func (g *Guard) note(err error) {
	if err != nil {
		g.o.Refused(err)
	}
}

// Dial says to whom a connection goes.
type Dial struct {
	Host     uuid.UUID // zero: any host of the cluster
	Roles    Roles     // it has one of these; 0: any
	Protocol string    // empty: none is named (NBD)
}

// Client returns the configuration of one connection that this host makes. ctx bounds its
// handshake. The server has to be the host that is dialed, whatever its address.
func (g *Guard) Client(ctx context.Context, d Dial) *tls.Config {
	config := clientConfig(d.Protocol, g.o.Now)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return g.o.Credentials.show() }
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		p, err := g.peer(ctx, cs, x509.ExtKeyUsageServerAuth, true)
		if err == nil {
			err = d.reached(p, cs)
		}
		g.note(err)
		return err
	}
	return config
}

func clientConfig(protocol string, now func() time.Time) *tls.Config {
	c := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		InsecureSkipVerify:     true, // VerifyConnection checks, by identity and not by name
		SessionTicketsDisabled: true,
		Time:                   now,
	}
	if protocol != "" {
		c.NextProtos = []string{protocol}
	}
	return c
}

// reached returns nil if a server is the one that was dialed.
func (d Dial) reached(p Peer, cs tls.ConnectionState) error {
	id := p.Identity
	switch {
	case p.Kind == Nobody:
		return fmt.Errorf("trust: server: %w", ErrNoCertificate)
	case p.Kind != HostPeer:
		return fmt.Errorf("trust: server: %w: it is %s, and no host", ErrWrongPeer, p)
	case p.Expired:
		return fmt.Errorf("trust: server: %w: that of %s", ErrExpired, p)
	case d.Host != uuid.Nil && id.Host != d.Host:
		return fmt.Errorf("trust: server: %w: it is %s, and host %s was dialed: its address has changed, or the list of addresses is old", ErrWrongPeer, p, d.Host)
	case d.Roles != 0 && id.Roles&d.Roles == 0:
		return fmt.Errorf("trust: server: %w: %s has the roles %s, and none of %s", ErrWrongPeer, p, id.Roles, d.Roles)
	case cs.NegotiatedProtocol != d.Protocol:
		return fmt.Errorf("trust: server: %s does not speak %q", p, d.Protocol)
	}
	return nil
}

// Peer says who the other side of a connection is, whose handshake is done. client: this
// side is the server.
func (g *Guard) Peer(ctx context.Context, cs tls.ConnectionState, client bool) (Peer, error) {
	use := x509.ExtKeyUsageServerAuth
	if client {
		use = x509.ExtKeyUsageClientAuth
	}
	p, err := g.peer(ctx, cs, use, false)
	p.Proven = err == nil && cs.HandshakeComplete && p.Kind != Nobody
	return p, err
}

// peer checks a peer's certificate by itself and against the records. One that has
// expired is no error; the peer says so.
func (g *Guard) peer(ctx context.Context, cs tls.ConnectionState, use x509.ExtKeyUsage, anew bool) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, nil
	}
	leaf := cs.PeerCertificates[0]
	id, expired, err := verify(leaf, g.authority(), g.cluster, use, g.o.Now())
	if err != nil && !expired {
		return Peer{}, fmt.Errorf("trust: %w", err)
	}
	p := Peer{Kind: PersonPeer, Identity: id, Serial: SerialOf(leaf), Print: FingerprintOf(leaf), Expired: expired, Proven: true}
	if id.IsHost() {
		p.Kind = HostPeer
	}
	if expired && p.Kind != HostPeer {
		return Peer{}, fmt.Errorf("trust: %w", err)
	}
	if err := g.known(ctx, &p, leaf, use, anew); err != nil {
		return Peer{}, fmt.Errorf("trust: %w", err)
	}
	return p, nil
}

// known checks a peer against the records, and reads them anew if they do not have its
// certificate. If they cannot be read, a host of the cluster is known by a certificate
// that is younger than all that are on record of it: it was renewed meanwhile. And a host
// that has just joined, and has no records yet, knows other hosts by the chain when it
// connects to them: from one of them it gets the records. Both hold until the records are
// read for the next time. anew: the connection is being made; otherwise it was, and what
// was found then is not looked for again.
func (g *Guard) known(ctx context.Context, p *Peer, leaf *x509.Certificate, use x509.ExtKeyUsage, anew bool) error {
	cache := g.o.Cache
	err := g.recorded(p)
	if !anew {
		err = g.still(p)
	}
	if !errors.Is(err, ErrUnrecorded) {
		return err
	}
	refreshes := cache.refreshes.Load()
	bounded, cancel := context.WithTimeout(ctx, g.o.Wait)
	unread := cache.refreshOnce(bounded)
	cancel()
	switch err = g.recorded(p); {
	case !errors.Is(err, ErrUnrecorded):
		return err
	case cache.Empty():
		if use == x509.ExtKeyUsageServerAuth && p.Kind == HostPeer && g.takeUnread(p, refreshes) {
			return nil
		}
		return fmt.Errorf("%w; this host has no records yet (%v)", err, unread)
	case unread == nil:
		return err
	case p.Kind == HostPeer && cache.renewed(p, leaf) && g.takeUnread(p, refreshes):
		return nil
	}
	return fmt.Errorf("%w; the records could not be read again: %w", err, unread)
}

// takeUnread takes a host's certificate until the cache is refreshed for the next time, and
// reports whether there was room.
func (g *Guard) takeUnread(p *Peer, refreshes uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for print, at := range g.unread {
		if at != refreshes {
			delete(g.unread, print)
		}
	}
	if len(g.unread) >= HostsMax {
		return false
	}
	g.unread[p.Print] = refreshes
	return true
}

// tookUnread reports whether a certificate was taken without a record, and the cache was
// not refreshed since.
func (g *Guard) tookUnread(p *Peer) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	at, ok := g.unread[p.Print]
	return ok && at == g.o.Cache.refreshes.Load()
}

// recorded checks a peer against the records that are cached, see member too.
func (g *Guard) recorded(p *Peer) error {
	id := p.Identity
	rec, ok := g.o.Cache.Certificate(p.Serial)
	switch {
	case !ok:
		return fmt.Errorf("%w: %s of %s: it is of before a recovery, was replaced long ago, or the authority's key is in other hands", ErrUnrecorded, p.Serial, id)
	case rec.Fingerprint != p.Print:
		return fmt.Errorf("%w: %s of %s has the number of another: the authority's key is in other hands", ErrUnrecorded, p.Serial, id)
	case !rec.Revoked.IsZero():
		return fmt.Errorf("%w: %s of %s at %s: %q", ErrRevoked, p.Serial, id, stamp(rec.Revoked), rec.Reason)
	case !id.IsHost():
		return nil
	}
	return g.member(p)
}

// member checks that a peer's host is a member, and takes from its roles those that it
// does not have any more.
func (g *Guard) member(p *Peer) error {
	h, ok := g.o.Cache.Host(p.Identity.Host)
	if !ok || h.State != Joined {
		return fmt.Errorf("%w: host %s", ErrRemoved, p.Identity.Host)
	}
	p.Identity.Roles &= h.Roles
	return nil
}

// Still returns nil if a peer is still who it was when its connection was made. It looks
// at what is cached: whoever has connections asks it for each when Cache.Next says that
// the records have changed, and ends those that it refuses.
func (g *Guard) Still(p Peer) error { return g.still(&p) }

func (g *Guard) still(p *Peer) error {
	switch {
	case p.Kind != HostPeer && p.Kind != PersonPeer, p.Login:
		return nil
	case !p.Proven && p.Kind == HostPeer:
		return g.member(p)
	case !p.Proven:
		return nil // Decide refuses it
	}
	err := g.recorded(p)
	if errors.Is(err, ErrUnrecorded) && p.Kind == HostPeer && g.tookUnread(p) {
		if g.o.Cache.Empty() {
			return nil
		}
		return g.member(p)
	}
	return err
}

// Allow returns nil if a peer may make a call on an object now, and otherwise a
// RefusedError. It asks the table, and the records that are cached: one that was revoked
// meanwhile is refused. It does no I/O.
func (g *Guard) Allow(p Peer, call string, on Object) error {
	if err := g.still(&p); err != nil {
		err := refuse(p, call, on, err.Error(), err)
		g.note(err)
		return err
	}
	err := Decide(p, call, on)
	g.note(err)
	return err
}

// TLS returns the configuration of the connection that asks to join with the token. The
// server has to be a host of the token's cluster, whose authority has the fingerprint in
// the token. It shows nobody's certificate.
func (t *Token) TLS(now func() time.Time) *tls.Config {
	config := clientConfig(ProtocolJoin, now)
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		i := slices.IndexFunc(cs.PeerCertificates, func(c *x509.Certificate) bool { return FingerprintOf(c) == t.Authority })
		if i < 0 {
			return fmt.Errorf("trust: server: %w: it shows no authority with the token's fingerprint %s: it is not of this cluster, and was told nothing", ErrOtherCA, t.Authority)
		}
		return outside(cs, cs.PeerCertificates[i], t.Cluster, Dial{Protocol: ProtocolJoin}, now)
	}
	return config
}

// TLS returns the configuration of a connection of whoever has no records: a person.
// now: nil is time.Now. What was revoked such a person does not know.
func (m *Material) TLS(d Dial, now func() time.Time) *tls.Config {
	config := clientConfig(d.Protocol, now)
	cert := m.TLSCertificate()
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		return outside(cs, m.Authority, m.Identity().Cluster, d, now)
	}
	return config
}

// outside checks a server without records.
func outside(cs tls.ConnectionState, authority *x509.Certificate, cluster uuid.UUID, d Dial, now func() time.Time) error {
	if now == nil {
		now = time.Now
	}
	if len(cs.PeerCertificates) == 0 {
		return fmt.Errorf("trust: server: %w", ErrNoCertificate)
	}
	id, _, err := verify(cs.PeerCertificates[0], authority, cluster, x509.ExtKeyUsageServerAuth, now())
	if err != nil {
		return fmt.Errorf("trust: server: %w", err)
	}
	p := Peer{Kind: PersonPeer, Identity: id, Proven: true}
	if id.IsHost() {
		p.Kind = HostPeer
	}
	return d.reached(p, cs)
}
