package fusefs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

// A directory goes to and fro while all in it is in use: what is open works all
// the time, and what is made by path is made, or there is no such directory just
// then; nothing appears under a name that the directory had.
func TestRenameBusy(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	made := map[string]bool{}
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		check(t, "mkdir", os.Mkdir(at("vm0"), 0o755), 0)
		for i := range 4 {
			check(t, "write", os.WriteFile(at(fmt.Sprintf("vm0/disk%d.raw", i)), make([]byte, 65536), 0o600), 0)
		}
		var users sync.WaitGroup
		var mu sync.Mutex
		stop := make(chan struct{})
		going := func() bool {
			select {
			case <-stop:
				return false
			default:
				return true
			}
		}
		for i := range 4 {
			f, err := os.OpenFile(at(fmt.Sprintf("vm0/disk%d.raw", i)), os.O_RDWR, 0)
			check(t, "open", err, 0)
			users.Go(func() {
				defer f.Close()
				for n := 0; going(); n++ {
					p, q := bytes.Repeat([]byte{byte(n)}, 4096), make([]byte, 4096)
					_, err := f.WriteAt(p, int64(n%16*4096))
					check(t, "write", err, 0)
					_, err = f.ReadAt(q, int64(n%16*4096))
					check(t, "read", err, 0)
					if !bytes.Equal(p, q) {
						t.Error("other bytes")
					}
					if n%50 == i {
						check(t, "snapshot", unix.Fsetxattr(int(f.Fd()), "user.ovs.snapshot", fmt.Append(nil, "s", n), 0), 0)
						check(t, "chmod", f.Chmod(0o640), 0)
						check(t, "grow", f.Truncate(int64(65536+n/50*4096)), 0)
					}
				}
			})
		}
		for i := range 2 {
			users.Go(func() {
				for n := 0; going() && n < 2000; n++ {
					for _, now := range []string{"vm0", "vm1"} {
						name := fmt.Sprintf("new%d-%d%s", i, n, []string{"", ".raw"}[n%2])
						err := os.WriteFile(at(now+"/"+name), []byte("new"), 0o600)
						if err == nil {
							mu.Lock()
							made[name] = true
							mu.Unlock()
							break
						}
						// Between the making and the size of one its directory may be
						// gone to others, but an open file is not.
						if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.EEXIST) {
							t.Errorf("create %s: %v", name, err)
						}
					}
				}
			})
		}
		for i := range 100 {
			check(t, "rename", unix.Rename(at(fmt.Sprint("vm", i%2)), at(fmt.Sprint("vm", (i+1)%2))), 0)
		}
		close(stop)
		users.Wait()
		if _, err := os.Stat(at("vm1")); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("the name that it had: %v", err)
		}
		for name := range made {
			if got, err := os.ReadFile(at("vm0/" + name)); err != nil || !bytes.HasPrefix(got, []byte("new")) {
				t.Errorf("%s: %q, %v", name, got[:min(len(got), 3)], err)
			}
		}
	})
}
