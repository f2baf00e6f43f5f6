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

// Leave gives back the locks and sockets of a process that is to end at once. Without it
// the kernel would keep them for as long as one of the process's threads is in a call on
// a disk that hangs. The next start finds the directory and the addresses free, and
// clients are told.
func Leave(stderr io.Writer) {
	kept := osdisk.Leave(leavePatience)
	hangUp()
	if len(kept) > 0 {
		fmt.Fprintf(stderr, "ovs: ended by a second signal; locks that their file systems have not given back: %s\n", strings.Join(kept, ", "))
	}
}

// hangUp ends the use of all sockets that this process has opened. It closes none of
// them: their owners may still use their numbers.
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

// passedOn reports whether another process gave this one the socket, and may have it
// too. Sockets that this process opened are told by their flag: they close when it
// starts a program.
func passedOn(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err != nil || flags&unix.FD_CLOEXEC == 0
}
