package cluster

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/google/uuid"

	"openvstorage/internal/datadir"
	"openvstorage/internal/generation"
	"openvstorage/internal/wire"
	"openvstorage/trust"
)

// Errors of Resume.
var (
	// ErrOwn: the data directory is a machine of its own.
	ErrOwn = errors.New("this data directory is a machine of its own already")
	// ErrOther: the data directory is of another cluster.
	ErrOther = errors.New("this data directory is of another cluster")
)

// HasJoined reports whether a data directory is that of a host that has joined a cluster,
// or has begun to.
func HasJoined(d *datadir.Directory) bool { return d.Record().Cluster != uuid.Nil }

// Resume opens a host that has joined, or joins with the token in Options.Join.
//
// The order of what is durable, each step before the next:
//
//  1. this host's key, in host.pem;
//  2. in the directory's record, to which cluster it belongs. That is after the other side
//     has shown the authority that the token names, and before it is asked: from the moment
//     that a cluster may have this host on record, the directory is no other cluster's, and
//     no machine of its own;
//  3. the other side's records: the token is used, by this host and this key;
//  4. the addresses of the token, in book;
//  5. the certificate, in host.pem, which is replaced as a whole.
//
// After a crash between any two of them the same token is good for another try, as long as
// it has not expired: the key is the same. Behind 3 another token is not, since the
// cluster takes the host for a copy: the error says to remove the host, and to begin with
// an empty directory.
func Resume(ctx context.Context, o Options) (_ *Host, err error) {
	o.ensureDefaults()
	defer func() {
		if err != nil {
			o.Listeners.Close()
		}
	}()
	token, err := o.token()
	if err != nil {
		return nil, err
	}
	if err := o.mayJoin(token); err != nil {
		return nil, err
	}
	if err := o.makeDir(); err != nil {
		return nil, err
	}
	m, err := o.material(ctx, token)
	if err != nil {
		return nil, err
	}
	id := m.Identity()
	if id.Host != o.Dir.ID || id.Cluster != o.Dir.Record().Cluster {
		return nil, fmt.Errorf("%w: its host.pem is of %s, the directory is host %s of cluster %s: was it put together from two?", ErrOther, id, o.Dir.ID, o.Dir.Record().Cluster)
	}
	h := newHost(o, id.Cluster)
	h.link = h.others
	h.store = reads{h}
	if o.Records != nil {
		h.registrar = trust.NewRegistrar(trust.RegistrarOptions{Store: o.Records, Host: h.id, Now: o.Now})
	}
	if err := h.resume(ctx, m, token); err != nil {
		h.cancel()
		h.link.close()
		return nil, fmt.Errorf("host %s of cluster %s: %w", h.id, h.cluster, err)
	}
	return h, nil
}

