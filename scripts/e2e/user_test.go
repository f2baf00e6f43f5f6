package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/scripts/server"
)

// nobody is a user without rights.
var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

// user is a directory of nobody's, with the program in it that he may run.
type user struct {
	t   *testing.T
	dir string
	bin string
}

func asNobody(t *testing.T) *user {
	t.Helper()
	if *standIn != "" || os.Geteuid() != 0 {
		t.Skip("needs ovs, and root to be somebody else")
	}
	u := &user{t: t, dir: t.TempDir()}
	u.bin = filepath.Join(u.dir, "ovs")
	must(t, os.Chmod(filepath.Dir(u.dir), 0o755))
	must(t, exec.Command("cp", bin, u.bin).Run())
	must(t, errors.Join(os.Chmod(u.bin, 0o755), os.Chown(u.dir, int(nobody.Uid), int(nobody.Gid)), os.Chmod(u.dir, 0o755)))
	return u
}

// sh runs a script in his directory.
func (u *user) sh(script string, env ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "/bin/sh", "-c", script)
	c.Dir, c.Env = u.dir, append(os.Environ(), env...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
	out, err := c.CombinedOutput()
	return string(out), err
}

// must runs one that is to succeed.
func (u *user) must(script, want string) {
	u.t.Helper()
	if out, err := u.sh(script); err != nil || strings.TrimSpace(out) != want {
		u.t.Errorf("%s: %v: %q, want %q", script, err, out, want)
	}
}

// refused runs `ovs up` where it is to end at once, with a reason.
func (u *user) refused(flags, want string, env ...string) {
	u.t.Helper()
	out, err := u.sh("exec ./ovs up --data refused --mount mnt "+flags, env...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, want) {
		u.t.Errorf("ovs up %s: %v: %s, want %q", flags, err, out, want)
	}
}

// forAll makes a device one that all may open, as it is on most systems, for the
// time of a test.
func forAll(t *testing.T, name string) {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Skip("needs ", name)
	}
	must(t, os.Chmod(name, 0o666))
	t.Cleanup(func() { _ = os.Chmod(name, info.Mode().Perm()) })
}

// TestUser: a user who is not root mounts his vDisks with fusermount3, for himself
// alone. An operation that he may not do fails with an error that says what to do.
func TestUser(t *testing.T) {
	need(t, "fusermount3", "dd", "truncate")
	u := asNobody(t)
	mnt := filepath.Join(u.dir, "mnt")
	u.must("mkdir mnt", "")
	if info, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	} else if info.Mode().Perm()&0o006 != 0o006 {
		u.refused("", "this user may not open /dev/fuse: let it")
	}
	forAll(t, "/dev/fuse")
	u.refused("", "install fusermount3 (package fuse3), or run as root", "PATH=/nowhere")
	if conf, err := os.ReadFile("/etc/fuse.conf"); err != nil || !strings.Contains("\n"+string(conf), "\nuser_allow_other") {
		u.refused("--allow-other", "put a line user_allow_other into /etc/fuse.conf, run as root, or leave --allow-other out")
	}
	must(t, os.Mkdir(filepath.Join(u.dir, "roots"), 0o755))
	u.refused("--mount roots", "fusermount3 mounts only on directories that its user may write to")

	s := &system{t: t, Ovs: server.Ovs{Bin: u.bin, Data: filepath.Join(u.dir, "data"), Flags: []string{"--mount", mnt}, User: nobody}}
	t.Cleanup(func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) })
	s.command = s.Up()
	s.run()
	u.must("echo small >mnt/vm.xml && mkdir mnt/vm && truncate -s 8M mnt/vm/a.raw && printf disk | dd of=mnt/vm/a.raw bs=4 seek=1000 conv=notrunc,fsync status=none && stat -c %s mnt/vm/a.raw", "8388608")
	u.must("mv mnt/vm mnt/vm2 && dd if=mnt/vm2/a.raw bs=4 skip=1000 count=1 status=none", "disk")
	if _, err := os.Stat(filepath.Join(mnt, "vm.xml")); !errors.Is(err, syscall.EACCES) {
		t.Errorf("root, which was not let in, gets %v", err)
	}
	for range 2 {
		s.Kill()
		if out, err := u.sh("cat mnt/vm.xml"); err == nil {
			t.Errorf("a killed process serves %q", out)
		}
		s.start()
		u.must("cat mnt/vm.xml", "small")
		u.must("dd if=mnt/vm2/a.raw bs=4 skip=1000 count=1 status=none && rm -f mnt/new && echo more >mnt/new", "disk")
	}
	// The stop waits for processes that use the mount, and then names them.
	in := exec.Command("/bin/sh", "-c", "cd mnt/vm2 && exec sleep 60")
	in.Dir, in.SysProcAttr = u.dir, &syscall.SysProcAttr{Credential: nobody, Pdeathsig: syscall.SIGKILL}
	must(t, in.Start())
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if name, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(in.Process.Pid), "comm")); strings.TrimSpace(string(name)) == "sleep" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no process is in the mount")
		}
	}
	if err := s.Stop(stopMax); err == nil || !strings.Contains(s.Output(), "process "+strconv.Itoa(in.Process.Pid)+" (sleep) uses") {
		t.Errorf("a stop while somebody is in the mount: %v\n%s", err, s.Output())
	}
	_ = in.Process.Kill()
	_ = in.Wait()
	s.start()
	u.must("cat mnt/new", "more")
	must(t, s.Stop(stopMax))
	u.must("ls mnt", "")
	s.start()
}

