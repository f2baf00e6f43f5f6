package registrytest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/volumedriver/registry"

	"github.com/google/uuid"
)

// directory renames all vDisks below the directory from, which becomes to, and makes the
// swaps beside the registry.
func directory(r *registry.Registry, from, to string, beside ...registry.Swap) error {
	list, err := r.List(ctx)
	if err != nil {
		return err
	}
	var all []registry.Renaming
	for _, rec := range list {
		if rest, ok := strings.CutPrefix(rec.Name, from+"/"); ok {
			all = append(all, registry.Renaming{ID: rec.ID, Name: to + "/" + rest, By: rec.Holder()})
		}
	}
	return r.RenameAll(ctx, all, registry.NewBeside(beside))
}

// Many vDisks get other names at once, or none does.
func testRenameAll(t *testing.T, open Opener) {
	fsys := crashdisk.New()
	r, keys, stop := start(t, open, fsys)
	for i := range byte(20) {
		must(t, r.Register(ctx, registry.Record{ID: id(i + 1), Name: fmt.Sprint("vm/", i)}))
	}
	must(t, r.Register(ctx, registry.Record{ID: id(30), Name: "to/7"}))
	want(t, "one name is taken", directory(r, "vm", "to"), registry.ErrNameTaken)
	want(t, "one name for two", r.RenameAll(ctx, []registry.Renaming{{ID: id(1), Name: "x"}, {ID: id(2), Name: "x"}}, registry.Beside{}), registry.ErrNameTaken)
	want(t, "the name of one that moves", r.RenameAll(ctx, []registry.Renaming{{ID: id(1), Name: "y"}, {ID: id(2), Name: "vm/0"}}, registry.Beside{}), registry.ErrNameTaken)
	want(t, "one is absent", r.RenameAll(ctx, []registry.Renaming{{ID: id(1), Name: "x"}, {ID: id(99), Name: "y"}}, registry.Beside{}), registry.ErrNotFound)
	want(t, "one is no name", r.RenameAll(ctx, []registry.Renaming{{ID: id(1), Name: "x"}, {ID: id(2), Name: "a@b"}}, registry.Beside{}), registry.ErrName)
	want(t, "too many", r.RenameAll(ctx, make([]registry.Renaming, registry.RenamesMax+1), registry.Beside{}), registry.ErrMany)
	beside := []byte("beside")
	if err := directory(r, "vm", "free", registry.Swap{Key: beside, Old: []byte("x"), New: []byte("y")}); err == nil {
		t.Error("a key beside the registry had another value, and yet all were renamed")
	}
	if _, err := r.Lookup(ctx, "vm/19"); err != nil {
		t.Error("something was renamed by a call that failed: ", err)
	}
	must(t, directory(r, "vm", "free", registry.Swap{Key: beside, New: []byte("y")}))
	must(t, r.RenameAll(ctx, nil, registry.NewBeside([]registry.Swap{{Key: beside, Old: []byte("y"), New: []byte("z")}})))
	must(t, r.RenameAll(ctx, nil, registry.Beside{}))
	stop()
	r, keys, _ = start(t, open, fsys)
	must(t, registry.Check(ctx, keys))
	for i := range byte(20) {
		if rec, err := r.Lookup(ctx, fmt.Sprint("free/", i)); err != nil || rec.ID != id(i+1) {
			t.Errorf("vDisk %d: %+v, %v", i, rec, err)
		}
	}
	if v, err := keys.Get(ctx, beside); err != nil || string(v) != "z" {
		t.Errorf("the key beside the registry: %q, %v", v, err)
	}
}

