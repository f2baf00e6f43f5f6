package volumedriver

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/volumedriver/registry"
)

func statOf(t *testing.T, h *Host, name string) Stat {
	t.Helper()
	s, err := h.Stat(t.Context(), name)
	must(t, err)
	byID, err := h.StatID(t.Context(), s.ID)
	if err != nil || byID.Name != name || byID.Change != s.Change {
		t.Errorf("by id: %+v, %v", byID, err)
	}
	return s
}

// The time of the last change is that of whatever changed the vDisk, to a look, and
// of nothing else. Nobody need ask for it.
func TestChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		d := crashdisk.New()
		r, err := openRig(d, nil)
		must(t, err)
		_, err = r.host.Create(ctx, "a", modelDisk)
		must(t, err)
		data := bytes.Repeat([]byte{7}, 8192)
		size := uint64(modelDisk)
		for _, c := range []struct {
			what  string
			do    func(v device.Device) error
			moves bool
		}{
			{"nothing", func(device.Device) error { return nil }, false},
			{"write", func(v device.Device) error { return v.Write(ctx, []device.Span{{Off: 0, Data: data}}) }, true},
			{"write that may not wait", func(v device.Device) error { return v.TryWrite([]device.Span{{Off: 0, Data: data}}) }, true},
			{"write of a part", func(v device.Device) error { return v.Write(ctx, []device.Span{{Off: 100, Data: data[:10]}}) }, true},
			{"flush", func(v device.Device) error { return v.Flush(ctx) }, false},
			{"read", func(v device.Device) error { return v.Read(ctx, make([]byte, 4096), 0) }, false},
			{"snapshot", func(device.Device) error { _, err := r.host.SnapshotCreate(ctx, "a", "s"); return err }, false},
			{"trim", func(v device.Device) error { return v.Trim(ctx, 0, 4096) }, true},
			{"zeroes", func(v device.Device) error { return v.Zero(ctx, 0, 8192, true) }, true},
			{"resize", func(device.Device) error { size += 4096; return r.host.Resize(ctx, "a", size) }, true},
			{"rollback", func(device.Device) error { return r.host.Rollback(ctx, "a", "s") }, true},
			{"upload", func(device.Device) error { return r.host.Sync(ctx, "a", nil) }, false},
			{"deletion of the snapshot", func(device.Device) error { return r.host.SnapshotDelete(ctx, "a", "s") }, false},
			{"rename", func(device.Device) error {
				return errors.Join(r.host.Rename(ctx, "a", "b"), r.host.Rename(ctx, "b", "a"))
			}, false},
		} {
			before := statOf(t, r.host, "a").Change
			time.Sleep(time.Minute)
			at := time.Now()
			must(t, c.do(open(t, r.host, "a")))
			time.Sleep(time.Hour) // nobody looks
			after := statOf(t, r.host, "a").Change
			if !c.moves && (after.Last != before.Last || !after.At.Equal(before.At)) {
				t.Errorf("%s: %+v, then %+v", c.what, before, after)
			}
			if late := after.At.Sub(at); c.moves && (late < 0 || late > time.Second || after.Last <= before.Last) {
				t.Errorf("%s: its time is %v after it, seq %d, then %d", c.what, late, before.Last, after.Last)
			}
			if late := time.Since(at); c.moves && late < time.Second {
				t.Errorf("%s: no time went by", c.what)
			}
		}
		// Whoever looks sees what was acknowledged before, to the moment.
		now := time.Now()
		must(t, open(t, r.host, "a").Write(ctx, []device.Span{{Off: 0, Data: data}}))
		if c := statOf(t, r.host, "a").Change; !c.At.Equal(now) {
			t.Errorf("%v after the write", c.At.Sub(now))
		}
		last := statOf(t, r.host, "a").Change
		must(t, r.close())
		// A stop changes nothing; what was written by one opening is the base of the next.
		time.Sleep(time.Hour)
		for range 2 {
			opened := time.Now()
			r, err = openRig(d, nil)
			must(t, err)
			c := statOf(t, r.host, "a").Change
			if c.Base != last.Seen || c.Last != c.Base || c.Epoch <= last.Epoch || c.At.Before(opened) {
				t.Errorf("opened again: %+v, after %+v", c, last)
			}
			last = c
			must(t, r.close())
		}
	})
}

