package volumedriver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/volumedriver/registry"
)

// All vDisks below a directory get their new names, with what is kept beside the
// registry, or none does; users notice nothing.
func TestRenameBelow(t *testing.T) {
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d := crashdisk.New()
	faults := faultdisk.New(d)
	r, err := openRig(faults, nil)
	must(err)
	for _, name := range []string{"vm/a", "vm/b", "vm/deep/c", "vmx", "taken/b"} {
		_, err := r.host.Create(ctx, name, modelDisk)
		must(err)
	}
	_, err = r.host.SnapshotCreate(ctx, "vm/a", "s")
	must(err)
	dev, release, err := openDisk(ctx, r.host, "vm/a")
	must(err)
	data := bytes.Repeat([]byte("held"), 1024)
	must(dev.Write(ctx, []device.Span{{Off: 0, Data: data}}))

	names := func(h *Host) (list []string) {
		infos, err := h.List(ctx)
		must(err)
		for _, i := range infos {
			list = append(list, i.Name)
		}
		return list
	}
	before := names(r.host)
	beside := registry.NewBeside([]registry.Swap{{Key: []byte("beside"), New: []byte("1")}})
	same := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		if got := names(r.host); !slices.Equal(got, before) {
			t.Errorf("%s: the names are %v", what, got)
		}
		if v, err := r.keys.Get(ctx, []byte("beside")); err != nil || v != nil {
			t.Errorf("%s: the key beside the registry is %q, %v", what, v, err)
		}
	}
	same("one name is taken", r.host.RenameBelow(ctx, "vm", "taken", beside), ErrExists)
	same("no name", r.host.RenameBelow(ctx, "vm", "a@b", beside), ErrInvalid)
	changed := registry.NewBeside([]registry.Swap{{Key: []byte("beside"), Old: []byte("0"), New: []byte("1")}})
	if err := r.host.RenameBelow(ctx, "vm", "new", changed); err == nil || errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("what is beside has another value: %v", err)
	}
	must(r.host.RenameBelow(ctx, "vm", "new", beside))
	after := []string{"new/a", "new/b", "new/deep/c", "taken/b", "vmx"}
	if got := names(r.host); !slices.Equal(got, after) {
		t.Errorf("the names are %v", got)
	}
	must(dev.Write(ctx, []device.Span{{Off: 4096, Data: data}}))
	must(dev.Flush(ctx))
	got := make([]byte, 8192)
	must(dev.Read(ctx, got, 0))
	if !bytes.Equal(got, slices.Concat(data, data)) {
		t.Error("an open device holds other bytes after the renaming")
	}
	if err := r.host.Delete(ctx, "new/a"); !errors.Is(err, ErrBusy) {
		t.Errorf("delete while it is open: %v", err)
	}
	if _, _, err := r.host.OpenDevice(ctx, "vm/a@s"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the snapshot by its old name: %v", err)
	}
	_, drop, err := r.host.OpenDevice(ctx, "new/a@s")
	must(err)
	drop()
	release()

	// A registry that fails renames nothing here; a start anew shows what it has.
	faults.Inject(faultdisk.Rule{Ops: faultdisk.Rename, Path: "/data/registry/...", Err: errors.New("the disk is gone")})
	if err := r.host.RenameBelow(ctx, "new", "lost", registry.Beside{}); err == nil {
		t.Error("the registry could not be written, and the renaming succeeded")
	}
	if got := names(r.host); !slices.Equal(got, after) {
		t.Errorf("after a failure the names are %v", got)
	}
	image := d.Kill()
	_ = r.close()
	r, err = openRig(image, nil)
	must(err)
	if got := names(r.host); !slices.Equal(got, after) {
		t.Errorf("after a kill the names are %v", got)
	}
	must(r.close())
}

// A deletion that is of one vDisk only deletes no other that has its name, and
// is asked for what the vDisk is then.
func TestDeleteIf(t *testing.T) {
	ctx := context.Background()
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	was, err := r.host.Info(ctx, "v")
	must(t, err)
	refused := errors.New("it is another")
	isThat := func(i Info) error {
		if i.ID != was.ID || len(i.Snapshots) > 0 {
			return refused
		}
		return nil
	}
	_, err = r.host.SnapshotCreate(ctx, "v", "s")
	must(t, err)
	refuses := func(what, name string, want error) {
		t.Helper()
		if err := r.host.DeleteIf(ctx, name, isThat); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	refuses("with a snapshot", "v", refused)
	must(t, r.host.SnapshotDelete(ctx, "v", "s"))
	must(t, r.host.Rename(ctx, "v", "w"))
	refuses("by the name that it had", "v", ErrNotFound)
	_, err = r.host.Create(ctx, "v", modelDisk)
	must(t, err)
	refuses("another has the name", "v", refused)
	write(t, d, 0, 1, 1) // nothing has happened to either
	other := open(t, r.host, "v")
	write(t, other, 0, 1, 2)
	holdsPattern(t, d, 0, 1, 1)
	_, release, err := r.host.OpenDevice(ctx, "w")
	must(t, err)
	refuses("in use", "w", ErrBusy)
	release()
	must(t, r.host.DeleteIf(ctx, "w", isThat))
	if _, err := r.host.Info(ctx, "w"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after its deletion: %v", err)
	}
	must(t, r.close())
}

// More vDisks than one step takes are refused whole.
func TestRenameBelowMany(t *testing.T) {
	n := &names{registry: many{}, table: newTable()}
	list := make([]renaming, registry.RenamesMax+1)
	for i := range list {
		list[i] = renaming{v: &Volume{}, old: fmt.Sprint("a/", i), new: fmt.Sprint("b/", i)}
	}
	if err := n.apply(context.Background(), list, registry.Beside{}); !errors.Is(err, ErrInvalid) || !errors.Is(err, registry.ErrMany) {
		t.Error(err)
	}
}

// many is a registry to which it is too much.
type many struct{ Registry }

func (many) RenameAll(context.Context, []registry.Renaming, registry.Beside) error {
	return registry.ErrMany
}
