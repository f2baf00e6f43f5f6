package control

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// PathMax is the longest path, in bytes, by which a unix socket can be named.
const PathMax = 107

// SocketAddress returns an address by which the unix socket at a path can be reached or
// made, however long the path is. A path that is too long is named through its
// directory, which is kept open until done is called.
func SocketAddress(path string) (address string, done func(), err error) {
	if len(path) <= PathMax {
		return path, func() {}, nil
	}
	dir, base := filepath.Split(path)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	address = fmt.Sprintf("/proc/self/fd/%d/%s", fd, base)
	if len(address) > PathMax {
		_ = unix.Close(fd)
		return "", nil, fmt.Errorf("socket path %s is too long: the name of a socket has at most %d bytes", path, PathMax-len(address)+len(base))
	}
	return address, func() { _ = unix.Close(fd) }, nil
}

// LinkSocket makes a name a symbolic link to a socket elsewhere. It replaces what an
// earlier process left under the name, if that is a symbolic link or a socket that
// nobody serves.
func LinkSocket(name, socket string) error {
	if _, err := os.Readlink(name); err != nil { // there is none, or it is something else
		if err := checkStale(name); err != nil {
			return err
		}
	}
	draft := fmt.Sprintf("%s.%d", name, os.Getpid())
	if _, err := os.Readlink(draft); err == nil {
		_ = os.Remove(draft) // of a process that was killed, with this number
	}
	err := os.Symlink(socket, draft)
	if err == nil {
		err = os.Rename(draft, name)
	}
	return err
}