// What a vDisk has allocated is known at once when it is written, over restarts and
// rollbacks, and is never less than the truth.
func TestAllocated(t *testing.T) {
	ctx := context.Background()
	d := crashdisk.New()
	r, err := openRig(d, nil)
	must(t, err)
	_, err = r.host.Create(ctx, "a", modelDisk)
	must(t, err)
	exact := func(what string, clusters uint64) {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for statOf(t, r.host, "a").Allocated != clusters*4096 && time.Now().Before(deadline) {
			if got := statOf(t, r.host, "a").Allocated; got < clusters*4096 {
				t.Fatalf("%s: %d bytes, and %d clusters hold data", what, got, clusters)
			}
			must(t, r.host.Sync(ctx, "a", nil)) // the storer counts in the background
			v, err := r.host.table.named("a")
			must(t, err)
			v.store.ring()
			time.Sleep(time.Millisecond)
		}
		if got := statOf(t, r.host, "a").Allocated; got != clusters*4096 {
			t.Errorf("%s: %d bytes, not %d clusters", what, got, clusters)
		}
	}
	now := func(what string, clusters uint64) {
		t.Helper()
		if got := statOf(t, r.host, "a").Allocated; got != clusters*4096 {
			t.Errorf("%s: %d bytes, not %d clusters", what, got, clusters)
		}
	}
	now("new", 0)
	data := bytes.Repeat([]byte{7}, 16*4096)
	a := open(t, r.host, "a")
	must(t, a.Write(ctx, []device.Span{{Off: 0, Data: data}, {Off: 1 << 20, Data: data[:4096]}}))
	now("written", 17)
	must(t, a.Write(ctx, []device.Span{{Off: 4096, Data: data}}))
	now("overwritten", 18)
	must(t, a.Write(ctx, []device.Span{{Off: 2<<20 + 100, Data: data[:10]}}))
	now("a part of a cluster", 19)
	must(t, a.Trim(ctx, 0, 4096))
	now("trimmed", 18)
	must(t, a.Zero(ctx, 4096, 4096, true))
	now("zeroed", 17)
	_, err = r.host.SnapshotCreate(ctx, "a", "s")
	must(t, err)
	must(t, a.Trim(ctx, 0, modelDisk))
	exact("all of it trimmed", 0)
	must(t, r.host.Rollback(ctx, "a", "s"))
	exact("rolled back", 17)
	for i := range 3 {
		must(t, r.close())
		r, err = openRig(d, nil)
		must(t, err)
		exact("opened again", 17+uint64(i))
		must(t, open(t, r.host, "a").Write(ctx, []device.Span{{Off: 3<<20 + int64(i)*4096, Data: data[:4096]}}))
		exact("written again", 18+uint64(i))
	}
	// Of a clone, and of a snapshot of an earlier process, 2 MiB count that hold any.
	_, err = r.host.Create(ctx, "wide", 64<<20)
	must(t, err)
	wide := open(t, r.host, "wide")
	must(t, wide.Write(ctx, []device.Span{{Off: 0, Data: data}, {Off: 33 << 20, Data: data[:4096]}}))
	_, err = r.host.SnapshotCreate(ctx, "wide", "s")
	must(t, err)
	if got := statOf(t, r.host, "wide").Snapshots[0].Allocated; got != 17*4096 {
		t.Errorf("the snapshot has %d bytes", got)
	}
	_, err = r.host.Clone(ctx, "wide", "s", "clone", nil)
	must(t, err)
	reaches := func(what string, want uint64, get func() uint64) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); get() != want && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			for _, v := range r.host.table.all() {
				v.store.ring()
			}
		}
		if got := get(); got != want {
			t.Errorf("%s: %d bytes, not %d", what, got, want)
		}
	}
	clone := func() uint64 { return statOf(t, r.host, "clone").Allocated }
	reaches("clone", 4<<20, clone)
	must(t, open(t, r.host, "clone").Write(ctx, []device.Span{{Off: 50 << 20, Data: data}}))
	reaches("clone, written to", 4<<20+16*4096, clone)
	must(t, r.close())
	r, err = openRig(d, nil)
	must(t, err)
	// It is in no checkpoint, so replay has counted what it holds.
	reaches("snapshot of an earlier process", 17*4096, func() uint64 { return statOf(t, r.host, "wide").Snapshots[0].Allocated })
	v, err := r.host.table.named("wide")
	must(t, err)
	v.tree.snapshots[0].held.forget()
	reaches("snapshot that a checkpoint holds", 4<<20, func() uint64 { return statOf(t, r.host, "wide").Snapshots[0].Allocated })
	reaches("clone of an earlier process", 6<<20+16*4096, clone)
	_, err = r.host.SnapshotCreate(ctx, "clone", "s")
	must(t, err)
	must(t, open(t, r.host, "clone").Trim(ctx, 0, 64<<20))
	must(t, r.host.Rollback(ctx, "clone", "s"))
	reaches("clone, rolled back", 6<<20+16*4096, clone)
	reaches("snapshot of a clone", 6<<20, func() uint64 { return statOf(t, r.host, "clone").Snapshots[0].Allocated })
	must(t, r.close())
}

