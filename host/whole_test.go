package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	albahere "openvstorage/alba/embedded"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/size"
	"openvstorage/volumedriver/volumetest"
)

// The tests of vDisks over any backend, run over the whole process as `ovs up`
// opens it: write buffer, ASDs, raft logs, states and fragment cache are all on
// one disk, and one crash image holds them all.

// whole is the process's insides and the data directory that they have.
type whole struct {
	*embedded
	dir *datadir.Directory
}

func (w *whole) Close(ctx context.Context) error {
	return errors.Join(w.embedded.Close(ctx), w.dir.Close())
}

// openWhole opens the process's insides on a disk.
func openWhole(fs disk.FS, tune func(*albahere.Options)) (*whole, error) {
	return openWholeWith(fs, func(o *openOptions) {
		sizes := o.tune
		o.tune = func(a *albahere.Options) {
			sizes(a)
			if tune != nil {
				tune(a)
			}
		}
	})
}

// openWholeWith is openWhole with options that change makes its own.
func openWholeWith(fs disk.FS, change func(*openOptions)) (*whole, error) {
	dir, err := datadir.Open(fs, "/data")
	if err != nil {
		return nil, err
	}
	e, err := openInside(fs, dir, change)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &whole{e, dir}, nil
}

func openInside(fs disk.FS, dir *datadir.Directory, change func(*openOptions)) (*embedded, error) {
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("OVS_TEST_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	opt := openOptions{
		fs: fs, dir: dir,
		writeBuffer: 64 * size.MiB, mapCache: size.MiB, uploads: 2, backend: BackendALBA,
		alba: ALBA{Cache: CacheMin}, logger: logger,
		tune: func(o *albahere.Options) { o.SegmentBytes = 4 << 20 },
	}
	change(&opt)
	h, err := openEmbedded(context.Background(), opt)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// well reports whether nothing is wrong but that disks are slow: that a clock says, on a
// machine that others use too.
func well(s albahere.Status) bool {
	slow := 0
	for _, r := range s.Reasons {
		if strings.Contains(r, " is slow: ") {
			slow++
		}
	}
	return s.Health == albahere.HealthOK || slow > 0 && slow == len(s.Reasons)
}

// closeWhole ends it, and with nobody writing any more looks at what is on the
// disks: after a collection, every fragment that an object names and no other,
// and every object at full width if all disks are there.
func closeWhole(e *whole, damaged bool) error {
	ctx := context.Background()
	err := e.Host.Close(ctx)
	work := e.alba.Maintenance()
	work.Close()
	// Fragments of uploads that the close ended may still be on their way to
	// disks, those of the newest epoch wait for the next collection, and a disk may
	// be opened by the background just now.
	for deadline := time.Now().Add(20 * time.Second); err == nil; {
		e.alba.ReopenDisks(ctx)
		if damaged {
			err = errors.Join(work.ScrubSome(ctx, 10_000), work.FindAbsent(ctx))
		}
		err = errors.Join(err, work.Repair(ctx), work.Survey(ctx), work.Collect(ctx, 0), work.Survey(ctx))
		if err != nil {
			break
		}
		err = work.Audit(ctx)
		if s, failed := e.alba.Status(ctx); err == nil && (failed != nil || s.Missing == 0 && !well(s)) {
			err = fmt.Errorf("not well: %+v, %w", s, failed)
		}
		if err == nil || time.Now().After(deadline) {
			break
		}
		err = nil
	}
	return errors.Join(err, e.closeStores(), e.dir.Close())
}

// wholeOpener opens systems for package volumetest. Every second one does its
// maintenance in the background all the time, the others none. Disks may be
// damaged: what is on them is read, and healed, before it is judged.
func wholeOpener(damaged bool) volumetest.Opener {
	var n atomic.Int64
	return func(fs disk.FS) (*volumetest.System, error) {
		byHand := n.Add(1)%2 == 0
		e, err := openWhole(fs, func(o *albahere.Options) {
			o.ReopenEvery = 5 * time.Millisecond
			o.Maintain = albahere.Maintain{
				Tick: time.Millisecond, Survey: 10 * time.Millisecond, Collect: 10 * time.Millisecond, Grace: 5 * time.Millisecond,
				RebuildAfter: time.Hour, Scrub: time.Millisecond, ByHand: byHand,
			}
		})
		if err != nil {
			return nil, err
		}
		return &volumetest.System{Host: e.Host, Close: func() error { return closeWhole(e, damaged) }}, nil
	}
}

func TestWholeModel(t *testing.T) { volumetest.Model(t, wholeOpener(false), 6, 120) }

// The bar is 500 cuts: OVS_POWER_CUTS=500.
func TestWholePowerCut(t *testing.T) {
	volumetest.PowerCuts(t, wholeOpener(false), volumetest.Cuts(80))
}

func TestWholeManyWriters(t *testing.T) { volumetest.ManyWriters(t, wholeOpener(false), 3) }

// Trouble of one disk, while vDisks are worked on: no write fails, nothing that
// was flushed is lost, and when it is over every fragment is where it should be.
func TestWholeTrouble(t *testing.T) {
	const dir, away = "/data/asd/1", "/away"
	fault := func(rule faultdisk.Rule) func(*faultdisk.FS, *crashdisk.FS) func() {
		return func(fs *faultdisk.FS, _ *crashdisk.FS) func() {
			rule.Path = dir + "/..."
			fs.Inject(rule)
			return fs.Clear
		}
	}
	for name, begin := range map[string]func(*faultdisk.FS, *crashdisk.FS) func(){
		"full":   func(fs *faultdisk.FS, _ *crashdisk.FS) func() { return fs.Limit(dir, 300<<10).Remove },
		"writes": fault(faultdisk.Rule{Ops: faultdisk.Write | faultdisk.Prewrite, Err: syscall.EIO}),
		"syncs":  fault(faultdisk.Rule{Ops: faultdisk.Datasync | faultdisk.Sync, Err: syscall.EIO}),
		"reads":  fault(faultdisk.Rule{Ops: faultdisk.Read | faultdisk.TryRead, Err: syscall.EIO}),
		"dead":   fault(faultdisk.Rule{Err: syscall.EIO}),
		"slow": fault(faultdisk.Rule{Ops: faultdisk.Write | faultdisk.Datasync | faultdisk.Read, Before: func(faultdisk.Op, string) {
			time.Sleep(5 * time.Millisecond)
		}}),
		"away": func(_ *faultdisk.FS, mem *crashdisk.FS) func() {
			rename := func(from, to string) {
				if err := errors.Join(mem.Rename(from, to), mem.SyncDir("/data/asd"), mem.SyncDir("/")); err != nil {
					t.Error(err)
				}
			}
			rename(dir, away)
			return func() { rename(away, dir) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			volumetest.Trouble(t, wholeOpener(false), 60, false, begin)
		})
	}
}

// With no room on any disk, writes go to the write buffer and wait there; with
// room they are uploaded.
func TestWholeAllFull(t *testing.T) {
	volumetest.Trouble(t, wholeOpener(false), 100, true, func(fs *faultdisk.FS, _ *crashdisk.FS) func() {
		return fs.Limit("/data/asd", 0).Remove
	})
}

func TestWholeBitFlips(t *testing.T) { volumetest.BitFlips(t, wholeOpener(true), 2) }
