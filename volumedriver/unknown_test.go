package volumedriver

import (
	"context"
	"fmt"
	"testing"

	"openvstorage/backend/fault"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/registry/registrytest"
)

// noAnswer has the catalog's next put, or each if count is 0, take effect or
// not without an answer. The error is one that is not asked again about: the
// caller's time has run out.
func noAnswer(back *fault.Store, took bool, count int) *fault.Injected {
	return back.Add(fault.Rule{
		Ops: []fault.Op{fault.PutIf}, Object: catalog.ObjectName, Count: count, Err: context.DeadlineExceeded, After: took,
	})
}

// A vDisk whose deletion may have been noted takes no write that the deletion
// would destroy.
func TestDeleteOfUnknownOutcome(t *testing.T) {
	ctx := context.Background()
	for name, fate := range map[string]registrytest.Fate{"made": registrytest.Made, "lost": registrytest.Lost, "late": registrytest.Late} {
		t.Run(name, func(t *testing.T) {
			fs := crashdisk.New()
			r, d := newRig(t, fs, modelDisk, nil)
			write(t, d, 0, 4, 1)
			must(t, d.Flush(ctx))
			r.doubt.Next(fate)
			if err := r.host.Delete(ctx, "v"); err == nil {
				t.Fatal("a deletion that nobody answered is reported as done")
			}
			written := false
			if d, release, err := r.host.OpenDevice(ctx, "v"); err == nil {
				write(t, d, 0, 4, 2)
				must(t, d.Flush(ctx))
				release()
				written = true
			}
			image := fs.Kill()
			r.doubt.Heal()
			must(t, r.close())
			after := reopen(t, image, nil)
			if _, err := after.host.Info(ctx, "v"); written && err != nil {
				t.Fatalf("what was written and flushed is gone: %v", err)
			}
		})
	}
}

// What a catalog names whose put had an unknown outcome is no orphan.
func TestOrphansOfUnknownCatalog(t *testing.T) {
	ctx := context.Background()
	var back *fault.Store
	fs := crashdisk.New()
	r, d := newRig(t, fs, modelDisk, func(o *Options) { back = fault.New(o.Backend); o.Backend = back })
	for i := range 600 { // so many that the catalog has segments
		write(t, d, i%1024, 1, i)
		_, err := r.host.SnapshotCreate(ctx, "v", fmt.Sprintf("%0200d", i))
		must(t, err)
	}
	must(t, r.host.Sync(ctx, "v", nil))
	v := volumeOf(t, r, "v")
	v.stopStorer()
	if len(v.cat.segments) == 0 {
		t.Fatal("the catalog has no segments")
	}
	s, err := v.snapshotNamed(fmt.Sprintf("%0200d", 300))
	must(t, err)
	rule := noAnswer(back, true, 1)
	if err := v.deleteSnapshot(ctx, s); err == nil {
		t.Fatal("a put that nobody answered is reported as done")
	}
	rule.Remove()
	must(t, v.deleteOrphans(ctx))
	image := fs.Kill()
	must(t, r.close())
	after := reopen(t, image, nil)
	i, err := after.host.Info(ctx, "v")
	must(t, err)
	if i.State != StateRunning {
		t.Fatalf("the vDisk does not open again: %s", i.Reason)
	}
}

// Nothing is done with a snapshot that may be deleted.
func TestSnapshotDeleteOfUnknownOutcome(t *testing.T) {
	ctx := context.Background()
	for _, took := range []bool{true, false} {
		t.Run(fmt.Sprint(took), func(t *testing.T) {
			var back *fault.Store
			fs := crashdisk.New()
			r, d := newRig(t, fs, modelDisk, func(o *Options) { back = fault.New(o.Backend); o.Backend = back })
			write(t, d, 0, 4, 1)
			_, err := r.host.SnapshotCreate(ctx, "v", "s")
			must(t, err)
			write(t, d, 0, 4, 2)
			must(t, r.host.Sync(ctx, "v", nil))
			volumeOf(t, r, "v").stopStorer()
			rule := noAnswer(back, took, 0)
			if err := r.host.SnapshotDelete(ctx, "v", "s"); err == nil {
				t.Fatal("a put that nobody answered is reported as done")
			}
			want := 2
			if err := r.host.Rollback(ctx, "v", "s"); err == nil {
				want = 1
			}
			image := fs.Kill()
			rule.Remove()
			must(t, r.close())
			after := reopen(t, image, nil)
			i, err := after.host.Info(ctx, "v")
			must(t, err)
			if i.State != StateRunning {
				t.Fatalf("the vDisk does not open again: %s", i.Reason)
			}
			holdsPattern(t, open(t, after.host, "v"), 0, 4, want)
		})
	}
}

var _ = tlog.ID(0)
