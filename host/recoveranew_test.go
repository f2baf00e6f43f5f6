package host

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	albahere "openvstorage/alba/embedded"
	"openvstorage/arakoon/groups"
	"openvstorage/host/recovery"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/volumedriver"
)

// oneLost is a system that lives on after a backup of each of its groups, and then loses one.
type oneLost struct {
	fs      *crashdisk.FS
	backups map[string][]byte
	now     []byte // vDisk v, flushed
}

func backupsOf(t *testing.T, h *whole) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	_, err := h.manageGroups(quiet).Backup(t.Context(), "", func(group string, piece []byte) error {
		all[group] = append(all[group], piece...)
		return nil
	})
	must(t, err)
	return all
}

// liveOn makes vDisks v and gone, takes backups, writes more to v, removes gone, makes later.
func liveOn(t *testing.T) *oneLost {
	t.Helper()
	o := &oneLost{fs: crashdisk.New()}
	h, err := openKind(o.fs, "/data", BackendALBA)
	must(t, err)
	for _, name := range []string{"v", "gone"} {
		_, err = h.Host.Create(t.Context(), name, lossDisk)
		must(t, err)
		pattern(t, h.embedded, name, 0, lossDisk/2, 1)
		must(t, h.Host.Sync(t.Context(), name, nil))
	}
	must(t, h.Close(t.Context()))
	h, err = openKind(o.fs, "/data", BackendALBA)
	must(t, err)
	o.backups = backupsOf(t, h)
	pattern(t, h.embedded, "v", lossDisk/4, lossDisk*3/4, 2)
	must(t, h.Host.Delete(t.Context(), "gone"))
	_, err = h.Host.Create(t.Context(), "later", lossDisk)
	must(t, err)
	pattern(t, h.embedded, "later", 0, lossDisk, 3)
	must(t, h.Host.Sync(t.Context(), "later", nil))
	o.now, err = contentOf(h.embedded, "v")
	must(t, err)
	must(t, h.Close(t.Context()))
	o.fs = o.fs.Kill()
	return o
}

// without is the system with one group's member lost.
func (o *oneLost) without(t *testing.T, group string) *crashdisk.FS {
	t.Helper()
	fs := o.fs.Kill()
	must(t, errors.Join(fs.RemoveAll("/data/arakoon/"+group), fs.RemoveAll("/data/arakoon/"+group+".marks"), fs.SyncDir("/data/arakoon")))
	return fs
}

func (o *oneLost) options(fs disk.FS, group string, from recovery.From) recovery.Options {
	return recovery.Options{FS: fs, Dir: "/data", Specs: allSpecs(), Groups: []string{group}, From: from, Backup: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(o.backups[group])), nil
	}}
}

func (o *oneLost) recovers(t *testing.T, fs disk.FS, group string, from recovery.From) recovery.Plan {
	t.Helper()
	r, err := recovery.Open(t.Context(), o.options(fs, group, from))
	must(t, err)
	must(t, errors.Join(r.Run(t.Context()), r.Close()))
	return r.Plan()
}

// goesOn opens the system, in which deletion is suspended, and has it closed in the end.
func goesOn(t *testing.T, fs disk.FS) *whole {
	t.Helper()
	must(t, recovery.Check(fs, "/data"))
	h, err := openKind(fs, "/data", BackendALBA)
	must(t, err)
	t.Cleanup(func() { must(t, h.Close(context.Background())) })
	if h.groups.Suspended().IsZero() {
		t.Error("deletion is not suspended")
	}
	return h
}

// serves makes a vDisk and uses it.
func serves(t *testing.T, h *whole, name string) {
	t.Helper()
	_, err := h.Host.Create(t.Context(), name, lossDisk)
	must(t, err)
	pattern(t, h.embedded, name, 0, lossDisk, 7)
	must(t, h.Host.Sync(t.Context(), name, nil))
	got, err := contentOf(h.embedded, name)
	must(t, err)
	if !bytes.Equal(got, bytes.Repeat([]byte{7}, lossDisk)) {
		t.Errorf("vDisk %s is not what was written", name)
	}
}

