package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	albahere "openvstorage/alba/embedded"
	"openvstorage/arakoon/groups"
	"openvstorage/device"
	"openvstorage/host/restore"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/volumedriver"
)

// backedUp is a system that has lost its groups after a backup.
type backedUp struct {
	backups []restore.Backup
	then    []byte // the vDisk when the backup was taken: in the backend
	now     []byte // and later: flushed
	lost    *crashdisk.FS
}

// pattern fills [from, to) of a vDisk, and flushes.
func pattern(t *testing.T, e *embedded, name string, from, to int, with byte) {
	t.Helper()
	d, release, err := openDisk(t.Context(), e.Host, name)
	must(t, err)
	defer release()
	must(t, d.Write(t.Context(), []device.Span{{Off: int64(from), Data: bytes.Repeat([]byte{with}, to-from)}}))
	must(t, d.Flush(t.Context()))
}

func contentOf(e *embedded, name string) ([]byte, error) {
	d, release, err := openDisk(context.Background(), e.Host, name)
	if err != nil {
		return nil, err
	}
	defer release()
	b := make([]byte, lossDisk)
	return b, d.Read(context.Background(), b, 0)
}

// openKind opens the process's insides with one kind of backend.
func openKind(fs disk.FS, dir, kind string) (*whole, error) {
	d, err := datadir.Open(fs, dir)
	if err != nil {
		return nil, err
	}
	e, err := openInside(fs, d, func(o *openOptions) {
		if o.backend = kind; kind == BackendLocal {
			o.alba, o.tune = ALBA{}, nil
		}
	})
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return &whole{e, d}, nil
}

// loseGroups lives: a backup, and then more, after which DIR/arakoon is lost. stored: what
// came after the backup is in the backend too, before the process is killed.
func loseGroups(t *testing.T, kind string, stored bool) *backedUp {
	t.Helper()
	fs := crashdisk.New()
	h, err := openKind(fs, "/data", kind)
	must(t, err)
	_, err = h.Host.Create(t.Context(), "v", lossDisk)
	must(t, err)
	pattern(t, h.embedded, "v", 0, lossDisk/2, 1)
	must(t, h.Host.Sync(t.Context(), "v", nil))
	b := &backedUp{}
	b.then, err = contentOf(h.embedded, "v")
	must(t, err)
	all := map[string]*bytes.Buffer{}
	_, err = h.manageGroups(quiet).Backup(t.Context(), "", func(group string, piece []byte) error {
		if all[group] == nil {
			all[group] = new(bytes.Buffer)
		}
		all[group].Write(piece)
		return nil
	})
	must(t, err)
	for group, content := range all {
		b.backups = append(b.backups, restore.Backup{Group: group, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(content.Bytes())), nil
		}})
	}
	slices.SortFunc(b.backups, func(x, y restore.Backup) int { return strings.Compare(x.Group, y.Group) })
	pattern(t, h.embedded, "v", lossDisk/4, lossDisk*3/4, 2)
	if stored {
		must(t, h.Host.Sync(t.Context(), "v", nil))
	}
	must(t, h.Close(t.Context())) // the next start has an epoch that the backup does not know
	h, err = openKind(fs, "/data", kind)
	must(t, err)
	pattern(t, h.embedded, "v", lossDisk*3/4, lossDisk*3/4+64<<10, 4)
	if stored {
		must(t, h.Host.Sync(t.Context(), "v", nil))
	}
	_, err = h.Host.Create(t.Context(), "later", lossDisk)
	must(t, err)
	pattern(t, h.embedded, "later", 0, lossDisk, 3)
	must(t, h.Host.Sync(t.Context(), "later", nil))
	b.now, err = contentOf(h.embedded, "v")
	must(t, err)
	b.lost = fs.Kill()
	must(t, h.Close(t.Context()))
	must(t, b.lost.RemoveAll("/data/arakoon"))
	must(t, b.lost.SyncDir("/data"))
	return b
}

// restored opens what was restored, and compares the vDisk. It must be what it was at the
// backup, or what it was at the end; a halted one is neither. Then all is checked, deletion
// goes on, and the vDisk is written and read again.
func (b *backedUp) restored(t *testing.T, fs disk.FS, dir, kind string, want ...[]byte) {
	t.Helper()
	h, err := openKind(fs, dir, kind)
	must(t, err)
	defer func() {
		if kind == BackendALBA { // no fragment is left that no object names, and none is missing
			must(t, closeWhole(h, false))
		} else {
			must(t, h.Close(context.Background()))
		}
	}()
	if h.groups.Suspended().IsZero() {
		t.Error("deletion is not suspended")
	}
	got, err := contentOf(h.embedded, "v")
	must(t, err)
	if !slices.ContainsFunc(want, func(w []byte) bool { return bytes.Equal(w, got) }) {
		t.Fatalf("the vDisk is neither what it was then nor what it is now: %d, %d, %d, %d", got[0], got[lossDisk/4], got[lossDisk/2], got[lossDisk-1])
	}
	if _, err := h.Host.Info(t.Context(), "later"); !errors.Is(err, volumedriver.ErrNotFound) {
		t.Errorf("what was made after the backup: %v", err)
	}
	if kind == BackendALBA {
		h.keepsAll(t)
		_, err := h.alba.Resume(t.Context())
		must(t, err)
	}
	pattern(t, h.embedded, "v", 0, 64<<10, 9)
	must(t, h.Host.Sync(t.Context(), "v", nil))
	copy(got, bytes.Repeat([]byte{9}, 64<<10))
	again, err := contentOf(h.embedded, "v")
	must(t, err)
	if !bytes.Equal(got, again) {
		t.Error("it is not what was written")
	}
}