// Listed counts whatever changes the names of vDisks and snapshots, and nothing else.
func TestListed(t *testing.T) {
	ctx := context.Background()
	r, err := openRig(crashdisk.New(), nil)
	must(t, err)
	for _, c := range []struct {
		what  string
		do    func() error
		moves bool
	}{
		{"create", func() error { _, err := r.host.Create(ctx, "a", modelDisk); return err }, true},
		{"write", func() error {
			return open(t, r.host, "a").Write(ctx, []device.Span{{Off: 0, Data: make([]byte, 4096)}})
		}, false},
		{"snapshot", func() error { _, err := r.host.SnapshotCreate(ctx, "a", "s"); return err }, true},
		{"resize", func() error { return r.host.Resize(ctx, "a", modelDisk+4096) }, false},
		{"rollback", func() error { return r.host.Rollback(ctx, "a", "s") }, false},
		{"clone", func() error { _, err := r.host.Clone(ctx, "a", "s", "b", nil); return err }, true},
		{"rename", func() error { return r.host.Rename(ctx, "b", "d/b") }, true},
		{"delete", func() error { return r.host.Delete(ctx, "d/b") }, true},
		{"delete of a snapshot", func() error { return r.host.SnapshotDelete(ctx, "a", "s") }, true},
	} {
		before := r.host.Listed()
		must(t, c.do())
		if moved := r.host.Listed() != before; moved != c.moves {
			t.Errorf("%s: counted %v", c.what, moved)
		}
	}
	if list := r.host.Stats(ctx); len(list) != 1 || list[0].Name != "a" || len(list[0].Snapshots) != 0 {
		t.Errorf("%+v", list)
	}
	must(t, r.close())
}

// No door gives a name that the rule refuses. A vDisk that has such a name can be
// opened, listed, cloned, deleted and renamed, and so can its directory.
func TestNamesGiven(t *testing.T) {
	ctx := context.Background()
	d := crashdisk.New()
	r, err := openRig(d, nil)
	must(t, err)
	old := []string{"-x", "a.raw/b", ".snapshots/e", "c\u202ed", "dir/-y", "z\u200bz/w"}
	for i := range old {
		_, err := r.host.Create(ctx, string(rune('a'+i)), modelDisk)
		must(t, err)
	}
	infos, err := r.host.List(ctx)
	must(t, err)
	for i, info := range infos {
		must(t, r.reg.Rename(ctx, info.ID, registry.Holder{Host: info.Host, Epoch: info.Epoch}, old[i])) // as an earlier release did
	}
	must(t, r.close())
	r, err = openRig(d, nil)
	must(t, err)
	for _, name := range old {
		refused := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%s of %q: %v", what, name, err)
			}
		}
		must(t, open(t, r.host, name).Write(ctx, []device.Span{{Off: 0, Data: make([]byte, 4096)}}))
		_, err := r.host.SnapshotCreate(ctx, name, "s")
		must(t, err)
		_, err = r.host.Clone(ctx, name, "s", "clone", nil)
		must(t, err)
		must(t, r.host.Delete(ctx, "clone"))
		other := name + "2/q"
		if name == "-x" {
			other = "-q"
		}
		if name == "a.raw/b" || name == ".snapshots/e" || name == "dir/-y" {
			other = name + "2"
		}
		_, err = r.host.Create(ctx, other, modelDisk)
		refused("create", err)
		_, err = r.host.Clone(ctx, name, "s", other, nil)
		refused("clone", err)
		refused("rename", r.host.Rename(ctx, name, other))
	}
	for _, snap := range []string{"-s", "s.raw", ".snapshots", "s\u200b", "a/b", "a@b", ""} {
		if _, err := r.host.SnapshotCreate(ctx, "-x", snap); !errors.Is(err, ErrInvalid) {
			t.Errorf("snapshot %q: %v", snap, err)
		}
	}
	names, err := r.host.Exports(ctx)
	must(t, err)
	if len(names) != 2*len(old) {
		t.Errorf("exports: %q", names)
	}
	if err := r.host.RenameBelow(ctx, "dir", "new\u202e", registry.Beside{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("directory: %v", err)
	}
	must(t, r.host.RenameBelow(ctx, "dir", "new", registry.Beside{}))
	must(t, r.host.Rename(ctx, "new/-y", "new/y"))
	if err := r.host.RenameBelow(ctx, "new", "-new", registry.Beside{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("directory: %v", err)
	}
	for _, name := range []string{"-x", "a.raw/b", ".snapshots/e"} {
		must(t, r.host.Rename(ctx, name, "now"))
		must(t, r.host.SnapshotDelete(ctx, "now", "s"))
		must(t, r.host.Delete(ctx, "now"))
	}
	must(t, r.close())
}
