package nbdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA signs certificates of one test. Its methods are safe for concurrent use.
type CA struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes a CA.
func NewCA(t testing.TB) *CA {
	t.Helper()
	ca := &CA{t: t}
	tmpl := ca.template("CA of a test")
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	ca.key = ca.newKey()
	ca.cert = ca.sign(tmpl, tmpl, ca.key, ca.key)
	return ca
}

func (ca *CA) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	return key
}

func (ca *CA) template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		ca.t.Fatal(err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func (ca *CA) sign(tmpl, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, by)
	if err != nil {
		ca.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return cert
}

// Pool holds the CA.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Server makes a certificate for this machine as a server: localhost, 127.0.0.1 and ::1.
func (ca *CA) Server(name string) tls.Certificate {
	return ca.leaf(name, x509.ExtKeyUsageServerAuth, time.Hour)
}

// Client makes a certificate for a client.
func (ca *CA) Client(name string) tls.Certificate {
	return ca.leaf(name, x509.ExtKeyUsageClientAuth, time.Hour)
}

// Expired makes a certificate for a client that was valid until a minute ago.
func (ca *CA) Expired(name string) tls.Certificate {
	return ca.leaf(name, x509.ExtKeyUsageClientAuth, -time.Minute)
}

func (ca *CA) leaf(name string, use x509.ExtKeyUsage, lasts time.Duration) tls.Certificate {
	tmpl, key := ca.template(name), ca.newKey()
	tmpl.ExtKeyUsage, tmpl.NotAfter = []x509.ExtKeyUsage{use}, time.Now().Add(lasts)
	tmpl.DNSNames, tmpl.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	leaf := ca.sign(tmpl, ca.cert, key, ca.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// ServerTLS is a configuration of a server that asks for certificates of the CA.
func (ca *CA) ServerTLS() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{ca.Server("server")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	}
}

// ClientTLS is a configuration of a client with a certificate.
func (ca *CA) ClientTLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: ca.Pool(), ServerName: "localhost"}
}

// WriteCA writes the CA's certificate to a PEM file.
func (ca *CA) WriteCA(path string) { ca.write(path, "CERTIFICATE", ca.cert.Raw) }

// WriteCert writes a certificate and its key to PEM files.
func (ca *CA) WriteCert(cert tls.Certificate, certPath, keyPath string) {
	ca.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		ca.t.Fatal(err)
	}
	ca.write(certPath, "CERTIFICATE", cert.Certificate[0])
	ca.write(keyPath, "PRIVATE KEY", der)
}

// WriteClient makes a directory as libnbd and QEMU want it: ca-cert.pem, client-cert.pem and
// client-key.pem.
func (ca *CA) WriteClient(cert tls.Certificate) (dir string) {
	ca.t.Helper()
	dir = ca.t.TempDir()
	ca.WriteCA(filepath.Join(dir, "ca-cert.pem"))
	ca.WriteCert(cert, filepath.Join(dir, "client-cert.pem"), filepath.Join(dir, "client-key.pem"))
	return dir
}

func (ca *CA) write(path, kind string, der []byte) {
	ca.t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		ca.t.Fatal(err)
	}
}
