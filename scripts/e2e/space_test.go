package e2e

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"openvstorage/scripts/fio"
)

// diskUsage is what the files below dir take on disk, without those whose
// path below dir starts with one of skip.
func diskUsage(t *testing.T, dir string, skip ...string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // files go away while we walk
		}
		below, _ := filepath.Rel(dir, path)
		for _, s := range skip {
			if strings.HasPrefix(below, s) {
				return nil
			}
		}
		if info, err := d.Info(); err == nil {
			n += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	must(t, err)
	return n
}

// TestOverwrite: a vDisk that is overwritten again and again does not grow, and gives
// its space back when it is deleted.
func TestOverwrite(t *testing.T) {
	need(t, "fio")
	size, buffer, passes := int64(gib), int64(2*gib), 20
	if testing.Short() {
		size, buffer, passes = 128*mib, 256*mib, 10
	}
	s := up(t, "--write-buffer", fmt.Sprint(buffer))
	uri := s.create("disk", size)
	limit := 3*size + buffer

	var most int64
	done := make(chan error, 1)
	go func() {
		_, err := fio.Run("--ioengine=nbd", "--uri="+uri, "--rw=write", "--bs=1m", "--iodepth=8",
			fmt.Sprint("--size=", size), fmt.Sprint("--loops=", passes), "--end_fsync=1")
		done <- err
	}()
	sample := time.NewTicker(100 * time.Millisecond)
	defer sample.Stop()
	for running := true; running; {
		select {
		case err := <-done:
			must(t, err)
			running = false
		case <-sample.C:
		}
		most = max(most, diskUsage(t, s.Data))
	}
	t.Logf("%d passes over %d MiB: the directory took at most %d MiB", passes, size/mib, most/mib)
	if most > limit {
		t.Errorf("the directory took %d MiB, want at most %d", most/mib, limit/mib)
	}
	s.ovs("vdisk", "sync", "disk")
	s.ovs("vdisk", "delete", "disk")
	const left = 64 * mib // metadata
	t.Cleanup(func() {
		if t.Failed() {
			for _, part := range []string{"asd", "arakoon", "map"} {
				t.Logf("%s has %d MiB", part, diskUsage(t, filepath.Join(s.Data, part))/mib)
			}
		}
	})
	eventually(t, 20*time.Second, "the deleted vDisk's space is back", func() bool {
		return diskUsage(t, s.Data, "buffer") < left
	})
}

// TestIdleMemory: large empty vDisks cost next to nothing.
func TestIdleMemory(t *testing.T) {
	s := up(t)
	for i := range 10 {
		s.create(fmt.Sprint("disk", i), tib)
	}
	rss, err := s.RSS()
	must(t, err)
	t.Logf("ten idle vDisks of 1 TiB: %d MiB resident", rss/mib)
	if rss > 300*mib {
		t.Errorf("%d MiB resident, want at most 300", rss/mib)
	}
}
