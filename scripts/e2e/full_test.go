package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// small is a file system of a size, and with so many inodes, that others fill.
type small struct {
	t     *testing.T
	Dir   string
	files int
}

// newSmall mounts one, or skips the test where that may not be done.
func newSmall(t *testing.T, options string) *small {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	d := &small{t: t, Dir: t.TempDir()}
	if err := syscall.Mount("tmpfs", d.Dir, "tmpfs", 0, options); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(d.Dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	must(t, os.Mkdir(filepath.Join(d.Dir, "others"), 0o700))
	return d
}

// bytes takes all the room that there is.
func (d *small) bytes() {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.Dir, "others", "bytes"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if errors.Is(err, syscall.ENOSPC) {
		return
	}
	must(d.t, err)
	defer f.Close()
	for _, n := range []int{mib, 4096} {
		p := make([]byte, n)
		for err = nil; err == nil; {
			_, err = f.Write(p)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			d.t.Fatal(err)
		}
	}
}

// inodes takes all the inodes that there are.
func (d *small) inodes() {
	d.t.Helper()
	for {
		d.files++
		f, err := os.Create(filepath.Join(d.Dir, "others", fmt.Sprint(d.files)))
		if errors.Is(err, syscall.ENOSPC) {
			return
		}
		must(d.t, err)
		must(d.t, f.Close())
	}
}

// TestFullDirectory: the file system of the data directory runs full, in bytes and in
// inodes, while the disks of the backend have room. Nothing fails: writes wait, a stop
// ends, a start gets ready and serves reads, and when there is room everything goes on.
func TestFullDirectory(t *testing.T) {
	for _, c := range []struct {
		name, options, more string
		fill                func(*small)
	}{
		{"bytes", "size=192m", "size=1g", (*small).bytes},
		{"inodes", "size=1g,nr_inodes=400", "size=1g,nr_inodes=100000", (*small).inodes},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newSmall(t, c.options)
			disks := t.TempDir() // of another file system
			flags := []string{"--write-buffer", "64MiB"}
			for i := range 3 {
				flags = append(flags, "--asd", filepath.Join(disks, fmt.Sprint(i)))
			}
			s := upAt(t, filepath.Join(d.Dir, "data"), flags...)
			s.create("disk", 128*mib)
			st := newStamping(t, s.Socket, "disk", 128*mib)
			stats := st.run(func() {
				for range 20 { // over and over: others take what is given up
					<-time.After(100 * time.Millisecond)
					c.fill(d)
				}
			})
			t.Logf("%d of %d writes were acknowledged meanwhile", stats.Acked, stats.Writes)
			if i := s.info("disk"); i.State != "running" {
				t.Fatalf("%+v", i)
			}
			st.verify(false)
			if err := s.Stop(stopMax); err != nil {
				t.Logf("the stop on a full disk: %v", err)
			}
			c.fill(d)
			s.start()
			st.verify(false)
			s.Kill()
			s.start()
			st.verify(false)
			must(t, syscall.Mount("tmpfs", d.Dir, "tmpfs", syscall.MS_REMOUNT, c.more))
			eventually(t, 20*time.Second, "writes go on", func() bool {
				return st.run(func() { <-time.After(500 * time.Millisecond) }).Acked > 0
			})
			s.Kill()
			s.start()
			st.verify(true)
		})
	}
}
