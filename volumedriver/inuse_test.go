package volumedriver

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/sco"
)

// A rollback under users of the vDisk is refused, and one that is forced they see.
// Users of snapshots are in no way.
func TestRollbackInUse(t *testing.T) {
	ctx := soon(t)
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	write(t, d, 0, 4, 1)
	_, err := r.host.SnapshotCreate(ctx, "v", "s")
	must(t, err)
	write(t, d, 0, 4, 2)
	_, readNoMore, err := r.host.OpenDevice(ctx, "v@s")
	must(t, err)
	must(t, r.host.Rollback(ctx, "v", "s"))
	holdsPattern(t, d, 0, 4, 1)
	write(t, d, 0, 4, 3)
	used, useNoMore, err := openDisk(ctx, r.host, "v")
	must(t, err)
	if err := r.host.Rollback(ctx, "v", "s"); !errors.Is(err, ErrBusy) {
		t.Errorf("rollback under a user: %v", err)
	}
	holdsPattern(t, used, 0, 4, 3)
	must(t, r.host.ForceRollback(ctx, "v", "s"))
	holdsPattern(t, used, 0, 4, 1)
	write(t, used, 0, 4, 4)
	holdsPattern(t, used, 0, 4, 4)
	useNoMore()
	must(t, r.host.Rollback(ctx, "v", "s"))
	readNoMore()
	must(t, r.host.SnapshotDelete(ctx, "v", "s"))
	must(t, r.close())
}

// A caller that keeps something of the vDisk in memory is told before a rollback, when
// it can still write and grow the vDisk, and once more after it. It is told the id, as
// the vDisk may get another name meanwhile. If telling it before fails, nothing is
// changed.
func TestRollbackTold(t *testing.T) {
	ctx := soon(t)
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	v, err := r.host.table.named("v")
	must(t, err)
	write(t, d, 0, 4, 1)
	_, err = r.host.SnapshotCreate(ctx, "v", "s")
	must(t, err)
	write(t, d, 0, 4, 2)

	deaf := errors.New("deaf")
	if err := r.host.RollbackTold(ctx, "v", "s", true, func(context.Context, uuid.UUID) error { return deaf }); !errors.Is(err, deaf) {
		t.Errorf("a rollback of which nobody can be told: %v", err)
	}
	holdsPattern(t, d, 0, 4, 2)

	told := 0
	must(t, r.host.RollbackTold(ctx, "v", "s", true, func(_ context.Context, id uuid.UUID) error {
		if told++; id != v.id {
			t.Errorf("told of %v", id)
		}
		if told > 1 {
			holdsPattern(t, d, 0, 4, 1)
			return nil
		}
		must(t, r.host.Rename(ctx, "v", "w"))
		must(t, r.host.Resize(ctx, "w", 2*modelDisk))
		write(t, d, 0, 4, 3)
		must(t, d.Flush(ctx))
		return nil
	}))
	if told != 2 {
		t.Errorf("told %d times", told)
	}
	holdsPattern(t, d, 0, 4, 1)
	must(t, r.close())
}

// Nobody begins to use a vDisk in the midst of a rollback: what he reads first may
// be what was there before.
func TestOpenWaitsForRollback(t *testing.T) {
	ctx := soon(t)
	r, _ := newRig(t, crashdisk.New(), modelDisk, nil)
	v, err := r.host.table.named("v")
	must(t, err)
	opened, err := v.users.keepOut(false)
	must(t, err)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := r.host.OpenDevice(ended, "v"); !errors.Is(err, context.Canceled) {
		t.Errorf("opened in the midst of a rollback: %v", err)
	}
	var waits sync.WaitGroup
	waits.Go(func() {
		_, release, err := r.host.OpenDevice(ctx, "v")
		if err != nil {
			t.Error(err)
			return
		}
		release()
	})
	opened()
	waits.Wait()
	must(t, r.close())
}

// Users that are just going are waited for.
func TestUsersThatGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newRig(t, crashdisk.New(), modelDisk, nil)
		ctx := t.Context()
		_, err := r.host.SnapshotCreate(ctx, "v", "s")
		must(t, err)
		going := func(name string) {
			t.Helper()
			_, release, err := r.host.OpenDevice(ctx, name)
			must(t, err)
			time.AfterFunc(leaveWait/2, release)
		}
		going("v")
		must(t, r.host.Rollback(ctx, "v", "s"))
		going("v")
		going("v@s")
		must(t, r.host.Delete(ctx, "v"))
		must(t, r.close())
	})
}

// A deletion that is forced has all fail that users ask for, at any moment of it,
// and reads nothing that was not checked.
func TestForceDelete(t *testing.T) {
	ctx := soon(t)
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	write(t, d, 0, 64, 1)
	must(t, r.host.Sync(ctx, "v", nil))
	write(t, d, 64, 64, 2)
	used, release, err := openDisk(ctx, r.host, "v")
	must(t, err)
	if err := r.host.Delete(ctx, "v"); !errors.Is(err, ErrBusy) {
		t.Fatalf("delete under a user: %v", err)
	}
	holdsPattern(t, used, 0, 64, 1)
	var users sync.WaitGroup
	for u := range 4 {
		users.Go(func() {
			p, want := make([]byte, 64*sco.ClusterSize), pattern(1+u%2, 64)
			for {
				off := int64(u % 2 * len(p))
				if err := used.Read(ctx, p, off); err != nil {
					return
				}
				if at := diff(p, want); at >= 0 {
					t.Errorf("byte %d differs", off+int64(at))
					return
				}
			}
		})
	}
	must(t, r.host.ForceDelete(ctx, "v"))
	users.Wait()
	p := make([]byte, sco.ClusterSize)
	for what, do := range map[string]func() error{
		"read":     func() error { return used.Read(ctx, p, 0) },
		"try read": func() error { return used.TryRead(p, 0) },
		"write":    func() error { return used.Write(ctx, []device.Span{{Data: p}}) },
		"try":      func() error { return used.TryWrite([]device.Span{{Data: p}}) },
		"flush":    func() error { return used.Flush(ctx) },
		"trim":     func() error { return used.Trim(ctx, 0, sco.ClusterSize) },
		"extents":  func() error { return used.Extents(ctx, 0, modelDisk, func(device.Extent) bool { return true }) },
	} {
		if err := do(); !errors.Is(err, ErrHalted) {
			t.Errorf("%s of a deleted vDisk: %v", what, err)
		}
	}
	release()
	_, err = r.host.Create(ctx, "v", modelDisk)
	must(t, err)
	must(t, r.close())
}
