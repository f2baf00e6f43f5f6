package host

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"openvstorage/alba/osdwire"
	"openvstorage/alba/proxy"
	"openvstorage/host/cluster"
	"openvstorage/host/members"
	"openvstorage/host/metrics"
	"openvstorage/internal/control"
	"openvstorage/internal/disk"
	"openvstorage/internal/wire"
	"openvstorage/nbd"
	"openvstorage/trust"
)

// Cluster says how this host is one of a cluster. Without Listen, and for a data directory
// that has joined none, nothing of it is there.
type Cluster struct {
	cluster.Config

	// One of these says what the key of the cluster's authority is sealed under. Without
	// either, a first host makes a passphrase and keeps it in its data directory.
	PassphraseFile    string
	PassphraseCommand string // a command line of /bin/sh, which prints it
}

// passphraseTime bounds how long the command of a passphrase may take.
const passphraseTime = 30 * time.Second

// config is the configuration with whoever reads the passphrase. The certificate has the
// names under which NBD is served too: its clients compare them.
func (c *Cluster) config(nbd []string, insecure bool) cluster.Config {
	config := c.Config
	config.Insecure = insecure
	for _, a := range nbd {
		if host, _, err := net.SplitHostPort(a); err == nil && host != "" {
			config.Names = append(config.Names, host)
		}
	}
	if c.PassphraseFile != "" || c.PassphraseCommand != "" {
		config.Passphrase = func(ctx context.Context) ([]byte, error) {
			return Passphrase(ctx, c.PassphraseFile, c.PassphraseCommand)
		}
	}
	return config
}

// Passphrase reads a passphrase from a file, which nobody but its owner may read, or has a
// command line of /bin/sh print it: one of both is given. Ends of lines behind it are not of it.
func Passphrase(ctx context.Context, file, command string) ([]byte, error) {
	if file != "" {
		b, err := readPEM(file, checkKeyFile)
		return bytes.TrimRight(b, "\r\n"), err
	}
	return ask(ctx, command)
}

// ask has a command print a passphrase. Its error does not have what was printed.
func ask(ctx context.Context, line string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, passphraseTime)
	defer cancel()
	c := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	c.WaitDelay = time.Second // what it has started may hold its output open
	out := limited{most: trust.PassphraseMax + 2}
	c.Stdout, c.Stderr = &out, os.Stderr
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("command of the passphrase: %w", err)
	}
	return bytes.TrimRight(out.b, "\r\n"), nil
}

// limited takes so many bytes, and then fails.
type limited struct {
	b    []byte
	most int
}

func (l *limited) Write(p []byte) (int, error) {
	if len(l.b)+len(p) > l.most {
		return 0, fmt.Errorf("more than %d bytes", l.most)
	}
	l.b = append(l.b, p...)
	return len(p), nil
}

// CheckCluster refuses what cannot work, before anything is opened.
func (o *Options) CheckCluster() error {
	c := o.Cluster.config(o.NBDTCP, o.Insecure)
	if err := c.Check(); err != nil {
		return err
	}
	if c.Listen != "" && o.NBDTLS.Cert != "" {
		return errors.New("--listen gives NBD the certificates of the cluster: leave --nbd-tls-cert, --nbd-tls-key and --nbd-tls-ca out, and give clients certificates by `ovs ca issue --role nbd`")
	}
	return nil
}

// listenCluster takes the addresses for other hosts.
func (d *daemon) listenCluster(ctx context.Context) (err error) {
	if d.opt.Cluster.Listen != "" {
		d.hosts, err = cluster.Listen(ctx, d.opt.Cluster.config(d.opt.NBDTCP, d.opt.Insecure))
	}
	return err
}

// clusterOptions are those of either sort of host.
func (d *daemon) clusterOptions(fsys disk.FS) cluster.Options {
	return cluster.Options{
		Least:  members.Leveling{Members: d.members}.Least,
		Config: d.opt.Cluster.config(d.opt.NBDTCP, d.opt.Insecure), FS: fsys, Dir: d.dir, Release: d.opt.Release, Logger: d.logger, Listeners: d.hosts, Changed: d.recordsChanged,
		Services: d.services(), Holders: d.members.Holders, Records: d.members.Records(), Members: d.members,
		InSync: func(host uuid.UUID) string { return members.InSync(d.members, host) },
	}
}

// services are what the cluster's addresses offer.
func (d *daemon) services() map[string]*wire.Service {
	all := d.members.Services()
	all[osdwire.Service] = d.shared.service()
	if d.proxy != nil {
		all[proxy.Service] = d.proxy.service()
	}
	return all
}

