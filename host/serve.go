package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"openvstorage/fusefs"
	"openvstorage/host/attach"
	"openvstorage/host/cluster"
	"openvstorage/host/members"
	"openvstorage/host/metrics"
	"openvstorage/host/recovery"
	"openvstorage/internal/control"
	"openvstorage/internal/datadir"
	"openvstorage/internal/descriptors"
	"openvstorage/internal/systemd"
	"openvstorage/nbd"
)

// stopTimeout is how long a stop waits for requests of clients, management calls and
// scrapes of metrics before it cancels them. A request that needs a disk which hangs
// does not end by itself, and the locks of a data directory must be given back within
// ten seconds.
const stopTimeout = 4 * time.Second

// daemon is a running `ovs up`. Each part that is set is running.
type daemon struct {
	opt    Options
	logger *slog.Logger

	dir       *datadir.Directory
	spare     *spare
	nbdLns    []net.Listener
	metricsLn net.Listener
	controlLn net.Listener
	host      *embedded
	nbd       *nbd.Server
	control   *control.Server
	metrics   *metrics.Server
	mount     *fusefs.FS
	devices   *attach.Devices
	unfollow  func()             // the memory of clients
	hosts     *cluster.Listeners // for other hosts
	cluster   *cluster.Host
	members   *members.Members           // of groups, on a host of a cluster
	joined    *joined                    // what a host that has joined holds
	proxy     *offered                   // the backend, for other processes
	shared    shared                     // disks, with other hosts
	served    atomic.Pointer[nbd.Server] // nbd, for whoever does not start it
	watchdog  *systemd.Watchdog
	links     []string // in the data directory, to sockets elsewhere

	failed   chan error // a service that ended by itself
	stopping atomic.Bool
}

// Serve serves a data directory until ctx ends, or a service fails. It has the process
// for itself: it sets the process's umask and its limit of open files. It also sets how
// many processors and how much memory Go uses, unless the environment does.
func Serve(ctx context.Context, o Options) error {
	setProcs()
	ownersAlone()
	d := &daemon{opt: o, logger: o.Logger, failed: make(chan error, 16)}
	err := d.start(ctx, o.Dir)
	if err == nil {
		select {
		case <-ctx.Done():
			d.logger.Info("stopping", "cause", context.Cause(ctx))
		case err = <-d.failed:
		}
	} else if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // told to stop before it was up
	}
	return errors.Join(err, d.stop())
}

// checkMount refuses to make a data directory where something should be mounted: the
// data directory that is meant is on what is not mounted.
func (d *daemon) checkMount(dir string) error {
	point, by, ok := mountTable().Absent(dir)
	if !ok || d.opt.ALBA.AllowUnmounted {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, datadir.FormatFile)); err == nil {
		return nil
	}
	return fmt.Errorf("data directory %s: nothing is mounted on %s, which is in %s: mount it, or make a new data directory on the disk below with --allow-unmounted", dir, point, by)
}

