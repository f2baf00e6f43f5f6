package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
)

// Whatever looks at vDisks may do so beside all that changes them: catalog puts,
// checkpoints, snapshots, clones, renamings. It is for the race detector; without, it
// shows that nobody waits for the other without end.
func TestLookBesideChanges(t *testing.T) {
	ctx := soon(t)
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	write(t, d, 0, 8, 1)
	_, err := r.host.Clone(ctx, "v", "", "c", nil)
	must(t, err)
	metrics := prometheus.NewRegistry()
	must(t, metrics.Register(collector{r.host}))
	looks := []func(){
		func() { _, _ = r.host.List(ctx) },
		func() { _, _ = r.host.Info(ctx, "c") },
		func() { _, _ = r.host.SnapshotList(ctx, "v") },
		func() { _ = r.host.Stats(ctx) },
		func() { _, _ = r.host.Exports(ctx) },
		func() { _ = r.host.Reached() },
		func() { _, _ = metrics.Gather() },
		func() {
			if d, release, err := r.host.OpenDevice(ctx, "c@s"); err == nil {
				_ = d.Read(ctx, make([]byte, 8192), 0)
				release()
			}
		},
	}
	ended, end := context.WithCancel(ctx)
	var all sync.WaitGroup
	for _, look := range looks {
		all.Go(func() {
			for ended.Err() == nil {
				look()
			}
		})
	}
	for i := range 8 {
		write(t, d, 8*i, 8, i)
		_, err := r.host.SnapshotCreate(ctx, "c", "s")
		must(t, err)
		must(t, r.host.Sync(ctx, "c", nil))
		must(t, r.host.Checkpoint(ctx, "v"))
		_, err = r.host.Clone(ctx, "c", "s", "cc", nil)
		must(t, err)
		must(t, r.host.Rename(ctx, "cc", fmt.Sprint("cc", i)))
		must(t, r.host.Delete(ctx, fmt.Sprint("cc", i)))
		must(t, r.host.Resize(ctx, "c", modelDisk+uint64(i+1)<<20))
		for err = ErrBusy; err != nil && ctx.Err() == nil; { // a reader may have it open
			err = r.host.SnapshotDelete(ctx, "c", "s")
		}
		must(t, err)
		must(t, r.host.Checkpoint(ctx, "c"))
	}
	end()
	all.Wait()
	must(t, r.close())
}

// Users are counted, kept out while a vDisk is rolled back or deleted, and let in after.
func TestUsers(t *testing.T) {
	admit := func(deleted bool) error {
		if deleted {
			return ErrNotFound
		}
		return nil
	}
	is := func(what string, err, want error) {
		t.Helper()
		if (err == nil) != (want == nil) || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v, not %v", what, err, want)
		}
	}
	no, yes := func() bool { return false }, func() bool { return true }
	u := users{core: &core{}}
	u.setName("v")
	is("the first", u.enter(t.Context(), false, admit), nil)
	is("a snapshot's", u.enter(t.Context(), true, admit), nil)
	_, err := u.keepOut(false)
	is("a rollback with a user", err, ErrBusy)
	is("a deletion with users", u.claim(false, no), ErrBusy)
	u.leave(false)
	is("a deletion with a snapshot's user", u.claim(false, no), ErrBusy)
	opened, err := u.keepOut(false)
	is("a rollback with a snapshot's user", err, nil)
	is("a snapshot's during a rollback", u.enter(t.Context(), true, admit), nil)
	given, give := context.WithCancel(t.Context())
	give()
	is("one that gives up during a rollback", u.enter(given, false, admit), context.Canceled)
	entered := make(chan error, 1)
	go func() { entered <- u.enter(t.Context(), false, admit) }()
	opened()
	is("one that waited for a rollback", <-entered, nil)
	u.leave(false)
	u.leave(true)
	u.leave(true)
	is("a deletion with a pin", u.claim(true, yes), ErrBusy)
	is("a deletion", u.claim(false, no), nil)
	is("one after a deletion", u.enter(t.Context(), false, admit), ErrNotFound)
	u.setDeleted(false)
	is("one after a deletion that was not", u.enter(t.Context(), false, admit), nil)
	is("a forced deletion", u.claim(true, no), nil)
}

var _ device.Device = (*Device)(nil)
var _ device.Reader = (*SnapshotDevice)(nil)
