package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// volumeSize is that of a member's file system.
const volumeSize = 512 << 20

// volume is a member's file system: ext4 on a loop device over a file. The file is exported
// by a process of QEMU, so that the disk can be made to hang and to be slow.
type volume struct {
	dir    string // where it is mounted
	raw    string
	daemon *exec.Cmd
	qmp    string
}

// newVolume mounts one below a directory. Its errors say why that cannot be done here.
func newVolume(dir string) (v *volume, err error) {
	v = &volume{dir: filepath.Join(dir, "mnt"), raw: filepath.Join(dir, "raw"), qmp: filepath.Join(dir, "qmp")}
	export := filepath.Join(dir, "export")
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return nil, err
	}
	for _, name := range []string{v.raw, export} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			return nil, err
		}
	}
	if err := os.Truncate(v.raw, volumeSize); err != nil {
		return nil, err
	}
	v.daemon = exec.Command("qemu-storage-daemon",
		"--chardev", "socket,path="+v.qmp+",server=on,wait=off,id=c", "--monitor", "chardev=c",
		"--object", "throttle-group,id=pace",
		"--blockdev", "file,filename="+v.raw+",node-name=file",
		"--blockdev", "throttle,throttle-group=pace,file=file,node-name=disk",
		"--export", "fuse,id=e,node-name=disk,mountpoint="+export+",writable=on")
	if err := v.daemon.Start(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			v.close()
		}
	}()
	for tries := 0; ; tries++ {
		if info, err := os.Stat(export); err == nil && info.Size() == volumeSize {
			break
		}
		if tries > 1000 {
			return nil, errors.New("qemu-storage-daemon did not export the disk within 10 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := run("mkfs.ext4", "-q", "-F", "-m", "0", export); err != nil {
		return nil, err
	}
	return v, run("mount", "-o", "loop", export, v.dir)
}

func (v *volume) data() string    { return filepath.Join(v.dir, "data") }
func (v *volume) ballast() string { return filepath.Join(v.dir, "ballast") }

// hang has no call on the disk come back until heal.
func (v *volume) hang() (heal func() error, err error) {
	return func() error { return v.daemon.Process.Signal(syscall.SIGCONT) }, v.daemon.Process.Signal(syscall.SIGSTOP)
}

// slow lets so many bytes a second through until heal.
func (v *volume) slow(bytes int) (heal func() error, err error) {
	return func() error { return v.pace(0) }, v.pace(bytes)
}

func (v *volume) pace(bytes int) error {
	c, err := net.Dial("unix", v.qmp)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	replies := json.NewDecoder(c)
	var reply map[string]any
	if err := replies.Decode(&reply); err != nil {
		return err
	}
	for _, command := range []string{
		`{"execute":"qmp_capabilities"}`,
		fmt.Sprintf(`{"execute":"qom-set","arguments":{"path":"/objects/pace","property":"limits","value":{"bps-total":%d}}}`, bytes),
	} {
		if _, err := c.Write([]byte(command)); err != nil {
			return err
		}
		clear(reply)
		if err := replies.Decode(&reply); err != nil {
			return err
		}
		if reply["error"] != nil {
			return fmt.Errorf("%s: %v", command, reply)
		}
	}
	return nil
}

// fill leaves no room until heal.
func (v *volume) fill() (heal func() error, err error) {
	heal = func() error {
		if err := os.Remove(v.ballast()); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	var s unix.Statfs_t
	if err := unix.Statfs(v.dir, &s); err != nil {
		return heal, err
	}
	f, err := os.Create(v.ballast())
	if err != nil {
		return heal, err
	}
	defer f.Close()
	// What is free may change meanwhile: the last blocks are written until there are none.
	for size := int64(s.Bavail) * s.Bsize; size >= s.Bsize; size /= 2 {
		for at := int64(0); ; {
			info, err := f.Stat()
			if err != nil {
				return heal, err
			}
			if at = info.Size(); unix.Fallocate(int(f.Fd()), 0, at, size) != nil {
				break
			}
		}
	}
	return heal, nil
}

func (v *volume) close() {
	_ = v.daemon.Process.Signal(syscall.SIGCONT)
	for range 200 {
		if run("umount", v.dir) == nil {
			break
		}
		if run("mountpoint", "-q", v.dir) != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = v.daemon.Process.Signal(syscall.SIGTERM)
	_ = v.daemon.Wait()
}
