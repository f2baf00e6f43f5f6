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

// Listeners returns the sockets that systemd has opened for this process, by what
// FileDescriptorName= of their units calls them: names are those that the caller
// serves. Clients that connect to one while nobody serves it wait. systemd keeps
// them, so that closing one removes no path.
//
// It takes them from the environment, so that it has them once. A socket that
// cannot be served is an error, and then there are none: its clients would wait
// for ever.
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

// Inherited reports whether a socket, by its inode, is one that Listeners has
// returned: systemd has it too, and goes on with it.
func Inherited(inode uint64) bool {
	_, is := inherited.Load(inode)
	return is
}

var inherited sync.Map // inodes

// listener makes one of a file, which it closes.
func listener(f *os.File, names []string) (net.Listener, error) {
	defer f.Close()
	if !slices.Contains(names, f.Name()) {
		return nil, fmt.Errorf("socket %q from systemd: nothing of that name is served; set FileDescriptorName= in its unit to one of: %s",
			f.Name(), strings.Join(names, ", "))
	}
	// The library of Go would make a listener of what is none, too.
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
