package host

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

// What a start gives up for want of room it gives up in order, a step a second however
// many ask, and nothing that is open.
func TestStartGivesUpInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultdisk.New(crashdisk.New())
		dir, err := datadir.Open(fsys, "/data")
		must(t, err)
		defer dir.Close()
		file := func(name string, size int64) {
			f, err := fsys.OpenFile(name, disk.Write|disk.Create, 0o600)
			must(t, err)
			must(t, errors.Join(f.Truncate(size), f.Close()))
		}
		for _, d := range []string{"buffer/pool", "cache/a", "map"} {
			must(t, fsys.MkdirAll("/data/"+d, 0o700))
		}
		file("/data/buffer/pool/0", 1<<20)
		file("/data/reserve", 2<<20)
		file("/data/cache/a/1", 1<<20)
		file("/data/map/1", 1<<20)
		fsys.Limit("/data", 0)
		there := func() (list [4]bool) {
			for i, name := range []string{"buffer/pool/0", "reserve", "cache/a/1", "map/1"} {
				_, err := fsys.Stat("/data/" + name)
				list[i] = err == nil
			}
			return list
		}
		e := &embedded{fs: fsys, spare: newSpare(fsys, dir, slog.New(slog.DiscardHandler))}
		for step, want := range [][4]bool{
			{false, true, true, true}, {false, false, true, true}, {false, false, false, true}, {false, false, false, true},
		} {
			if step == 3 {
				e.spare.needs("map") // it is open
			}
			for range 5 {
				e.lacks(unix.ENOSPC)
			}
			if got := there(); got != want {
				t.Errorf("step %d: %v, want %v", step, got, want)
			}
			time.Sleep(sparePace)
		}
	})
}
