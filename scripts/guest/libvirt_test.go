package guest_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"openvstorage/scripts/guest"
)

// libvirt is a libvirtd of our own. It has a mount namespace in which its directories
// are ours, and a host name, so that two libvirtds on this machine take each other for
// two machines.
type libvirt struct {
	s    *system
	name string
	dir  string
}

// daemon starts it: $1 is its directory, $2 its name, and $3 a mount that it needs.
// Others it does not keep: a mount ends only when it is gone from all namespaces.
const daemon = `set -e
hostname "$2"
while read -r _ at type _; do
	case $type:$at in
	fuse*:"$3") ;;
	fuse.*) umount -l "$at" ;;
	esac
done </proc/self/mounts
for part in /etc /var/lib /run /var/log /var/cache; do
	mkdir -p "$1/own$part" "$part/libvirt"
	mount --bind "$1/own$part" "$part/libvirt"
done
echo "127.0.0.1 localhost $2" >"$1/hosts"
mount --bind "$1/hosts" /etc/hosts
exec libvirtd -f "$1/libvirtd.conf" -p "$1/pid"`

func (s *system) libvirt(name string) *libvirt {
	s.t.Helper()
	l := &libvirt{s, name, filepath.Join(s.temp, name)}
	for file, text := range map[string]string{
		"libvirtd.conf": fmt.Sprintf("unix_sock_dir = %q\nauth_unix_rw = \"none\"\nhost_uuid = %q\n", l.dir, uuid.New()),
		// QEMU runs as Debian has it; no control groups and no namespaces, which a
		// machine without systemd may not have.
		"own/etc/qemu.conf": "user = \"libvirt-qemu\"\ngroup = \"libvirt-qemu\"\nsecurity_driver = \"none\"\n" +
			"cgroup_controllers = []\nnamespaces = []\nstdio_handler = \"file\"\n",
	} {
		must(s.t, os.MkdirAll(filepath.Dir(filepath.Join(l.dir, file)), 0o755))
		must(s.t, os.WriteFile(filepath.Join(l.dir, file), []byte(text), 0o644))
	}
	// What libvirtd finds out about QEMU takes it a minute, and is kept.
	cache := filepath.Join(guest.Prepared(), "libvirt-cache")
	must(s.t, errors.Join(os.MkdirAll(cache, 0o755), os.MkdirAll(filepath.Join(l.dir, "own/var"), 0o755)))
	must(s.t, os.Symlink(cache, filepath.Join(l.dir, "own/var/cache")))
	out, err := os.Create(filepath.Join(l.dir, "log"))
	must(s.t, err)
	defer out.Close()
	cmd := exec.Command("unshare", "--mount", "--uts", "--propagation", "slave", "sh", "-c", daemon, "sh", l.dir, name, s.mount)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	must(s.t, cmd.Start())
	s.t.Cleanup(func() {
		if domains, err := l.run("list", "--name"); err == nil { // QEMU stays when libvirtd ends
			for _, d := range strings.Fields(domains) {
				l.virsh("destroy", d)
			}
		}
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
		if s.t.Failed() {
			text, _ := os.ReadFile(out.Name())
			s.t.Logf("%s:\n%s", name, text)
		}
	})
	s.until("libvirtd answers", func() bool { _, err := l.run("version"); return err == nil })
	return l
}

func (l *libvirt) uri() string { return "qemu+unix:///system?socket=" + l.dir + "/libvirt-sock" }