// resume opens a host that has joined.
func (h *Host) resume(ctx context.Context, m *trust.Material, token *trust.Token) error {
	var seeds []string
	if token != nil {
		seeds = token.Addresses
	}
	if err := h.book.read(h, seeds); err != nil {
		return err
	}
	if err := h.claim(); err != nil {
		return err
	}
	for _, r := range h.book.hosts() {
		h.marks.see(r.ID, r.Mark)
	}
	if err := h.open(m); err != nil {
		return err
	}
	// If the cluster cannot be reached, or its first host answers nothing, the host starts by
	// what it knows, and goes on asking.
	bounded, cancel := context.WithTimeout(ctx, h.o.Wait)
	defer cancel()
	err := h.cache.Refresh(bounded)
	if err == nil {
		return nil
	}
	select {
	case copied := <-h.failed:
		return copied
	default:
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	h.faults.tell(fmt.Errorf("the first host of the cluster does not answer; this host goes by what it has seen: %w", err))
	return nil
}

// token is that of Join, nil if there is none. That its file is gone matters only to a
// directory that has not joined: a host whose token was used and thrown away starts.
func (o *Options) token() (*trust.Token, error) {
	name, gone := strings.CutPrefix(o.Join, "@")
	switch {
	case o.Join == "":
		return nil, nil
	case !gone:
		return trust.ParseToken(o.Join)
	case !HasJoined(o.Dir):
		return nil, fmt.Errorf("--join: %s with the token: %w; and %s has joined no cluster yet", name, fs.ErrNotExist, o.Dir.Path)
	}
	o.Logger.Info("the file of the token is gone; this host has joined already, and needs none", "file", name)
	return nil, nil
}

// mayJoin refuses a directory that cannot be that of a host that joins, by name.
func (o *Options) mayJoin(token *trust.Token) error {
	r := o.Dir.Record()
	if token != nil && r.Cluster != uuid.Nil && r.Cluster != token.Cluster {
		return fmt.Errorf("%w: %s is of host %s of cluster %s, and the token is of cluster %s: join with an empty directory", ErrOther, o.Dir.Path, r.ID, r.Cluster, token.Cluster)
	}
	if r.Cluster != uuid.Nil {
		return nil
	}
	if token == nil {
		return errors.New("a host joins with a token: give --join TOKEN, which `ovs host token` prints on any host")
	}
	if len(r.Groups) > 0 || r.Generation > 0 {
		return fmt.Errorf("%w: %s has groups and vDisks: a host joins with an empty directory; to make this one the first host of a cluster, leave --join out", ErrOwn, o.Dir.Path)
	}
	for _, name := range []string{"arakoon", "asd", "buffer", "map", "backend", "registry"} {
		switch _, err := o.FS.Stat(path.Join(o.Dir.Path, name)); {
		case err == nil:
			return fmt.Errorf("%w: %s has %s/: a host joins with an empty directory", ErrOwn, o.Dir.Path, name)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

// material returns what this host shows: steps 1 to 5, or what they made before.
func (o *Options) material(ctx context.Context, token *trust.Token) (*trust.Material, error) {
	m, err := trust.ReadMaterial(o.FS, o.file("host.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		m, err = nil, nil
	}
	switch {
	case err != nil:
		return nil, err
	case m != nil && m.Certificate != nil:
		o.tellRoles(m.Identity().Roles)
		if token != nil && trust.FingerprintOf(m.Authority) != token.Authority {
			return nil, fmt.Errorf("%w: this host knows the authority %s, and the token names %s", ErrOther, trust.FingerprintOf(m.Authority), token.Authority)
		}
		return m, nil
	case token == nil:
		return nil, fmt.Errorf("host %s has begun to join cluster %s, and has no certificate: give --join with the same token again; if it has expired, `ovs host remove %s` on the first host, and join with an empty directory", o.Dir.ID, o.Dir.Record().Cluster, o.Dir.ID)
	case m == nil && o.Dir.Record().Cluster != uuid.Nil:
		return nil, fmt.Errorf("%w: the key of host %s in %s: restore the data directory, or `ovs host remove %s` on the first host and join with an empty one", ErrMissing, o.Dir.ID, o.file("host.pem"), o.Dir.ID)
	}
	if o.Roles != 0 && o.Roles != token.Roles {
		return nil, fmt.Errorf("--roles %s: the token is for the roles %s: make one with `ovs host token --roles %s`", o.Roles, token.Roles, o.Roles)
	}
	key, err := o.key(m)
	if err != nil {
		return nil, err
	}
	return o.join(ctx, token, key)
}

// tellRoles says that the roles of a host which has been on record before are not those of
// its command line.
func (o *Options) tellRoles(has trust.Roles) {
	if o.Roles != 0 && o.Roles != has {
		o.Logger.Warn("--roles is for the first start of a host; this one keeps the roles that the cluster has on record", "roles", has.String(), "cure", "`ovs host roles HOST ROLES` changes them")
	}
}

// join asks the hosts that a token names, one after the other, until one answers.
func (o *Options) join(ctx context.Context, token *trust.Token, key *ecdsa.PrivateKey) (*trust.Material, error) {
	q, err := token.Request(key, o.Dir.ID, o.Listeners.names())
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range token.Addresses {
		answer, err := o.joinAt(ctx, token, a, q)
		if err == nil {
			if err = o.writeBook(token.Cluster, seedsOf(token)); err != nil { // step 4
				return nil, err
			}
			m, err := token.Accept(key, o.Dir.ID, answer, o.Now())
			if err != nil {
				return nil, err
			}
			return m, m.Write(o.FS, o.file("host.pem")) // step 5
		}
		errs = append(errs, fmt.Errorf("%s: %w", a, err))
		if errors.Is(err, errRefused) || ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("join cluster %s: %w", token.Cluster, errors.Join(errs...))
}

func (o *Options) joinAt(ctx context.Context, token *trust.Token, address string, q *trust.JoinRequest) (*trust.Answer, error) {
	c, err := wire.Dial(ctx, wire.DialOptions{
		Network: "tcp", Address: address, Service: trust.ProtocolJoin, Limits: limits, TLS: token.TLS(o.Now),
		Identity: wire.Identity{Cluster: token.Cluster, Host: o.Dir.ID, Level: Level},
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := o.Dir.Change(func(r *datadir.Record) { r.Cluster = token.Cluster }); err != nil { // step 2
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	b, err := ask(bounded, c, opJoin, nil, q.Encode())
	if err != nil {
		return nil, err
	}
	return trust.DecodeAnswer(b)
}

// joinTime bounds how long one host is waited for that was asked to join. What it does
// later is harmless: the next try, with the same token and key, gets another answer.
const joinTime = time.Minute

// claim counts this start in the directory's record, before anybody is told of it: so two
// starts never have the same number and history.
func (h *Host) claim() error {
	start, err := draw()
	if err != nil {
		return err
	}
	err = h.o.Dir.Change(func(r *datadir.Record) {
		h.mark = generation.Mark{Number: r.Generation + 1, Start: start}
		if r.Generation = h.mark.Number; len(r.Groups) == 0 {
			r.Settled = h.mark.Number // there are no groups that have to follow
		}
		r.History = r.History.Add(h.mark)
	})
	h.history = h.o.Dir.Record().History
	return err
}