// start brings everything up, from the directory to the services. It takes all addresses
// before it opens the vDisks, so that a wrong address is told at once. Whoever connects
// early waits.
func (d *daemon) start(ctx context.Context, dir string) (err error) {
	limitMemory(d.opt)
	security, err := d.nbdTLS() // a wrong file is told before anything is made
	if err != nil {
		return err
	}
	files, err := d.shareFiles()
	if err != nil {
		return err
	}
	written := metrics.NewWritten(dir)
	fsys := written.FS()
	if err := errors.Join(d.checkMount(dir), d.opt.CheckCluster()); err != nil {
		return err
	}
	if d.dir, err = datadir.Open(fsys, dir); err != nil {
		return err
	}
	if err := errors.Join(recovery.Check(fsys, d.dir.Path), tighten(d.dir, d.logger)); err != nil {
		return err
	}
	fsys = d.dir.Guard()
	makeRoom(fsys, d.dir, d.logger) // for sockets, too
	d.spare = newSpare(fsys, d.dir, d.logger)
	if err := d.listen(ctx); err != nil {
		return err
	}
	if d.joins() {
		return d.startJoined(ctx, fsys)
	}
	open := openOptions{
		fs: fsys, dir: d.dir, spare: d.spare, writeBuffer: d.opt.WriteBuffer, mapCache: d.opt.MapCache, uploads: d.opt.Uploads, readWait: d.opt.ReadWait, files: files,
		backend: d.opt.Backend, proxies: d.opt.Proxies, shared: d.shares(), alba: d.opt.ALBA, acceptOlder: d.opt.AcceptOlder, logger: d.logger,
	}
	if err := d.reopen(fsys, &open); err != nil {
		return err
	}
	if d.host, err = openEmbedded(ctx, open); err != nil {
		return fmt.Errorf("open the vDisks of %s: %w", dir, waysBack(err))
	}
	if err := d.lead(ctx, fsys, &security); err != nil {
		return err
	}
	if d.nbd, err = nbd.NewServer(exports{d.host}, nbd.Options{
		TLS: security, Logger: d.logger, Limits: nbd.Limits{Connections: d.opt.NBDClients, ServerBytes: int64(d.opt.NBDMemory), DrainTimeout: stopTimeout},
	}); err != nil {
		return err
	}
	d.served.Store(d.nbd)
	following, unfollow := context.WithCancel(context.WithoutCancel(ctx))
	d.unfollow = unfollow
	go d.host.held.watch(following, d.dir, d.logger)
	go followClients(following, d.opt, func() int64 { return d.nbd.Stats().Held })
	d.devices = attach.New(attach.Config{
		VDisks: attachable{d.host}, FS: fsys, Dir: dir, Server: d.nbd, Mount: d.opt.Mount, Loop: d.opt.Loop, Logger: d.logger,
	})
	return d.serve(ctx, files, written)
}

// serve mounts the vDisks, begins to answer at all addresses, and announces them.
func (d *daemon) serve(ctx context.Context, files descriptors.Budget, written *metrics.Written) (err error) {
	if d.opt.Mount != "" {
		if err := d.mountFiles(ctx); err != nil {
			return err
		}
	}
	if err := d.devices.Open(ctx); err != nil {
		return err
	}
	d.control = control.NewServer(control.Options{
		Calls: files.Calls,
		Host:  managed{d.host, d.changed}, ALBA: d.host.ALBA(), Devices: attachments{d.devices}, Cluster: d.managedCluster(), Arakoon: d.host.manageGroups(d.logger), Logger: d.logger, URIs: d.uris,
		Status: control.Status{PID: os.Getpid(), Data: d.opt.Dir, Release: d.opt.Release},
	})
	d.warnOpen()
	d.watchCluster()
	if err := d.serveProxy(); err != nil {
		return err
	}
	for _, l := range d.nbdLns {
		d.run("NBD on "+show(l.Addr()), func() error { return d.nbd.ServeTLS(context.WithoutCancel(ctx), l, d.nbdMode(l.Addr())) })
	}
	d.run("management on "+show(d.controlLn.Addr()), func() error { return d.control.Serve(d.controlLn) })
	if d.metricsLn != nil {
		if d.metrics, err = metrics.NewServer(append(d.host.Collectors(), metrics.NBD{Server: d.nbd}, metrics.Mount{FS: d.mount}, d.proxy, written), files.Scrapers, d.logger); err != nil {
			return err
		}
		d.run("metrics on "+show(d.metricsLn.Addr()), func() error { return d.metrics.Serve(d.metricsLn) })
	}
	return d.announce()
}

