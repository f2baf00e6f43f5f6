package trust

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"openvstorage/internal/naming"
)

// Bounds of an Identity, in bytes.
const (
	NameMax  = 64   // name of a person
	ScopeMax = 255  // Identity.VDisks
	uriMax   = 1024 // an identity as a URI
)

// Identity is whom a certificate names. It is a host if Host is not the zero UUID, and a
// person otherwise: anybody and anything that is no host. It is in the certificate as
// its one URI:
//
//	ovs://CLUSTER/host/UUID?roles=ROLE,ROLE
//	ovs://CLUSTER/person/NAME?role=ROLE[&ro=1][&vdisk=SCOPE]
//
// CLUSTER and UUID are in lower case. SCOPE is escaped as in a query. There is one such
// URI for each identity: whatever is written in another way is refused.
type Identity struct {
	Cluster uuid.UUID

	Host  uuid.UUID
	Roles Roles // of a host

	Name string // of a person: letters, digits, and -._@ behind the first
	Role Role   // of a person
	// VDisks says which vDisks a person sees: all if it is empty. "a/b" is the vDisk of
	// that name and all below it. "a/b*" is all whose names begin with "a/b".
	VDisks   string
	ReadOnly bool // of a person: nothing is changed
}

// IsHost reports whether the identity is that of a host.
func (id Identity) IsHost() bool { return id.Host != uuid.Nil }

// String names whoever it is, for logs and errors.
func (id Identity) String() string {
	if id.IsHost() {
		return "host " + id.Host.String()
	}
	return fmt.Sprintf("%s %q", id.Role, id.Name)
}

// Covers reports whether an identity's VDisks has a vDisk of that name.
func (id Identity) Covers(vdisk string) bool {
	if text, ok := strings.CutSuffix(id.VDisks, "*"); ok {
		return strings.HasPrefix(vdisk, text)
	}
	scope := strings.TrimSuffix(id.VDisks, "/")
	return scope == "" || vdisk == scope || strings.HasPrefix(vdisk, scope+"/")
}

// Check returns nil if the identity can be in a certificate.
func (id Identity) Check() error {
	if id.Cluster == uuid.Nil {
		return invalid("an identity without a cluster")
	}
	if id.IsHost() {
		if id.Name != "" || id.Role != 0 || id.VDisks != "" || id.ReadOnly {
			return invalid("%s has what only people have", id)
		}
		return id.Roles.Check()
	}
	if err := checkName(id.Name); err != nil {
		return err
	}
	if id.Roles != 0 || id.Role == 0 || int(id.Role) >= len(personWords) {
		return invalid("person %q has role %d, and roles of a host %q", id.Name, id.Role, id.Roles)
	}
	return checkScope(id.VDisks)
}

func checkScope(scope string) error {
	if scope == "" {
		return nil
	}
	if len(scope) > ScopeMax || strings.Trim(scope, "/") == "" || strings.HasPrefix(scope, "/") {
		return invalid("scope %q: it is a name of vDisks, or the beginning of one, of at most %d bytes", scope, ScopeMax)
	}
	if err := naming.CheckText(scope); err != nil {
		return invalid("scope %q: %v", scope, err)
	}
	return nil
}

func checkName(name string) error {
	ok := len(name) > 0 && len(name) <= NameMax
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (letter || i > 0 && strings.IndexByte("-._@", c) >= 0)
	}
	if !ok {
		return invalid("name %.80q: it has 1 to %d letters and digits, and -._@ behind the first", name, NameMax)
	}
	return nil
}

// URI returns the identity as it is in a certificate. It must pass Check.
func (id Identity) URI() string {
	if id.IsHost() {
		return fmt.Sprintf("ovs://%s/host/%s?roles=%s", id.Cluster, id.Host, id.Roles)
	}
	b := fmt.Sprintf("ovs://%s/person/%s?role=%s", id.Cluster, id.Name, id.Role)
	if id.ReadOnly {
		b += "&ro=1"
	}
	if id.VDisks != "" {
		b += "&vdisk=" + url.QueryEscape(id.VDisks)
	}
	return b
}

// ParseIdentity reads what URI writes, and nothing else.
func ParseIdentity(uri string) (Identity, error) {
	if len(uri) > uriMax {
		return Identity{}, invalid("an identity of %d bytes, at most %d", len(uri), uriMax)
	}
	id, err := parseIdentity(uri)
	if err == nil {
		err = id.Check()
	}
	if err == nil && id.URI() != uri {
		err = invalid("it is written %q", id.URI())
	}
	if err != nil {
		return Identity{}, fmt.Errorf("identity %.200q: %w", uri, err)
	}
	return id, nil
}

func parseIdentity(uri string) (id Identity, err error) {
	u, err := url.Parse(uri)
	if err != nil {
		return id, invalid("%v", err)
	}
	if u.Scheme != "ovs" {
		return id, invalid("its scheme is not ovs")
	}
	if id.Cluster, err = uuid.Parse(u.Host); err != nil {
		return id, invalid("its cluster: %v", err)
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return id, invalid("%v", err)
	}
	if host, ok := strings.CutPrefix(u.Path, "/host/"); ok {
		if id.Host, err = uuid.Parse(host); err != nil {
			return id, invalid("its host: %v", err)
		}
		id.Roles, err = ParseRoles(q.Get("roles"))
		return id, err
	}
	name, ok := strings.CutPrefix(u.Path, "/person/")
	if !ok {
		return id, invalid("it is neither a host nor a person")
	}
	id.Name, id.VDisks, id.ReadOnly = name, q.Get("vdisk"), q.Get("ro") == "1"
	id.Role, err = ParseRole(q.Get("role"))
	return id, err
}

// IdentityOf returns whom a certificate names. It says nothing of whether that is true.
func IdentityOf(c *x509.Certificate) (Identity, error) {
	if len(c.URIs) != 1 {
		return Identity{}, fmt.Errorf("%w: %q names no identity of a cluster, it has %d URIs and not 1", ErrCertificate, short(c.Subject.String()), len(c.URIs))
	}
	id, err := ParseIdentity(c.URIs[0].String())
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return id, nil
}

// short bounds what a peer has others print.
func short(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}
