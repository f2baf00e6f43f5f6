package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs/transport/ringtest"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
)

// mounted starts ovs with a mount, and returns where it is.
func mounted(t *testing.T, flags ...string) (*system, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	}
	dir := t.TempDir()
	t.Cleanup(func() {
		// After a failure nothing may stay that keeps the directory busy.
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	})
	return up(t, append(flags, "--mount", dir)...), dir
}

// doors is a vDisk through both of its doors, and what it should hold.
type doors struct {
	t     *testing.T
	file  *os.File
	nbd   *nbdclient.Client
	model []byte
}

// step makes one random operation through a random door.
func (d *doors) step(r *rand.Rand, i int) {
	off := r.IntN(len(d.model))
	n := 1 + r.IntN(min(len(d.model)-off, 1+r.IntN(256<<10)))
	if r.IntN(2) == 0 { // as a guest would
		off, n = off&^4095, (n+4095)&^4095
		n = min(n, len(d.model)-off)
	}
	fuse := r.IntN(2) == 0
	what := fmt.Sprintf("operation %d: %s of %d bytes at %d", i, map[bool]string{true: "FUSE", false: "NBD"}[fuse], n, off)
	var err error
	switch op := r.IntN(20); {
	case op < 8:
		p := make([]byte, n)
		for k := range p {
			p[k] = byte(i + k*7)
		}
		if fuse {
			_, err = d.file.WriteAt(p, int64(off))
		} else {
			_, err = d.nbd.WriteAt(p, int64(off))
		}
		copy(d.model[off:], p)
	case op < 10:
		if fuse {
			err = unix.Fallocate(int(d.file.Fd()), unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, int64(off), int64(n))
		} else {
			err = d.nbd.Trim(int64(off), int64(n))
		}
		clear(d.model[off : off+n])
	case op < 11:
		if fuse {
			err = unix.Fallocate(int(d.file.Fd()), unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_ZERO_RANGE, int64(off), int64(n))
		} else {
			err = d.nbd.Zero(int64(off), int64(n), nbd.FlagNoHole)
		}
		clear(d.model[off : off+n])
	case op < 12:
		if fuse {
			err = d.file.Sync()
		} else {
			err = d.nbd.Flush()
		}
	case op < 13:
		d.seek(what, off)
	default:
		p := make([]byte, n)
		if fuse {
			_, err = d.file.ReadAt(p, int64(off))
		} else {
			_, err = d.nbd.ReadAt(p, int64(off))
		}
		if err == nil && !bytes.Equal(p, d.model[off:off+n]) {
			d.t.Fatalf("%s: the bytes read differ", what)
		}
	}
	if err != nil {
		d.t.Fatalf("%s: %v", what, err)
	}
}

// seek finds data: what is before it must be zeros.
func (d *doors) seek(what string, off int) {
	to, err := unix.Seek(int(d.file.Fd()), int64(off), unix.SEEK_DATA)
	if err == syscall.ENXIO {
		to, err = int64(len(d.model)), nil
	}
	if err != nil || to < int64(off) || len(bytes.Trim(d.model[off:to], "\x00")) > 0 {
		d.t.Fatalf("%s: SEEK_DATA gives %d, %v", what, to, err)
	}
}

// TestTwoDoors: what is written, punched or zeroed through one door is there
// through the other as soon as the call has returned.
func TestTwoDoors(t *testing.T) {
	operations := 100_000
	if testing.Short() {
		operations = 5000
	}
	if s := os.Getenv("OVS_OPERATIONS"); s != "" {
		var err error
		operations, err = strconv.Atoi(s)
		must(t, err)
	}
	t.Run("device", func(t *testing.T) { twoDoors(t, operations, "--fuse", "device") })
	t.Run("ring", func(t *testing.T) {
		ringtest.Set(t, true)
		twoDoors(t, operations, "--fuse", "ring")
	})
}

