package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Keys of the records. All begin with Prefix.
//
//	trust/v             meta: which change was the newest, and how many records there are
//	trust/a             authority: its certificate, and its key, sealed
//	trust/h UUID        host
//	trust/c serial      certificate that was signed
//	trust/t hash        join token, by the SHA-256 of its secret
//
// Values, little-endian. Whoever reads one may rewrite it, so what a reader does not know
// it refuses, as of a newer release. Times are seconds since 1970 in 8 bytes, 0 is none.
// A text has its length before it, in the number of bytes that is given. All begin with:
//
//	0 1 version, 1
//	1 1 kind: 1 meta, 2 authority, 3 host, 4 certificate, 5 token
//	2 2 zero
//	4 4 incompatible features: none are known
//
// Meta: number of the newest change u64, a random number drawn with it u64, cluster 16,
// hosts u32, certificates u32, tokens u32.
// Authority: certificate (2), sealed key (2).
// Host: UUID 16, state u8, roles u32, joined, changed, names u8 of (1), serials u8 of 16,
// newest first.
// Certificate: serial 16, SHA-256 of the certificate 32, identity as URI (2), from, until,
// signed, signed by host 16, revoked, why revoked (1).
// Token: hash 32, roles u32, made, expires, made by (1), used by host 16, SHA-256 of that
// host's public key 32; both are zero while it is unused.
//
// These bytes are stored. They never change.
const (
	recordVersion = 1
	recordHead    = 8

	kindMeta, kindAuthority, kindHost, kindCertificate, kindToken = 1, 2, 3, 4, 5

	// Prefix begins every key of the records.
	Prefix = "trust/"

	metaKey           = Prefix + "v"
	authorityKey      = Prefix + "a"
	hostPrefix        = Prefix + "h"
	certificatePrefix = Prefix + "c"
	tokenPrefix       = Prefix + "t"

	recordMax = 2*CertMax + 1024 // bytes of a value
)

// Limits of what is recorded.
const (
	HostsMax        = 1024  // hosts that joined, those that were removed too
	CertificatesMax = 16384 // certificates, those that expired until Prune
	TokensMax       = 64    // join tokens, those that were used or expired until Prune
	serialsMax      = 4     // certificates of one host that are good at the same time
	ReasonMax       = 200   // bytes of why a certificate was revoked
)

// HostState says whether a host is of the cluster.
type HostState uint8

// States of a host. A host that was removed stays recorded: its UUID is never used again.
const (
	Joined  HostState = 1
	Removed HostState = 2 // it left, or was given up as lost
)

