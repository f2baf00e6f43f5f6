package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"slices"
	"strings"
)

// Bounds of requests and of what goes into certificates.
const (
	RequestMax = 8 << 10  // bytes of a PKCS #10 request
	CertMax    = 16 << 10 // bytes of a certificate
	HostsNames = 16       // names and addresses of a host in its certificate
)

// Fingerprint is the SHA-256 of a certificate's bytes.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns that of a certificate.
func FingerprintOf(c *x509.Certificate) Fingerprint { return sha256.Sum256(c.Raw) }

// String returns it in hexadecimal.
func (f Fingerprint) String() string { return fmt.Sprintf("%x", f[:]) }

// NewKey makes the key of a host or a person: ECDSA P-256. It never leaves the process
// or the file that it is put into: authorities see requests that it has signed.
func NewKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// NewRequest returns a PKCS #10 request for a certificate of a key: proof that whoever
// asks has the key. It names nobody: who somebody is, the authority's side decides.
func NewRequest(key *ecdsa.PrivateKey) ([]byte, error) {
	b, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "openvstorage"}}, key)
	if err != nil {
		return nil, fmt.Errorf("trust: request for a certificate: %w", err)
	}
	return b, nil
}

// parseRequest returns the key of a request whose signature is right.
func parseRequest(der []byte) (*ecdsa.PublicKey, error) {
	if len(der) > RequestMax {
		return nil, invalid("a request for a certificate of %d bytes, at most %d", len(der), RequestMax)
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, invalid("request for a certificate: %v", err)
	}
	key, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, invalid("request for a certificate: its key is not ECDSA P-256")
	}
	if err := r.CheckSignature(); err != nil {
		return nil, invalid("request for a certificate: its signature: %v", err)
	}
	return key, nil
}

// keyHash is the SHA-256 of a public key, as certificates have it.
func keyHash(key any) ([sha256.Size]byte, error) {
	b, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("trust: public key: %w", err)
	}
	return sha256.Sum256(b), nil
}

func sameKey(a, b any) bool {
	x, errX := x509.MarshalPKIXPublicKey(a)
	y, errY := x509.MarshalPKIXPublicKey(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// hostNames divides names of a host into addresses and DNS names, or says which is
// neither. Each has one way to be written, so that equal ones are seen. They are what clients that are not ours compare with where they connected to.
func hostNames(names []string) (ips []net.IP, dns []string, err error) {
	if len(names) > HostsNames {
		return nil, nil, invalid("%d names of a host, at most %d", len(names), HostsNames)
	}
	for i, n := range names {
		if slices.Contains(names[:i], n) {
			return nil, nil, invalid("name %q of a host is there twice", n)
		}
		if ip := net.ParseIP(n); ip != nil {
			if ip.String() != n {
				return nil, nil, invalid("address %.80q of a host: it is written %s", n, ip)
			}
			ips = append(ips, ip)
			continue
		}
		if !dnsName(n) {
			return nil, nil, invalid("name %.80q of a host: it is neither an IP address nor a DNS name in lower case", n)
		}
		dns = append(dns, n)
	}
	return ips, dns, nil
}

func dnsName(n string) bool {
	if len(n) == 0 || len(n) > 253 {
		return false
	}
	for label := range strings.SplitSeq(n, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
				return false
			}
		}
	}
	return true
}