func twoDoors(t *testing.T, operations int, flags ...string) {
	s, dir := mounted(t, append(flags, "--write-buffer", "256MiB")...)
	const size = 32*mib + 4096
	s.create("vm/disk", size)
	f, err := os.OpenFile(filepath.Join(dir, "vm", "disk.raw"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	c, err := nbdclient.Dial(t.Context(), "unix", s.Socket, nbdclient.Options{Export: "vm/disk"})
	must(t, err)
	defer c.Close()
	seed := rand.Uint64()
	t.Logf("seed %d, %d operations", seed, operations)
	r := rand.New(rand.NewPCG(seed, 1))
	d := &doors{t, f, c, make([]byte, size)}
	for i := range operations {
		d.step(r, i)
	}
	whole := make([]byte, size)
	_, err = f.ReadAt(whole, 0)
	must(t, err)
	if !bytes.Equal(whole, d.model) {
		t.Fatal("at the end the file differs from the model")
	}
}

// needLoops skips the test where there are no loop devices.
func needLoops(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no loop devices here: ", err)
	}
	f.Close()
}

// loopDevice makes a loop device over a file, for the time of the test.
func loopDevice(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command("losetup", "--find", "--show", "--direct-io=on", file).CombinedOutput()
	if err != nil {
		t.Skipf("no loop devices here: %s", out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", dev).Run() })
	return dev
}

// fileSystems are made, used and checked on a loop device over a vDisk's file.
var fileSystems = []struct{ name, mkfs, fsck string }{
	{"ext4", "mkfs.ext4 -q -F", "e2fsck -fn"},
	{"xfs", "mkfs.xfs -q -f", "xfs_repair -n"},
	{"btrfs", "mkfs.btrfs -q -f", "btrfs check"},
}

// TestFileSystems: a vDisk's file carries file systems over a loop device, and the room
// that fstrim gives back is freed.
func TestFileSystems(t *testing.T) {
	need(t, "losetup", "tar", "fstrim")
	s, dir := mounted(t)
	for _, f := range fileSystems {
		t.Run(f.name, func(t *testing.T) {
			mkfs, fsck := strings.Fields(f.mkfs), strings.Fields(f.fsck)
			need(t, mkfs[0], fsck[0])
			s.create(f.name, gib)
			dev := loopDevice(t, filepath.Join(dir, f.name+".raw"))
			sh(t, append(mkfs, dev)...)
			at := t.TempDir()
			mount := func() { sh(t, "mount", "-t", f.name, dev, at) }
			mount()
			t.Cleanup(func() { _ = unix.Unmount(at, 0) })
			// This repository is what is packed and unpacked.
			tree := filepath.Join(at, "tree")
			must(t, os.Mkdir(tree, 0o755))
			sh(t, "sh", "-c", "tar -C ../.. --exclude=.git -cf - cmd nbd volumedriver alba | tar -C "+tree+" -xf -")
			sh(t, "sh", "-c", "head -c 200M /dev/urandom > "+filepath.Join(at, "large"))
			sum := sh(t, "sh", "-c", "cd "+at+" && find . -type f | sort | xargs sha256sum | sha256sum")
			sh(t, "umount", at)
			sh(t, append(fsck, dev)...)
			mount()
			if again := sh(t, "sh", "-c", "cd "+at+" && find . -type f | sort | xargs sha256sum | sha256sum"); again != sum {
				t.Error("the files differ after they were mounted again")
			}
			must(t, os.Remove(filepath.Join(at, "large")))
			// xfs frees a removed file behind its back, a sync does not wait
			// for it; an unmount does.
			sh(t, "umount", at)
			mount()
			sh(t, "fstrim", at)
			sh(t, "umount", at)
			sh(t, append(fsck, dev)...)
			var st unix.Stat_t
			must(t, unix.Stat(filepath.Join(dir, f.name+".raw"), &st))
			file, err := os.Open(filepath.Join(dir, f.name+".raw"))
			must(t, err)
			defer file.Close()
			if n := dataBytes(t, file); n > 150*mib {
				t.Errorf("%d MiB are allocated after fstrim", n/mib)
			}
		})
	}
}

// dataBytes is how much of a file is not holes.
func dataBytes(t *testing.T, f *os.File) (n int64) {
	t.Helper()
	for at := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err == syscall.ENXIO {
			return n
		}
		must(t, err)
		at, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		must(t, err)
		n += at - data
	}
}

// TestCopiesAreClones: cp within the mount costs nothing, whatever the size.
func TestCopiesAreClones(t *testing.T) {
	need(t, "cp", "cmp")
	s, dir := mounted(t)
	s.create("golden", 64*gib)
	at := func(name string) string { return filepath.Join(dir, name) }
	f, err := os.OpenFile(at("golden.raw"), os.O_RDWR, 0)
	must(t, err)
	for i := range int64(64) {
		_, err = f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, mib), i*gib)
		must(t, err)
	}
	must(t, f.Close())
	sh(t, "cp", "--reflink=auto", at("golden.raw"), at("copy.raw"))
	if i := s.info("copy"); i.Size != 64*gib || i.Stored > mib {
		t.Errorf("the copy: %+v", i)
	}
	f, err = os.Open(at("copy.raw"))
	must(t, err)
	defer f.Close()
	for i := range int64(64) {
		b := make([]byte, mib+1)
		_, err = f.ReadAt(b, i*gib)
		must(t, err)
		if !bytes.Equal(b[:mib], bytes.Repeat([]byte{byte(i + 1)}, mib)) || b[mib] != 0 {
			t.Errorf("MiB %d of the copy differs", i)
		}
	}
}

// TestDeadMount: the next process takes over a mount that a killed process left, and
// files that were durable are there.
func TestDeadMount(t *testing.T) {
	s, dir := mounted(t)
	for i := range 5 {
		name := filepath.Join(dir, fmt.Sprintf("vm%d.xml", i))
		must(t, os.WriteFile(name, []byte(name), 0o600))
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("vm%d.raw", i)))
		must(t, err)
		_, err = f.Write(bytes.Repeat([]byte{byte(i)}, mib))
		must(t, err)
		must(t, f.Sync())
		s.Kill()
		if _, err := os.Stat(name); err == nil {
			t.Error("a file of a killed process is there")
		}
		f.Close()
		s.start()
		for j := range i + 1 {
			name := filepath.Join(dir, fmt.Sprintf("vm%d.xml", j))
			got, err := os.ReadFile(name)
			if err != nil || string(got) != name {
				t.Errorf("round %d: %s: %q, %v", i, name, got, err)
			}
			data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("vm%d.raw", j)))
			if err != nil || !bytes.Equal(data, bytes.Repeat([]byte{byte(j)}, mib)) {
				t.Errorf("round %d: vDisk %d differs: %v", i, j, err)
			}
		}
	}
}

// TestAttach: a vDisk that is attached is a block device until it is detached, over
// restarts too.
func TestAttach(t *testing.T) {
	need(t, "mkfs.ext4", "e2fsck", "losetup")
	needLoops(t)
	s, _ := mounted(t)
	s.create("vm/disk", 64*mib)
	dev := strings.TrimSpace(s.ovs("vdisk", "attach", "vm/disk"))
	if again := strings.TrimSpace(s.ovs("vdisk", "attach", "vm/disk")); again != dev {
		t.Errorf("attached again as %s, it was %s", again, dev)
	}
	sh(t, "mkfs.ext4", "-q", dev)
	if _, err := s.Run("vdisk", "delete", "vm/disk"); err == nil {
		t.Error("a vDisk that is attached was deleted")
	}
	must(t, s.Stop(stopMax))
	if out, _ := exec.Command("losetup", dev).Output(); strings.Contains(string(out), "disk.raw") {
		t.Errorf("after a clean stop: %s", out)
	}
	s.start()
	s.ovs("vdisk", "rename", "vm/disk", "other")
	must(t, s.Stop(stopMax))
	s.start()
	link := filepath.Join(s.Data, "dev", "other")
	dev, err := os.Readlink(link)
	must(t, err)
	if _, err := os.Lstat(filepath.Join(s.Data, "dev", "vm")); err == nil {
		t.Error("the link of the old name is there")
	}
	sh(t, "e2fsck", "-fn", dev)
	if list := s.ovs("vdisk", "attached"); !strings.Contains(list, dev) || !strings.Contains(list, link) {
		t.Error(list)
	}
	s.ovs("vdisk", "detach", "other")
	if _, err := s.Run("vdisk", "detach", "other"); err == nil {
		t.Error("detached twice")
	}
	if _, err := s.Run("vdisk", "attach", "none"); err == nil {
		t.Error("a vDisk that is not there was attached")
	}
	must(t, s.Stop(stopMax))
	s.start()
	if list := s.ovs("vdisk", "attached"); strings.Contains(list, "/dev/loop") {
		t.Error(list)
	}
}

