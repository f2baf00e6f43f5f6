package fusefs_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

// holder is a process that uses a mount until it is let go.
type holder struct {
	cmd *exec.Cmd
	in  io.Closer
}

// hold starts one, and returns when it says that it holds what it is to.
func hold(t *testing.T, env string, args ...string) *holder {
	t.Helper()
	c := exec.Command(args[0], args[1:]...)
	c.Env = append(os.Environ(), env)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	return &holder{c, in}
}

// end lets it go, and waits for it.
func (h *holder) end(t *testing.T) {
	t.Helper()
	h.in.Close()
	if err := h.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// holdMapped maps a file until standard input ends.
func holdMapped(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	_, err = unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	fmt.Println("held")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// An unmount waits for those who use the mount, and names them when it has waited
// long enough, whatever way the mount point was named.
func TestUnmountNames(t *testing.T) {
	needsFUSE(t)
	base := t.TempDir()
	for _, dir := range []string{"real", "here"} {
		check(t, "mkdir", os.Mkdir(filepath.Join(base, dir), 0o755), 0)
	}
	check(t, "symlink", os.Symlink("real", filepath.Join(base, "link")), 0)
	at, err := os.Getwd()
	check(t, "getwd", err, 0)
	check(t, "chdir", os.Chdir(base), 0)
	defer os.Chdir(at)
	for _, c := range []struct{ what, point, real string }{
		{"cwd", "link", "real"}, {"fd", "here", "here"}, {"mapping", "./link/../link", "real"}, {"loop device", filepath.Join(base, "link"), "real"},
	} {
		t.Run(c.what, func(t *testing.T) {
			keys := treetest.New()
			f, err := fusefs.Mount(context.Background(), memtest.New(keys), keys, c.point, fusefs.Options{Direct: true, Self: true})
			if err != nil {
				t.Fatal(err)
			}
			real := filepath.Join(base, c.real)
			defer unix.Unmount(real, unix.MNT_DETACH)
			file := filepath.Join(real, "d", "a.raw")
			check(t, "mkdir", os.Mkdir(filepath.Join(real, "d"), 0o755), 0)
			check(t, "write", os.WriteFile(file, make([]byte, 1<<20), 0o600), 0)
			var h *holder
			end := func() { h.end(t) }
			uses := file
			switch c.what {
			case "cwd":
				h, uses = hold(t, "", "sh", "-c", "cd "+filepath.Dir(file)+" && echo held && cat"), filepath.Dir(file)
			case "fd":
				h = hold(t, "", "sh", "-c", "exec 3<"+file+" && echo held && cat")
			case "mapping":
				h = hold(t, holdEnv+"="+file, os.Args[0])
			default:
				out, err := exec.Command("losetup", "--find", "--show", file).Output()
				if err != nil {
					t.Skip("no loop devices here")
				}
				dev := strings.TrimSpace(string(out))
				end = func() { check(t, "detach", exec.Command("losetup", "--detach", dev).Run(), 0) }
				uses = dev + " is a loop device over " + file
			}
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			err = f.Unmount(ctx)
			if err == nil || !strings.Contains(err.Error(), uses) || h != nil && !strings.Contains(err.Error(), fmt.Sprint("process ", h.cmd.Process.Pid)) {
				t.Errorf("the unmount says %v, and should name %s", err, uses)
			}
			if _, err := os.Stat(file); !errors.Is(err, syscall.ENOENT) {
				t.Errorf("the mount is in sight: %v", err)
			}
			end()
			f.Wait()
		})
	}
	// One that ends in time is waited for, and nobody is named.
	keys := treetest.New()
	f, err := fusefs.Mount(context.Background(), memtest.New(keys), keys, "link", fusefs.Options{Direct: true, Self: true})
	if err != nil {
		t.Fatal(err)
	}
	check(t, "write", os.WriteFile("link/a", nil, 0o600), 0)
	h := hold(t, "", "sh", "-c", "exec 3<"+filepath.Join(base, "real", "a")+" && echo held && cat")
	done := make(chan error, 1)
	go func() { done <- f.Unmount(context.Background()) }()
	select {
	case err := <-done:
		t.Errorf("it did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	h.end(t)
	check(t, "unmount", <-done, 0)
}
