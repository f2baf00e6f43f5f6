package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"openvstorage/backend/fault"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/registry"
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
			if d, release, err := openDisk(ctx, r.host, "v"); err == nil {
				write(t, d, 0, 4, 2)
				must(t, d.Flush(ctx))
				release()
				written = true
			}
			i, err := r.host.Info(ctx, "v")
			if must(t, err); i.State != StateUnsure || i.Reason == "" {
				t.Errorf("state %s, reason %q", i.State, i.Reason)
			}
			if _, err := r.host.Clone(ctx, "v", "", "w", nil); !errors.Is(err, ErrBusy) {
				t.Errorf("a clone of what may be deleted: %v", err)
			}
			image := fs.Kill()
			r.doubt.Heal()
			_, _, err = r.host.OpenDevice(ctx, "v") // which finds out
			if there := err == nil; there != (fate == registrytest.Lost) {
				t.Errorf("when all is answered: %v", err)
			}
			if there := namespaces(t, r); there != (fate == registrytest.Lost) {
				t.Error("the namespace is there: ", there)
			}
			must(t, r.close())
			after := reopen(t, image, nil)
			if _, err := after.host.Info(ctx, "v"); written && err != nil {
				t.Fatalf("what was written and flushed is gone: %v", err)
			}
		})
	}
}

func namespaces(t *testing.T, r *rig) bool {
	t.Helper()
	names, err := r.back.ListNamespaces(context.Background())
	must(t, err)
	return len(names) > 0
}

// A vDisk whose creation may have been noted keeps its namespace until that is
// known, and its name.
func TestCreateOfUnknownOutcome(t *testing.T) {
	ctx := context.Background()
	for name, fate := range map[string]registrytest.Fate{"made": registrytest.Made, "lost": registrytest.Lost, "late": registrytest.Late} {
		t.Run(name, func(t *testing.T) {
			fs := crashdisk.New()
			r, err := openRig(fs, nil)
			must(t, err)
			made := fate != registrytest.Lost
			r.doubt.After(1, fate) // the first is its intent
			if _, err := r.host.Create(ctx, "v", modelDisk); !errors.Is(err, ErrUnknownOutcome) {
				t.Fatal(err)
			}
			if _, err := r.host.Create(ctx, "v", modelDisk); !errors.Is(err, ErrBusy) {
				t.Errorf("another of that name: %v", err)
			}
			image := fs.Kill()
			r.doubt.Heal()
			d, release, err := openDisk(ctx, r.host, "v")
			if (err == nil) != made || namespaces(t, r) != made {
				t.Errorf("when all is answered: %v", err)
			}
			if err == nil {
				write(t, d, 0, 1, 1)
				release()
			}
			must(t, r.close())
			after := reopen(t, image, nil)
			i, err := after.host.Info(ctx, "v")
			if there := fate == registrytest.Made; there != (err == nil) || there != namespaces(t, after) || there && i.State != StateRunning {
				t.Errorf("after a start: %v, %+v", err, i)
			}
		})
	}
}

// A vDisk whose intent may have been noted was not made, and that is known. What was noted
// goes.
func TestIntentOfUnknownOutcome(t *testing.T) {
	ctx := context.Background()
	for name, fate := range map[string]registrytest.Fate{"made": registrytest.Made, "lost": registrytest.Lost, "late": registrytest.Late} {
		t.Run(name, func(t *testing.T) {
			fs := crashdisk.New()
			r, err := openRig(fs, nil)
			must(t, err)
			r.doubt.Next(fate)
			if _, err := r.host.Create(ctx, "v", modelDisk); err == nil || errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("no intent, and yet: %v", err)
			}
			r.doubt.Heal()
			_, err = r.host.Create(ctx, "v", modelDisk)
			must(t, err)
			must(t, r.close())
			after := reopen(t, fs, nil)
			if list, err := after.reg.Intents(ctx); err != nil || len(list) > 0 {
				t.Errorf("after a start: %+v, %v", list, err)
			}
			if _, err := after.host.Info(ctx, "v"); err != nil {
				t.Error(err)
			}
		})
	}
}

