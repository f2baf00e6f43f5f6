package trust

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
)

// Credentials is the material that a process shows at present. Configurations that a
// Guard makes show what is in it when a connection is made: so a certificate is renewed
// without a restart, and connections that are up go on.
type Credentials struct{ now atomic.Pointer[credential] }

type credential struct {
	m    *Material
	cert *tls.Certificate
}

// NewCredentials returns the credentials that show a material. The material must have
// certificates.
func NewCredentials(m *Material) *Credentials {
	c := new(Credentials)
	c.Set(m)
	return c
}

// Set makes another material the one that is shown.
func (c *Credentials) Set(m *Material) { c.now.Store(&credential{m, m.TLSCertificate()}) }

// Material returns the one that is shown.
func (c *Credentials) Material() *Material { return c.now.Load().m }

func (c *Credentials) show() (*tls.Certificate, error) { return c.now.Load().cert, nil }

// String names whom the credentials are of.
func (c *Credentials) String() string {
	m := c.Material()
	return fmt.Sprintf("%s, until %s", m.Identity(), stamp(m.Certificate.NotAfter))
}
