package registrytest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/volumedriver/registry"

	"github.com/google/uuid"
)

// Opener opens the store of keys on a disk, and makes it if it is absent.
type Opener func(fsys disk.FS) (keys registry.Keys, stop func() error, err error)

var ctx = context.Background()

// Run checks a registry over a store of keys, and that the store keeps what
// registry.Keys promises, power cuts included.
func Run(t *testing.T, open Opener) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Opener)
	}{
		{"Swap", testSwap}, {"Life", testLife}, {"Concurrent", testConcurrent}, {"Model", testModel}, {"PowerCut", testPowerCut}, {"Doubt", testDoubt},
		{"RenameAll", testRenameAll}, {"RenameAllModel", testRenameAllModel}, {"RenameAllPowerCut", testRenameAllPowerCut},
		{"Owners", testOwners}, {"ClaimAll", testClaimAll}, {"Intents", testIntents}, {"OwnersModel", testOwnersModel},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open) })
	}
}

func id(n byte) uuid.UUID { return uuid.UUID{0: n, 6: 0x40, 8: 0x80, 15: n} }

// claimant is a process of host n.
func claimant(n byte) registry.Claimant {
	return registry.Claimant{Host: id(200 + n), Name: fmt.Sprint("host ", n)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: got %v, want %v", what, err, target)
	}
}

// start opens the store and the registry; stop closes both.
func start(t testing.TB, open Opener, fsys disk.FS) (r *registry.Registry, keys registry.Keys, stop func()) {
	t.Helper()
	keys, end, err := open(fsys)
	must(t, err)
	r, err = registry.Open(ctx, keys)
	must(t, err)
	var once sync.Once
	stop = func() {
		once.Do(func() {
			must(t, r.Close())
			must(t, end())
		})
	}
	t.Cleanup(stop)
	return r, keys, stop
}

func testSwap(t *testing.T, open Opener) {
	fsys := crashdisk.New()
	keys, end, err := open(fsys)
	must(t, err)
	swap := func(want bool, swaps ...registry.Swap) {
		t.Helper()
		if done, err := keys.Swap(ctx, swaps); err != nil || done != want {
			t.Fatalf("done %v, %v", done, err)
		}
	}
	holds := func(want string) {
		t.Helper()
		var got []string
		must(t, keys.Range(ctx, []byte("k/"), func(k, v []byte) bool {
			got = append(got, fmt.Sprintf("%s=%s", k, v))
			return len(got) < 3
		}))
		if s := strings.Join(got, " "); s != want {
			t.Fatalf("the store holds %q, not %q", s, want)
		}
	}
	a, b, c := []byte("k/a"), []byte("k/b\xff\x00"), []byte("k/c")
	swap(true, registry.Swap{Key: a, New: []byte("1")}, registry.Swap{Key: b, New: []byte{}})
	swap(false, registry.Swap{Key: c, New: []byte("1")}, registry.Swap{Key: a, New: []byte("2")})
	swap(false, registry.Swap{Key: c, New: []byte("1")}, registry.Swap{Key: a, Old: []byte("2")})
	swap(false, registry.Swap{Key: c, Old: []byte{}, New: []byte("1")})
	swap(true, registry.Swap{Key: []byte("k"), New: []byte("0")}, registry.Swap{Key: []byte("k0"), New: []byte("0")})
	holds("k/a=1 k/b\xff\x00=")
	if v, err := keys.Get(ctx, b); err != nil || v == nil || len(v) > 0 {
		t.Fatalf("an empty value is %v, %v", v, err)
	}
	swap(true, registry.Swap{Key: a, Old: []byte("1"), New: []byte("3")}, registry.Swap{Key: b, Old: []byte{}}, registry.Swap{Key: c, New: []byte("4")})
	if v, err := keys.Get(ctx, b); err != nil || v != nil {
		t.Fatalf("an absent value is %v, %v", v, err)
	}
	swap(true, registry.Swap{Key: a, Old: []byte("3"), New: []byte("3")}, registry.Swap{Key: b})
	must(t, end())
	_, err = keys.Swap(ctx, []registry.Swap{{Key: a, New: a}})
	want(t, "swap of a closed store", err, registry.ErrClosed)
	_, err = keys.Get(ctx, a)
	want(t, "get of a closed store", err, registry.ErrClosed)
	keys, end, err = open(fsys)
	must(t, err)
	holds("k/a=3 k/c=4")
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = keys.Swap(gone, []registry.Swap{{Key: a, Old: []byte("3")}})
	want(t, "cancelled", err, context.Canceled)
	must(t, end())
}

