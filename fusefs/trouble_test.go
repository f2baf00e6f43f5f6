package fusefs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

// What a backend that is out of space, over its quota or lost does to a file.
func TestRefused(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		check(t, "write", os.WriteFile(at("a.raw"), make([]byte, 8192), 0o600), 0)
		check(t, "empty", os.WriteFile(at("b.raw"), nil, 0o600), 0)
		a, err := os.OpenFile(at("a.raw"), os.O_RDWR, 0)
		check(t, "open", err, 0)
		defer a.Close()
		b, err := os.OpenFile(at("b.raw"), os.O_RDWR, 0)
		check(t, "open", err, 0)
		defer b.Close()
		for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO} {
			pool.Refuse(errno)
			what := func(op string) string { return fmt.Sprintf("%s while the pool says %v", op, errno) }
			_, err := a.WriteAt([]byte("x"), 0)
			check(t, what("write"), err, errno)
			_, err = a.WriteAt([]byte("x"), 20000)
			check(t, what("write past the end"), err, errno)
			_, err = b.WriteAt([]byte("x"), 0)
			check(t, what("first write"), err, errno)
			check(t, what("truncate to more"), a.Truncate(65536), errno)
			check(t, what("first truncate"), b.Truncate(65536), errno)
			check(t, what("fallocate"), unix.Fallocate(int(a.Fd()), 0, 0, 65536), errno)
			check(t, what("zero"), unix.Fallocate(int(a.Fd()), unix.FALLOC_FL_ZERO_RANGE, 0, 4096), errno)
			check(t, what("punch"), unix.Fallocate(int(a.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096), errno)
			check(t, what("fsync"), a.Sync(), errno)
			check(t, what("snapshot"), unix.Fsetxattr(int(a.Fd()), "user.ovs.snapshot", []byte("s"), 0), errno)
			_, err = unix.CopyFileRange(int(a.Fd()), nil, int(b.Fd()), nil, 8192, 0)
			check(t, what("clone by copy"), err, errno)
			pool.Refuse(nil)
		}
		_, err = a.WriteAt([]byte("x"), 0)
		check(t, "write, when there is room", err, 0)
		_, err = b.WriteAt([]byte("x"), 0)
		check(t, "first write, when there is room", err, 0)
		check(t, "fsync", a.Sync(), 0)
	})
}

// A process that is killed, by whichever signal, ends at once in a write that
// waits for room in the write buffer: it has not happened, or whole.
func TestInterrupted(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		name := filepath.Join(dir, "a.raw")
		check(t, "write", os.WriteFile(name, make([]byte, 1<<20), 0o600), 0)
		for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGKILL} {
			over, waiting := pool.Stall()
			c := exec.Command("dd", "if=/dev/zero", "of="+name, "bs=4096", "count=1", "conv=notrunc", "status=none")
			check(t, "start", c.Start(), 0)
			until(t, func() bool { return waiting() == 1 })
			check(t, "signal", c.Process.Signal(sig), 0)
			ended := make(chan error, 1)
			go func() { ended <- c.Wait() }()
			select {
			case err := <-ended:
				var exit *exec.ExitError
				if !errors.As(err, &exit) {
					t.Errorf("%v: the process ended with %v", sig, err)
				}
			case <-time.After(10 * time.Second):
				over()
				t.Fatalf("%v: the process hangs in its write", sig)
			}
			until(t, func() bool { return waiting() == 0 })
			over()
		}
		// One that is not interrupted waits until there is room.
		over, waiting := pool.Stall()
		var done sync.WaitGroup
		done.Go(func() {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			check(t, "open", err, 0)
			_, err = f.WriteAt([]byte("late"), 4096)
			check(t, "write that waited", err, 0)
			check(t, "close", f.Close(), 0)
		})
		until(t, func() bool { return waiting() == 1 })
		b := make([]byte, 4)
		f, err := os.Open(name)
		check(t, "open while a write waits", err, 0)
		_, err = f.ReadAt(b, 0)
		check(t, "read while a write waits", err, 0)
		over()
		done.Wait()
		if _, err := f.ReadAt(b, 4096); err != nil || string(b) != "late" {
			t.Errorf("%q, %v", b, err)
		}
		f.Close()
	})
}

