package cluster

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"openvstorage/host/roster"
	"openvstorage/internal/control"
	"openvstorage/internal/disk"
	"openvstorage/trust"
)

// signs returns the registrar if this host signs certificates, or says who does.
func (h Management) signs(ctx context.Context) (*trust.Registrar, error) {
	if h.canSign() {
		return h.registrar, nil
	}
	who := "and no other host that answers does; `ovs ca open` on one"
	if all := asks(h.Host).signers(ctx); len(all) > 0 {
		who = "run it on " + strings.Join(all, " or ")
	}
	return nil, fmt.Errorf("%w: this host signs no certificates: %s", control.ErrInvalid, who)
}

// known are the hosts that joined, and where they are, by what this host has seen.
func (h asking) known() (list []roster.Host) {
	for _, r := range h.book.hosts() {
		if of, known := h.cache.Host(r.ID); known && of.State == trust.Joined {
			list = append(list, r)
		}
	}
	return list
}

// signers are the hosts that sign certificates and answer, this one first: as HOST at
// ADDRESS.
func (h asking) signers(ctx context.Context) (list []string) {
	known := h.known()
	seen := h.survey(ctx, known)
	if seen[h.id].signs {
		list = append(list, fmt.Sprintf("host %s at %s", h.id, h.o.Listeners.Addresses()[0]))
	}
	for _, r := range known {
		if r.ID != h.id && seen[r.ID].signs {
			list = append(list, fmt.Sprintf("host %s at %s", r.ID, r.Addresses[0]))
		}
	}
	return list
}

// OpenKey implements control.Cluster.
func (h Management) OpenKey(ctx context.Context, passphrase []byte, keep bool) error {
	r, err := h.writes()
	if err != nil {
		return err
	}
	if keep && h.o.Passphrase != nil {
		return fmt.Errorf("%w: --keep: this host was started with a file or a command that says the passphrase", control.ErrInvalid)
	}
	if err := h.keying.Take(ctx); err != nil {
		return err
	}
	defer h.keying.Give()
	passphrase = bytes.TrimRight(passphrase, "\r\n") // as of a file
	if err := r.Open(ctx, passphrase); err != nil {
		return kind(err)
	}
	h.o.Logger.Info("the authority's key was opened: this host signs certificates", "kept", keep)
	if keep {
		return keyOf(h.Host).keep(passphrase)
	}
	return nil
}

// Reseal implements control.Cluster. What is durable, in this order: the passphrase in
// newFile, if this host keeps it; the records; the passphrase in its own file. A start
// between any two of them opens the key by one of the two files. Two at a time could leave
// the passphrase of one kept, and the records with that of the other.
func (h Management) Reseal(ctx context.Context, passphrase []byte) error {
	r, err := h.signs(ctx)
	if err != nil {
		return err
	}
	passphrase = bytes.TrimRight(passphrase, "\r\n")
	if err := trust.CheckPassphrase(passphrase); err != nil {
		return kind(err)
	}
	if err := h.keying.Take(ctx); err != nil {
		return err
	}
	defer h.keying.Give()
	_, missing := keyOf(h.Host).kept(passphraseFile)
	if h.o.Passphrase == nil && missing != nil && !errors.Is(missing, fs.ErrNotExist) {
		return missing // it may be kept: it would be the wrong one at the next start
	}
	keeps := h.o.Passphrase == nil && missing == nil
	if keeps {
		// Of a change before whose outcome was lost: its passphrase may be the one.
		if _, missing := keyOf(h.Host).kept(newFile); missing == nil {
			if err := keyOf(h.Host).unsealAlone(ctx); err != nil {
				return kind(err)
			}
		} else if !errors.Is(missing, fs.ErrNotExist) {
			return missing
		}
		if err := disk.ReplaceWhole(h.o.FS, h.o.file(newFile), append(slices.Clone(passphrase), '\n')); err != nil {
			return fmt.Errorf("passphrase of the authority: %w: nothing was changed", err)
		}
	}
	if err := r.Reseal(ctx, passphrase); err != nil {
		return kind(err)
	}
	h.o.Logger.Warn("the authority's key was sealed under another passphrase: hosts that read the one before at their start sign nothing from their next start on")
	if keeps {
		return keyOf(h.Host).keep(passphrase)
	}
	return nil
}

