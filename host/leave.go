package host

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk/osdisk"
	"openvstorage/internal/systemd"
)

// leavePatience is how long a process that ends at once waits for its locks to be
// given back.
const leavePatience = time.Second

// Leave gives back what a process that ends at once would keep as long as one of its
// threads is in a call on a disk that hangs: its locks and its sockets. Whoever starts
// the next one finds the directory and the addresses free, and clients are told.
func Leave(stderr io.Writer) {
	kept := osdisk.Leave(leavePatience)
	hangUp()
	if len(kept) > 0 {
		fmt.Fprintf(stderr, "ovs: ended by a second signal; locks that their file systems have not given back: %s\n", strings.Join(kept, ", "))
	}
}

// hangUp ends the use of all sockets that this process has opened. It closes none:
// their owners may use them.
func hangUp() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 || passedOn(fd) {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK && !systemd.Inherited(st.Ino) {
			_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		}
	}
}

// passedOn reports whether another process may have the socket too, which gave it to
// this one: what this one opened is closed when it starts a program.
func passedOn(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err != nil || flags&unix.FD_CLOEXEC == 0
}