// shareFiles shares out how many files the process may have open, clients last.
func (d *daemon) shareFiles() (descriptors.Budget, error) {
	limit, err := descriptors.Raise()
	if err != nil {
		return descriptors.Budget{}, err
	}
	files, err := descriptors.Divide(limit)
	if err != nil {
		return files, err
	}
	if d.opt.NBDClients > files.Clients {
		d.logger.Warn("fewer NBD clients than asked for: the limit of open files is low", "clients", files.Clients, "asked", d.opt.NBDClients, "limit", limit,
			"cure", "LimitNOFILE in a unit, ulimit -n in a shell")
		d.opt.NBDClients = files.Clients
	}
	return files, nil
}

// changed tells the mount that a vDisk may hold something else than before.
func (d *daemon) changed(ctx context.Context, id uuid.UUID) error {
	if d.mount == nil {
		return nil
	}
	return d.mount.Changed(ctx, id)
}

// mountFiles mounts the vDisks. If somebody takes the mount away, the process ends, as
// when a listener fails.
func (d *daemon) mountFiles(ctx context.Context) (err error) {
	if d.mount, err = mountFiles(ctx, d.host, d.devices.CheckSoon, d.opt); err != nil {
		return err
	}
	way := "device"
	if d.mount.Stats().Queues > 0 {
		way = "ring"
	}
	d.logger.Info("the mount is served", "mount", d.opt.Mount, "fuse", way)
	d.run("the mount on "+d.opt.Mount, func() error {
		d.mount.Wait()
		if d.stopping.Load() {
			return nil
		}
		return errors.New("somebody unmounted it; start again to mount it again")
	})
	return nil
}

// listen takes all addresses.
func (d *daemon) listen(ctx context.Context) error {
	if err := d.prepareSockets(); err != nil {
		return err
	}
	if err := d.takeSockets(); err != nil {
		return err
	}
	if err := errors.Join(d.listenNBD(ctx), d.listenProxy(ctx)); err != nil {
		return err
	}
	err := d.listenCluster(ctx)
	if err != nil {
		return err
	}
	if d.opt.Metrics != "" {
		if d.metricsLn, err = control.ListenTCP(d.opt.Metrics, d.opt.Insecure); err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
	}
	if d.opt.Mount != "" {
		if err := fusefs.Prepare(d.opt.Mount, d.opt.AllowOther); err != nil {
			return err
		}
		if err := apart(d.dir.Path, d.opt.Mount); err != nil {
			return err
		}
		// The kernel's name of the directory is found out before anything is mounted
		// there.
		if d.opt.Mount, err = filepath.EvalSymlinks(d.opt.Mount); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
	}
	if d.controlLn, err = d.listenUnix(ctx, d.managementSocket()); err != nil {
		return fmt.Errorf("management: %w", err)
	}
	return nil
}

// listenNBD takes the addresses of NBD. A host that has joined serves none.
func (d *daemon) listenNBD(ctx context.Context) error {
	if d.joins() {
		return nil
	}
	if !d.hasNBD(d.opt.NBDUnix) {
		l, err := d.listenUnix(ctx, d.opt.NBDUnix)
		if err != nil {
			return fmt.Errorf("NBD: %w", err)
		}
		d.nbdLns = slices.Insert(d.nbdLns, 0, l) // the one that clients are told of first
	}
	for _, address := range d.opt.NBDTCP {
		l, err := control.ListenTCP(address, d.opt.Insecure || d.opt.nbdSafe())
		if err != nil {
			return fmt.Errorf("NBD: %w", err)
		}
		d.nbdLns = append(d.nbdLns, l)
	}
	return nil
}

// run serves something in the background. If it ends without being asked to, that is a
// failure.
func (d *daemon) run(what string, serve func() error) {
	go func() {
		err := serve()
		if err == nil || errors.Is(err, nbd.ErrServerClosed) || errors.Is(err, http.ErrServerClosed) {
			return
		}
		select {
		case d.failed <- fmt.Errorf("%s: %w", what, err):
		default: // a failure is being handled
		}
	}()
}