// String returns the state as a word.
func (s HostState) String() string {
	switch s {
	case Joined:
		return "joined"
	case Removed:
		return "removed"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Host is the record of a host.
type Host struct {
	ID      uuid.UUID
	State   HostState
	Roles   Roles
	Joined  time.Time
	Changed time.Time // when state, roles or names did last
	Names   []string  // addresses and DNS names in its certificate
	Serials []Serial  // its certificates that are good, newest first
}

// Certificate is the record of a certificate.
type Certificate struct {
	Serial      Serial
	Fingerprint Fingerprint
	Identity    Identity
	From, Until time.Time
	Signed      time.Time
	By          uuid.UUID // the host that signed it
	Revoked     time.Time // zero: it is not
	Reason      string
}

// meta is the record that every change changes.
type meta struct {
	number, draw         uint64
	cluster              uuid.UUID
	hosts, certs, tokens uint32
}

// authorityRecord is the record of the authority.
type authorityRecord struct {
	cert   *x509.Certificate
	sealed []byte
}

// TokenRecord is what is known of a join token: never its secret.
type TokenRecord struct {
	Hash    [sha256.Size]byte
	Roles   Roles
	Made    time.Time
	Expires time.Time
	By      string    // whoever asked for it
	UsedBy  uuid.UUID // the host that joined with it, zero while it is unused
	usedKey [sha256.Size]byte
}

// Used reports whether a host has joined with the token.
func (t *TokenRecord) Used() bool { return t.UsedBy != uuid.Nil }

func head(kind byte) []byte { return []byte{recordVersion, kind, 0, 0, 0, 0, 0, 0} }

// openRecord checks the head of a record and returns what is behind it.
func openRecord(b []byte, kind byte) *cutter {
	c := &cutter{b: b}
	if len(b) > recordMax {
		c.corrupt("%d bytes, at most %d", len(b), recordMax)
	}
	version, got, flags, features := c.u8("version"), c.u8("kind"), c.u16("flags"), c.u32("features")
	switch {
	case c.err != nil:
	case version == 0:
		c.corrupt("version 0 does not exist")
	case version > recordVersion:
		c.newer("version %d, this release reads up to %d", version, recordVersion)
	case got != kind:
		c.corrupt("it is of kind %d, not %d", got, kind)
	case flags != 0:
		c.newer("flags %#x", flags)
	case features != 0:
		c.newer("features %#x", features)
	}
	return c
}

func (m meta) encode() []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(le.AppendUint64(head(kindMeta), m.number), m.draw)
	b = append(b, m.cluster[:]...)
	return le.AppendUint32(le.AppendUint32(le.AppendUint32(b, m.hosts), m.certs), m.tokens)
}

func decodeMeta(b []byte) (m meta, err error) {
	c := openRecord(b, kindMeta)
	m.number, m.draw, m.cluster = c.u64("number"), c.u64("draw"), c.uid("cluster")
	m.hosts, m.certs, m.tokens = c.u32("hosts"), c.u32("certificates"), c.u32("tokens")
	if m.hosts > HostsMax || m.certs > CertificatesMax || m.tokens > TokensMax {
		c.corrupt("%d hosts, %d certificates, %d tokens", m.hosts, m.certs, m.tokens)
	}
	if err := c.end(); err != nil {
		return meta{}, fmt.Errorf("trust: meta record: %w", err)
	}
	return m, nil
}

func (a authorityRecord) encode() []byte {
	return putLarge(putLarge(head(kindAuthority), a.cert.Raw), a.sealed)
}

func decodeAuthority(b []byte) (a authorityRecord, err error) {
	c := openRecord(b, kindAuthority)
	der := c.large(CertMax, "certificate")
	a.sealed = bytes.Clone(c.large(sealHead+sealedMax, "sealed key"))
	if err = c.end(); err == nil {
		if a.cert, err = x509.ParseCertificate(der); err == nil {
			err = checkSealed(a.sealed)
		}
	}
	if err != nil {
		return authorityRecord{}, fmt.Errorf("trust: record of the authority: %w", err)
	}
	return a, nil
}

func (h *Host) encode() []byte {
	b := append(head(kindHost), h.ID[:]...)
	b = binary.LittleEndian.AppendUint32(append(b, byte(h.State)), uint32(h.Roles))
	b = putNames(putMoment(putMoment(b, h.Joined), h.Changed), h.Names)
	b = append(b, byte(len(h.Serials)))
	for _, s := range h.Serials {
		b = append(b, s[:]...)
	}
	return b
}

func decodeHost(b []byte) (h Host, err error) {
	c := openRecord(b, kindHost)
	h.ID = c.uid("UUID")
	if h.State = HostState(c.u8("state")); c.err == nil && h.State != Joined && h.State != Removed {
		c.newer("%s", h.State)
	}
	if h.Roles = Roles(c.u32("roles")); c.err == nil && h.Roles&^AllRoles != 0 {
		c.newer("roles %#x", uint32(h.Roles))
	}
	h.Joined, h.Changed = c.moment("joined"), c.moment("changed")
	h.Names = c.names(HostsNames, 253, "names")
	n := int(c.u8("serials"))
	if n > serialsMax {
		c.corrupt("%d serials, at most %d", n, serialsMax)
	}
	for i := 0; i < n && c.err == nil; i++ {
		var s Serial
		c.fill(s[:], "serial")
		h.Serials = append(h.Serials, s)
	}
	if err := c.end(); err != nil {
		return Host{}, fmt.Errorf("trust: record of host %s: %w", h.ID, err)
	}
	return h, nil
}

func (r *Certificate) encode() []byte {
	b := append(append(head(kindCertificate), r.Serial[:]...), r.Fingerprint[:]...)
	b = putLarge(b, []byte(r.Identity.URI()))
	b = putMoment(putMoment(putMoment(b, r.From), r.Until), r.Signed)
	return putSmall(putMoment(append(b, r.By[:]...), r.Revoked), r.Reason)
}

func decodeCertificate(b []byte) (r Certificate, err error) {
	c := openRecord(b, kindCertificate)
	c.fill(r.Serial[:], "serial")
	c.fill(r.Fingerprint[:], "fingerprint")
	uri := string(c.large(uriMax, "identity"))
	if c.err == nil {
		if r.Identity, err = ParseIdentity(uri); err != nil {
			// The codec of an identity is strict, and a later release may know more roles.
			c.newer("%v", err)
		}
	}
	r.From, r.Until, r.Signed = c.moment("from"), c.moment("until"), c.moment("signed")
	c.fill(r.By[:], "signer")
	r.Revoked = c.moment("revoked")
	r.Reason = string(c.small(ReasonMax, "reason"))
	if err := c.end(); err != nil {
		return Certificate{}, fmt.Errorf("trust: record of certificate %s: %w", r.Serial, err)
	}
	return r, nil
}

func (t *TokenRecord) encode() []byte {
	b := binary.LittleEndian.AppendUint32(append(head(kindToken), t.Hash[:]...), uint32(t.Roles))
	b = putSmall(putMoment(putMoment(b, t.Made), t.Expires), t.By)
	return append(append(b, t.UsedBy[:]...), t.usedKey[:]...)
}

func decodeToken(b []byte) (t TokenRecord, err error) {
	c := openRecord(b, kindToken)
	c.fill(t.Hash[:], "hash")
	if t.Roles = Roles(c.u32("roles")); c.err == nil && t.Roles.Check() != nil {
		c.newer("roles %#x", uint32(t.Roles))
	}
	t.Made, t.Expires = c.moment("made"), c.moment("expires")
	t.By = string(c.small(ReasonMax, "maker"))
	c.fill(t.UsedBy[:], "user")
	c.fill(t.usedKey[:], "key")
	if err := c.end(); err != nil {
		return TokenRecord{}, fmt.Errorf("trust: record of a join token: %w", err)
	}
	return t, nil
}
