package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/google/uuid"
)

// Lives of certificates and tokens.
const (
	day = 24 * time.Hour

	Backdate      = day            // before it is signed, a certificate is valid already
	HostLife      = 90 * day       // of a host's certificate, from its signing
	RenewAfter    = 30 * day       // after its signing, a host's certificate is renewed
	TokenLife     = day            // of a join token
	AuthorityLife = 20 * 365 * day // of an authority that is made here
	PersonDays    = 365            // of a person's certificate, if nobody says otherwise
	PersonDaysMax = 3650
)

// Authority signs certificates of one cluster. It has the private key, which no method
// returns but sealed.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes the authority of a cluster: a key of ECDSA P-256 and a certificate
// that it has signed itself, valid for AuthorityLife.
func NewAuthority(cluster uuid.UUID, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("trust: key of the authority: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial.number(),
		Subject:               pkix.Name{CommonName: "openvstorage cluster " + cluster.String()},
		NotBefore:             now.Add(-Backdate).UTC(),
		NotAfter:              now.Add(AuthorityLife).UTC(),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("trust: certificate of the authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("trust: certificate of the authority: %w", err)
	}
	return &Authority{cert, key}, nil
}

// ImportAuthority takes the user's own authority: its certificate, the first of certPEM,
// and its key (PKCS #8, PKCS #1 or SEC 1, not encrypted). Nothing above that certificate is
// trusted, and hosts need nothing above it.
func ImportAuthority(certPEM, keyPEM []byte, now time.Time) (*Authority, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, invalid("authority: the first block of the certificate's file is not a certificate in PEM")
	}
	if len(block.Bytes) > CertMax {
		return nil, invalid("authority: a certificate of %d bytes, at most %d", len(block.Bytes), CertMax)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, invalid("authority: certificate: %v", err)
	}
	block, _ = pem.Decode(keyPEM)
	if block != nil && block.Type == "EC PARAMETERS" {
		_, rest := pem.Decode(keyPEM)
		block, _ = pem.Decode(rest)
	}
	if block == nil {
		return nil, invalid("authority: the key's file is not PEM")
	}
	key, err := parseSigner(block.Bytes)
	if err != nil {
		return nil, invalid("authority: key (it is to be PKCS #8, PKCS #1 or SEC 1, and not encrypted): %v", err)
	}
	a := &Authority{cert, key}
	if err := a.check(); err != nil {
		return nil, err
	}
	if now.After(cert.NotAfter) {
		return nil, invalid("authority: its certificate has expired at %s", stamp(cert.NotAfter))
	}
	return a, nil
}

// check returns nil if the authority can be that of a cluster.
func (a *Authority) check() error {
	c := a.cert
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return invalid("authority: the certificate of %q is not one of an authority (CA:TRUE)", short(c.Subject.String()))
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return invalid("authority: the certificate of %q is not for signing certificates (keyCertSign)", short(c.Subject.String()))
	case !sameKey(c.PublicKey, a.key.Public()):
		return invalid("authority: the key is not that of the certificate of %q", short(c.Subject.String()))
	}
	if k, ok := a.key.(*rsa.PrivateKey); ok && k.N.BitLen() < 2048 {
		return invalid("authority: an RSA key of %d bits, at least 2048", k.N.BitLen())
	}
	return nil
}

func parseSigner(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		if k, err := x509.ParseECPrivateKey(der); err == nil {
			return k, nil
		}
		if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
			return k, nil
		}
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T signs nothing", key)
	}
	return signer, nil
}

// Certificate returns the authority's certificate, which the caller must not change.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Fingerprint returns that of the authority's certificate.
func (a *Authority) Fingerprint() Fingerprint { return FingerprintOf(a.cert) }

// sign makes a certificate. It is not given to anybody before its record is stored.
func (a *Authority) sign(id Identity, names []string, key any, now time.Time, life time.Duration) (*x509.Certificate, error) {
	if err := id.Check(); err != nil {
		return nil, err
	}
	ips, dns, err := hostNames(names)
	if err != nil {
		return nil, err
	}
	uri, err := url.Parse(id.URI())
	if err != nil {
		return nil, invalid("%s: %v", id, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial.number(),
		Subject:      pkix.Name{CommonName: id.Name},
		NotBefore:    now.Add(-Backdate).UTC(), NotAfter: now.Add(life).UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{uri}, IPAddresses: ips, DNSNames: dns,
	}
	if id.IsHost() {
		template.Subject.CommonName = id.Host.String()
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	if template.NotBefore.Before(a.cert.NotBefore) {
		template.NotBefore = a.cert.NotBefore
	}
	if !now.Before(template.NotAfter) {
		return nil, fmt.Errorf("trust: certificate of %s: the authority itself has expired at %s: nothing can be signed", id, stamp(a.cert.NotAfter))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("trust: certificate of %s: %w", id, err)
	}
	return x509.ParseCertificate(der)
}

// Serial is the number of a certificate: 16 random bytes, drawn once, big-endian. The
// first bit is zero and the second one, so that each has 16 bytes in X.509 too.
type Serial [16]byte

func newSerial() (s Serial, err error) {
	if _, err := rand.Read(s[:]); err != nil {
		return s, fmt.Errorf("trust: serial number: %w", err)
	}
	s[0] = s[0]&0x7f | 0x40
	return s, nil
}

func (s Serial) number() *big.Int { return new(big.Int).SetBytes(s[:]) }

// String returns it in hexadecimal, as `openssl x509 -serial` does but for the case.
func (s Serial) String() string { return fmt.Sprintf("%x", s[:]) }

// ParseSerial reads what String writes.
func ParseSerial(text string) (s Serial, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(s) {
		return s, invalid("serial number %.80q: it is %d hexadecimal digits", text, 2*len(s))
	}
	copy(s[:], b)
	return s, nil
}

// SerialOf returns the number of a certificate, the zero one if it is none of ours.
func SerialOf(c *x509.Certificate) (s Serial) {
	if b := c.SerialNumber.Bytes(); len(b) == len(s) {
		copy(s[:], b)
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }
