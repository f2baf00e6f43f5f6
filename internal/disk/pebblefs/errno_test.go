package pebblefs

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"
)

// atOnce makes a change that waits go on at once.
func atOnce() <-chan time.Time {
	c := make(chan time.Time, 1)
	c <- time.Time{}
	return c
}

// What passes fails no store: a table, a name or a directory for which there is
// no descriptor, no memory or no right is tried again.
func TestWhatPassesIsTriedAgain(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EINTR, unix.EACCES, unix.EPERM} {
		for _, rule := range []faultdisk.Rule{
			{Ops: faultdisk.Open}, {Ops: faultdisk.Write, Short: 100}, {Ops: faultdisk.Rename}, {Ops: faultdisk.SyncDir},
		} {
			if rule.Ops == faultdisk.SyncDir && errno != unix.EMFILE && errno != unix.ENFILE && errno != unix.EACCES {
				continue // it may have begun
			}
			under := crashdisk.New()
			faults := faultdisk.New(under)
			crashDirs(t, faults, "/db")
			d := New(faults, Options{Retry: atOnce})
			db := openStore(t, d, "/db")
			rule.Err, rule.Times, rule.Path = errno, 3, "/db/..."
			faults.Inject(rule)
			put(t, db, 0, 100)
			if err := errors.Join(d.Flush(db), d.Err()); err != nil {
				t.Fatalf("%v of %v: %v", errno, rule.Ops, err)
			}
			if err := d.Close(db); err != nil {
				t.Fatalf("%v of %v: close: %v", errno, rule.Ops, err)
			}
			d = New(under.Kill(), Options{})
			db = openStore(t, d, "/db")
			wantKeys(t, db, 100)
			if err := d.Close(db); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What does not pass is not tried for ever: the store fails, and says why.
func TestWhatDoesNotPass(t *testing.T) {
	faults := faultdisk.New(crashdisk.New())
	crashDirs(t, faults, "/db")
	d := New(faults, Options{Retry: atOnce})
	db := openStore(t, d, "/db")
	put(t, db, 0, 100)
	rule := faults.Inject(faultdisk.Rule{Ops: faultdisk.Open, Path: "*.sst", Err: unix.EMFILE})
	if err := d.Flush(db); !errors.Is(err, unix.EMFILE) || !strings.Contains(err.Error(), ".sst") {
		t.Fatalf("Flush: %v", err)
	}
	if n := rule.Fired(); n != passingTries+1 {
		t.Errorf("%d tries", n)
	}
	if err := d.Close(db); !errors.Is(err, unix.EMFILE) {
		t.Fatal(err)
	}
}

// What was moved aside comes back when somebody puts it back, however long that takes.
func TestMovedAside(t *testing.T) {
	faults := faultdisk.New(crashdisk.New())
	crashDirs(t, faults, "/db")
	d := New(faults, Options{Retry: atOnce})
	db := openStore(t, d, "/db")
	put(t, db, 0, 100)
	const tries = 10 * passingTries
	rule := faults.Inject(faultdisk.Rule{Ops: faultdisk.Open, Path: "*.sst", Times: tries, Err: errors.Join(disk.ErrAside, unix.EACCES)})
	if err := d.Flush(db); err != nil || rule.Fired() != tries {
		t.Fatalf("Flush: %v, after %d refusals of %d", err, rule.Fired(), tries)
	}
	if err := d.Close(db); err != nil {
		t.Fatal(err)
	}
}

// How a file is closed is nothing that Pebble must hear of: for some files it
// would end the process. Of what is synced it says nothing, and what is not
// synced may be lost with it.
func TestClose(t *testing.T) {
	faults := faultdisk.New(crashdisk.New())
	crashDirs(t, faults, "/db")
	d := New(faults, Options{})
	db := openStore(t, d, "/db")
	faults.Inject(faultdisk.Rule{Ops: faultdisk.Close, Err: unix.EIO})
	for n := range 3 { // each makes a table, and the last a manifest and its marker
		put(t, db, 100*n, 100*n+100)
		if err := d.Flush(db); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(db); err != nil {
		t.Fatal(err)
	}
	d = New(faults, Options{})
	db, err := pebble.Open("/db", &pebble.Options{FS: d, DisableWAL: true, Logger: logger{t}, FormatMajorVersion: Format})
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, db, 300)
	if err := d.Close(db); err != nil {
		t.Fatal(err)
	}

	f, err := New(faults, Options{}).OpenReadWrite("/db/f", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	unsynced := f.(*file).fs
	closed := make(chan error)
	go func() { closed <- f.Close() }()
	<-unsynced.Failed()
	if err := unsynced.Err(); !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "/db/f") {
		t.Error(err)
	}
	unsynced.Abandon()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// While calls wait for room, that is told once a second, whatever they wait for and
// however many there are. Each time something is given up to make room.
func TestFullIsToldOnceASecond(t *testing.T) {
	for _, op := range []faultdisk.Op{faultdisk.Datasync | faultdisk.Sync, faultdisk.Write, faultdisk.Rename} {
		synctest.Test(t, func(t *testing.T) {
			faults := faultdisk.New(crashdisk.New())
			crashDirs(t, faults, "/db")
			var told []time.Time
			d := New(faults, Options{OnFull: func(error) { told = append(told, time.Now()) }})
			const side = 3
			var done sync.WaitGroup
			rule := faults.Inject(faultdisk.Rule{Ops: op, Err: unix.ENOSPC})
			begun := time.Now()
			for i := range side {
				f, err := d.Create(fmt.Sprintf("/db/%d", i), "")
				if err != nil {
					t.Fatal(err)
				}
				done.Go(func() {
					_, werr := f.Write([]byte("x"))
					rerr := d.Rename(fmt.Sprintf("/db/%d", i), fmt.Sprintf("/db/%d.new", i))
					if err := errors.Join(werr, f.Sync(), rerr, f.Close()); err != nil {
						t.Error(err)
					}
				})
			}
			time.Sleep(5*time.Second - time.Millisecond)
			synctest.Wait()
			if n := len(told); n < 4 || n > 5 {
				t.Errorf("%v: told %d times in 5 s: %v", op, n, told)
			}
			if len(told) > 0 && told[0].Sub(begun) > time.Second/10 {
				t.Errorf("%v: told after %v", op, told[0].Sub(begun))
			}
			rule.Remove()
			done.Wait()
			if err := d.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}