// halted opens what was restored where local files lack what came to the backend after the
// backup: the vDisk is neither of then nor of now, so it is not served. Nothing of it is touched.
func (b *backedUp) halted(t *testing.T, fs disk.FS) {
	t.Helper()
	h, err := openKind(fs, "/data", BackendALBA)
	must(t, err)
	defer func() { must(t, h.Close(context.Background())) }()
	if _, err := contentOf(h.embedded, "v"); err == nil || !strings.Contains(err.Error(), "is missing") || !strings.Contains(err.Error(), "halted") {
		t.Errorf("it says %v", err)
	}
}

// keepsAll looks that nothing is deleted on disks: not by a collection, nor what objects that
// are deleted had.
func (w *whole) keepsAll(t *testing.T) {
	t.Helper()
	ctx, work := t.Context(), w.alba.Maintenance()
	before, err := w.alba.Check(ctx)
	must(t, err)
	if before.Unnamed == 0 {
		t.Error("the disks have nothing that the restored groups do not know")
	}
	_, err = w.Host.Create(ctx, "gone", lossDisk)
	must(t, err)
	pattern(t, w.embedded, "gone", 0, 1<<20, 5)
	must(t, w.Host.Sync(ctx, "gone", nil))
	must(t, w.Host.Delete(ctx, "gone"))
	for range 3 {
		if err := errors.Join(work.Survey(ctx), work.Collect(ctx, 0)); err != nil && !errors.Is(err, albahere.ErrSuspended) {
			t.Error(err)
		}
	}
	after, err := w.alba.Check(ctx)
	must(t, err)
	if after.Fragments <= before.Fragments || after.Unnamed <= before.Unnamed {
		t.Errorf("%d fragments, %d of them unnamed, and before that %d, %d", after.Fragments, after.Unnamed, before.Fragments, before.Unnamed)
	}
}

func TestRestore(t *testing.T) {
	for _, kind := range []string{BackendALBA, BackendLocal} {
		for _, stored := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, stored %v", kind, stored), func(t *testing.T) {
				b := loseGroups(t, kind, stored)
				options := restore.Options{Dir: "/data", Backups: b.backups}
				t.Run("in place", func(t *testing.T) {
					o := options
					o.FS = b.lost.Kill()
					report, err := restore.Run(t.Context(), o)
					must(t, err)
					if report.Life != 1 || len(report.VDisks) != 1 || !report.VDisks[0].Local || report.VDisks[0].Flushed == 0 || len(report.Hosts) > 0 || report.Zones {
						t.Errorf("%+v", report)
					}
					if _, err := restore.Run(t.Context(), o); !errors.Is(err, restore.ErrExists) {
						t.Errorf("over what is there: %v", err)
					}
					if kind == BackendALBA && stored {
						b.halted(t, o.FS)
						return
					}
					b.restored(t, o.FS, "/data", kind, b.now)
				})
				t.Run("without buffer", func(t *testing.T) {
					o := options
					o.FS, o.WithoutBuffer = b.lost.Kill(), true
					report, err := restore.Run(t.Context(), o)
					must(t, err)
					if _, err := o.FS.Stat(path.Join(report.Aside, "buffer")); err != nil {
						t.Error(err)
					}
					want := b.then
					if kind == BackendLocal && stored {
						want = b.now // catalogs are in the directory of objects
					}
					b.restored(t, o.FS, "/data", kind, want)
				})
				t.Run("new directory", func(t *testing.T) {
					o := options
					fs := b.lost.Kill()
					o.FS, o.Dir = fs, "/new"
					if kind == BackendALBA {
						o.Disks = []string{"/data/asd/0", "/data/asd/1", "/data/asd/2"}
					}
					report, err := restore.Run(t.Context(), o)
					if kind == BackendLocal {
						if _, there := fs.Stat("/new"); err == nil || !strings.Contains(err.Error(), "put that directory back") || there == nil {
							t.Fatalf("%v", err)
						}
						return
					}
					must(t, err)
					if len(report.Disks) != 3 || report.Disks[0].Missing != "" || report.VDisks[0].Local {
						t.Errorf("%+v", report)
					}
					must(t, errors.Join(fs.Rename("/data/asd", "/new/asd"), fs.SyncDir("/data"), fs.SyncDir("/new")))
					b.restored(t, fs, "/new", kind, b.then)
				})
			})
		}
	}
}

