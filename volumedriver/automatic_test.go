package volumedriver

import (
	"context"
	"errors"
	"testing"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/tlog"

	"github.com/google/uuid"
)

// The snapshot that was made for a clone goes with it, if it is read then as soon as
// nobody does any more, and without a start.
func TestAutomaticReadWhenCloneGoes(t *testing.T) {
	ctx := soon(t)
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	write(t, d, 0, 8, 1)
	_, err := r.host.Clone(ctx, "v", "", "c", nil)
	must(t, err)
	list, err := r.host.SnapshotList(ctx, "v")
	must(t, err)
	if len(list) != 1 {
		t.Fatalf("snapshots: %+v", list)
	}
	read, release, err := r.host.OpenDevice(ctx, "v@"+list[0].Name)
	must(t, err)
	must(t, r.host.Delete(ctx, "c"))
	noCloneSnapshot(t, r.host, "v")
	holdsPattern(t, read, 0, 8, 1)
	release()
	noneLeft(t, r.host, "v")
	must(t, r.close())
}

// So it does if somebody clones it, or rolls back to it, when the clone goes.
func TestAutomaticPinnedWhenCloneGoes(t *testing.T) {
	ctx := soon(t)
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	write(t, d, 0, 8, 1)
	_, err := r.host.Clone(ctx, "v", "", "c", nil)
	must(t, err)
	list, err := r.host.SnapshotList(ctx, "v")
	must(t, err)
	v := volumeOf(t, r, "v")
	s, err := v.tree.pinNamed(list[0].Name)
	must(t, err)
	must(t, r.host.Delete(ctx, "c"))
	noCloneSnapshot(t, r.host, "v")
	v.unpin(s)
	noneLeft(t, r.host, "v")
	must(t, r.close())
}

// A clone that is deleted as soon as it has its name, before who made it hears of
// that, leaves nothing.
func TestCloneDeletedAtOnce(t *testing.T) {
	ctx := soon(t)
	r, d := newRig(t, crashdisk.New(), modelDisk, nil)
	write(t, d, 0, 8, 1)
	var id uuid.UUID
	info, err := r.host.CloneAs(ctx, "v", "", nil, func(its uuid.UUID, commit func(name string) error) error {
		id = its
		if err := commit("c"); err != nil {
			return err
		}
		return r.host.Delete(ctx, "c")
	})
	// It was made: who asked for it is told so, whatever others have done since.
	must(t, err)
	if info.ID != id || info.Name != "c" {
		t.Errorf("made: %q, %v; it is %v", info.Name, info.ID, id)
	}
	if _, err := r.host.Info(ctx, "c"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the clone that was deleted: %v", err)
	}
	names, err := r.back.ListNamespaces(ctx)
	must(t, err)
	if len(names) != 1 {
		t.Errorf("namespaces: %v", names)
	}
	noCloneSnapshot(t, r.host, "v")
	noneLeft(t, r.host, "v")
	must(t, r.close())
}

// A snapshot that is made for a clone has its pin with its entry: a clone of the same
// vDisk that goes meanwhile takes automatic snapshots along that nobody needs. A replay
// pins none.
func TestAutomaticIsPinnedWithItsEntry(t *testing.T) {
	ctx := context.Background()
	mem := crashdisk.New()
	r, d := newRig(t, mem, modelDisk, nil)
	write(t, d, 0, 1, 1)
	v := volumeOf(t, r, "v")
	made := tlog.Snapshot{ID: uuid.New(), Created: 1, Auto: true, Name: "auto"}
	_, err := v.buf.AppendEntry(ctx, tlog.Entry{Kind: tlog.KindSnapshot, Payload: made.Payload()})
	must(t, err)
	if s := v.tree.find(made.ID); s == nil || s.pins != 1 {
		t.Errorf("it is %+v", s)
	}
	image := mem.Kill()
	must(t, r.close())
	after := reopen(t, image, nil)
	if s := volumeOf(t, after, "v").tree.find(made.ID); s != nil && s.pins != 0 {
		t.Errorf("after a restart it has %d pins", s.pins)
	}
}
