package volumedriver

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/backend/fault"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/gate"
	"openvstorage/volumedriver/catalog"
)

// soon bounds what must wait for nobody: it ends a test that would hang.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// faulty is a rig over a backend that calls can be held or failed at.
func faulty(t *testing.T, fs *crashdisk.FS) (*rig, *fault.Store) {
	t.Helper()
	var back *fault.Store
	r, err := openRig(fs, func(o *Options) {
		back = fault.New(o.Backend)
		o.Backend = back
	})
	must(t, err)
	return r, back
}

// othersGoOn does what management there is beside an operation on v that waits.
func othersGoOn(t *testing.T, h *Host, v string) {
	t.Helper()
	ctx := soon(t)
	_, err := h.Create(ctx, "other", modelDisk)
	must(t, err)
	must(t, h.Rename(ctx, "other", "another"))
	_, err = h.SnapshotCreate(ctx, "another", "s")
	must(t, err)
	must(t, h.Resize(ctx, "another", 2*modelDisk))
	must(t, h.Rollback(ctx, "another", "s"))
	must(t, h.Delete(ctx, "another"))
	if v != "" {
		_, err = h.SnapshotCreate(ctx, v, "s")
		must(t, err)
		info, err := h.Info(ctx, v)
		must(t, err)
		must(t, h.Resize(ctx, v, info.Size+modelDisk))
		must(t, h.Rollback(ctx, v, "s"))
		must(t, h.Rename(ctx, v, v+"/moved"))
		must(t, h.Rename(ctx, v+"/moved", v))
	}
}

// noCloneSnapshot fails if v shows a snapshot that was made for a clone.
func noCloneSnapshot(t *testing.T, h *Host, v string) {
	t.Helper()
	ctx := soon(t)
	list, err := h.SnapshotList(ctx, v)
	must(t, err)
	for _, s := range list {
		if strings.HasPrefix(s.Name, "clone-") {
			t.Errorf("snapshot %s stays", s.Name)
		}
	}
	names, err := h.Exports(ctx)
	must(t, err)
	for _, name := range names {
		if strings.Contains(name, "@clone-") {
			t.Errorf("export %s stays", name)
		}
	}
}

// noneLeft waits until nothing is left of clones of v, in the catalog either.
func noneLeft(t *testing.T, h *Host, name string) {
	t.Helper()
	ctx := soon(t)
	v, err := h.table.named(name)
	must(t, err)
	for {
		must(t, ctx.Err())
		left := len(v.cat.current().Children)
		for _, s := range v.cat.current().Snapshots {
			if s.Auto {
				left++
			}
		}
		v.tree.mu.Lock()
		for _, s := range v.tree.snapshots {
			if s.Auto {
				left++
			}
		}
		v.tree.mu.Unlock()
		if left == 0 {
			return
		}
		runtime.Gosched()
	}
}

// A clone that waits for the upload is in nobody's way, and leaves nothing when it
// is given up: at once, and after a crash and a start with the backend away.
func TestCloneWaitsInNobodysWay(t *testing.T) {
	fs := crashdisk.New()
	r, back := faulty(t, fs)
	_, err := r.host.Create(soon(t), "v", modelDisk)
	must(t, err)
	d := open(t, r.host, "v")
	write(t, d, 0, 8, 1)
	away := gate.New()
	back.Add(fault.Rule{Ops: []fault.Op{fault.Put}, Object: "[st]*", Gate: away})
	ctx, cancel := context.WithCancel(soon(t))
	cloned := make(chan error, 1)
	go func() {
		_, err := r.host.Clone(ctx, "v", "", "c", nil)
		cloned <- err
	}()
	must(t, away.Arrived(soon(t), 1))
	othersGoOn(t, r.host, "v")
	noCloneSnapshot(t, r.host, "v")
	if err := r.host.Delete(soon(t), "v"); !errors.Is(err, ErrBusy) {
		t.Errorf("delete of what is being cloned: %v", err)
	}
	image := fs.Kill()
	cancel()
	if err := <-cloned; !errors.Is(err, context.Canceled) {
		t.Errorf("a clone that was given up: %v", err)
	}
	noCloneSnapshot(t, r.host, "v")
	away.Open()
	noneLeft(t, r.host, "v")
	must(t, r.host.Delete(soon(t), "v"))
	must(t, r.close())

	after, err := openRig(image, func(o *Options) {
		o.Backend = fault.New(o.Backend)
		away = gate.New()
		o.Backend.(*fault.Store).Add(fault.Rule{Ops: []fault.Op{fault.Put}, Object: "[st]*", Gate: away})
	})
	must(t, err)
	noCloneSnapshot(t, after.host, "v")
	othersGoOn(t, after.host, "")
	away.Open()
	noneLeft(t, after.host, "v")
	holdsPattern(t, open(t, after.host, "v"), 0, 8, 1)
	must(t, after.close())
}

