package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
)

// modified is the time of modification of a file of the mount.
func modified(t *testing.T, name string) time.Time {
	t.Helper()
	i, err := os.Stat(name)
	must(t, err)
	return i.ModTime()
}

// TestTimesOfNBD: what NBD clients and commands change shows in the times of files,
// over a stop and over a kill. After the kill, rsync copies what was written and no
// more.
func TestTimesOfNBD(t *testing.T) {
	need(t, "rsync")
	s, dir := mounted(t)
	for _, name := range []string{"a", "idle"} {
		s.create(name, gib)
	}
	out := t.TempDir()
	rsync := func() string { return sh(t, "rsync", "-a", "-i", "--sparse", "--exclude=.snapshots", dir+"/", out+"/") }
	name := filepath.Join(dir, "a.raw")
	rsync()
	for _, c := range []struct {
		what  string
		do    func(c *nbdclient.Client) error
		moves bool
	}{
		{"write", func(c *nbdclient.Client) error { _, err := c.WriteAt([]byte("over NBD"), 4096); return err }, true},
		{"trim", func(c *nbdclient.Client) error { return c.Trim(0, mib) }, true},
		{"zeroes", func(c *nbdclient.Client) error { return c.Zero(0, mib, nbd.FlagNoHole) }, true},
		{"flush", func(c *nbdclient.Client) error { return c.Flush() }, false},
		{"snapshot", func(*nbdclient.Client) error { s.ovs("vdisk", "snapshot", "create", "a", "s"); return nil }, false},
		{"write after it", func(c *nbdclient.Client) error { _, err := c.WriteAt([]byte("again"), 8192); return err }, true},
	} {
		before := modified(t, name)
		client, err := nbdclient.Dial(t.Context(), "unix", s.Socket, nbdclient.Options{Export: "a"})
		must(t, err)
		now := time.Now()
		must(t, c.do(client))
		client.Close()
		after := modified(t, name)
		if c.moves && (after.Before(now) || after.After(time.Now())) || !c.moves && !after.Equal(before) {
			t.Errorf("%s: modified %v, then %v", c.what, before, after)
		}
	}
	if said := rsync(); !strings.Contains(said, "a.raw") || strings.Contains(said, "idle.raw") {
		t.Errorf("rsync copies %q", said)
	}
	sh(t, "cmp", name, filepath.Join(out, "a.raw"))

	before := modified(t, name)
	must(t, s.Stop(stopMax))
	s.start()
	if got := modified(t, name); !got.Equal(before) {
		t.Errorf("stopped and started: modified %v, then %v", before, got)
	}
	client, err := nbdclient.Dial(t.Context(), "unix", s.Socket, nbdclient.Options{Export: "a"})
	must(t, err)
	_, err = client.WriteAt([]byte("before the kill"), 12288)
	must(t, err)
	written := time.Now()
	s.Kill()
	client.Close()
	s.start()
	if got := modified(t, name); got.Before(written) {
		t.Errorf("written at %v and killed: modified %v", written, got)
	}
	if said := rsync(); !strings.Contains(said, "a.raw") || strings.Contains(said, "idle.raw") {
		t.Errorf("after a kill rsync copies %q", said)
	}
	sh(t, "cmp", name, filepath.Join(out, "a.raw"))
	before = modified(t, name)
	s.Kill()
	s.start()
	if got := modified(t, name); !got.Equal(before) {
		t.Errorf("killed again, and nothing was written: modified %v, then %v", before, got)
	}
	var st unix.Stat_t
	must(t, unix.Stat(name, &st))
	if st.Blocks*512 > 2*mib {
		t.Errorf("a few clusters are written, and %d bytes allocated", st.Blocks*512)
	}
}

// TestUnmountedByOthers: if somebody else unmounts the mount, the process ends at once,
// and says so once.
func TestUnmountedByOthers(t *testing.T) {
	s, dir := mounted(t)
	s.create("a", gib)
	f, err := os.OpenFile(filepath.Join(dir, "a.raw"), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("x"), 0)
	must(t, err)
	must(t, f.Close())
	began := time.Now()
	must(t, unix.Unmount(dir, 0))
	select {
	case <-s.Done():
	case <-time.After(stopMax):
		t.Fatal("it goes on")
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
	said := s.Output()
	if strings.Count(said, "somebody unmounted it") != 1 || strings.Contains(said, syscall.EINVAL.Error()) {
		t.Errorf("it says %s", said)
	}
	ended := time.Now()
	s.start()
	if got := modified(t, filepath.Join(dir, "a.raw")); got.After(ended) {
		t.Errorf("modified %v, as if nobody had kept when it was written", got)
	}
}