// announce tells where each service is, and then that all are up.
func (d *daemon) announce() error {
	var lines []Service
	for _, l := range d.nbdLns {
		lines = append(lines, Service{"nbd", show(l.Addr())})
	}
	lines = append(lines, Service{"manage", show(d.controlLn.Addr())})
	if d.metricsLn != nil {
		lines = append(lines, Service{"metrics", "http://" + d.metricsLn.Addr().String() + "/metrics"})
	}
	if d.mount != nil {
		lines = append(lines, Service{"mount", d.opt.Mount})
	}
	if d.cluster != nil {
		lines = append(lines, Service{"cluster", d.hosts.Addresses()[0]})
	}
	for _, s := range append(lines, d.proxy.announced()...) {
		if err := d.opt.Announce(s); err != nil {
			return err
		}
	}
	if err := d.opt.Ready(); err != nil {
		return err
	}
	var checks []systemd.Check
	if d.host != nil {
		checks = []systemd.Check{
			{Name: "vDisks", Do: func() { _, _ = d.host.Exports(context.Background()) }},
			{Name: "NBD", Do: func() { d.nbd.Connections() }},
		}
	}
	d.watchdog = systemd.Watch(d.logger, checks...)
	return systemd.Ready()
}

// uris returns where a vDisk is served.
func (d *daemon) uris(vdisk string) []string {
	uris := make([]string, len(d.nbdLns))
	for i, l := range d.nbdLns {
		uris[i] = nbdURI(l.Addr(), d.nbdMode(l.Addr()), vdisk)
	}
	return uris
}

// stop takes everything down, each part before those that it uses: it takes no new
// clients, answers requests in flight, closes the vDisks, and then the directory. Every
// step is taken, even if others fail.
func (d *daemon) stop() error {
	d.stopping.Store(true)
	if err := systemd.Stopping(); err != nil {
		d.logger.Warn("systemd was not told", "err", err)
	}
	if d.unfollow != nil {
		d.unfollow()
	}
	var devices error
	if d.devices != nil { // they use the server and the mount
		devices = d.devices.Close()
	}
	services, mount := d.stopServices()
	d.storeTimes()
	d.removeLinks()
	var vdisks, dir error
	if d.host != nil {
		// No time limit: a second signal is there for those in a hurry.
		if err := d.host.Close(context.Background()); err != nil {
			vdisks = fmt.Errorf("close the vDisks: %w", err)
		}
	}
	others := d.stopCluster()
	if d.dir != nil {
		dir = d.dir.Close()
	}
	if d.watchdog != nil {
		d.watchdog.Close()
	}
	return errors.Join(services, vdisks, others, dir, mount, devices)
}

// stopServices stops what clients use, side by side: each service refuses new clients at
// once and then waits for the others, for up to stopTimeout. The error of the mount is
// returned by itself.
func (d *daemon) stopServices() (services, mount error) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var all sync.WaitGroup
	var control, nbd, proxy error
	all.Go(func() { proxy = d.proxy.close(ctx) })
	if d.control != nil {
		all.Go(func() { control = d.control.Shutdown(ctx) })
	}
	if d.nbd != nil {
		all.Go(func() { nbd = d.nbd.Close() })
	}
	if d.metrics != nil {
		all.Go(func() {
			if d.metrics.Shutdown(ctx) != nil {
				_ = d.metrics.Close() // scrapes that do not end harm nobody
			}
		})
	}
	if d.mount != nil {
		all.Go(func() { mount = d.mount.Unmount(ctx) })
	}
	all.Wait()
	// These are listeners that no server has taken over. Closing one twice is harmless.
	for _, l := range append([]net.Listener{d.controlLn, d.metricsLn}, d.nbdLns...) {
		if l != nil {
			_ = l.Close()
		}
	}
	return errors.Join(control, nbd, proxy), mount
}

// storeTimes stores the times of the mount's files, which nobody writes any more.
func (d *daemon) storeTimes() {
	if d.mount == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := d.mount.Keep(ctx); err != nil { // the next start tells them from the vDisks' seqs
		d.logger.Warn("times of files are not kept", "mount", d.opt.Mount, "err", err)
	}
}
