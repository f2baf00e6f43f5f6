package pebblefs

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/disk/osdisk"
)

// logger makes what would end the process a failed test.
type logger struct{ t *testing.T }

func (l logger) Infof(string, ...any)           {}
func (l logger) Errorf(string, ...any)          {}
func (l logger) Fatalf(format string, a ...any) { panic("Fatalf: " + fmt.Sprintf(format, a...)) }

func openStore(t *testing.T, d *FS, dir string) *pebble.DB {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{
		FS:                          d,
		DisableWAL:                  true,
		FormatMajorVersion:          Format,
		MemTableSize:                64 << 10,
		MemTableStopWritesThreshold: 2,
		Logger:                      logger{t},
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func put(t *testing.T, db *pebble.DB, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := db.Set(key(i), bytes.Repeat(key(i), 10), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
}

func key(i int) []byte { return fmt.Appendf(nil, "key %06d", i) }

func wantKeys(t *testing.T, db *pebble.DB, n int) {
	t.Helper()
	for i := range n {
		v, closer, err := db.Get(key(i))
		if err != nil {
			t.Fatalf("%s: %v", key(i), err)
		}
		if !bytes.Equal(v, bytes.Repeat(key(i), 10)) {
			t.Errorf("%s: wrong value", key(i))
		}
		closer.Close()
	}
}

func crashDirs(t *testing.T, d disk.FS, dir string) {
	t.Helper()
	if err := d.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
}

func TestOnRealDisk(t *testing.T) {
	dir := t.TempDir()
	for n := range 2 {
		d := New(osdisk.New(), Options{})
		db := openStore(t, d, dir+"/db")
		wantKeys(t, db, n*500)
		put(t, db, n*500, n*500+500)
		if err := d.Flush(db); err != nil {
			t.Fatal(err)
		}
		if err := db.Compact(t.Context(), key(0), key(9999), true); err != nil {
			t.Fatal(err)
		}
		if _, err := pebble.Open(dir+"/db", &pebble.Options{FS: New(osdisk.New(), Options{}), Logger: logger{t}}); !errors.Is(err, disk.ErrLocked) {
			t.Errorf("opened twice: %v", err)
		}
		if err := d.Close(db); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFlushedSurvivesPowerCut(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 0))
		under := crashdisk.New()
		crashDirs(t, under, "/db")
		flushed := 0
		for range 3 {
			d := New(under, Options{})
			db := openStore(t, d, "/db")
			wantKeys(t, db, flushed)
			for range 1 + rng.IntN(3) {
				put(t, db, flushed, flushed+300)
				if err := d.Flush(db); err != nil {
					t.Fatal(err)
				}
				flushed += 300
			}
			put(t, db, flushed, flushed+700) // not flushed, or only by itself
			opt := []crashdisk.Options{crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}[rng.IntN(3)]
			after := under.Crash(rng, opt)
			if err := d.Close(db); err != nil {
				t.Fatal(err)
			}
			under = after
		}
		d := New(under, Options{})
		db := openStore(t, d, "/db")
		wantKeys(t, db, flushed)
		if err := d.Close(db); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFullDiskWaits(t *testing.T) {
	faults := faultdisk.New(crashdisk.New())
	crashDirs(t, faults, "/db")
	retry := make(chan time.Time)
	found := make(chan error, 100)
	var room atomic.Int32
	d := New(faults, Options{
		OnFull: func(err error) { found <- err },
		OnRoom: func() { room.Add(1) },
		Retry:  func() <-chan time.Time { return retry },
	})
	db := openStore(t, d, "/db")
	quota := faults.Limit("/db", 1000)
	put(t, db, 0, 500)
	flushed := make(chan error)
	go func() { flushed <- d.Flush(db) }()
	if err := <-found; !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	retry <- time.Time{} // still full
	retry <- time.Time{}
	select {
	case err := <-flushed:
		t.Fatalf("flushed on a full disk: %v", err)
	default:
	}
	wantKeys(t, db, 500) // reads go on
	quota.Grow(1 << 20)
	for again := true; again; {
		select {
		case retry <- time.Time{}:
		case err := <-flushed:
			if err != nil {
				t.Fatal(err)
			}
			again = false
		}
	}
	if room.Load() == 0 {
		t.Error("OnRoom was not called")
	}
	quota.Remove()
	if err := d.Close(db); err != nil {
		t.Fatal(err)
	}
	d = New(faults, Options{})
	db = openStore(t, d, "/db")
	wantKeys(t, db, 500)
	d.Close(db)
}

func TestAbandonWhileFull(t *testing.T) {
	under := crashdisk.New()
	faults := faultdisk.New(under)
	crashDirs(t, faults, "/db")
	found := make(chan error, 100)
	d := New(faults, Options{
		OnFull: func(err error) { found <- err },
		Retry:  func() <-chan time.Time { return nil },
	})
	db := openStore(t, d, "/db")
	put(t, db, 0, 100)
	if err := d.Flush(db); err != nil {
		t.Fatal(err)
	}
	faults.Limit("/db", 0)
	stalled := make(chan error)
	go func() {
		for i := range 3000 { // more than the memtables hold
			if err := db.Set(key(100+i), make([]byte, 200), pebble.NoSync); err != nil {
				stalled <- err
				return
			}
		}
		stalled <- nil
	}()
	<-found
	d.Abandon()
	<-stalled // Pebble's own back pressure has let go
	if err := d.Flush(db); !errors.Is(err, ErrAbandoned) {
		t.Errorf("Flush of an abandoned store: %v", err)
	}
	if err := d.Close(db); !errors.Is(err, ErrAbandoned) {
		t.Errorf("Close of an abandoned store: %v", err)
	}
	d = New(under, Options{})
	db = openStore(t, d, "/db")
	wantKeys(t, db, 100)
	d.Close(db)
}

// A sync that finds no room fails no store: what it was to make durable is written
// again, and is durable when the flush has returned.
func TestSyncWithoutRoom(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT} {
		for _, pattern := range []string{"*.sst", "MANIFEST-*", ""} {
			under := crashdisk.New()
			faults := faultdisk.New(under)
			crashDirs(t, faults, "/db")
			d := New(faults, Options{Retry: atOnce})
			db := openStore(t, d, "/db")
			rule := faults.Inject(faultdisk.Rule{Ops: faultdisk.Datasync | faultdisk.Sync, Path: pattern, Err: errno, Times: 3})
			put(t, db, 0, 5000)
			if err := errors.Join(d.Flush(db), d.Err()); err != nil || rule.Fired() != 3 {
				t.Fatalf("%v of %s: %v, fired %d times", errno, pattern, err, rule.Fired())
			}
			image := under.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
			if err := d.Close(db); err != nil {
				t.Fatal(err)
			}
			d = New(image, Options{})
			db = openStore(t, d, "/db")
			wantKeys(t, db, 5000)
			if err := d.Close(db); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// If what a failed sync was to write is gone, no later one is believed.
func TestSyncWithoutRoomLosesData(t *testing.T) {
	faults := faultdisk.New(crashdisk.New())
	crashDirs(t, faults, "/db")
	d := New(faults, Options{Retry: atOnce})
	db := openStore(t, d, "/db")
	faults.Inject(faultdisk.Rule{Ops: faultdisk.Datasync | faultdisk.Sync, Path: "*.sst", Err: unix.ENOSPC, Times: 1})
	faults.Inject(faultdisk.Rule{Ops: faultdisk.Read, Path: "*.sst", Corrupt: func(p []byte) { clear(p) }})
	put(t, db, 0, 100)
	if err := d.Flush(db); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("Flush: %v", err)
	}
	if err := d.Close(db); err == nil {
		t.Error("closed without an error")
	}
}

// Whatever change fails, Pebble does not end the process, a flush says so, the
// store closes, and what was flushed before is there when it is opened again.
func TestFailureParks(t *testing.T) {
	for _, c := range []struct {
		name string
		rule faultdisk.Rule
	}{
		{"create table", faultdisk.Rule{Ops: faultdisk.Open, Path: "*.sst"}},
		{"write table", faultdisk.Rule{Ops: faultdisk.Write, Path: "*.sst", Short: 100}},
		{"sync table", faultdisk.Rule{Ops: faultdisk.Datasync | faultdisk.Sync, Path: "*.sst"}},
		{"sync directory", faultdisk.Rule{Ops: faultdisk.SyncDir}},
		{"write manifest", faultdisk.Rule{Ops: faultdisk.Write, Path: "MANIFEST-*", Short: 7}},
		{"sync manifest", faultdisk.Rule{Ops: faultdisk.Datasync | faultdisk.Sync, Path: "MANIFEST-*"}},
		{"all but reads", faultdisk.Rule{Ops: faultdisk.Any &^ (faultdisk.Read | faultdisk.Stat)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			under := crashdisk.New()
			faults := faultdisk.New(under)
			crashDirs(t, faults, "/db")
			told := make(chan error, 1) // a second call would block and show
			d := New(faults, Options{OnFailure: func(err error) { told <- err }})
			db := openStore(t, d, "/db")
			put(t, db, 0, 100)
			if err := d.Flush(db); err != nil {
				t.Fatal(err)
			}
			if c.rule.Err == nil {
				c.rule.Err = unix.EIO
			}
			c.rule.Times = 1 // the disk would go on; the store must not
			faults.Inject(c.rule)
			put(t, db, 100, 200)
			if err := d.Flush(db); !errors.Is(err, c.rule.Err) {
				t.Fatalf("Flush: %v", err)
			}
			if err := <-told; !errors.Is(err, c.rule.Err) {
				t.Errorf("OnFailure got %v", err)
			}
			<-d.Failed()
			wantKeys(t, db, 200) // reads go on
			image := under.Kill()
			faults.ResetCounts()
			if err := d.Close(db); !errors.Is(err, c.rule.Err) {
				t.Errorf("Close: %v", err)
			}
			changes := faultdisk.Write | faultdisk.Sync | faultdisk.Datasync | faultdisk.Rename | faultdisk.SyncDir
			if n := faults.Count(changes, ""); n != 0 {
				t.Errorf("%d changes of the disk after the failure", n)
			}
			for _, left := range []*crashdisk.FS{image, under} {
				d := New(left, Options{})
				db := openStore(t, d, "/db")
				wantKeys(t, db, 100)
				if err := d.Close(db); err != nil {
					t.Error(err)
				}
			}
			after := under.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
			d = New(after, Options{})
			db = openStore(t, d, "/db")
			wantKeys(t, db, 100)
			if err := d.Close(db); err != nil {
				t.Error(err)
			}
		})
	}
}
