package control

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// Cluster is what the server manages of the cluster that its host is in. All methods are
// safe for concurrent use. What a method has changed is durable when it returns nil.
// Errors match a kind of this package, or are failures.
type Cluster interface {
	// Self says what this host is.
	Self() ClusterSelf
	Hosts(ctx context.Context) ([]ClusterHost, error)
	// ShowHost takes a UUID, or the beginning of one that no other host has.
	ShowHost(ctx context.Context, host string) (ClusterHost, error)
	// MakeToken makes a token that lets one host join. roles: as ovs prints them; "": all.
	MakeToken(ctx context.Context, roles string) (JoinToken, error)
	// RemoveHost ends a host's membership. lost: nobody has to be reached there.
	RemoveHost(ctx context.Context, host string, lost bool) (ClusterHost, error)
	// Tokens are the join tokens on record, those that were used or have expired too.
	Tokens(ctx context.Context) ([]TokenInfo, error)
	// WithdrawToken ends a token, by its number or the beginning of it, and returns the number.
	WithdrawToken(ctx context.Context, id string) (string, error)
	// SetRoles changes what a host does; roles as of MakeToken, all that it is to have.
	SetRoles(ctx context.Context, host, roles string) (ClusterHost, error)
	// Drain has the members of groups leave a host, and returns when all have; left may be nil.
	// If ctx ends they go on leaving. undo: the host gets members again.
	Drain(ctx context.Context, host string, undo bool, left func(done, total int64)) (ClusterHost, error)
	Maintain(ctx context.Context, host string, on bool) (ClusterHost, error)
	// SetAddress says where a host is that moved and cannot say so itself.
	SetAddress(ctx context.Context, host, address string) (ClusterHost, error)
	Authority(ctx context.Context) (Authority, error)
	// OpenKey opens the authority's key in this host. keep: at its next starts too.
	OpenKey(ctx context.Context, passphrase []byte, keep bool) error
	// Reseal seals the authority's key under another passphrase.
	Reseal(ctx context.Context, passphrase []byte) error
	Certificates(ctx context.Context) ([]Certificate, error)
	Issue(ctx context.Context, r IssueRequest) (Issued, error)
	// Revoke revokes a certificate by its serial, or all of a host; one of both is given.
	Revoke(ctx context.Context, serial, host, reason string) error
}

// ClusterSelf is what a host says of itself.
type ClusterSelf struct {
	Cluster  uuid.UUID `json:"cluster"`
	Host     uuid.UUID `json:"host"`
	First    bool      `json:"first"`    // it has the groups, and signs certificates
	Sealed   bool      `json:"sealed"`   // it is the first, and lacks the passphrase to sign
	Signs    bool      `json:"signs"`    // joins and certificates
	Roles    string    `json:"roles"`    // that its certificate gives it
	Does     string    `json:"does"`     // what it does in this release, in words
	Groups   string    `json:"groups"`   // how many hosts the groups can lose, in words
	Address  string    `json:"address"`  // where others reach it
	Linked   bool      `json:"linked"`   // it is connected to a host that holds the config group, or is the first
	Insecure bool      `json:"insecure"` // it takes connections without TLS
	Until    time.Time `json:"until"`    // its certificate

	Draining    bool `json:"draining"`    // members of groups leave it, or have left it
	Maintenance bool `json:"maintenance"` // it leads nothing, and is not replaced
}

// ClusterHost is a host of the cluster.
type ClusterHost struct {
	ID         uuid.UUID  `json:"id"`
	State      string     `json:"state"` // "joined" or "removed"
	Roles      string     `json:"roles"`
	Joined     time.Time  `json:"joined"`
	Changed    time.Time  `json:"changed"`
	First      bool       `json:"first"`
	Self       bool       `json:"self"`
	Connected  *bool      `json:"connected,omitempty"` // it answers this host
	Zone       string     `json:"zone,omitempty"`
	Addresses  []string   `json:"addresses"` // none: it has not said yet
	Storage    []string   `json:"storageAddresses,omitempty"`
	Insecure   bool       `json:"insecure"`
	Members    []string   `json:"members,omitempty"` // of groups on it, as GROUP/NUMBER
	InSync     string     `json:"inSync,omitempty"`  // of two hosts, whether the second holds all that is answered
	Signs      bool       `json:"signs"`             // joins and certificates
	Release    string     `json:"release,omitempty"`
	Generation uint64     `json:"generation"`           // of its data directory
	Until      *time.Time `json:"certificate,omitzero"` // its newest certificate; absent: it has none that is good

	Draining    bool `json:"draining"`    // members of groups leave it, or have left it
	Maintenance bool `json:"maintenance"` // it leads nothing, and is not replaced
}