func (l *libvirt) run(args ...string) (string, error) {
	out, err := exec.Command("virsh", append([]string{"-c", l.uri()}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("virsh %q: %w\n%s", args, err, out)
	}
	return string(out), err
}

func (l *libvirt) virsh(args ...string) string {
	l.s.t.Helper()
	out, err := l.run(args...)
	if err != nil {
		l.s.t.Fatal(err)
	}
	return out
}

// example returns the XML of docs/vms.md that has a text in it.
func example(t *testing.T, has string, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/vms.md")
	must(t, err)
	for i, part := range strings.Split(string(text), "```") {
		if body, ok := strings.CutPrefix(part, "xml\n"); ok && i%2 == 1 && strings.Contains(body, has) {
			return strings.NewReplacer(replace...).Replace(body)
		}
	}
	t.Fatalf("docs/vms.md has no XML with %q", has)
	return ""
}

// domain is a VM that runs the step load.
type domain struct {
	name, console, xml string
}

// define defines a VM with a disk, or with more of the domain behind its devices.
func (l *libvirt) define(name, disk, more string) *domain {
	s := l.s
	s.t.Helper()
	d := &domain{name: name, console: filepath.Join(s.temp, name+".console"), xml: filepath.Join(s.temp, name+".xml")}
	// QEMU's user cannot read what is in root's home.
	for _, file := range []string{"vmlinuz", "initrd.gz"} {
		content, err := os.ReadFile(filepath.Join(guest.Prepared(), file))
		must(s.t, err)
		must(s.t, os.WriteFile(filepath.Join(s.temp, file), content, 0o644))
	}
	must(s.t, os.WriteFile(d.xml, fmt.Appendf(nil, `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>%s</name>
  <memory unit='MiB'>384</memory>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>%[2]s/vmlinuz</kernel>
    <initrd>%[2]s/initrd.gz</initrd>
    <cmdline>console=ttyS0 quiet mitigations=off panic=-1 step=load</cmdline>
  </os>
  <cpu mode='custom'><model>qemu64</model></cpu>
  <devices>
    %s
    <controller type='usb' model='none'/>
    <serial type='file'><source path='%s'/></serial>
    <memballoon model='none'/>
  </devices>
  %s
</domain>`, name, s.temp, disk, d.console, more), 0o644))
	l.virsh("define", "--validate", d.xml)
	return d
}

// synced returns what a VM has said is on its disk.
func (d *domain) synced(consoles ...string) map[string]string {
	var all []byte
	for _, name := range append([]string{d.console}, consoles...) {
		text, _ := os.ReadFile(name)
		all = append(all, text...)
	}
	return said(string(all), "synced")
}

// awaitSynced waits until a VM has synced n more files.
func (d *domain) awaitSynced(s *system, n int, consoles ...string) {
	s.t.Helper()
	n += len(d.synced(consoles...))
	s.until("a VM has synced files", func() bool { return len(d.synced(consoles...)) >= n })
}

// noErrors checks that a VM has seen no error of its disk.
func (d *domain) noErrors(t *testing.T, consoles ...string) {
	t.Helper()
	for _, name := range append([]string{d.console}, consoles...) {
		text, err := os.ReadFile(name)
		must(t, err)
		if strings.Contains(string(text), "STEP error") {
			t.Errorf("the VM saw an error:\n%s", text)
		}
	}
}

// setUp starts ovs for QEMUs of another user, and returns what to put into the
// XML of docs/vms.md for a vDisk.
func setUp(t *testing.T) (s *system, words func(vdisk string) []string) {
	s = up(t, "--allow-other")
	must(t, os.Chmod(s.temp, 0o755))
	_, port, err := net.SplitHostPort(s.tcp)
	must(t, err)
	return s, func(vdisk string) []string {
		return []string{"NAME", vdisk, "MNT", s.mount, "10809", port, "/run/ovs/nbd.sock", s.Socket, "disk0", "disk"}
	}
}

// owner returns the owner and mode of a vDisk's file.
func (s *system) owner(vdisk string) string {
	s.t.Helper()
	var st unix.Stat_t
	must(s.t, unix.Stat(filepath.Join(s.mount, vdisk+".raw"), &st))
	return fmt.Sprintf("%d:%d %o", st.Uid, st.Gid, st.Mode&0o7777)
}

// qemuUser returns owner's words for QEMU's user with a mode.
func qemuUser(t *testing.T, mode string) string {
	t.Helper()
	u, err := user.Lookup("libvirt-qemu")
	must(t, err)
	g, err := user.LookupGroup("libvirt-qemu")
	must(t, err)
	return u.Uid + ":" + g.Gid + " " + mode
}

// blockSize asks libvirt for the size of a VM's disk.
func (l *libvirt) blockSize(name string) int {
	l.s.t.Helper()
	for line := range strings.Lines(l.virsh("domblkinfo", name, "vda")) {
		if value, ok := strings.CutPrefix(line, "Capacity:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			must(l.s.t, err)
			return n
		}
	}
	l.s.t.Fatal("domblkinfo says no capacity")
	return 0
}

// TestLibvirt: VMs of libvirt with each of the disks that docs/vms.md shows.
func TestLibvirt(t *testing.T) {
	s, words := setUp(t)
	l := s.libvirt("host-a")
	// QEMU's user may use the socket.
	must(t, exec.Command("chown", "libvirt-qemu", s.Socket).Run())
	must(t, os.Chmod(s.Data, 0o711))
	for _, kind := range []struct{ name, has string }{
		{"tcp", "<host name="}, {"unix", "transport='unix'"}, {"file", "type='file'"},
	} {
		s.ovs("vdisk", "create", kind.name, "--size", "256MiB")
		raw := filepath.Join(s.mount, kind.name+".raw")
		must(t, errors.Join(os.Chown(raw, 1000, 1001), os.Chmod(raw, 0o640)))
		d := l.define(kind.name, example(t, kind.has, words(kind.name)...), "")
		l.virsh("start", d.name)
		d.awaitSynced(s, 10)
		if n := l.blockSize(d.name); n != 256<<20 {
			t.Errorf("%s: libvirt says that the disk has %d bytes", d.name, n)
		}
		if kind.name == "file" {
			if has := s.owner(d.name); has != qemuUser(t, "640") {
				t.Errorf("the file of a VM that runs is of %s", has)
			}
			s.ovs("vdisk", "resize", d.name, "--size", "320MiB")
			l.virsh("blockresize", d.name, "vda", "320M")
			if n := l.blockSize(d.name); n != 320<<20 {
				t.Errorf("after blockresize libvirt says that the disk has %d bytes", n)
			}
		}
		d.awaitSynced(s, 5)
		l.virsh("destroy", d.name)
		l.virsh("undefine", d.name)
		if has := s.owner(d.name); has != "1000:1001 640" {
			t.Errorf("%s: the file comes back with %s", d.name, has)
		}
		d.noErrors(t)
		s.recover(s.block("nbd", d.name), d.synced())
	}
}

// TestLibvirtReconnect: a libvirt that knows no reconnect, with the disk that
// docs/vms.md passes to QEMU directly. The VM waits while ovs is killed and started
// again.
func TestLibvirtReconnect(t *testing.T) {
	s, words := setUp(t)
	l := s.libvirt("host-a")
	s.ovs("vdisk", "create", "disk", "--size", "256MiB")
	_, more, _ := strings.Cut(example(t, "<qemu:commandline>", words("disk")...), "<qemu:commandline>")
	d := l.define("waits", "", "<qemu:commandline>"+strings.Replace(more, "</domain>", "", 1))
	l.virsh("start", d.name)
	d.awaitSynced(s, 10)
	s.Kill()
	s.start()
	d.awaitSynced(s, 10)
	l.virsh("destroy", d.name)
	d.noErrors(t)
	s.recover(s.block("nbd", "disk"), d.synced())
}

// TestLibvirtMigrate: virsh migrate between two libvirtds, over both doors. libvirt
// does not know that a file of the mount is shared, and calls the migration unsafe.
func TestLibvirtMigrate(t *testing.T) {
	s, words := setUp(t)
	a, b := s.libvirt("host-a"), s.libvirt("host-b")
	for _, kind := range []struct {
		name, has string
		flags     []string
	}{
		{"tcp", "<host name=", nil},
		{"file", "type='file'", []string{"--unsafe"}},
	} {
		s.ovs("vdisk", "create", kind.name, "--size", "256MiB")
		d := a.define(kind.name, example(t, kind.has, words(kind.name)...), "")
		a.virsh("start", d.name)
		d.awaitSynced(s, 10)
		there := d.console + "-there"
		xml := strings.Replace(a.virsh("dumpxml", "--migratable", d.name), d.console, there, 2)
		must(t, os.WriteFile(d.xml, []byte(xml), 0o644))
		args := append([]string{"migrate", "--live", d.name, b.uri(), "--migrateuri", "tcp://127.0.0.1", "--xml", d.xml}, kind.flags...)
		if kind.flags != nil {
			if _, err := a.run(args[:len(args)-len(kind.flags)]...); err == nil || !strings.Contains(err.Error(), "Unsafe migration") {
				t.Errorf("%s: migration without %v: %v", d.name, kind.flags, err)
			}
		}
		a.virsh(args...)
		d.awaitSynced(s, 10, there)
		b.virsh("destroy", d.name)
		a.virsh("undefine", d.name)
		d.noErrors(t, there)
		s.recover(s.block("nbd", d.name), d.synced(there))
	}
}
