package cluster

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"openvstorage/host/roster"
	"openvstorage/internal/control"
	"openvstorage/trust"
)

// MakeToken implements control.Cluster. The token has the addresses of hosts that answer:
// first of those that sign, then of others, which pass a join on.
func (h Management) MakeToken(ctx context.Context, roles string) (control.JoinToken, error) {
	r, err := h.writes()
	if err != nil {
		return control.JoinToken{}, err
	}
	of := trust.AllRoles
	if roles != "" {
		if of, err = trust.ParseRoles(roles); err != nil {
			return control.JoinToken{}, kind(err)
		}
	}
	addresses, signed := asks(h.Host).answering(ctx)
	if !signed {
		return control.JoinToken{}, fmt.Errorf("a token would let nobody join, as no host that answers signs certificates: %w: `ovs ca open` on a host, or start one with --ca-passphrase-file or --ca-passphrase-command", trust.ErrSealed)
	}
	t, err := r.MakeToken(ctx, of, addresses, "ovs host token on host "+h.id.String())
	if err != nil {
		return control.JoinToken{}, kind(err)
	}
	return control.JoinToken{ID: tokenID(t.ID()), Line: t.Line(), Roles: of.String(), Expires: t.Expires}, nil
}

// answering are addresses for a token, and whether a host that signs is among them.
func (h asking) answering(ctx context.Context) (list []string, signed bool) {
	known := h.known()
	seen := h.survey(ctx, known)
	own := h.o.Listeners.Addresses()[0]
	for _, signs := range []bool{true, false} {
		if seen[h.id].signs == signs {
			list = append(list, own)
		}
		for _, r := range known {
			if s := seen[r.ID]; r.ID != h.id && s.there && s.signs == signs && !slices.Contains(list, r.Addresses[0]) {
				list = append(list, r.Addresses[0])
			}
		}
		signed = signed || signs && len(list) > 0
	}
	return list[:min(len(list), trust.TokenAddresses)], signed
}

// tokenID is how a token is listed: nothing of its secret can be found from it.
func tokenID(hash [32]byte) string { return hex.EncodeToString(hash[:8]) }

// Tokens implements control.Cluster.
func (h Management) Tokens(ctx context.Context) ([]control.TokenInfo, error) {
	all, err := h.reader().Tokens(ctx)
	if err != nil {
		return nil, kind(err)
	}
	slices.SortFunc(all, func(a, b trust.TokenRecord) int { return a.Made.Compare(b.Made) })
	now := h.o.Now()
	list := make([]control.TokenInfo, len(all))
	for i, t := range all {
		list[i] = control.TokenInfo{ID: tokenID(t.Hash), Roles: t.Roles.String(), Made: t.Made, Expires: t.Expires, By: t.By, State: "good"}
		switch {
		case t.Used():
			list[i].State, list[i].UsedBy = "used", &t.UsedBy
		case !now.Before(t.Expires):
			list[i].State = "expired"
		}
	}
	return list, nil
}

// tokenIDMin is how many digits of a token's number are enough to name it.
const tokenIDMin = 4

// WithdrawToken implements control.Cluster.
func (h Management) WithdrawToken(ctx context.Context, id string) (string, error) {
	r, err := h.writes()
	if err != nil {
		return "", err
	}
	all, err := r.Tokens(ctx)
	if err != nil {
		return "", kind(err)
	}
	id = strings.ToLower(id)
	if len(id) < tokenIDMin {
		return "", fmt.Errorf("%w: token %q: give %d digits of its number at least", control.ErrInvalid, id, tokenIDMin)
	}
	all = slices.DeleteFunc(all, func(t trust.TokenRecord) bool { return !strings.HasPrefix(tokenID(t.Hash), id) })
	switch len(all) {
	case 0:
		return "", fmt.Errorf("token %q: %w: `ovs host token list` has all", id, control.ErrNotFound)
	case 1:
		return tokenID(all[0].Hash), kind(r.WithdrawToken(ctx, all[0].Hash))
	}
	return "", fmt.Errorf("%w: %d tokens begin with %q: give more of the number", control.ErrInvalid, len(all), id)
}

// reader is the records for looking.
func (h Management) reader() *trust.Registrar {
	return trust.NewRegistrar(trust.RegistrarOptions{Store: h.store, Host: h.id, Now: h.o.Now})
}

// change is a host that is about to be changed, and is one of the cluster.
func (h Management) change(ctx context.Context, host string) (*trust.Registrar, control.ClusterHost, error) {
	r, err := h.writes()
	if err != nil {
		return nil, control.ClusterHost{}, err
	}
	c, err := h.ShowHost(ctx, host)
	if err == nil && c.State != trust.Joined.String() {
		err = fmt.Errorf("%w: host %s was removed from the cluster", control.ErrInvalid, c.ID)
	}
	return r, c, err
}

