package control

import (
	"context"
	"net/http"
)

// adminRoutes are those that change what a host does.
func (s *Server) adminRoutes(mux *http.ServeMux) {
	handle(s, mux, "host/tokens", handleCluster(func(c Cluster, ctx context.Context, _ struct{}) ([]TokenInfo, error) { return c.Tokens(ctx) }, s))
	handle(s, mux, "host/withdraw", handleCluster(func(c Cluster, ctx context.Context, r withdrawRequest) (withdrawRequest, error) {
		id, err := c.WithdrawToken(ctx, r.ID)
		return withdrawRequest{id}, err
	}, s))
	handle(s, mux, "host/roles", handleCluster(func(c Cluster, ctx context.Context, r rolesRequest) (ClusterHost, error) {
		return c.SetRoles(ctx, r.Host, r.Roles)
	}, s))
	handle(s, mux, "host/drain", func(ctx context.Context, r modeRequest, left progressFunc) (ClusterHost, error) {
		if s.opt.Cluster == nil {
			return ClusterHost{}, errAlone
		}
		return s.opt.Cluster.Drain(ctx, r.Host, !r.On, left)
	})
	handle(s, mux, "host/maintenance", handleCluster(func(c Cluster, ctx context.Context, r modeRequest) (ClusterHost, error) {
		return c.Maintain(ctx, r.Host, r.On)
	}, s))
	handle(s, mux, "host/address", handleCluster(func(c Cluster, ctx context.Context, r addressRequest) (ClusterHost, error) {
		return c.SetAddress(ctx, r.Host, r.Address)
	}, s))
	handle(s, mux, "ca/open", handleCluster(func(c Cluster, ctx context.Context, r passphraseRequest) (done, error) {
		return done{}, c.OpenKey(ctx, r.Passphrase, r.Keep)
	}, s))
	handle(s, mux, "ca/reseal", handleCluster(func(c Cluster, ctx context.Context, r passphraseRequest) (done, error) {
		return done{}, c.Reseal(ctx, r.Passphrase)
	}, s))
}

// HostsClient speaks to the `ovs up` of one data directory about what hosts of its cluster do,
// about tokens, and about the authority's key. It is safe for concurrent use.
type HostsClient struct{ of *Client }

// OfHosts is the client for the administration of hosts by the `ovs up` that a client speaks to.
func OfHosts(c *Client) *HostsClient { return &HostsClient{c} }

// Tokens lists the join tokens on record.
func (h *HostsClient) Tokens(ctx context.Context) ([]TokenInfo, error) {
	c := h.of
	return call[[]TokenInfo](ctx, c, "host/tokens", struct{}{}, nil)
}

// WithdrawToken ends a join token, and returns its whole number.
func (h *HostsClient) WithdrawToken(ctx context.Context, id string) (string, error) {
	c := h.of
	r, err := call[withdrawRequest](ctx, c, "host/withdraw", withdrawRequest{id}, nil)
	return r.ID, err
}

// SetRoles changes what a host does.
func (h *HostsClient) SetRoles(ctx context.Context, host, roles string) (ClusterHost, error) {
	c := h.of
	return call[ClusterHost](ctx, c, "host/roles", rolesRequest{host, roles}, nil)
}

// Drain has the members of groups leave a host, or ends that.
func (h *HostsClient) Drain(ctx context.Context, host string, undo bool, left func(done, total int64)) (ClusterHost, error) {
	c := h.of
	return call[ClusterHost](ctx, c, "host/drain", modeRequest{host, !undo}, left)
}

// Maintain begins or ends the maintenance of a host.
func (h *HostsClient) Maintain(ctx context.Context, host string, on bool) (ClusterHost, error) {
	c := h.of
	return call[ClusterHost](ctx, c, "host/maintenance", modeRequest{host, on}, nil)
}

// SetAddress says where a host is.
func (h *HostsClient) SetAddress(ctx context.Context, host, address string) (ClusterHost, error) {
	c := h.of
	return call[ClusterHost](ctx, c, "host/address", addressRequest{host, address}, nil)
}

// OpenKey opens the authority's key in the host that is asked.
func (h *HostsClient) OpenKey(ctx context.Context, passphrase []byte, keep bool) error {
	c := h.of
	_, err := call[done](ctx, c, "ca/open", passphraseRequest{passphrase, keep}, nil)
	return err
}

// Reseal seals the authority's key under another passphrase.
func (h *HostsClient) Reseal(ctx context.Context, passphrase []byte) error {
	c := h.of
	_, err := call[done](ctx, c, "ca/reseal", passphraseRequest{Passphrase: passphrase}, nil)
	return err
}