// TestAttachMoved: an attached vDisk moves with its directory. A stop lets go of it,
// and the next start attaches it again under its new name.
func TestAttachMoved(t *testing.T) {
	need(t, "losetup")
	needLoops(t)
	s, dir := mounted(t)
	s.create("vm/disk", 64*mib)
	dev := strings.TrimSpace(s.ovs("vdisk", "attach", "vm/disk"))
	must(t, os.Rename(filepath.Join(dir, "vm"), filepath.Join(dir, "moved")))
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte("d"), 4096), mib)
	must(t, errors.Join(err, f.Sync(), f.Close()))
	got := make([]byte, 4096)
	file, err := os.Open(filepath.Join(dir, "moved", "disk.raw"))
	must(t, err)
	if _, err := file.ReadAt(got, mib); err != nil || got[0] != 'd' {
		t.Errorf("what was written to the device: %q, %v", got[0], err)
	}
	must(t, file.Close())
	must(t, s.Stop(stopMax))
	if out, _ := exec.Command("losetup", dev).Output(); strings.Contains(string(out), "disk.raw") {
		t.Errorf("after a clean stop: %s", out)
	}
	s.start()
	if _, err := os.Readlink(filepath.Join(s.Data, "dev", "moved%2Fdisk")); err != nil {
		t.Error(err)
	}
	s.ovs("vdisk", "detach", "moved/disk")
}

// TestKillUnderFileSystem: the process is killed under ext4 on a block device of a
// vDisk. Each time the mount comes back by itself and the device is attached again.
// After the journal, e2fsck finds only what a power cut would explain, and files that
// were synced have their bytes.
func TestKillUnderFileSystem(t *testing.T) {
	need(t, "mkfs.ext4", "e2fsck", "losetup")
	needLoops(t)
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	if n := os.Getenv("OVS_KILLS"); n != "" {
		var err error
		rounds, err = strconv.Atoi(n)
		must(t, err)
	}
	s, _ := mounted(t, "--write-buffer", "256MiB")
	s.create("disk", 512*mib)
	link := filepath.Join(s.Data, "dev", "disk")
	sh(t, "mkfs.ext4", "-q", strings.TrimSpace(s.ovs("vdisk", "attach", "disk")))
	at := t.TempDir()
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	synced := map[string][]byte{}
	for round := range rounds {
		sh(t, "mount", link, at)
		for name, want := range synced {
			if got, err := os.ReadFile(filepath.Join(at, name)); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("round %d: file %s was synced and differs: %v", round, name, err)
			}
		}
		killUnder(t, s, at, round, synced)
		must(t, unix.Unmount(at, unix.MNT_DETACH))
		s.start()
		sh(t, "mount", link, at) // replays the journal
		sh(t, "umount", at)
		sh(t, "e2fsck", "-fn", link)
	}
	t.Logf("%d rounds, %d files synced", rounds, len(synced))
	s.ovs("vdisk", "detach", "disk")
}

// killUnder writes files until the server is killed, and notes those that were
// synced.
func killUnder(t *testing.T, s *system, at string, round int, synced map[string][]byte) {
	r := rand.New(rand.NewPCG(uint64(round), 9))
	kill := 2 + r.IntN(60)
	for i := 0; ; i++ {
		name := fmt.Sprintf("f%d", r.IntN(40))
		data := bytes.Repeat([]byte{byte(round), byte(i)}, 1+r.IntN(100<<10))
		if i == kill {
			go s.Kill()
		}
		delete(synced, name)
		f, err := os.Create(filepath.Join(at, name))
		if err == nil {
			_, err = f.Write(data)
			if err == nil && r.IntN(2) == 0 {
				if err = f.Sync(); err == nil {
					synced[name] = data
				}
			}
			err = errors.Join(err, f.Close())
		}
		if err != nil || i > kill+1000 {
			<-s.Done()
			return
		}
	}
}
