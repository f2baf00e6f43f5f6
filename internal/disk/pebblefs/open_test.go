package pebblefs

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

// An open that fails at its last step, with compactions due: nothing runs on in
// what it has closed. Pebble by itself ends the process in some of the rounds.
func TestFailedOpenWithCompactionsDue(t *testing.T) {
	mem := crashdisk.New()
	opt := func(d *FS, idle bool) *pebble.Options {
		return &pebble.Options{
			FS: d, DisableWAL: true, FormatMajorVersion: Format, MemTableSize: 64 << 10, Logger: logger{t},
			L0CompactionThreshold: 1, L0CompactionFileThreshold: 1, DisableAutomaticCompactions: idle,
		}
	}
	db, err := Open("/db", opt(New(mem, Options{}), true))
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		put(t, db, 0, 200)
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		fs := faultdisk.New(mem.Kill())
		fs.Inject(faultdisk.Rule{Ops: faultdisk.ReadDir, Skip: i % 5, Times: 1, Err: unix.EIO})
		var store *FS
		store = New(fs, Options{OnFailure: func(error) { store.Abandon() }})
		if db, err := Open("/db", opt(store, false)); err == nil {
			store.Abandon()
			_ = db.Close()
		}
	}
	db, err = Open("/db", opt(New(mem, Options{}), false))
	if err != nil {
		t.Fatal(err)
	}
	wantKeys(t, db, 200)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