// JoinToken is a token. Its line is a secret.
type JoinToken struct {
	ID      string    `json:"id"` // by which it is listed
	Line    string    `json:"token"`
	Roles   string    `json:"roles"`
	Expires time.Time `json:"expires"`
}

// TokenInfo is what is on record of a token: nothing of its secret.
type TokenInfo struct {
	ID      string     `json:"id"`
	State   string     `json:"state"` // "good", "used" or "expired"
	Roles   string     `json:"roles"`
	Made    time.Time  `json:"made"`
	Expires time.Time  `json:"expires"`
	By      string     `json:"by"`               // whoever asked for it
	UsedBy  *uuid.UUID `json:"usedBy,omitempty"` // the host that joined with it
}

// Authority is the cluster's certificate authority.
type Authority struct {
	Cluster     uuid.UUID `json:"cluster"`
	Fingerprint string    `json:"fingerprint"` // SHA-256 of its certificate
	From        time.Time `json:"from"`
	Until       time.Time `json:"until"`
	Open        bool      `json:"open"`              // this host can sign
	Signers     []string  `json:"signers,omitempty"` // hosts that answer and can sign, this one too: host UUID at ADDRESS
	Certificate []byte    `json:"certificate"`
}

// Certificate is what is on record of one.
type Certificate struct {
	Serial      string     `json:"serial"`
	Fingerprint string     `json:"fingerprint"`
	Of          string     `json:"of"` // host or person
	Name        string     `json:"name"`
	Role        string     `json:"role"` // roles of a host
	VDisks      string     `json:"vdisks,omitempty"`
	ReadOnly    bool       `json:"readOnly"`
	From        time.Time  `json:"from"`
	Until       time.Time  `json:"until"`
	Revoked     *time.Time `json:"revoked,omitempty"`
	Reason      string     `json:"reason,omitempty"`
}

