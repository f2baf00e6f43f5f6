package volumedriver

import (
	"testing"
	"time"

	"openvstorage/internal/disk/crashdisk"
)

// storedGets waits until so many bytes of SCOs of v are in the backend.
func storedGets(t *testing.T, r *rig, enough func(bytes uint64) bool) {
	t.Helper()
	ctx := soon(t)
	for {
		i, err := r.host.Info(ctx, "v")
		must(t, err)
		if enough(i.Stored) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%d bytes stay in the backend", i.Stored)
		}
		must(t, r.host.Sync(ctx, "v", nil)) // the storer's turn
	}
}

func none(bytes uint64) bool { return bytes == 0 }

// What a vDisk does not hold any more is freed after a sync, with nothing written
// behind it, however much or little it is.
func TestSyncFrees(t *testing.T) {
	const size = 48 << 20
	for name, clusters := range map[string]int{"all": size / 4096, "little": 3} {
		t.Run(name, func(t *testing.T) {
			ctx := soon(t)
			r, d := newRig(t, crashdisk.New(), size, nil)
			fillUp := func(i int) {
				for at := 0; at < clusters; at += 256 {
					write(t, d, at, min(256, clusters-at), i)
				}
				must(t, r.host.Sync(ctx, "v", nil))
				storedGets(t, r, func(bytes uint64) bool { return bytes >= uint64(clusters)*4096 })
			}
			fillUp(1)
			must(t, d.Trim(ctx, 0, size))
			must(t, r.host.Sync(ctx, "v", nil))
			storedGets(t, r, none)

			// A snapshot keeps what it sees, and lets it go.
			fillUp(2)
			_, err := r.host.SnapshotCreate(ctx, "v", "s")
			must(t, err)
			must(t, d.Trim(ctx, 0, size))
			must(t, r.host.Sync(ctx, "v", nil))
			snap, release, err := r.host.OpenDevice(ctx, "v@s")
			must(t, err)
			holdsPattern(t, snap, 0, clusters, 2)
			release()
			must(t, r.host.SnapshotDelete(ctx, "v", "s"))
			must(t, r.host.Sync(ctx, "v", nil))
			storedGets(t, r, none)

			// So does a rollback to what was there before.
			_, err = r.host.SnapshotCreate(ctx, "v", "empty")
			must(t, err)
			fillUp(3)
			must(t, r.host.Rollback(ctx, "v", "empty"))
			must(t, r.host.Sync(ctx, "v", nil))
			// The SCO that had its number before the snapshot was taken, it might see.
			storedGets(t, r, func(bytes uint64) bool { return bytes <= 4<<20 })
			must(t, r.host.SnapshotDelete(ctx, "v", "empty"))
			must(t, r.host.Sync(ctx, "v", nil))
			storedGets(t, r, none)
			must(t, r.close())
		})
	}
}

// A vDisk that idles frees what it does not hold by itself.
func TestIdleFrees(t *testing.T) {
	ctx := soon(t)
	r, d := newRig(t, crashdisk.New(), modelDisk, func(o *Options) { o.IdleSeal = 1 })
	write(t, d, 0, 3, 1)
	storedGets(t, r, func(bytes uint64) bool { return bytes > 0 })
	must(t, d.Trim(ctx, 0, modelDisk))
	storedGets(t, r, none)
	must(t, r.close())
}

// What a rollback leaves behind is freed, though the counters are whole again before
// anybody has looked for what is dead; and what was not stored yet when it was made.
func TestRollbackFrees(t *testing.T) {
	const clusters = 12 << 20 / 4096
	for _, stored := range []bool{true, false} {
		ctx := soon(t)
		r, d := newRig(t, crashdisk.New(), clusters*4096, nil)
		write(t, d, 0, 1, 1)
		_, err := r.host.SnapshotCreate(ctx, "v", "little")
		must(t, err)
		must(t, r.host.Sync(ctx, "v", nil))
		v := volumeOf(t, r, "v")
		if !stored {
			v.store.stop()
		}
		for at := 0; at < clusters; at += 256 {
			write(t, d, at, 256, 2)
		}
		if stored {
			must(t, r.host.Sync(ctx, "v", nil))
			storedGets(t, r, func(bytes uint64) bool { return bytes >= clusters*4096 })
			v.store.stop()
			for v.gc.due.Load() {
				must(t, v.gc.collect(ctx))
			}
		}
		before := v.bounds.heads.Load()
		must(t, r.host.ForceRollback(ctx, "v", "little"))
		for v.bounds.heads.Load() == before {
			time.Sleep(time.Millisecond)
		}
		for more := true; more && v.m.Reapable(); {
			more, err = v.m.Reap(ctx, reapPages)
			must(t, err)
		}
		v.store.start(nil)
		must(t, r.host.Sync(ctx, "v", nil))
		storedGets(t, r, func(bytes uint64) bool { return bytes <= 8<<20 })
		holdsPattern(t, d, 0, 1, 1)
		must(t, r.close())
	}
}