// Authority implements control.Cluster.
func (h Management) Authority(ctx context.Context) (control.Authority, error) {
	a := h.credentials.Material().Authority
	return control.Authority{
		Cluster: h.cluster, Fingerprint: trust.FingerprintOf(a).String(), From: a.NotBefore, Until: a.NotAfter,
		Open: h.canSign(), Signers: asks(h.Host).signers(ctx), Certificate: a.Raw,
	}, nil
}

// Certificates implements control.Cluster.
func (h Management) Certificates(ctx context.Context) ([]control.Certificate, error) {
	all, err := h.reader().Certificates(ctx)
	if err != nil {
		return nil, kind(err)
	}
	slices.SortFunc(all, func(a, b trust.Certificate) int { return a.Signed.Compare(b.Signed) })
	list := make([]control.Certificate, len(all))
	for i, c := range all {
		id := c.Identity
		list[i] = control.Certificate{
			Serial: c.Serial.String(), Fingerprint: c.Fingerprint.String(), Of: "person", Name: id.Name, Role: id.Role.String(),
			VDisks: id.VDisks, ReadOnly: id.ReadOnly, From: c.From, Until: c.Until, Reason: c.Reason,
		}
		if id.IsHost() {
			list[i].Of, list[i].Name, list[i].Role = "host", id.Host.String(), id.Roles.String()
		}
		if !c.Revoked.IsZero() {
			list[i].Revoked = &c.Revoked
		}
	}
	return list, nil
}

// Issue implements control.Cluster.
func (h Management) Issue(ctx context.Context, q control.IssueRequest) (control.Issued, error) {
	r, err := h.signs(ctx)
	if err != nil {
		return control.Issued{}, err
	}
	role, err := trust.ParseRole(q.Role)
	if err != nil {
		return control.Issued{}, kind(err)
	}
	a, err := r.Issue(ctx, trust.Person{Name: q.Name, Role: role, VDisks: q.VDisks, ReadOnly: q.ReadOnly, Days: q.Days, Request: q.Request})
	if err != nil {
		return control.Issued{}, kind(err)
	}
	h.obeyNow(ctx)
	cert, err := x509.ParseCertificate(a.Certificate)
	if err != nil {
		return control.Issued{}, err
	}
	return control.Issued{Certificate: a.Certificate, Authority: a.Authority, Serial: trust.SerialOf(cert).String(), Until: cert.NotAfter}, nil
}

// Revoke implements control.Cluster.
func (h Management) Revoke(ctx context.Context, serial, host, reason string) error {
	r, err := h.writes()
	if err != nil {
		return err
	}
	if (serial == "") == (host == "") {
		return fmt.Errorf("%w: name a certificate by its serial, or a host", control.ErrInvalid)
	}
	if reason == "" {
		reason = "ovs ca revoke"
	}
	if host != "" {
		c, err := h.ShowHost(ctx, host)
		if err != nil {
			return err
		}
		if c.ID == h.id {
			return fmt.Errorf("%w: host %s is this one: without a certificate it could not tell others of the next", control.ErrInvalid, c.ID)
		}
		err = r.RevokeHost(ctx, c.ID, reason)
		h.obeyNow(ctx)
		return kind(err)
	}
	s, err := trust.ParseSerial(serial)
	if err != nil {
		return kind(err)
	}
	if s == trust.SerialOf(h.credentials.Material().Certificate) {
		return fmt.Errorf("%w: certificate %s is the one that this host shows", control.ErrInvalid, s)
	}
	err = r.Revoke(ctx, s, reason)
	h.obeyNow(ctx)
	return kind(err)
}