// Random renamings of directories do what they do to a map.
func testRenameAllModel(t *testing.T, open Opener) {
	rng := rand.New(rand.NewPCG(5, 6))
	r, keys, _ := start(t, open, crashdisk.New())
	model := map[string]uuid.UUID{}
	dirs := []string{"a", "b", "a/b", "c/d/e", "c/d"}
	for i := range byte(24) {
		name := fmt.Sprintf("%s/%d", dirs[rng.IntN(len(dirs))], rng.IntN(12))
		if _, taken := model[name]; !taken {
			model[name] = id(i + 1)
			must(t, r.Register(ctx, registry.Record{ID: id(i + 1), Name: name}))
		}
	}
	for step := range 200 {
		from, to := dirs[rng.IntN(len(dirs))], dirs[rng.IntN(len(dirs))]
		next := map[string]uuid.UUID{}
		refused := false
		for name, id := range model {
			if rest, ok := strings.CutPrefix(name, from+"/"); ok && from != to {
				name = to + "/" + rest
				_, taken := model[name]
				refused = refused || taken
			}
			next[name] = id
		}
		err := directory(r, from, to)
		if refused {
			want(t, fmt.Sprintf("step %d, %s to %s", step, from, to), err, registry.ErrNameTaken)
			next = model
		} else {
			must(t, err)
		}
		model = next
		list, err := r.List(ctx)
		must(t, err)
		got := map[string]uuid.UUID{}
		for _, rec := range list {
			got[rec.Name] = rec.ID
		}
		if !maps.Equal(got, model) {
			t.Fatalf("step %d, %s to %s: %v\nthe model has %v", step, from, to, got, model)
		}
	}
	must(t, registry.Check(ctx, keys))
}

// testRenameAllPowerCut cuts the power, or kills the process, before each step of a
// renaming. All vDisks, and the key beside them, have the names from before or those
// from after, and once an open has shown one of the two, it stays.
func testRenameAllPowerCut(t *testing.T, open Opener) {
	var mu sync.Mutex // one image at a time
	rng := rand.New(rand.NewPCG(8, 9))
	d := crashdisk.New()
	dirs := []string{"first", "second", "third"}
	acked, running, images := 0, false, 0 // renamings; guarded by mu
	changes := faultdisk.Write | faultdisk.Datasync | faultdisk.Sync | faultdisk.Truncate | faultdisk.Rename | faultdisk.Remove | faultdisk.SyncDir
	hooked := faultdisk.New(d)
	hooked.Inject(faultdisk.Rule{Ops: changes, Before: func(faultdisk.Op, string) {
		mu.Lock()
		defer mu.Unlock()
		if t.Failed() || !running {
			return
		}
		images++
		image := d.Kill()
		if how := rng.IntN(5); how > 0 {
			image = d.Crash(rng, [...]crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}[how-1])
		}
		first := found(t, open, image)
		if first != dirs[acked%3] && first != dirs[(acked+1)%3] {
			t.Errorf("after %d renamings: %s", acked, first)
		}
		if second := found(t, open, image.Crash(rng, crashdisk.LoseAll)); second != first {
			t.Errorf("%s was served, then %s", first, second)
		}
	}})
	r, keys, _ := start(t, open, hooked)
	for i := range byte(12) {
		must(t, r.Register(ctx, registry.Record{ID: id(i + 1), Name: fmt.Sprint("first/", i)}))
	}
	beside := []byte("beside")
	done, err := keys.Swap(ctx, []registry.Swap{{Key: beside, New: []byte("first")}})
	if must(t, err); !done {
		t.Fatal("the key beside the registry is there")
	}
	mu.Lock()
	running = true
	mu.Unlock()
	for i := range 12 {
		from, to := dirs[i%3], dirs[(i+1)%3]
		must(t, directory(r, from, to, registry.Swap{Key: beside, Old: []byte(from), New: []byte(to)}))
		mu.Lock()
		acked++
		mu.Unlock()
	}
	mu.Lock()
	defer mu.Unlock()
	running = false
	if images < 12 {
		t.Errorf("only %d images", images)
	}
}

// found returns the directory that all vDisks of an image are in.
func found(t *testing.T, open Opener, image disk.FS) string {
	keys, stop, err := open(image)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := registry.Check(ctx, keys); err != nil {
		t.Error(err)
	}
	r, err := registry.Open(ctx, keys)
	if err != nil {
		t.Error(err)
		return ""
	}
	list, err := r.List(ctx)
	if err != nil {
		t.Error(err)
	}
	where, err := keys.Get(ctx, []byte("beside"))
	if err != nil {
		t.Error(err)
	}
	dirs := []string{string(where)}
	for _, rec := range list {
		dir, _, _ := strings.Cut(rec.Name, "/")
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	return strings.Join(slices.Compact(dirs), " and ")
}