func testLife(t *testing.T, open Opener) {
	fsys := crashdisk.New()
	r, keys, stop := start(t, open, fsys)
	at := time.Date(2025, 1, 2, 3, 4, 5, 6, time.UTC)
	a := registry.Record{ID: id(1), Name: "vm/a", Created: at, Parent: id(2)}
	b := registry.Record{ID: id(2), Name: "b", Created: at}
	must(t, r.Register(ctx, a))
	must(t, r.Register(ctx, b))
	want(t, "id again", r.Register(ctx, registry.Record{ID: id(1), Name: "c"}), registry.ErrIDTaken)
	want(t, "name again", r.Register(ctx, registry.Record{ID: id(3), Name: "b"}), registry.ErrNameTaken)
	want(t, "bad name", r.Register(ctx, registry.Record{ID: id(3), Name: "b@c"}), registry.ErrName)
	if r.Register(ctx, registry.Record{Name: "c"}) == nil {
		t.Error("a record without id is accepted")
	}
	for i := range uint64(3) {
		if e, err := r.Claim(ctx, id(1), claimant(1), 0); err != nil || e != i+1 {
			t.Errorf("claim %d: %d, %v", i+1, e, err)
		}
	}
	_, err := r.Claim(ctx, id(9), claimant(1), 0)
	want(t, "claim absent", err, registry.ErrNotFound)
	if _, err := r.Claim(ctx, id(1), registry.Claimant{Host: id(201), Name: strings.Repeat("x", 256)}, 0); err == nil {
		t.Error("an owner of 256 bytes is accepted")
	}
	third := registry.Holder{Host: id(201), Epoch: 3}
	want(t, "rename to taken", r.Rename(ctx, id(1), third, "b"), registry.ErrNameTaken)
	want(t, "rename absent", r.Rename(ctx, id(9), third, "c"), registry.ErrNotFound)
	want(t, "rename to bad", r.Rename(ctx, id(1), third, ".."), registry.ErrName)
	must(t, r.Rename(ctx, id(1), third, "vm/a"))
	must(t, r.Rename(ctx, id(1), third, "z"))
	must(t, r.MarkDeleting(ctx, id(2), b.Holder()))
	a.Name, a.Epoch, a.Owner, a.Host, b.Deleting = "z", 3, "host 1", id(201), true

	check := func() {
		t.Helper()
		must(t, registry.Check(ctx, keys))
		if got, err := r.List(ctx); err != nil || !reflect.DeepEqual(got, []registry.Record{b, a}) {
			t.Errorf("list: %+v, %v", got, err)
		}
		if got, err := r.Lookup(ctx, "z"); err != nil || got != a {
			t.Errorf("lookup: %+v, %v", got, err)
		}
		if got, err := r.Get(ctx, id(2)); err != nil || got != b {
			t.Errorf("get: %+v, %v", got, err)
		}
		_, err := r.Lookup(ctx, "vm/a")
		want(t, "old name", err, registry.ErrNotFound)
	}
	check()
	stop()
	want(t, "closed", r.MarkDeleting(ctx, id(1), third), registry.ErrClosed)
	r, keys, _ = start(t, open, fsys)
	check()
	must(t, r.Remove(ctx, id(2), b.Holder()))
	want(t, "remove again", r.Remove(ctx, id(2), b.Holder()), registry.ErrNotFound)
	must(t, r.Register(ctx, registry.Record{ID: id(4), Name: "b", Created: at}))
	must(t, registry.Check(ctx, keys))
	gone, cancel := context.WithCancel(ctx)
	cancel()
	want(t, "cancelled", r.MarkDeleting(gone, id(1), third), context.Canceled)
}