// The manifests alone come back from an older backup: a vDisk whose local files follow goes on
// with all of it, one that was made since says what it lacks, and deletion is suspended until
// all that is named can be read.
func TestManifestsFromBackup(t *testing.T) {
	o := liveOn(t)
	fs := o.without(t, "nsm-0")
	if _, err := openKind(fs, "/data", BackendALBA); !errors.Is(err, groups.ErrMissing) {
		t.Fatalf("a start without the group: %v", err)
	}
	p := o.recovers(t, fs, "nsm-0", recovery.FromBackup)
	if p.Life != 1 || len(p.Groups) != 1 || p.Groups[0].Revision == 0 || !strings.Contains(p.Groups[0].Missing, "behind revision") {
		t.Errorf("%+v", p)
	}
	h := goesOn(t, fs)
	got, err := contentOf(h.embedded, "v")
	must(t, err)
	if !bytes.Equal(got, o.now) {
		t.Error("v is not what was flushed")
	}
	if _, err := contentOf(h.embedded, "later"); err == nil {
		t.Error("later is served, and its namespace is not known")
	}
	if _, err := h.alba.Resume(t.Context()); !errors.Is(err, albahere.ErrCheck) {
		t.Errorf("deletion goes on while a vDisk lacks its namespace: %v", err)
	}
	serves(t, h, "new")
	must(t, h.Host.Delete(t.Context(), "later"))
	_, err = h.alba.Resume(t.Context())
	must(t, err)
	pattern(t, h.embedded, "v", 0, 64<<10, 9)
	must(t, h.Host.Sync(t.Context(), "v", nil))
}

// The manifests begin with nothing: no vDisk can be opened, none is made anew under its name,
// and when they were deleted the system stores again.
func TestManifestsFromNothing(t *testing.T) {
	o := liveOn(t)
	fs := o.without(t, "nsm-0")
	p := o.recovers(t, fs, "nsm-0", recovery.FromNothing)
	if p.Life != 1 || !strings.Contains(p.Groups[0].Missing, "all objects") || !strings.Contains(p.Groups[0].Missing, "Namespaces: 2") {
		t.Errorf("%+v", p)
	}
	h := goesOn(t, fs)
	for _, name := range []string{"v", "later"} {
		if _, err := contentOf(h.embedded, name); err == nil {
			t.Errorf("%s is served, and its catalog is lost", name)
		}
	}
	if _, err := h.alba.Resume(t.Context()); !errors.Is(err, albahere.ErrCheck) {
		t.Errorf("deletion goes on while vDisks lack their namespaces: %v", err)
	}
	serves(t, h, "new")
	must(t, errors.Join(h.Host.Delete(t.Context(), "v"), h.Host.Delete(t.Context(), "later")))
	_, err := h.alba.Resume(t.Context())
	must(t, err)
}

// The names of vDisks come back from an older backup: what was stored since is all there, under
// the names of then; what was made since keeps what it stored, and has no name.
func TestNamesFromBackup(t *testing.T) {
	o := liveOn(t)
	fs := o.without(t, "registry")
	o.recovers(t, fs, "registry", recovery.FromBackup)
	h := goesOn(t, fs)
	got, err := contentOf(h.embedded, "v")
	must(t, err)
	if !bytes.Equal(got, o.now) {
		t.Error("v is not what was flushed")
	}
	if _, err := h.Host.Info(t.Context(), "later"); !errors.Is(err, volumedriver.ErrNotFound) {
		t.Errorf("what was made after the backup: %v", err)
	}
	if _, err := contentOf(h.embedded, "gone"); err == nil {
		t.Error("gone is served, and was removed")
	}
	check, err := h.alba.Check(t.Context())
	must(t, err)
	if check.Passed {
		t.Error("the check does not miss the namespace of gone")
	}
	must(t, h.Host.Delete(t.Context(), "gone"))
	before, err := h.alba.Namespaces(t.Context())
	must(t, err)
	_, err = h.alba.Resume(t.Context())
	must(t, err)
	serves(t, h, "new")
	must(t, errors.Join(h.alba.Maintenance().Survey(t.Context()), h.alba.Maintenance().Collect(t.Context(), 0)))
	after, err := h.alba.Namespaces(t.Context())
	must(t, err)
	if len(before) != 2 || len(after) != 3 {
		t.Errorf("the namespace of later is to stay: %d namespaces, and then %d", len(before), len(after))
	}
}