// TestMountPoint: a directory that cannot be mounted on is refused before anything is
// opened, and the line says why.
func TestMountPoint(t *testing.T) {
	if *standIn != "" || os.Geteuid() != 0 {
		t.Skip("needs ovs, and root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	}
	base := t.TempDir()
	at := func(name string) string { return filepath.Join(base, name) }
	must(t, os.MkdirAll(at("full/dir"), 0o755))
	must(t, os.WriteFile(at("file"), nil, 0o600))
	must(t, os.Mkdir(at("taken"), 0o755))
	must(t, unix.Mount("ovs-test", at("taken"), "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { _ = unix.Unmount(at("taken"), unix.MNT_DETACH) })
	must(t, os.Mkdir(at("empty"), 0o755))
	// A data directory that is there already, with a directory in it.
	s := server.Ovs{Bin: bin, Data: at("data"), Flags: []string{"--backend", "local"}}
	p, err := server.Start(s.Up())
	must(t, err)
	must(t, p.Stop(stopMax))
	must(t, os.Mkdir(at("data/mnt"), 0o755))
	must(t, os.Symlink("data/mnt", at("link")))
	for _, c := range []struct{ point, want string }{
		{"absent", "make the directory first"},
		{"file", "not a directory"},
		{"full", "the directory is not empty"},
		{"taken", "something is mounted there already"},
		{"data/mnt", "are in each other; choose a directory beside it"},
		{"link", "are in each other; choose a directory beside it"},
	} {
		p, err := server.Launch(server.Ovs{Bin: bin, Data: at("data"), Flags: []string{"--mount", at(c.point)}}.Up())
		must(t, err)
		if err := p.WaitReady(stopMax); err == nil || !strings.Contains(err.Error(), "mount "+at(c.point)) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.point, err, c.want)
		}
		p.Kill()
	}
}

// TestSpaceOfMount: df shows what fits. With three disks on one file system that is two
// thirds of what the file system has left.
func TestSpaceOfMount(t *testing.T) {
	s, dir := mounted(t)
	var mount, under unix.Statfs_t
	must(t, unix.Statfs(dir, &mount))
	must(t, unix.Statfs(s.Data, &under))
	free, left := int64(mount.Bavail)*mount.Bsize, int64(under.Bavail)*under.Bsize
	if free > left*2/3 || free < left/2 {
		t.Errorf("%d MiB are free, and on the file system of the disks %d", free/mib, left/mib)
	}
	if mount.Blocks < mount.Bfree || mount.Bfree == 0 {
		t.Errorf("%+v", mount)
	}
}