// SetRoles implements control.Cluster. Whoever loses the role arakoon holds no members any
// more before: without it no host speaks with a member there. Whoever gets it is no host any
// more that members leave.
func (h Management) SetRoles(ctx context.Context, host, roles string) (control.ClusterHost, error) {
	of, err := trust.ParseRoles(roles)
	if err != nil {
		return control.ClusterHost{}, kind(err)
	}
	r, c, err := h.change(ctx, host)
	if err != nil {
		return c, err
	}
	had, err := trust.ParseRoles(c.Roles)
	if err != nil {
		return c, kind(err)
	}
	loses := had&^of&trust.RoleArakoon != 0
	switch {
	case c.First && mayLead(of) != nil:
		return c, fmt.Errorf("%w: host %s: %w", control.ErrInvalid, c.ID, mayLead(of))
	case loses && !*c.Connected:
		return c, fmt.Errorf("host %s is not connected, so its members of groups cannot leave it: %w: start it, or remove it with --lost if it never comes back", c.ID, control.ErrBusy)
	case loses:
		if err := h.o.Members.Leave(ctx, c.ID, false); err != nil {
			return c, fmt.Errorf("host %s keeps its roles: %w: %w", c.ID, control.ErrBusy, err)
		}
	case of&^had&trust.RoleArakoon != 0:
		if err := h.o.Members.Undrain(ctx, c.ID); err != nil {
			return c, err
		}
	}
	if err := r.SetRoles(ctx, c.ID, of); err != nil {
		if loses {
			err = errors.Join(err, h.o.Members.Undrain(ctx, c.ID))
		}
		return c, kind(err)
	}
	h.obeyNow(ctx)
	return h.ShowHost(ctx, c.ID.String())
}

// Drain implements control.Cluster.
func (h Management) Drain(ctx context.Context, host string, undo bool, left func(done, total int64)) (control.ClusterHost, error) {
	_, c, err := h.change(ctx, host)
	if err != nil {
		return c, err
	}
	if undo {
		err = h.o.Members.Undrain(ctx, c.ID)
	} else {
		err = h.o.Members.Drain(ctx, c.ID, left)
	}
	if err != nil {
		return c, fmt.Errorf("host %s: %w", c.ID, err)
	}
	return h.ShowHost(ctx, c.ID.String())
}

// Maintain implements control.Cluster.
func (h Management) Maintain(ctx context.Context, host string, on bool) (control.ClusterHost, error) {
	_, c, err := h.change(ctx, host)
	if err != nil {
		return c, err
	}
	if err := h.o.Members.Maintain(ctx, c.ID, on); err != nil {
		return c, fmt.Errorf("host %s: %w", c.ID, err)
	}
	return h.ShowHost(ctx, c.ID.String())
}

// SetAddress implements control.Cluster.
func (h Management) SetAddress(ctx context.Context, host, address string) (control.ClusterHost, error) {
	_, c, err := h.change(ctx, host)
	if err != nil {
		return c, err
	}
	if err := roster.CheckAddress(address); err != nil {
		return c, fmt.Errorf("%w: %w", control.ErrInvalid, err)
	}
	if *c.Connected {
		return c, fmt.Errorf("%w: host %s answers at %s, and says itself where it is: start it with --listen %s", control.ErrInvalid, c.ID, strings.Join(c.Addresses, ", "), address)
	}
	all, err := h.Hosts(ctx)
	if err != nil {
		return c, err
	}
	for _, other := range all {
		if other.ID != c.ID && other.State == trust.Joined.String() && slices.Contains(other.Addresses, address) {
			return c, fmt.Errorf("%w: host %s is at %s", control.ErrInvalid, other.ID, address)
		}
	}
	if err := roster.SetAddress(ctx, h.writable(), c.ID, address); err != nil {
		if errors.Is(err, roster.ErrUnknown) {
			err = fmt.Errorf("%w: %w", control.ErrNotFound, err)
		}
		return c, err
	}
	h.relearn(ctx)
	return h.ShowHost(ctx, c.ID.String())
}

// writable is the store that writes takes changes of records to.
func (h Management) writable() trust.Store {
	if h.First() {
		return h.store
	}
	return h.o.Records
}

// relearn has this host look where the others are at once.
func (h *Host) relearn(ctx context.Context) {
	all, err := roster.List(ctx, h.store, h.faults.tell)
	switch {
	case err != nil && h.ctx.Err() == nil:
		h.faults.tell(err)
	case err != nil:
	case h.First():
		h.book.know(all)
	default:
		if err := h.book.set(h, all); err != nil {
			h.faults.tell(err)
		}
	}
}
