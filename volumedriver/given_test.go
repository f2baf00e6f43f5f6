package volumedriver

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/backend/fault"
	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

// A change that its caller gives up is whole or has not happened: before it began it
// has no trace; once it is in the log it is there, though nobody says that it is
// durable, and after a power cut there or not. Nothing stays held for it.
func TestGivenUpChanges(t *testing.T) {
	const more = 16 // clusters
	type holds struct {
		size  uint64
		write int // that holds all of the first clusters
	}
	was := holds{modelDisk, 2}
	for what, c := range map[string]struct {
		do  func(ctx context.Context, h *Host) error
		now holds
	}{
		"resize":   {func(ctx context.Context, h *Host) error { return h.Resize(ctx, "v", modelDisk+more*4096) }, holds{modelDisk + more*4096, 2}},
		"rollback": {func(ctx context.Context, h *Host) error { return h.ForceRollback(ctx, "v", "s") }, holds{modelDisk, 1}},
	} {
		t.Run(what, func(t *testing.T) {
			ctx := context.Background()
			under := crashdisk.New()
			fs := faultdisk.New(under)
			r, d := newRig(t, fs, modelDisk, nil)
			write(t, d, 0, 8, 1)
			_, err := r.host.SnapshotCreate(ctx, "v", "s")
			must(t, err)
			write(t, d, 0, 8, 2)
			must(t, d.Flush(ctx))
			is := func(r *rig) holds {
				t.Helper()
				i, err := r.host.Info(ctx, "v")
				if must(t, err); i.State != StateRunning {
					t.Fatalf("it is %s: %s", i.State, i.Reason)
				}
				d := open(t, r.host, "v")
				p := make([]byte, 8*4096)
				must(t, d.Read(ctx, p, 0))
				have := holds{i.Size, 1}
				if diff(p, pattern(1, 8)) >= 0 {
					have.write = 2
					holdsPattern(t, d, 0, 8, 2)
				}
				last := int(i.Size/4096) - 1
				write(t, d, last, 1, 3)
				must(t, d.Flush(ctx))
				holdsPattern(t, d, last, 1, 3)
				return have
			}
			if err := c.do(ended(ctx), r.host); !errors.Is(err, context.Canceled) {
				t.Errorf("given up before it began: %v", err)
			}
			if have := is(r); have != was {
				t.Errorf("given up before it began: %+v", have)
			}

			door := faultdisk.NewGate()
			rule := fs.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "/data/...", Before: door.Wait})
			giving, up := context.WithCancel(ctx)
			done := make(chan error, 1)
			go func() { done <- c.do(giving, r.host) }()
			select {
			case <-door.Arrived():
			case err := <-done:
				t.Fatalf("it has not waited: %v", err)
			}
			up()
			if err := <-done; !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("given up while it was synced: %v", err)
			}
			var images []*crashdisk.FS
			rng := rand.New(rand.NewPCG(1, 6))
			for _, mode := range []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn} {
				images = append(images, under.Crash(rng, mode))
			}
			images = append(images, under.Kill())
			rule.Remove()
			door.Open()
			soon, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if have := is(r); have != c.now {
				t.Errorf("given up while it was synced: %+v", have)
			}
			must(t, c.do(soon, r.host)) // nobody holds it up, and it is the same once more
			if have := is(r); have != c.now {
				t.Errorf("done again: %+v", have)
			}
			must(t, r.close())
			r = reopen(t, under, nil)
			if have := is(r); have != c.now {
				t.Errorf("opened again: %+v", have)
			}
			for i, image := range images {
				r := reopen(t, image, nil)
				if have := is(r); have != c.now && (have != was || i == len(images)-1) {
					t.Errorf("image %d: %+v", i, have)
				}
			}
		})
	}
}

// errHook is a context that calls back when it is asked for its error the first time.
type errHook struct {
	context.Context
	first func()
}

func (c *errHook) Err() error {
	if f := c.first; f != nil {
		c.first = nil
		f()
	}
	return c.Context.Err()
}