// Wherever a clone waits for the backend it can be given up, is in nobody's way,
// and leaves nothing.
func TestCloneGivenUp(t *testing.T) {
	for name, rule := range map[string]fault.Rule{
		"upload":              {Ops: []fault.Op{fault.Put}, Object: "sco-*"},
		"catalog of parent":   {Ops: []fault.Op{fault.PutIf}, Namespace: "PARENT", Object: catalog.ObjectName, Skip: 1},
		"its put, too late":   {Ops: []fault.Op{fault.PutIf}, Namespace: "PARENT", Object: catalog.ObjectName, Skip: 1, After: true},
		"namespace":           {Ops: []fault.Op{fault.CreateNamespace}},
		"namespace, too late": {Ops: []fault.Op{fault.CreateNamespace}, After: true},
		"catalog of clone":    {Ops: []fault.Op{fault.PutIf}, Namespace: "CLONE", Object: catalog.ObjectName},
	} {
		t.Run(name, func(t *testing.T) {
			fs := crashdisk.New()
			r, back := faulty(t, fs)
			info, err := r.host.Create(soon(t), "v", modelDisk)
			must(t, err)
			write(t, open(t, r.host, "v"), 0, 8, 1)
			rule.Gate = gate.New()
			switch parent := info.ID.String(); rule.Namespace {
			case "PARENT":
				rule.Namespace = parent
			case "CLONE": // the first put after its namespace was made
				var made atomic.Bool
				back.Add(fault.Rule{Ops: []fault.Op{fault.CreateNamespace}, Draw: func() bool { made.Store(true); return false }})
				rule.Namespace, rule.Draw = "", made.Load
			}
			held := back.Add(rule)
			ctx, cancel := context.WithCancel(soon(t))
			cloned := make(chan error, 1)
			go func() {
				_, err := r.host.Clone(ctx, "v", "", "c", nil)
				cloned <- err
			}()
			if err := rule.Gate.Arrived(soon(t), 1); err != nil {
				t.Fatal(err)
			}
			image := fs.Kill()
			cancel()
			if err := <-cloned; err == nil {
				t.Fatal("a clone that was given up is reported as made")
			}
			noCloneSnapshot(t, r.host, "v")
			held.Remove()
			othersGoOn(t, r.host, "")
			rule.Gate.Open()
			noneLeft(t, r.host, "v")
			if _, err := r.host.Info(soon(t), "c"); !errors.Is(err, ErrNotFound) {
				t.Errorf("the clone is there: %v", err)
			}
			for names := []string(nil); len(names) != 1; {
				must(t, soon(t).Err())
				names, err = r.back.ListNamespaces(soon(t))
				must(t, err)
				runtime.Gosched()
			}
			must(t, r.host.Delete(soon(t), "v"))
			must(t, r.close())

			after := reopen(t, image, nil)
			noCloneSnapshot(t, after.host, "v")
			noneLeft(t, after.host, "v")
		})
	}
}

// What makes or deletes a vDisk and waits for the backend is in nobody's way, and
// can be given up. A deletion that has begun goes on.
func TestOthersGoOn(t *testing.T) {
	for name, rule := range map[string]fault.Rule{
		"create, namespace": {Ops: []fault.Op{fault.CreateNamespace}},
		"create, catalog":   {Ops: []fault.Op{fault.PutIf}, Object: catalog.ObjectName},
		"delete":            {Ops: []fault.Op{fault.DeleteNamespace}},
	} {
		t.Run(name, func(t *testing.T) {
			r, back := faulty(t, crashdisk.New())
			_, err := r.host.Create(soon(t), "v", modelDisk)
			must(t, err)
			rule.Gate, rule.Count = gate.New(), 1
			back.Add(rule)
			ctx, cancel := context.WithCancel(soon(t))
			done := make(chan error, 1)
			deletes := rule.Ops[0] == fault.DeleteNamespace
			go func() {
				if deletes {
					done <- r.host.Delete(ctx, "v")
					return
				}
				_, err := r.host.Create(ctx, "w", modelDisk)
				done <- err
			}()
			must(t, rule.Gate.Arrived(soon(t), 1))
			busy := "v"
			if deletes {
				busy = ""
				info, err := r.host.Info(soon(t), "v")
				if must(t, err); info.State != StateDeleting {
					t.Errorf("a vDisk that is being deleted is %s", info.State)
				}
			}
			othersGoOn(t, r.host, busy)
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) || deletes != errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("given up: %v", err)
			}
			rule.Gate.Open()
			if !deletes {
				_, err := r.host.Create(soon(t), "w", modelDisk)
				must(t, err)
				must(t, r.host.Delete(soon(t), "w"))
				must(t, r.host.Delete(soon(t), "v"))
			}
			for names := []string{""}; len(names) > 0; {
				names, err = r.back.ListNamespaces(soon(t))
				must(t, err)
				runtime.Gosched()
			}
			must(t, r.close())
		})
	}
}