// reopen opens a first host of a cluster by what it has on disk, and begins to answer other
// hosts: its groups may need those to open. A machine that is to become a first host now is
// left to lead.
func (d *daemon) reopen(fsys disk.FS, o *openOptions) (err error) {
	if d.hosts == nil {
		return d.checkAlone(fsys)
	}
	kind, err := backendKind(*o)
	if err != nil {
		return err
	}
	specs, err := groupSpecs(*o, kind)
	if err != nil {
		return err
	}
	d.members, err = members.Open(members.Options{Cluster: d.dir.ID, Self: d.dir.ID, FS: fsys, Dir: d.dir, Logger: d.logger, Groups: specs, Zone: d.opt.Cluster.Zone, RequireZones: d.opt.Cluster.RequireZones})
	if err != nil {
		return err
	}
	o.members, o.remote = d.members, d.shared.connect
	o.zone = d.opt.Cluster.Zone
	if d.cluster, err = cluster.Reopen(d.clusterOptions(fsys), d.members.Records()); err != nil || d.cluster == nil {
		return err
	}
	d.bind()
	return d.cluster.Serve()
}

// checkAlone refuses to open groups without the other hosts that hold members of them.
func (d *daemon) checkAlone(fsys disk.FS) error {
	others, err := members.Others(fsys, d.dir)
	if err == nil && others {
		err = fmt.Errorf("data directory %s is that of the first host of a cluster, whose groups have members on other hosts: give --listen HOST:PORT, by which these reach it", d.dir.Path)
	}
	return err
}

// lead makes this machine the first host of a cluster, or what it is already, if it has an
// address to listen on. It comes before NBD, which shows the host's certificate.
func (d *daemon) lead(ctx context.Context, fsys disk.FS, security *nbd.TLS) (err error) {
	switch {
	case d.hosts == nil:
		return nil
	case d.cluster != nil:
		err = d.cluster.Settle(ctx)
	default:
		history := d.dir.Record().History
		if len(history) == 0 {
			return errors.New("this start is not in the history of the data directory")
		}
		d.cluster, err = cluster.Lead(ctx, d.clusterOptions(fsys), d.members.Records(), history[len(history)-1])
		if err == nil {
			d.bind()
			err = d.cluster.Serve()
		}
	}
	if err != nil {
		return err
	}
	d.members.Serve(d.host.groups)
	if d.host.alba != nil {
		d.shared.serve(d.host.alba)
	}
	if d.opt.clusterNBD() {
		*security = clusterTLS(d.cluster.Guard())
	}
	return nil
}

// watchCluster says how others are answered, and has the process end when that fails.
func (d *daemon) watchCluster() {
	if d.cluster == nil {
		return
	}
	if d.opt.Insecure {
		d.logger.Warn("INSECURE: whoever reaches this address is the host that it says it is, and nothing is encrypted", "listen", d.opt.Cluster.Listen, "cure", "leave --insecure out")
	}
	d.run("the cluster", d.cluster.Wait)
}

// stopCluster leaves the other hosts, when nothing here needs them any more.
func (d *daemon) stopCluster() error {
	var errs []error
	if d.shared.stop != nil {
		d.shared.stop()
	}
	if d.joined != nil {
		errs = append(errs, d.joined.close())
	}
	if d.cluster != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		errs = append(errs, d.cluster.Close(ctx))
	}
	if d.members != nil {
		d.members.Close()
	}
	if d.hosts != nil {
		d.hosts.Close()
	}
	return errors.Join(errs...)
}

// managedCluster is the cluster for management, nil if there is none.
func (d *daemon) managedCluster() control.Cluster {
	if d.cluster == nil {
		return nil // not an interface that holds nil
	}
	return cluster.Management{Host: d.cluster}
}

// recordsChanged ends the connections of NBD clients whose certificates were revoked. That
// one has expired meanwhile ends no connection.
func (d *daemon) recordsChanged(h *cluster.Host) {
	server := d.served.Load()
	if server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := server.DisconnectPeers(ctx, func(state *tls.ConnectionState) bool { return h.Guard().Still(clientOf(state)) != nil })
	if err != nil {
		d.logger.Warn("connections of NBD clients whose certificates were revoked have not ended yet", "err", err)
	}
}

// clientOf is who an NBD client is, whose certificate was checked when it connected.
func clientOf(state *tls.ConnectionState) trust.Peer {
	if len(state.PeerCertificates) == 0 {
		return trust.Peer{}
	}
	leaf := state.PeerCertificates[0]
	id, _ := trust.IdentityOf(leaf) // the zero one is nobody's, and on no record
	p := trust.Peer{Kind: trust.PersonPeer, Identity: id, Serial: trust.SerialOf(leaf), Print: trust.FingerprintOf(leaf), Proven: true}
	if id.IsHost() {
		p.Kind = trust.HostPeer
	}
	return p
}

// clusterTLS is how NBD uses the certificates of the cluster: a client opens what the role
// in its certificate lets it, and no other export exists for it.
func clusterTLS(g *trust.Guard) nbd.TLS {
	config := verified(g.Server())
	return nbd.TLS{
		Config: func() (*tls.Config, error) { return config, nil },
		Authorize: func(state *tls.ConnectionState) (nbd.Access, error) {
			peer, err := g.Peer(context.Background(), *state, true)
			if err != nil {
				return nil, err
			}
			if err := g.Allow(peer, "nbd/list", trust.Nothing); err != nil {
				return nil, err
			}
			return func(export string) nbd.Right { return right(g, peer, export) }, nil
		},
	}
}