// IssueRequest asks for the certificate of a person, or of a program that is no host.
type IssueRequest struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	VDisks   string `json:"vdisks,omitempty"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Days     int    `json:"days,omitempty"` // 0: the default of package trust
	Request  []byte `json:"request"`        // PKCS #10, DER: the key stays where it was made
}

// Issued is a certificate that was signed.
type Issued struct {
	Certificate []byte    `json:"certificate"` // DER, as is the authority's
	Authority   []byte    `json:"authority"`
	Serial      string    `json:"serial"`
	Until       time.Time `json:"until"`
}

// Requests of cluster calls.
type (
	tokenRequest struct {
		Roles string `json:"roles,omitempty"`
	}
	hostRequest struct {
		Host string `json:"host"`
		Lost bool   `json:"lost,omitempty"`
	}
	withdrawRequest struct {
		ID string `json:"id"`
	}
	rolesRequest struct {
		Host  string `json:"host"`
		Roles string `json:"roles"`
	}
	modeRequest struct {
		Host string `json:"host"`
		On   bool   `json:"on"`
	}
	addressRequest struct {
		Host    string `json:"host"`
		Address string `json:"address"`
	}
	passphraseRequest struct {
		Passphrase []byte `json:"passphrase"`
		Keep       bool   `json:"keep,omitempty"`
	}
	revokeRequest struct {
		Serial string `json:"serial,omitempty"`
		Host   string `json:"host,omitempty"`
		Reason string `json:"reason,omitempty"`
	}
)

// errAlone is what cluster calls get when there is none.
var errAlone = fmt.Errorf("%w: this machine is in no cluster: start it with `ovs up --listen HOST:PORT`", ErrInvalid)

// handleCluster routes one call about the cluster.
func handleCluster[Request, Result any](fn func(Cluster, context.Context, Request) (Result, error), s *Server) func(context.Context, Request, progressFunc) (Result, error) {
	return func(ctx context.Context, r Request, _ progressFunc) (Result, error) {
		if s.opt.Cluster == nil {
			var none Result
			return none, errAlone
		}
		return fn(s.opt.Cluster, ctx, r)
	}
}

func (s *Server) clusterRoutes(mux *http.ServeMux) {
	handle(s, mux, "host/list", handleCluster(func(c Cluster, ctx context.Context, _ struct{}) ([]ClusterHost, error) { return c.Hosts(ctx) }, s))
	handle(s, mux, "host/show", handleCluster(func(c Cluster, ctx context.Context, r hostRequest) (ClusterHost, error) {
		return c.ShowHost(ctx, r.Host)
	}, s))
	handle(s, mux, "host/token", handleCluster(func(c Cluster, ctx context.Context, r tokenRequest) (JoinToken, error) {
		return c.MakeToken(ctx, r.Roles)
	}, s))
	handle(s, mux, "host/remove", handleCluster(func(c Cluster, ctx context.Context, r hostRequest) (ClusterHost, error) {
		return c.RemoveHost(ctx, r.Host, r.Lost)
	}, s))
	s.adminRoutes(mux)
	handle(s, mux, "ca/show", handleCluster(func(c Cluster, ctx context.Context, _ struct{}) (Authority, error) { return c.Authority(ctx) }, s))
	handle(s, mux, "ca/list", handleCluster(func(c Cluster, ctx context.Context, _ struct{}) ([]Certificate, error) { return c.Certificates(ctx) }, s))
	handle(s, mux, "ca/issue", handleCluster(func(c Cluster, ctx context.Context, r IssueRequest) (Issued, error) { return c.Issue(ctx, r) }, s))
	handle(s, mux, "ca/revoke", handleCluster(func(c Cluster, ctx context.Context, r revokeRequest) (done, error) {
		return done{}, c.Revoke(ctx, r.Serial, r.Host, r.Reason)
	}, s))
}

// Hosts lists the hosts of the cluster, or the one that host names.
func (c *Client) Hosts(ctx context.Context, host string) ([]ClusterHost, error) {
	if host == "" {
		return call[[]ClusterHost](ctx, c, "host/list", struct{}{}, nil)
	}
	h, err := call[ClusterHost](ctx, c, "host/show", hostRequest{Host: host}, nil)
	return []ClusterHost{h}, err
}

// MakeToken makes a join token.
func (c *Client) MakeToken(ctx context.Context, roles string) (JoinToken, error) {
	return call[JoinToken](ctx, c, "host/token", tokenRequest{Roles: roles}, nil)
}

// RemoveHost ends a host's membership.
func (c *Client) RemoveHost(ctx context.Context, host string, lost bool) (ClusterHost, error) {
	return call[ClusterHost](ctx, c, "host/remove", hostRequest{Host: host, Lost: lost}, nil)
}

// Authority returns the cluster's authority.
func (c *Client) Authority(ctx context.Context) (Authority, error) {
	return call[Authority](ctx, c, "ca/show", struct{}{}, nil)
}

// Certificates lists all certificates that are on record.
func (c *Client) Certificates(ctx context.Context) ([]Certificate, error) {
	return call[[]Certificate](ctx, c, "ca/list", struct{}{}, nil)
}

// Issue has a certificate signed.
func (c *Client) Issue(ctx context.Context, r IssueRequest) (Issued, error) {
	return call[Issued](ctx, c, "ca/issue", r, nil)
}

// Revoke revokes a certificate, or all of a host.
func (c *Client) Revoke(ctx context.Context, serial, host, reason string) error {
	_, err := call[done](ctx, c, "ca/revoke", revokeRequest{serial, host, reason}, nil)
	return err
}