// Concurrent claims return different epochs; of callers that want one name at the same
// time, one gets it.
func testConcurrent(t *testing.T, open Opener) {
	r, keys, _ := start(t, open, crashdisk.New())
	other, err := registry.Open(ctx, keys) // that of another host
	must(t, err)
	must(t, r.Register(ctx, registry.Record{ID: id(1), Name: "a"}))
	var all sync.WaitGroup
	epochs := make([]uint64, 20)
	var mu sync.Mutex
	winners := 0
	for i := range epochs {
		from := []*registry.Registry{r, other}[i%2]
		all.Go(func() { epochs[i], _ = from.Claim(ctx, id(1), claimant(1), 0) })
		all.Go(func() {
			err := from.Register(ctx, registry.Record{ID: id(byte(100 + i)), Name: fmt.Sprint("many ", i/4)})
			if err == nil {
				mu.Lock()
				winners++
				mu.Unlock()
			} else if !errors.Is(err, registry.ErrNameTaken) {
				t.Error(err)
			}
		})
		all.Go(func() {
			if _, err := from.List(ctx); err != nil {
				t.Error(err)
			}
			if rec, err := from.Lookup(ctx, "a"); err != nil || rec.ID != id(1) {
				t.Error(rec, err)
			}
		})
	}
	all.Wait()
	slices.Sort(epochs)
	for i, e := range epochs {
		if e != uint64(i)+1 {
			t.Fatalf("epochs %v", epochs)
		}
	}
	if winners != 5 {
		t.Errorf("%d vDisks got 5 names", winners)
	}
	must(t, registry.Check(ctx, keys))
}

// Random calls do what they do to a map.
func testModel(t *testing.T, open Opener) {
	rng := rand.New(rand.NewPCG(3, 4))
	fsys := crashdisk.New()
	r, keys, stop := start(t, open, fsys)
	model := map[uuid.UUID]registry.Record{}
	var founder uuid.UUID // the first that claimed anything
	named := func(name string) bool {
		for _, rec := range model {
			if rec.Name == name {
				return true
			}
		}
		return false
	}
	for range 400 {
		n, name := id(byte(1+rng.IntN(8))), fmt.Sprint("n", rng.IntN(8))
		have, known := model[n]
		var err, expected error
		if !known {
			expected = registry.ErrNotFound
		}
		switch rng.IntN(7) {
		case 0, 1:
			rec := registry.Record{ID: n, Name: name, Created: time.Unix(rng.Int64N(1<<33), 5).UTC(), Parent: id(byte(rng.IntN(3)))}
			switch err = r.Register(ctx, rec); {
			case known:
				expected = registry.ErrIDTaken
			case named(name):
				expected = registry.ErrNameTaken
			default:
				expected = nil
				model[n] = rec
			}
		case 2:
			err = r.Rename(ctx, n, have.Holder(), name)
			if known && have.Name != name && named(name) {
				expected = registry.ErrNameTaken
			}
			have.Name = name
		case 3:
			by := claimant(1 + byte(rng.IntN(3)))
			from := have.Epoch * uint64(rng.IntN(2))
			if known && from == 0 && have.Host != uuid.Nil && have.Host != by.Host || known && from == 0 && have.Host == uuid.Nil && founder != uuid.Nil && founder != by.Host {
				expected = registry.ErrNotOwner
			} else if known {
				have.Host, have.Owner = by.Host, by.Name
				have.Epoch++
				if founder == uuid.Nil {
					founder = by.Host
				}
			}
			var e uint64
			if e, err = r.Claim(ctx, n, by, from); err == nil && e != have.Epoch {
				t.Fatalf("epoch %d, not %d", e, have.Epoch)
			}
		case 4:
			err = r.MarkDeleting(ctx, n, have.Holder())
			have.Deleting = true
		case 5:
			if err = r.Remove(ctx, n, have.Holder()); known {
				delete(model, n)
				known = false
			}
		default:
			stop()
			r, keys, stop = start(t, open, fsys)
			continue
		}
		if expected == nil && err != nil || !errors.Is(err, expected) {
			t.Fatalf("%v, the model says %v", err, expected)
		}
		if known && err == nil {
			model[n] = have
		}
		must(t, registry.Check(ctx, keys))
		list, err := r.List(ctx)
		must(t, err)
		all := slices.SortedFunc(maps.Values(model), func(a, b registry.Record) int { return strings.Compare(a.Name, b.Name) })
		if !slices.Equal(list, all) {
			t.Fatalf("%+v\nthe model has\n%+v", list, all)
		}
	}
}
