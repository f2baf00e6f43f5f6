package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Listeners returns the sockets that systemd has opened for this process, by the
// FileDescriptorName= of their units. names are the ones that the caller serves.
// Clients that connect while nobody serves a socket wait. systemd keeps the sockets
// open, so closing a listener removes no path.
//
// Listeners takes the sockets out of the environment, so only the first call returns
// them. If one of them cannot be served, Listeners fails and returns none: the clients
// of that socket would wait for ever.
func Listeners(names ...string) (map[string][]net.Listener, error) {
	return listeners(activation.Files(true), names)
}

func listeners(files []*os.File, names []string) (map[string][]net.Listener, error) {
	byName := map[string][]net.Listener{}
	var errs []error
	for _, f := range files {
		l, err := listener(f, names)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		byName[f.Name()] = append(byName[f.Name()], l)
	}
	if len(errs) == 0 {
		return byName, nil
	}
	for _, list := range byName {
		for _, l := range list {
			_ = l.Close()
		}
	}
	return nil, errors.Join(errs...)
}

// Inherited reports whether a socket, by its inode, is one that Listeners has returned.
// systemd has such a socket too, and keeps it when this process ends.
func Inherited(inode uint64) bool {
	_, is := inherited.Load(inode)
	return is
}

var inherited sync.Map // inodes

// listener makes a listener of a file, and closes the file.
func listener(f *os.File, names []string) (net.Listener, error) {
	defer f.Close()
	if !slices.Contains(names, f.Name()) {
		return nil, fmt.Errorf("socket %q from systemd: nothing of that name is served; set FileDescriptorName= in its unit to one of: %s",
			f.Name(), strings.Join(names, ", "))
	}
	// net.FileListener accepts a socket that does not listen, too.
	takes, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || takes == 0 {
		return nil, fmt.Errorf("socket %q from systemd: it takes no connections; set ListenStream= in its unit, and not Accept=yes", f.Name())
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("socket %q from systemd: %w", f.Name(), err)
	}
	if a, ok := l.Addr().(*net.UnixAddr); ok && (a.Name == "" || a.Name[0] == '@') {
		_ = l.Close()
		return nil, fmt.Errorf("socket %q from systemd: it has no path by which a client could name it", f.Name())
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("socket %q from systemd: %w", f.Name(), err)
	}
	inherited.Store(st.Ino, true)
	return l, nil
}
