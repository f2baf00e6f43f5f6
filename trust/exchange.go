package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Messages of the join and of renewals. They go over a connection of protocol
// ProtocolJoin, whose server the joiner has checked (Token.TLS): the secret leaves the
// joiner for nobody else. Little-endian; texts have their length before them.
//
//	JoinRequest:    version u8 (1), kind u8 (1), host 16, secret 32, names u8 of (1), request (2)
//	RenewRequest:   version u8 (1), kind u8 (2), names u8 of (1), request (2)
//	Answer:         version u8 (1), kind u8 (3), certificate (2), authority's certificate (2)
//
// A request is PKCS #10, see NewRequest. These bytes are on the wire between releases.
// They never change.
const (
	exchangeVersion = 1

	kindJoin, kindRenew, kindAnswer = 1, 2, 3

	// ExchangeMax bounds an encoded message, in bytes.
	ExchangeMax = 2*CertMax + 64
)

// JoinRequest is what a joiner asks. It has the token's secret in it.
type JoinRequest struct {
	Host    uuid.UUID
	Secret  Secret
	Names   []string // the joiner's addresses and DNS names, for its certificate
	Request []byte   // NewRequest of the joiner's key
}

// RenewRequest is what a host asks whose certificate is to be renewed. Who it is, its
// connection says.
type RenewRequest struct {
	Names   []string
	Request []byte // NewRequest of the key, which may be a new one
}

// Answer is the certificate that was asked for, and the authority's, both in DER.
type Answer struct{ Certificate, Authority []byte }

// Encode returns the message's bytes.
func (r *JoinRequest) Encode() []byte {
	b := append([]byte{exchangeVersion, kindJoin}, r.Host[:]...)
	return putLarge(putNames(append(b, r.Secret[:]...), r.Names), r.Request)
}

// Encode returns the message's bytes.
func (r *RenewRequest) Encode() []byte {
	return putLarge(putNames([]byte{exchangeVersion, kindRenew}, r.Names), r.Request)
}

// Encode returns the message's bytes.
func (a *Answer) Encode() []byte {
	return putLarge(putLarge([]byte{exchangeVersion, kindAnswer}, a.Certificate), a.Authority)
}

func openMessage(b []byte, kind byte) *cutter {
	c := &cutter{b: b}
	if len(b) > ExchangeMax {
		c.corrupt("%d bytes, at most %d", len(b), ExchangeMax)
	}
	if v := c.u8("version"); c.err == nil && v != exchangeVersion {
		c.newer("version %d, this release reads %d", v, exchangeVersion)
	}
	if k := c.u8("kind"); c.err == nil && k != kind {
		c.corrupt("a message of kind %d, not %d", k, kind)
	}
	return c
}

// DecodeJoinRequest reads what JoinRequest.Encode writes.
func DecodeJoinRequest(b []byte) (*JoinRequest, error) {
	c, r := openMessage(b, kindJoin), new(JoinRequest)
	r.Host = c.uid("host")
	c.fill(r.Secret[:], "secret")
	r.Names = c.names(HostsNames, 253, "names")
	r.Request = bytes.Clone(c.large(RequestMax, "request"))
	if err := c.end(); err != nil {
		return nil, fmt.Errorf("trust: request to join: %w", err)
	}
	return r, nil
}

// DecodeRenewRequest reads what RenewRequest.Encode writes.
func DecodeRenewRequest(b []byte) (*RenewRequest, error) {
	c, r := openMessage(b, kindRenew), new(RenewRequest)
	r.Names = c.names(HostsNames, 253, "names")
	r.Request = bytes.Clone(c.large(RequestMax, "request"))
	if err := c.end(); err != nil {
		return nil, fmt.Errorf("trust: request to renew: %w", err)
	}
	return r, nil
}

// DecodeAnswer reads what Answer.Encode writes.
func DecodeAnswer(b []byte) (*Answer, error) {
	c, a := openMessage(b, kindAnswer), new(Answer)
	a.Certificate = bytes.Clone(c.large(CertMax, "certificate"))
	a.Authority = bytes.Clone(c.large(CertMax, "authority's certificate"))
	if err := c.end(); err != nil {
		return nil, fmt.Errorf("trust: answer to a request for a certificate: %w", err)
	}
	return a, nil
}

// Request returns what a host asks to join with this token. Whoever lost the answer asks
// again, with the same key: it has to be durable before (WriteKey).
func (t *Token) Request(key *ecdsa.PrivateKey, host uuid.UUID, names []string) (*JoinRequest, error) {
	if host == uuid.Nil {
		return nil, invalid("a join without the UUID of a host")
	}
	if _, _, err := hostNames(names); err != nil {
		return nil, err
	}
	request, err := NewRequest(key)
	return &JoinRequest{Host: host, Secret: t.Secret, Names: names, Request: request}, err
}

// Accept checks the answer to Request, and returns what the host is from now on. The
// authority must be the token's, the key the joiner's, the identity what was asked for.
func (t *Token) Accept(key *ecdsa.PrivateKey, host uuid.UUID, a *Answer, now time.Time) (*Material, error) {
	return a.Accept(key, Identity{Cluster: t.Cluster, Host: host, Roles: t.Roles}, t.Authority, now)
}

// Accept checks an answer to whoever asked for a certificate of a key, and returns what
// that is from now on: the authority must be the one that is known, the key the caller's,
// the identity what was asked for.
func (a *Answer) Accept(key *ecdsa.PrivateKey, want Identity, authority Fingerprint, now time.Time) (*Material, error) {
	m, err := a.material(key)
	if err != nil {
		return nil, err
	}
	if got := FingerprintOf(m.Authority); got != authority {
		return nil, fmt.Errorf("trust: answer with a certificate: %w: its authority is %s, and %s was expected", ErrOtherCA, got, authority)
	}
	return m, m.is(want, now)
}

// Accept checks the answer to a renewal of m for a key, and returns what the host is from
// now on. Its roles may have changed.
func (m *Material) Accept(key *ecdsa.PrivateKey, a *Answer, now time.Time) (*Material, error) {
	n, err := a.material(key)
	if err != nil {
		return nil, err
	}
	if !n.Authority.Equal(m.Authority) {
		return nil, fmt.Errorf("trust: answer to the renewal: %w: its authority is %s, not %s", ErrOtherCA, FingerprintOf(n.Authority), FingerprintOf(m.Authority))
	}
	id := m.Identity()
	id.Roles = n.Identity().Roles
	return n, n.is(id, now)
}

func (a *Answer) material(key *ecdsa.PrivateKey) (*Material, error) {
	m := &Material{Key: key}
	var err error
	if m.Certificate, err = x509.ParseCertificate(a.Certificate); err != nil {
		return nil, fmt.Errorf("trust: answer: certificate: %w", err)
	}
	if m.Authority, err = x509.ParseCertificate(a.Authority); err != nil {
		return nil, fmt.Errorf("trust: answer: authority's certificate: %w", err)
	}
	return m, m.check()
}
