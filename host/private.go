package host

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"syscall"

	"openvstorage/internal/datadir"
)

// ownersAlone lets only the process's user use whatever the process makes. That holds
// for sockets too, before they get their mode.
func ownersAlone() { syscall.Umask(0o077) }

// tighten takes away rights that other users have on the data directory, and logs that.
// An older release, or whoever made the directory, may have left it open to them.
func tighten(dir *datadir.Directory, logger *slog.Logger) error {
	if was := dir.Was(); was&0o077 != 0 {
		logger.Warn("the data directory was open to other users of this machine; it is its owner's alone now; a socket for others belongs elsewhere (--nbd-unix)",
			"dir", dir.Path, "mode", octal(was))
	}
	if info, err := os.Stat(dir.Path); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
			logger.Warn("the data directory belongs to another user, who can read all that is in it: chown it", "dir", dir.Path, "uid", st.Uid)
		}
	}
	t, err := dir.Tighten()
	if err != nil {
		return err
	}
	if t.Names > 0 {
		logger.Warn("files of vDisks were open to other users of this machine; they are their owner's alone now",
			"dir", dir.Path, "names", t.Names, "one", t.First, "mode", octal(t.Was))
	}
	if t.Failed > 0 {
		logger.Warn("other users of this machine may be able to read files of vDisks: chmod -R go= the data directory", "dir", dir.Path, "names", t.Failed, "err", t.Err)
	}
	return nil
}

func octal(mode fs.FileMode) string { return fmt.Sprintf("%04o", mode.Perm()) }