// verified has package tls check the chain too, which package nbd insists on.
func verified(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.ClientAuth = tls.RequireAndVerifyClientCert
	if get := c.GetConfigForClient; get != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			own, err := get(hello)
			if own != nil {
				own.ClientAuth = tls.RequireAndVerifyClientCert // it is a copy for this client
			}
			return own, err
		}
	}
	return c
}

// right is what a client may do with an export: a vDisk, or a snapshot of one, which is
// only read anyway.
func right(g *trust.Guard, peer trust.Peer, export string) nbd.Right {
	name, _, _ := strings.Cut(export, "@")
	vdisk := trust.VDisk(name)
	switch {
	case g.Still(peer) != nil, trust.Decide(peer, "nbd/open", vdisk) != nil:
		return nbd.NoAccess
	case trust.Decide(peer, "nbd/write", vdisk) != nil:
		return nbd.ReadAccess
	}
	return nbd.WriteAccess
}

// nbdSafe tells whether both sides of NBD beyond loopback show certificates, so that other
// machines may be let in.
func (o *Options) nbdSafe() bool { return o.NBDTLS.Safe() || o.clusterNBD() }

// clusterNBD tells whether NBD uses the certificates of the cluster.
func (o *Options) clusterNBD() bool { return o.Cluster.Listen != "" && o.NBDTLS.Cert == "" }

// clusterMode is whether a listener of TCP uses the cluster's TLS. Beyond loopback that is
// required, unless nobody has to prove anything.
func (o *Options) clusterMode(l net.Addr) nbd.TLSMode {
	loopback := control.CheckLoopback(l.String()) == nil
	if o.NBDTLS.Mode == nbd.TLSRequired || !loopback && !o.Insecure {
		return nbd.TLSRequired
	}
	return nbd.TLSAllowed
}

// bind has whoever reaches other hosts do so.
func (d *daemon) bind() {
	d.shared.cluster.Store(d.cluster)
	d.members.Bind(d.cluster)
	if d.proxy != nil {
		d.proxy.cluster.Store(d.cluster)
	}
}

// checkJoined refuses options that a host which has joined has no use for.
func (d *daemon) checkJoined() error {
	o, alba := d.opt, d.opt.ALBA
	alba.Dirs = nil
	if len(o.NBDTCP) > 0 || o.Mount != "" || o.Backend != "" || alba.set() || o.AcceptOlder {
		return errors.New("a host that joins a cluster serves no vDisks in this release, and its disks are directories of their own: leave --nbd-tcp, --mount, --backend, --accept-older and the flags of disks but --asd out")
	}
	// Before it joins; of a host that has joined, its record says it.
	if r := o.Cluster.Roles; o.Cluster.Join != "" && len(o.ALBA.Dirs) > 0 && r != 0 && r&trust.RoleASD == 0 {
		return fmt.Errorf("--asd: this host is to have the roles %s: only a host with the role asd has disks", r)
	}
	return nil
}

// startJoined brings up a host that has joined a cluster, or joins one now. It holds members
// of groups and disks of the backend, and no vDisks.
func (d *daemon) startJoined(ctx context.Context, fsys disk.FS) (err error) {
	if d.hosts == nil {
		return fmt.Errorf("data directory %s is that of host %s of cluster %s: give --listen HOST:PORT, by which other hosts reach it", d.dir.Path, d.dir.ID, d.dir.Record().Cluster)
	}
	if err := d.checkJoined(); err != nil {
		return err
	}
	if d.joined, err = d.openJoined(fsys); err != nil {
		return err
	}
	if d.cluster, err = cluster.Resume(ctx, d.clusterOptions(fsys)); err != nil {
		return err
	}
	d.bind()
	if err := d.cluster.Serve(); err != nil {
		return err
	}
	if r := d.cluster.Roles(); len(d.opt.ALBA.Dirs) > 0 && r&trust.RoleASD == 0 {
		return fmt.Errorf("--asd: this host has the roles %s: only a host with the role asd has disks", r)
	}
	if err := d.startDisks(); err != nil {
		return err
	}
	d.watchCluster()
	d.run("the members of groups", d.joined.start())
	self := d.cluster.Self()
	d.control = control.NewServer(control.Options{
		Cluster: d.managedCluster(), Arakoon: d.joined.manageGroups(), Logger: d.logger,
		Refuse: fmt.Errorf("%w: host %s has joined cluster %s, and holds no vDisks in this release: run it on the first host (`ovs host list`)", control.ErrInvalid, self.Host, self.Cluster),
		Status: control.Status{PID: os.Getpid(), Data: d.opt.Dir, Release: d.opt.Release},
	})
	d.run("management on "+show(d.controlLn.Addr()), func() error { return d.control.Serve(d.controlLn) })
	if d.metricsLn != nil {
		if d.metrics, err = metrics.NewServer([]prometheus.Collector{d.joined, d.members}, 4, d.logger); err != nil {
			return err
		}
		d.run("metrics on "+show(d.metricsLn.Addr()), func() error { return d.metrics.Serve(d.metricsLn) })
	}
	return d.announce()
}

// joins reports whether this start is that of a host that has joined, or joins.
func (d *daemon) joins() bool { return d.opt.Cluster.Join != "" || cluster.HasJoined(d.dir) }