// A vDisk has one of two names until it is known which, and both are taken; who
// uses it goes on.
func TestRenameOfUnknownOutcome(t *testing.T) {
	ctx := context.Background()
	for name, fate := range map[string]registrytest.Fate{"made": registrytest.Made, "lost": registrytest.Lost, "late": registrytest.Late} {
		t.Run(name, func(t *testing.T) {
			fs := crashdisk.New()
			r, d := newRig(t, fs, modelDisk, nil)
			r.doubt.Next(fate)
			if err := r.host.Rename(ctx, "v", "w"); !errors.Is(err, ErrUnknownOutcome) {
				t.Fatal(err)
			}
			for _, name := range []string{"v", "w"} {
				if _, err := r.host.Create(ctx, name, modelDisk); !errors.Is(err, ErrBusy) {
					t.Errorf("another named %s: %v", name, err)
				}
			}
			write(t, d, 0, 1, 7)
			r.doubt.Heal()
			right, wrong := "w", "v"
			if fate == registrytest.Lost {
				right, wrong = wrong, right
			}
			must(t, r.host.Rename(ctx, right, "x"))
			_, err := r.host.Create(ctx, wrong, modelDisk)
			must(t, err)
			must(t, r.close())
			after := reopen(t, fs, nil)
			holdsPattern(t, open(t, after.host, "x"), 0, 1, 7)
			list, err := after.host.List(ctx)
			if must(t, err); len(list) != 2 {
				t.Errorf("%d vDisks", len(list))
			}
		})
	}
}

// A renaming of a directory that was not answered is made whole or not at all, with
// what is beside the registry. Whoever waits for it may give up.
func TestRenameBelowOfUnknownOutcome(t *testing.T) {
	ctx := context.Background()
	for name, fate := range map[string]registrytest.Fate{"made": registrytest.Made, "lost": registrytest.Lost, "late": registrytest.Late} {
		t.Run(name, func(t *testing.T) {
			r, _ := newRig(t, crashdisk.New(), modelDisk, nil)
			must(t, r.host.Rename(ctx, "v", "d/v"))
			r.doubt.Next(fate)
			beside := registry.NewBeside([]registry.Swap{{Key: []byte("beside"), New: []byte("1")}})
			if err := r.host.RenameBelow(ctx, "d", "e", beside); !errors.Is(err, ErrUnknownOutcome) {
				t.Fatal(err)
			}
			for _, dir := range []string{"d", "e"} {
				if err := r.host.SettleBelow(ended(ctx), dir); !errors.Is(err, ErrBusy) {
					t.Errorf("%s, to one who gives up: %v", dir, err)
				}
			}
			must(t, r.host.SettleBelow(ended(ctx), "f"))
			// A renaming does not wait: whoever asks for it may hold what others need.
			if err := r.host.RenameBelow(ctx, "d", "h", registry.Beside{}); !errors.Is(err, ErrBusy) {
				t.Errorf("a renaming beside what is not known: %v", err)
			}
			r.doubt.Heal()
			ctx := soon(t)
			err := r.host.SettleBelow(ctx, "d", "e")
			for errors.Is(err, ErrBusy) && ctx.Err() == nil { // an attempt that began before that
				err = r.host.SettleBelow(ctx, "d", "e")
			}
			must(t, err)
			right, value := "e", "1"
			if fate == registrytest.Lost {
				right, value = "d", ""
			}
			if got, err := r.keys.Get(ctx, []byte("beside")); err != nil || string(got) != value {
				t.Errorf("beside the registry is %q, %v", got, err)
			}
			must(t, r.host.RenameBelow(ctx, right, "g", registry.Beside{}))
			_, err = r.host.Info(ctx, "g/v")
			must(t, err)
			must(t, r.close())
		})
	}
}

