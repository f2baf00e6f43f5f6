package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"openvstorage/internal/control"
	"openvstorage/internal/systemd"
)

// NBDSocketName is the NBD socket's name in Options.SocketDir, or else in the data
// directory.
const NBDSocketName = "nbd.sock"

// Sockets are in the data directory, or in that of --socket-dir; then links lead
// to them from the data directory, where the command line looks for them.

// prepareSockets makes the directory of sockets, and removes the links of an
// earlier start.
func (d *daemon) prepareSockets() error {
	for _, name := range []string{NBDSocketName, control.SocketName} {
		if link := filepath.Join(d.dir.Path, name); isLink(link) {
			if err := os.Remove(link); err != nil {
				return err
			}
		}
	}
	if d.opt.SocketDir == "" {
		return nil
	}
	if err := os.MkdirAll(d.opt.SocketDir, 0o700); err != nil {
		return fmt.Errorf("--socket-dir: %w", err)
	}
	return nil
}

func isLink(name string) bool {
	_, err := os.Readlink(name)
	return err == nil
}

// listenUnix takes a socket. In a data directory on a full disk there may be no room for
// its name: then listenUnix waits for some.
func (d *daemon) listenUnix(ctx context.Context, path string) (l net.Listener, err error) {
	if filepath.Dir(path) != d.dir.Path {
		return d.listenOnce(ctx, path)
	}
	err = d.spare.await(ctx, func() (err error) {
		l, err = d.listenOnce(ctx, path)
		return err
	})
	return l, err
}

// listenOnce takes a socket. If the socket is in the directory of --socket-dir, a link
// in the data directory leads to it.
func (d *daemon) listenOnce(ctx context.Context, path string) (net.Listener, error) {
	l, err := control.ListenUnix(path)
	name := filepath.Base(path)
	if err != nil || d.opt.SocketDir == "" || filepath.Dir(path) != d.opt.SocketDir || name != NBDSocketName && name != control.SocketName {
		return l, err
	}
	link := filepath.Join(d.dir.Path, name)
	if there, err := os.Stat(link); err == nil {
		if here, err := os.Stat(path); err == nil && os.SameFile(here, there) {
			return l, nil // --socket-dir is the data directory, by another path
		}
	}
	if err := d.spare.await(ctx, func() error { return control.LinkSocket(link, path) }); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("link from %s to %s: %w", link, path, err)
	}
	d.links = append(d.links, link)
	return l, nil
}

// Names of sockets that systemd may have opened, in FileDescriptorName= of their
// units. The management socket is not among them: that nobody listens on it is how
// a command knows that nothing is running, instead of waiting.
const (
	inheritedNBD     = "nbd"
	inheritedMetrics = "metrics"
)

// takeSockets takes the sockets that systemd has opened. Their units say who may use
// them, but a TCP address that other machines can reach is refused as any other.
func (d *daemon) takeSockets() error {
	inherited, err := systemd.Listeners(inheritedNBD, inheritedMetrics)
	if err != nil {
		return err
	}
	d.nbdLns = append(d.nbdLns, inherited[inheritedNBD]...)
	if list := inherited[inheritedMetrics]; len(list) > 0 {
		d.metricsLn = list[0] // closed by the stop if what follows is an error
		if len(list) > 1 || d.opt.Metrics != "" {
			for _, l := range list[1:] {
				_ = l.Close()
			}
			return errors.New("metrics: they are served on one address; systemd has opened more, or --metrics names one too")
		}
		if list[0].Addr().Network() != "tcp" {
			return fmt.Errorf("metrics: socket %s from systemd is none of TCP", list[0].Addr())
		}
	}
	for name, list := range inherited {
		for _, l := range list {
			if l.Addr().Network() != "tcp" || d.opt.Insecure || name == inheritedNBD && d.opt.nbdSafe() {
				continue
			}
			if err := control.CheckLoopback(l.Addr().String()); err != nil {
				return fmt.Errorf("%s: socket from systemd: %w", name, err)
			}
		}
	}
	return nil
}

// hasNBD reports whether NBD is served on that path already.
func (d *daemon) hasNBD(path string) bool {
	return slices.ContainsFunc(d.nbdLns, func(l net.Listener) bool {
		return l.Addr().Network() == "unix" && l.Addr().String() == path
	})
}

// managementSocket is where the management socket is.
func (d *daemon) managementSocket() string {
	if d.opt.SocketDir != "" {
		return filepath.Join(d.opt.SocketDir, control.SocketName)
	}
	return filepath.Join(d.dir.Path, control.SocketName)
}

// removeLinks removes the links to sockets that are closed.
func (d *daemon) removeLinks() {
	if len(d.links) == 0 || d.host != nil && d.host.held.check() != nil {
		return // they are not there any more, or another's are
	}
	for _, link := range d.links {
		_ = os.Remove(link) // the next start replaces one that stays
	}
}