// What was counted of a clone's map before a rollback, or while one was made, says
// nothing of the map after it: less than there is must not be told.
func TestBoundOverRollback(t *testing.T) {
	ctx := context.Background()
	r, err := openRig(crashdisk.New(), nil)
	must(t, err)
	_, err = r.host.Create(ctx, "wide", 64<<20)
	must(t, err)
	wide := open(t, r.host, "wide")
	for off := int64(0); off < 64<<20; off += 8 << 20 {
		must(t, wide.Write(ctx, []device.Span{{Off: off, Data: pattern(1, 1)}}))
	}
	_, err = r.host.SnapshotCreate(ctx, "wide", "s")
	must(t, err)
	_, err = r.host.Clone(ctx, "wide", "s", "clone", nil)
	must(t, err)
	clone := open(t, r.host, "clone")
	_, err = r.host.SnapshotCreate(ctx, "clone", "full")
	must(t, err)
	v := volumeOf(t, r, "clone")
	const all, half = 8 * 2 << 20, 4 * 2 << 20 // bytes that leaves of the map span
	reaches := func(what string, want uint64) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); statOf(t, r.host, "clone").Allocated != want && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			v.store.ring()
		}
		if got := statOf(t, r.host, "clone").Allocated; got != want {
			t.Fatalf("%s: %d bytes, not %d", what, got, want)
		}
	}
	never := func(what string) {
		t.Helper()
		if got := statOf(t, r.host, "clone").Allocated; got < all {
			t.Fatalf("%s: %d bytes, and there may be %d", what, got, uint64(all))
		}
	}
	rollback := func() {
		before := v.bounds.heads.Load()
		must(t, r.host.ForceRollback(ctx, "clone", "full"))
		for v.bounds.heads.Load() == before {
			time.Sleep(time.Millisecond)
		}
	}
	for i := range 20 {
		must(t, clone.Trim(ctx, 0, 32<<20))
		must(t, clone.Flush(ctx))
		// The storer may have counted what was there before, and say so now.
		for deadline := time.Now().Add(20 * time.Second); statOf(t, r.host, "clone").Allocated != half && time.Now().Before(deadline); {
			v.bounds.inherited.forget()
			v.bounds.count(ctx)
		}
		reaches("half of it trimmed", half)
		if i%2 == 0 {
			rollback()
			never("rolled back")
			reaches("rolled back", all)
			continue
		}
		// A rollback in the middle of counting. The storer may be first to count.
		for fired := false; !fired; {
			v.bounds.inherited.forget()
			v.bounds.count(&errHook{ctx, func() { fired = true; rollback() }})
		}
		never("rolled back while it was counted")
		reaches("rolled back while it was counted", all)
	}
	must(t, r.close())
}

// From the moment at which it is listed nobody takes a vDisk that could not be opened
// yet for one that is known: it is not renamed, deleted or opened.
func TestListedInDoubt(t *testing.T) {
	ctx := context.Background()
	var back *fault.Store
	r, d := newRig(t, crashdisk.New(), modelDisk, func(o *Options) {
		back = fault.New(o.Backend)
		o.Backend = back
	})
	write(t, d, 0, 4, 1)
	must(t, r.host.Sync(ctx, "v", nil))
	rec, err := r.reg.Get(ctx, d.(*Device).id)
	must(t, err)
	must(t, r.host.Close(ctx))
	silence := back.Add(fault.Rule{Ops: []fault.Op{fault.Stat, fault.Get}, Err: errors.New("no answer")})
	opt := r.host.opt
	h, err := Open(ctx, opt)
	must(t, err)
	r.host = h
	v := volumeOf(t, r, "v")
	if v.closedBy() == nil {
		t.Fatal("it was opened")
	}
	// It is opened once more, as it is all the time, and somebody comes at once.
	ended := ended(ctx)
	var listed atomic.Int32
	watch := func(*Volume) {
		if listed.Add(1) > 1 {
			return
		}
		for what, do := range map[string]func() error{
			"rename": func() error { return h.Rename(ended, "v", "w") },
			"delete": func() error { return h.Delete(ended, "v") },
			"force":  func() error { return h.ForceDelete(ended, "v") },
			"clone":  func() error { _, err := h.Clone(ended, "v", "", "c", nil); return err },
			"open": func() error {
				_, release, err := h.OpenDevice(ended, "v")
				if err == nil {
					release()
				}
				return err
			},
			"snapshot": func() error { _, err := h.SnapshotCreate(ended, "v", "s"); return err },
		} {
			if err := do(); !errors.Is(err, ErrBusy) {
				t.Errorf("%s at the moment at which it is listed: %v", what, err)
			}
		}
		if i, err := h.Info(ctx, "v"); err != nil || i.State != StateUnsure || i.Reason == "" {
			t.Errorf("it is shown as %s: %s, %v", i.State, i.Reason, err)
		}
	}
	h.table.watch.Store(&watch)
	h.opener.openListed(h.background.living(), rec, nil)
	h.table.watch.Store(nil)
	if listed.Load() == 0 {
		t.Error("it was not listed")
	}
	silence.Remove()
	d, release, err := openDisk(ctx, h, "v")
	must(t, err)
	holdsPattern(t, d, 0, 4, 1)
	release()
	must(t, r.close())
}

// ended is a context whose holder has gone.
func ended(ctx context.Context) context.Context {
	ctx, end := context.WithCancel(ctx)
	end()
	return ctx
}
