package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"openvstorage/internal/disk"
)

// Material is what somebody shows to others: a key, its certificate, and the authority's
// certificate. It does not change.
type Material struct {
	Key         *ecdsa.PrivateKey
	Certificate *x509.Certificate
	Authority   *x509.Certificate
}

// A host's key and certificates are one file, so that they always belong together: three
// blocks of PEM, the key (PRIVATE KEY, PKCS #8), its certificate, the authority's. Before
// the host has joined, the file has the key alone. It has no common header: openssl and
// others are to read it.
const (
	pemKey         = "PRIVATE KEY"
	pemCertificate = "CERTIFICATE"
	materialMax    = 64 << 10 // bytes of the file
)

// check returns nil if the three belong together.
func (m *Material) check() error {
	id, err := IdentityOf(m.Certificate)
	if err != nil {
		return err
	}
	if !sameKey(m.Certificate.PublicKey, m.Key.Public()) {
		return invalid("the key is not that of the certificate of %s", id)
	}
	if err := m.Certificate.CheckSignatureFrom(m.Authority); err != nil {
		return fmt.Errorf("%w: that of %s: %v", ErrOtherCA, id, err)
	}
	return nil
}

// is returns nil if the material makes somebody of that identity now.
func (m *Material) is(want Identity, now time.Time) error {
	use := x509.ExtKeyUsageClientAuth
	if want.IsHost() {
		use = x509.ExtKeyUsageServerAuth // and a client's too: that of a host is good for both
	}
	id, _, err := verify(m.Certificate, m.Authority, want.Cluster, use, now)
	if err == nil && id != want {
		err = fmt.Errorf("%w: it is that of %s, not %s", ErrWrongPeer, id.URI(), want.URI())
	}
	if err != nil {
		return fmt.Errorf("trust: the certificate that was answered: %w", err)
	}
	return nil
}

// Identity returns whom the certificate names.
func (m *Material) Identity() Identity {
	id, _ := IdentityOf(m.Certificate) // it was checked when m was made
	return id
}

// RenewAt returns when the certificate is to be renewed: RenewAfter after its signing.
func (m *Material) RenewAt() time.Time {
	at := m.Certificate.NotBefore.Add(Backdate + RenewAfter)
	// An authority that ends soon signs for less than HostLife.
	if half := m.Certificate.NotAfter.Sub(m.Certificate.NotBefore) / 2; half < Backdate+RenewAfter {
		at = m.Certificate.NotBefore.Add(half)
	}
	return at
}

// TLSCertificate returns the key and both certificates as package tls takes them.
func (m *Material) TLSCertificate() *tls.Certificate {
	return &tls.Certificate{
		Certificate: [][]byte{m.Certificate.Raw, m.Authority.Raw},
		PrivateKey:  m.Key,
		Leaf:        m.Certificate,
	}
}

// PEM returns the authority's certificate, the certificate and the key as three files
// for other programs: QEMU calls them ca-cert.pem, client-cert.pem and client-key.pem.
func (m *Material) PEM() (authority, certificate, key []byte, err error) {
	key, err = encodeKey(m.Key)
	return encodeCertificate(m.Authority), encodeCertificate(m.Certificate), key, err
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("trust: key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

func encodeCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})
}

// ParseMaterial reads the text of a host's file. If the file has a key alone, the
// material has no certificates.
func ParseMaterial(text []byte) (*Material, error) {
	if len(text) > materialMax {
		return nil, invalid("a key's file of %d bytes, at most %d", len(text), materialMax)
	}
	var blocks []*pem.Block
	for rest := text; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				return nil, invalid("a key's file has text behind its blocks")
			}
			break
		}
		blocks = append(blocks, b)
	}
	kinds := []string{pemKey, pemCertificate, pemCertificate}
	if len(blocks) != 1 && len(blocks) != len(kinds) || slices.ContainsFunc(blocks, func(b *pem.Block) bool { return b.Type != kinds[slices.Index(blocks, b)] }) {
		return nil, invalid("a key's file has a key, and then its certificate and the authority's, in PEM; this one has %d blocks", len(blocks))
	}
	signer, err := parseSigner(blocks[0].Bytes)
	if err != nil {
		return nil, invalid("key: %v", err)
	}
	key, ok := signer.(*ecdsa.PrivateKey)
	if !ok {
		return nil, invalid("key: it is a %T, not ECDSA", signer)
	}
	m := &Material{Key: key}
	if len(blocks) == 1 {
		return m, nil
	}
	if m.Certificate, err = x509.ParseCertificate(blocks[1].Bytes); err != nil {
		return nil, invalid("certificate: %v", err)
	}
	if m.Authority, err = x509.ParseCertificate(blocks[2].Bytes); err != nil {
		return nil, invalid("authority's certificate: %v", err)
	}
	return m, m.check()
}

// Write puts the material into a file, which it replaces as a whole: after a crash the
// file is the old one or the new one. It is durable on return, and its owner's alone.
func (m *Material) Write(fsys disk.FS, name string) error {
	authority, certificate, key, err := m.PEM()
	if err != nil {
		return err
	}
	return replaceFile(fsys, name, slices.Concat(key, certificate, authority))
}

// WriteKey puts a key alone into a file, as Material.Write does. A joiner does so before
// it asks, so that it can ask again after a crash.
func WriteKey(fsys disk.FS, name string, key *ecdsa.PrivateKey) error {
	b, err := encodeKey(key)
	if err != nil {
		return err
	}
	return replaceFile(fsys, name, b)
}

// ReadMaterial reads a host's file. The error matches fs.ErrNotExist if there is none.
// A file that other users may read is made its owner's alone, and an error is returned:
// its key may be known.
func ReadMaterial(fsys disk.FS, name string) (*Material, error) {
	info, err := fsys.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("trust: %s: %w", name, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		_, err := fsys.Private(name)
		return nil, errors.Join(invalid("%s could be read by other users (mode %o): its key may be known. Its mode was changed; if nobody can have read it, start again, and otherwise revoke its certificate", name, mode), err)
	}
	text, err := readFile(fsys, name, materialMax)
	if err != nil {
		return nil, err
	}
	m, err := ParseMaterial(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// readFile reads a whole file of at most that many bytes.
func readFile(fsys disk.FS, name string, most int64) ([]byte, error) {
	b, err := disk.ReadWhole(fsys, name, most)
	if errors.Is(err, disk.ErrTooLong) {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err != nil {
		return nil, fmt.Errorf("trust: %s: %w", name, err)
	}
	return b, nil
}

// replaceFile replaces a file as a whole, durably. Two calls for one name must not run at
// the same time.
func replaceFile(fsys disk.FS, name string, b []byte) error {
	if err := disk.ReplaceWhole(fsys, name, b); err != nil {
		return fmt.Errorf("trust: %s stays as it was, or has been replaced: %w", name, err)
	}
	return nil
}