// What a group cannot be made of is refused by name, and changes nothing.
func TestMakeAnewRefuses(t *testing.T) {
	o := liveOn(t)
	lost := o.without(t, "nsm-0")
	for name, c := range map[string]struct {
		fs   *crashdisk.FS
		with func(*recovery.Options)
		says string
	}{
		"disks from a backup":   {o.without(t, "abm"), func(r *recovery.Options) { r.Groups = []string{"abm"} }, "goes together with them alone"},
		"disks from nothing":    {o.without(t, "abm"), func(r *recovery.Options) { r.Groups, r.From = []string{"abm"}, recovery.FromNothing }, "disks do not know their numbers"},
		"names from nothing":    {o.without(t, "registry"), func(r *recovery.Options) { r.Groups, r.From = []string{"registry"}, recovery.FromNothing }, "it has the names of vDisks"},
		"another group's":       {lost, func(r *recovery.Options) { r.Backup = o.options(lost, "abm", recovery.FromBackup).Backup }, "is of group \"abm\""},
		"of two":                {lost, func(r *recovery.Options) { r.Groups = []string{"nsm-0", "registry"} }, "one group at a time"},
		"nothing is lost":       {o.fs.Kill(), nil, "Nothing is made over what is there"},
		"two are lost":          {func() *crashdisk.FS { fs := lost.Kill(); must(t, fs.RemoveAll("/data/arakoon/abm")); return fs }(), nil, "is to go on as it is"},
		"a group of no release": {lost, func(r *recovery.Options) { r.Groups = []string{"nsm-7"} }, "is not known to this release"},
		"cut": {lost, func(r *recovery.Options) {
			b := o.backups["nsm-0"]
			r.Backup = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b[:len(b)-1])), nil }
		}, "nsm-0"},
	} {
		t.Run(name, func(t *testing.T) {
			r := o.options(c.fs, "nsm-0", recovery.FromBackup)
			if c.with != nil {
				c.with(&r)
			}
			if _, err := recovery.Open(t.Context(), r); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("it says %v", err)
			}
			if _, err := c.fs.Stat("/data/recovery.json"); err == nil {
				t.Error("it is decided")
			}
		})
	}
	first, err := recovery.Open(t.Context(), o.options(lost, "nsm-0", recovery.FromBackup))
	must(t, err)
	must(t, first.Close())
}

// TestMakeAnewCutAnywhere: wherever the making of one group is cut, killed or with the power,
// the directory is as it was, or a start refuses it and says how to finish it, or all is done.
// Taken up again it goes through, with another backup it does not.
func TestMakeAnewCutAnywhere(t *testing.T) {
	kinds := []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}
	o := liveOn(t)
	for _, c := range []struct {
		group string
		from  recovery.From
	}{{"nsm-0", recovery.FromBackup}, {"nsm-0", recovery.FromNothing}, {"registry", recovery.FromBackup}} {
		rng := rand.New(rand.NewPCG(1, 2))
		mem := o.without(t, c.group)
		fs := faultdisk.New(mem)
		var images []*crashdisk.FS
		calls := 0
		fs.Inject(faultdisk.Rule{
			Ops: faultdisk.Write | faultdisk.Datasync | faultdisk.Prewrite | faultdisk.Rename | faultdisk.SyncDir | faultdisk.Mkdir | faultdisk.Remove,
			Before: func(op faultdisk.Op, name string) {
				if calls++; calls%50 == 0 || op == faultdisk.Rename && !strings.HasSuffix(name, ".new") {
					images = append(images, mem.Kill(), mem.Crash(rng, kinds[rng.IntN(len(kinds))]))
				}
			},
		})
		o.recovers(t, fs, c.group, c.from)
		images = append(images, mem.Crash(rng, crashdisk.LoseAll))
		unfinished := 0
		for i, image := range images {
			err := recovery.Check(image, "/data")
			_, start := openKindChecked(image)
			switch {
			case errors.Is(err, recovery.ErrUnfinished):
				unfinished++
				if !strings.Contains(err.Error(), c.group+" ") || !strings.Contains(err.Error(), "--from "+string(c.from)) {
					t.Fatalf("%v, image %d: it says %v", c, i, err)
				}
				other := o.options(image, c.group, recovery.FromSurvivor)
				if _, err := recovery.Open(t.Context(), other); !errors.Is(err, recovery.ErrUnfinished) {
					t.Fatalf("%v, image %d: another way: %v", c, i, err)
				}
			case err != nil:
				t.Fatal(err)
			case start == nil:
				continue // all is done
			case !errors.Is(start, groups.ErrMissing):
				t.Fatalf("%v, image %d: a start says %v", c, i, start)
			}
			o.recovers(t, image, c.group, c.from)
			if _, err := openKindChecked(image); err != nil {
				t.Fatalf("%v, image %d of %d: %v", c, i, len(images), err)
			}
		}
		t.Logf("%v: %d calls, %d images, %d unfinished", c, calls, len(images), unfinished)
		if unfinished < 5 {
			t.Errorf("%v: only %d of %d cuts left something unfinished", c, unfinished, len(images))
		}
	}
}

// openKindChecked is a start as `ovs up` makes it, of a copy, and what it says.
func openKindChecked(fs *crashdisk.FS) (bool, error) {
	fs = fs.Kill()
	if err := recovery.Check(fs, "/data"); err != nil {
		return false, err
	}
	h, err := openKind(fs, "/data", BackendALBA)
	if err != nil {
		return false, err
	}
	return true, h.Close(context.Background())
}