// TestRestoreCutAnywhere: wherever a restore is cut, killed or with the power, there is no
// group, and a start makes none; or all of them are there, and the system is whole. A restore
// that is run again goes through.
func TestRestoreCutAnywhere(t *testing.T) {
	kinds := []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}
	b := loseGroups(t, BackendALBA, true)
	for _, dir := range []string{"/data", "/new"} {
		rng := rand.New(rand.NewPCG(1, 2))
		mem := b.lost.Kill()
		fs := faultdisk.New(mem)
		var images []*crashdisk.FS
		calls := 0
		fs.Inject(faultdisk.Rule{
			Ops: faultdisk.Write | faultdisk.Datasync | faultdisk.Prewrite | faultdisk.Rename | faultdisk.SyncDir | faultdisk.Mkdir | faultdisk.Remove,
			Before: func(op faultdisk.Op, _ string) {
				if calls++; calls%15 == 0 || op == faultdisk.Rename {
					images = append(images, mem.Kill(), mem.Crash(rng, kinds[rng.IntN(len(kinds))]))
				}
			},
		})
		o := restore.Options{Dir: dir, Backups: b.backups, WithoutBuffer: true}
		if dir == "/new" {
			o.Disks = []string{"/data/asd/0", "/data/asd/1", "/data/asd/2"}
		}
		o.FS = fs
		_, err := restore.Run(t.Context(), o)
		must(t, err)
		images = append(images, mem.Crash(rng, crashdisk.LoseAll))
		t.Logf("%s: %d calls, %d images", dir, calls, len(images))
		for i, image := range images {
			o.FS = image
			_, err := image.Stat(path.Join(dir, "arakoon", "abm", "log"))
			whole := err == nil
			if _, err := image.Stat(path.Join(dir, datadir.FormatFile)); !whole && err == nil {
				if _, err := openKind(image, dir, BackendALBA); !errors.Is(err, groups.ErrMissing) {
					t.Fatalf("%s, image %d of %d: a start says %v", dir, i, len(images), err)
				}
			}
			_, err = restore.Run(t.Context(), o)
			if whole && !errors.Is(err, restore.ErrExists) || !whole && err != nil {
				t.Fatalf("%s, image %d of %d, whole %v: %v", dir, i, len(images), whole, err)
			}
			if i%12 == 0 || i == len(images)-1 {
				if dir == "/new" {
					must(t, errors.Join(image.Rename("/data/asd", "/new/asd"), image.SyncDir("/data"), image.SyncDir("/new")))
				}
				b.restored(t, image, dir, BackendALBA, b.then)
			}
		}
	}
}

// TestRestoreRefuses: nothing is made of a backup that is not whole, or of another directory.
func TestRestoreRefuses(t *testing.T) {
	b := loseGroups(t, BackendALBA, false)
	other := loseGroups(t, BackendALBA, false)
	cut := func(n int) []restore.Backup {
		list := slices.Clone(b.backups)
		open := list[1].Open
		list[1].Open = func() (io.ReadCloser, error) {
			f, err := open()
			if err != nil {
				return nil, err
			}
			all, err := io.ReadAll(f)
			if n < 0 {
				all[len(all)+n] ^= 1
				return io.NopCloser(bytes.NewReader(all)), err
			}
			return io.NopCloser(bytes.NewReader(all[:min(n, len(all))])), err
		}
		return list
	}
	for name, c := range map[string]struct {
		dir     string
		backups []restore.Backup
		want    string
	}{
		"cut":       {"/new", cut(300), "damaged"},
		"empty":     {"/new", cut(0), "damaged"},
		"flipped":   {"/new", cut(-700), "damaged"},
		"one group": {"/new", b.backups[:1], "not all of a cluster"},
		"twice":     {"/new", append(slices.Clone(b.backups), b.backups[0]), "two backups"},
		"none":      {"/new", nil, "not all of a cluster"},
		"another's": {"/data", other.backups, "another data directory"},
		"a mix":     {"/new", append(slices.Clone(b.backups[:2]), other.backups[2]), "another data directory"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := b.lost.Kill()
			_, err := restore.Run(t.Context(), restore.Options{FS: fs, Dir: c.dir, Backups: c.backups})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v", err)
			}
			for _, left := range []string{"/data/arakoon", "/data/arakoon.restoring", "/new"} {
				if _, err := fs.Stat(left); err == nil {
					t.Errorf("%s was made", left)
				}
			}
		})
	}
	fs := b.lost.Kill()
	d, err := datadir.Open(fs, "/data")
	must(t, err)
	defer d.Close()
	if _, err := restore.Run(t.Context(), restore.Options{FS: fs, Dir: "/data", Backups: b.backups}); !errors.Is(err, datadir.ErrInUse) {
		t.Errorf("in use: %v", err)
	}
}