// until waits for something that is bound to happen.
func until(t *testing.T, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !happened(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}

// A copy of a whole snapshot is a clone of it, whatever was written since.
func TestCopySnapshot(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		data := bytes.Repeat([]byte("before"), 3<<12)
		check(t, "write", os.WriteFile(at("web.raw"), data, 0o600), 0)
		check(t, "snapshot", unix.Setxattr(at("web.raw"), "user.ovs.snapshot", []byte("before"), 0), 0)
		f, err := os.OpenFile(at("web.raw"), os.O_RDWR, 0)
		check(t, "open", err, 0)
		_, err = f.WriteAt([]byte("after!"), 0)
		check(t, "write", err, 0)
		f.Close()
		out, err := exec.Command("cp", at(".snapshots/web/before.raw"), at("new.raw")).CombinedOutput()
		if err != nil {
			t.Fatalf("cp: %v: %s", err, out)
		}
		if got, err := os.ReadFile(at("new.raw")); err != nil || !bytes.Equal(got[:len(data)], data) || pool.Clones() != 1 {
			t.Errorf("the copy differs (%v), or is no clone (%d clones)", err, pool.Clones())
		}
		// A part of one, and onto what has something, is copied.
		s, err := os.Open(at(".snapshots/web/before.raw"))
		check(t, "open", err, 0)
		defer s.Close()
		to, err := os.OpenFile(at("new.raw"), os.O_RDWR, 0)
		check(t, "open", err, 0)
		defer to.Close()
		in, to4 := int64(4096), int64(8192)
		n, err := unix.CopyFileRange(int(s.Fd()), &in, int(to.Fd()), &to4, 8192, 0)
		check(t, "copy of a part", err, 0)
		got := make([]byte, n)
		if _, err := to.ReadAt(got, 8192); err != nil || !bytes.Equal(got, data[4096:4096+n]) || n == 0 || pool.Clones() != 1 {
			t.Errorf("the copy of %d bytes differs (%v), or is a clone (%d)", n, err, pool.Clones())
		}
	})
}

// Mappings of all that can be mapped, by another process: a page fault would stop
// this one.
func TestMappings(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		for _, name := range []string{"a.raw", "small"} {
			name = filepath.Join(dir, name)
			check(t, "write", os.WriteFile(name, bytes.Repeat([]byte("m"), 8192), 0o600), 0)
			mapped(t, name)
			privately(t, name)
		}
		check(t, "snapshot", unix.Setxattr(filepath.Join(dir, "a.raw"), "user.ovs.snapshot", []byte("s"), 0), 0)
		privately(t, filepath.Join(dir, ".snapshots/a/s.raw"))
	})
}

// privately has another process change a private mapping, which nobody sees.
func privately(t *testing.T, name string) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), privateEnv+"="+name)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("private mapping of %s: %v: %s", name, err, out)
	}
}

// A user without rights is refused by owner and mode.
func TestAccess(t *testing.T) {
	needsFUSE(t)
	keys := treetest.New()
	dir := t.TempDir()
	check(t, "chmod", os.Chmod(filepath.Dir(dir), 0o755), 0)
	check(t, "chmod", os.Chmod(dir, 0o755), 0)
	f := mountOn(t, dir, keys, true)
	defer f()
	for name, mode := range map[string]os.FileMode{"mine": 0o600, "all": 0o644, "a.raw": 0o600, "b.raw": 0o666} {
		check(t, "write", os.WriteFile(filepath.Join(dir, name), make([]byte, 4096), 0o600), 0)
		check(t, "chmod", os.Chmod(filepath.Join(dir, name), mode), 0)
	}
	check(t, "mkdir", os.Mkdir(filepath.Join(dir, "tmp"), 0o755), 0)
	check(t, "chmod", os.Chmod(filepath.Join(dir, "tmp"), 0o777), 0)
	check(t, "snapshot", unix.Setxattr(filepath.Join(dir, "a.raw"), "user.ovs.snapshot", []byte("s"), 0), 0)
	for _, c := range []struct {
		script string
		ok     bool
	}{
		{"test -r all && cat all >/dev/null", true}, {"test -w all", false}, {"test -r mine", false}, {"cat mine", false}, {"cat a.raw", false},
		{"echo x >b.raw", true}, {"echo x >new", false}, {"echo x >tmp/new && rm tmp/new", true}, {"echo x >tmp/new.raw", true}, {"chmod 777 all", false},
		{"rm mine", false}, {"mv all other", false}, {"ls .snapshots/a", true}, {"cat .snapshots/a/s.raw", false}, {"test -r a.raw", false},
	} {
		cmd := exec.Command("sh", "-c", "cd "+dir+" && "+c.script)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); (err == nil) != c.ok {
			t.Errorf("%s: %v: %s", c.script, err, out)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "tmp/new.raw"), &st); err != nil || st.Uid != 65534 {
		t.Errorf("who made it is not its owner: %d, %v", st.Uid, err)
	}
}