// A deletion that has begun and cannot be finished is listed, tried again, and
// not reported as one that did not happen; at a start too.
func TestDeletionGoesOn(t *testing.T) {
	ctx := context.Background()
	fs := crashdisk.New()
	var back *fault.Store
	change := func(o *Options) {
		back = fault.New(o.Backend)
		back.Add(fault.Rule{Ops: []fault.Op{fault.DeleteNamespace}, Err: errors.New("no answer"), After: true, Count: 1})
		o.Backend = back
	}
	r, _ := newRig(t, fs, modelDisk, change)
	if err := r.host.Delete(ctx, "v"); !errors.Is(err, ErrUnknownOutcome) {
		t.Fatal(err)
	}
	i, err := r.host.Info(ctx, "v")
	if must(t, err); i.State != StateDeleting || i.Reason == "" {
		t.Errorf("state %s, reason %q", i.State, i.Reason)
	}
	image := fs.Kill()
	must(t, r.host.Delete(ctx, "v"))
	if _, err := r.host.Info(ctx, "v"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	must(t, r.close())
	after := reopen(t, image, change) // the start fails to finish it, too
	for i, err := after.host.Info(ctx, "v"); err == nil; i, err = after.host.Info(ctx, "v") {
		if i.State != StateDeleting {
			t.Fatalf("state %s, reason %q", i.State, i.Reason)
		}
		_ = after.host.Sync(ctx, "v", nil) // which finds out
	}
	records, err := after.reg.List(ctx)
	if must(t, err); len(records) != 0 || namespaces(t, after) {
		t.Errorf("%d records", len(records))
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
	v.store.stop()
	if len(v.cat.segments) == 0 {
		t.Fatal("the catalog has no segments")
	}
	s, err := v.tree.named(fmt.Sprintf("%0200d", 300))
	must(t, err)
	rule := noAnswer(back, true, 1)
	if err := v.deleteSnapshot(ctx, s); err == nil {
		t.Fatal("a put that nobody answered is reported as done")
	}
	rule.Remove()
	must(t, v.cat.deleteOrphans(ctx))
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
			volumeOf(t, r, "v").store.stop()
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

// A backend that does not answer at a start is no damage: vDisks open when it
// does, clones behind their parents.
func TestOpensByItself(t *testing.T) {
	ctx := context.Background()
	fs := crashdisk.New()
	r, d := newRig(t, fs, modelDisk, nil)
	write(t, d, 0, 1, 1)
	_, err := r.host.Clone(ctx, "v", "", "w", nil)
	must(t, err)
	must(t, r.close())
	for _, op := range []fault.Op{fault.Stat, fault.Get, fault.PutIf} {
		t.Run(string(op), func(t *testing.T) {
			var rule *fault.Injected
			image := fs.Kill()
			after := reopen(t, image, func(o *Options) {
				back := fault.New(o.Backend)
				rule = back.Add(fault.Rule{Ops: []fault.Op{op}, Object: catalog.ObjectName, Err: context.DeadlineExceeded, After: op == fault.PutIf})
				o.Backend = back
			})
			list, err := after.host.List(ctx)
			must(t, err)
			for _, i := range list {
				if i.State != StateUnsure || i.Reason == "" {
					t.Errorf("vDisk %s: state %s, reason %q", i.Name, i.State, i.Reason)
				}
			}
			if _, _, err := after.host.OpenDevice(ctx, "w"); !errors.Is(err, ErrBusy) {
				t.Errorf("a vDisk that is not open yet: %v", err)
			}
			rule.Remove()
			for _, name := range []string{"v", "w"} {
				d, release, err := openDisk(ctx, after.host, name)
				must(t, err)
				holdsPattern(t, d, 0, 1, 1)
				write(t, d, 1, 1, 2)
				release()
			}
		})
	}
}

// What has not begun, as it waits for something else, has no unknown outcome:
// whoever is told so would look for it.
func TestNotBegunIsKnown(t *testing.T) {
	lost := fmt.Errorf("catalog: %w", ErrUnknownOutcome)
	for name, wait := range map[string]func(v *Volume){
		"an earlier operation": func(v *Volume) {
			v.unsure.Store(&unsure{state: StateUnsure, cause: lost, settle: func(context.Context) error { return lost }})
		},
		"storing": func(v *Volume) {
			v.store.stop()
			v.store.mu.Lock()
			v.store.failed = lost
			v.store.mu.Unlock()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, d := newRig(t, crashdisk.New(), modelDisk, nil)
			write(t, d, 0, 1, 1)
			wait(volumeOf(t, r, "v"))
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			defer cancel()
			_, clone := r.host.Clone(ctx, "v", "", "w", nil)
			for what, err := range map[string]error{"clone": clone, "sync": r.host.Sync(ctx, "v", nil)} {
				if err == nil || errors.Is(err, ErrUnknownOutcome) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// Whoever still holds what stood for a vDisk in doubt is not told that the vDisk
// is halted: nothing is wrong with it.
func TestStandInIsNotHalted(t *testing.T) {
	ctx := context.Background()
	r, _ := newRig(t, crashdisk.New(), modelDisk, nil)
	v := volumeOf(t, r, "v")
	s := r.host.opener.listStandIn(registry.Record{ID: v.id, Name: "v"}, &unsure{state: StateUnsure, cause: errOngoing})
	defer r.host.table.list(v)
	s.unsure.Store(nil) // it is found out, and not relisted yet
	for what, err := range map[string]error{"rollback": r.host.Rollback(ctx, "v", "s"), "sync": r.host.Sync(ctx, "v", nil), "resize": r.host.Resize(ctx, "v", 2*modelDisk)} {
		if !errors.Is(err, ErrBusy) || errors.Is(err, ErrHalted) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if i, err := r.host.Info(ctx, "v"); err != nil || i.State != StateUnsure {
		t.Errorf("%+v, %v", i, err)
	}
}
