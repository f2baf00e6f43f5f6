package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"openvstorage/internal/control"
)

// nbdSocketName is the NBD socket's name in its directory.
const nbdSocketName = "nbd.sock"

// Sockets are in the data directory, or in that of --socket-dir; then links lead
// to them from the data directory, where the command line looks for them.

// socketsFor fills in where the sockets are. A path that no NBD client could name is
// refused; our own commands find the management socket whatever its length is.
func (f *upFlags) socketsFor(command, data string) (err error) {
	dir := data
	if f.socketDir != "" {
		if f.socketDir, err = filepath.Abs(f.socketDir); err != nil {
			return err
		}
		dir = f.socketDir
	}
	if f.nbdUnix == "" {
		f.nbdUnix = filepath.Join(dir, nbdSocketName)
	}
	if f.nbdUnix, err = filepath.Abs(f.nbdUnix); err != nil {
		return err
	}
	if n := len(f.nbdUnix); n > control.PathMax {
		return usagef("%s: socket path %s is too long: it has %d bytes, and NBD clients take %d; give --socket-dir a shorter directory", command, f.nbdUnix, n, control.PathMax)
	}
	return nil
}

// prepareSockets makes the directory of sockets, and removes the links of an
// earlier start.
func (d *daemon) prepareSockets() error {
	for _, name := range []string{nbdSocketName, control.SocketName} {
		if link := filepath.Join(d.dir.Path, name); isLink(link) {
			if err := os.Remove(link); err != nil {
				return err
			}
		}
	}
	if d.flags.socketDir == "" {
		return nil
	}
	if err := os.MkdirAll(d.flags.socketDir, 0o700); err != nil {
		return fmt.Errorf("--socket-dir: %w", err)
	}
	return nil
}

func isLink(name string) bool {
	_, err := os.Readlink(name)
	return err == nil
}

// listenUnix takes a socket. In a data directory on a full disk its name may lack room,
// and waits for some.
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

// listenOnce takes a socket, and has a link in the data directory lead to it if it
// is in that of --socket-dir.
func (d *daemon) listenOnce(ctx context.Context, path string) (net.Listener, error) {
	l, err := control.ListenUnix(path)
	name := filepath.Base(path)
	if err != nil || d.flags.socketDir == "" || filepath.Dir(path) != d.flags.socketDir || name != nbdSocketName && name != control.SocketName {
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

// managementSocket is where the management socket is.
func (d *daemon) managementSocket() string {
	if d.flags.socketDir != "" {
		return filepath.Join(d.flags.socketDir, control.SocketName)
	}
	return filepath.Join(d.dir.Path, control.SocketName)
}

// removeLinks removes the links to sockets that are closed.
func (d *daemon) removeLinks() {
	if len(d.links) == 0 || d.held.check() != nil {
		return // they are not there any more, or another's are
	}
	for _, link := range d.links {
		_ = os.Remove(link) // the next start replaces one that stays
	}
}
