package datadir

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

// Each call that opening a data directory makes is answered once with each errno, for a
// new directory and for an existing one. Open names the file and the error, or succeeds
// without that call. Afterwards the directory opens as what it was.
func TestErrnos(t *testing.T) {
	there := crashdisk.New()
	first, err := Open(there, "/data")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for name, base := range map[string]*crashdisk.FS{"new": crashdisk.New(), "there": there} {
		for _, errno := range []unix.Errno{unix.EIO, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EACCES, unix.ENOSPC, unix.EINTR} {
			for turn := 0; ; turn++ {
				mem := base.Kill()
				fs := faultdisk.New(mem)
				var op faultdisk.Op
				var file string
				rule := fs.Inject(faultdisk.Rule{Ops: faultdisk.Any, Skip: turn, Times: 1, Err: errno, Before: func(o faultdisk.Op, p string) { op, file = o, p }})
				d, err := Open(fs, "/data")
				if err == nil {
					err = d.Close()
				}
				if rule.Fired() == 0 {
					if turn < 5 {
						t.Errorf("%s: %d calls", name, turn)
					}
					break
				}
				if err != nil && (!errors.Is(err, errno) || !strings.Contains(err.Error(), file)) {
					t.Errorf("%s: %v of %s answered with %v: %v", name, op, file, errno, err)
				}
				again, err := Open(mem.Kill(), "/data")
				if err != nil {
					t.Errorf("%s: after %v of %s answered with %v: %v", name, op, file, errno, err)
				} else if name == "there" && again.ID != first.ID {
					t.Errorf("after %v of %s answered with %v it is another directory", op, file, errno)
				}
			}
		}
	}
}
