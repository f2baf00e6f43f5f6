package registrytest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/volumedriver/registry"

	"github.com/google/uuid"
)

// A host has what it has claimed. Another one gets it only from the epoch that it names,
// or when it was released. From then on the first one changes nothing of it.
func testOwners(t *testing.T, open Opener) {
	r, keys, _ := start(t, open, crashdisk.New())
	other, err := registry.Open(ctx, keys) // that of another host
	must(t, err)
	one, two := claimant(1), claimant(2)
	must(t, r.Register(ctx, registry.Record{ID: id(1), Name: "a", Host: one.Host, Epoch: 1}))
	_, err = other.Claim(ctx, id(1), two, 0)
	want(t, "claim of what another host has", err, registry.ErrNotOwner)
	var e *registry.NotOwnerError
	if !errors.As(err, &e) || e.Host != one.Host || e.Epoch != 1 || !strings.Contains(err.Error(), one.Host.String()) {
		t.Errorf("it does not tell the owner: %v", err)
	}
	epoch, err := r.Claim(ctx, id(1), one, 0)
	if must(t, err); epoch != 2 {
		t.Fatalf("epoch %d", epoch)
	}
	_, err = other.Claim(ctx, id(1), two, 1)
	want(t, "takeover from an older epoch", err, registry.ErrNotOwner)
	_, err = r.Claim(ctx, id(1), registry.Claimant{}, 0)
	if err == nil {
		t.Error("a host without a UUID claims")
	}
	stale := registry.Holder{Host: one.Host, Epoch: 2}
	epoch, err = other.Claim(ctx, id(1), two, 2)
	if must(t, err); epoch != 3 {
		t.Fatalf("epoch %d", epoch)
	}
	now := registry.Holder{Host: two.Host, Epoch: 3}
	for _, by := range []registry.Holder{stale, {Host: one.Host, Epoch: 3}, {Host: two.Host, Epoch: 2}, {}} {
		for what, change := range map[string]func() error{
			"rename":        func() error { return r.Rename(ctx, id(1), by, "b") },
			"mark deleting": func() error { return r.MarkDeleting(ctx, id(1), by) },
			"remove":        func() error { return r.Remove(ctx, id(1), by) },
			"release":       func() error { return r.Release(ctx, id(1), by) },
		} {
			want(t, what+" by a stale owner", change(), registry.ErrNotOwner)
		}
	}
	must(t, other.Release(ctx, id(1), now))
	want(t, "rename of what was released", other.Rename(ctx, id(1), now, "b"), registry.ErrNotOwner)
	epoch, err = r.Claim(ctx, id(1), one, 0)
	if must(t, err); epoch != 4 {
		t.Fatalf("epoch %d", epoch)
	}
	must(t, r.Rename(ctx, id(1), registry.Holder{Host: one.Host, Epoch: 4}, "b"))
	hosts, err := r.Hosts(ctx)
	if must(t, err); len(hosts) != 2 || hosts[0] != (registry.Entry{Host: one.Host, Founder: true}) || hosts[1].Founder {
		t.Errorf("hosts: %+v", hosts)
	}
	must(t, registry.Check(ctx, keys))
}

// Many claims in few steps do what as many claims do.
func testClaimAll(t *testing.T, open Opener) {
	r, keys, _ := start(t, open, crashdisk.New())
	one, two := claimant(1), claimant(2)
	var ids []uuid.UUID
	for i := range byte(20) {
		rec := registry.Record{ID: id(i + 1), Name: fmt.Sprint("n", i), Host: one.Host, Epoch: uint64(i)}
		if i%5 == 0 {
			rec.Host = two.Host
		}
		must(t, r.Register(ctx, rec))
		ids = append(ids, rec.ID)
	}
	ids = append(ids, id(99))
	claimed, err := r.ClaimAll(ctx, one, ids)
	if must(t, err); len(claimed) != 16 {
		t.Errorf("%d are claimed", len(claimed))
	}
	list, err := r.List(ctx)
	must(t, err)
	for _, rec := range list {
		got, ok := claimed[rec.ID]
		if ok != (rec.Host == one.Host) || ok && (got != rec || got.Owner != one.Name) {
			t.Errorf("%+v is claimed as %+v, %v", rec, got, ok)
		}
	}
	if got := claimed[id(3)]; got.Epoch != 3 {
		t.Errorf("epoch %d", got.Epoch)
	}
	none, err := r.ClaimAll(ctx, claimant(3), ids)
	if must(t, err); len(none) != 0 {
		t.Errorf("a host that has none claims %v", none)
	}
	if hosts, err := r.Hosts(ctx); err != nil || len(hosts) != 1 {
		t.Errorf("hosts: %v, %v", hosts, err)
	}
	must(t, registry.Check(ctx, keys))
}

// An intent is its host's until the vDisk is finished; whoever takes it keeps the maker
// from finishing.
func testIntents(t *testing.T, open Opener) {
	fsys := crashdisk.New()
	r, keys, stop := start(t, open, fsys)
	one, two := claimant(1), claimant(2)
	begin := func(n byte, parent uuid.UUID, epoch uint64) registry.Intent {
		t.Helper()
		in, err := r.Begin(ctx, registry.Intent{ID: id(n), Host: one.Host, Parent: parent, ParentEpoch: epoch})
		must(t, err)
		return in
	}
	record := func(in registry.Intent) registry.Record {
		return registry.Record{ID: in.ID, Name: in.ID.String(), Host: in.Host, Epoch: 1, Parent: in.Parent}
	}
	first := begin(1, uuid.Nil, 0)
	_, err := r.Begin(ctx, first)
	want(t, "an id twice", err, registry.ErrIDTaken)
	wrong := record(first)
	wrong.Host = two.Host
	if r.Finish(ctx, first, wrong) == nil {
		t.Error("the record is another host's than the intent")
	}
	must(t, r.Finish(ctx, first, record(first)))
	want(t, "finish again", r.Finish(ctx, first, record(first)), registry.ErrNotFound)
	_, err = r.Begin(ctx, first)
	want(t, "the id of a vDisk", err, registry.ErrIDTaken)
	must(t, r.End(ctx, first))

	second := begin(2, uuid.Nil, 0)
	_, err = r.Take(ctx, id(2), two.Host, 0)
	want(t, "another host takes it", err, registry.ErrNotOwner)
	taken, err := r.Take(ctx, id(2), one.Host, 0)
	if must(t, err); taken.Kind != registry.Unmake || taken.Epoch != 2 {
		t.Errorf("taken: %+v", taken)
	}
	want(t, "finish what was taken", r.Finish(ctx, second, record(second)), registry.ErrNotOwner)
	want(t, "end what was taken", r.End(ctx, second), registry.ErrNotOwner)
	_, err = r.Take(ctx, id(2), two.Host, 1)
	want(t, "take from an older epoch", err, registry.ErrNotOwner)
	if r.Finish(ctx, taken, record(taken)) == nil {
		t.Error("what is being unmade was finished")
	}
	stop()
	r, keys, _ = start(t, open, fsys)
	list, err := r.Intents(ctx)
	if must(t, err); len(list) != 1 || list[0] != taken {
		t.Errorf("intents: %+v", list)
	}
	last, err := r.Take(ctx, id(2), two.Host, 2)
	must(t, err)
	want(t, "end by who had it", r.End(ctx, taken), registry.ErrNotOwner)
	must(t, r.End(ctx, last))
	must(t, r.End(ctx, last))
	_, err = r.Take(ctx, id(2), two.Host, 0)
	want(t, "take what has ended", err, registry.ErrNotFound)

	clone := begin(3, id(1), 1)
	_, err = r.Claim(ctx, id(1), one, 0)
	must(t, err)
	want(t, "a clone of what was claimed since", r.Finish(ctx, clone, record(clone)), registry.ErrNotOwner)
	clone = begin(4, id(1), 2)
	must(t, r.Finish(ctx, clone, record(clone)))
	clone = begin(5, id(1), 2)
	must(t, r.MarkDeleting(ctx, id(1), registry.Holder{Host: one.Host, Epoch: 2}))
	want(t, "a clone of what is being deleted", r.Finish(ctx, clone, record(clone)), registry.ErrNotFound)
	must(t, registry.Check(ctx, keys))
}

// Two hosts make random changes, many of which are not answered. Whoever was told that it
// has a vDisk has it until the other one takes it over from its epoch, and what one of
// them has only that one changes; no epoch is given twice.
func testOwnersModel(t *testing.T, open Opener) {
	rng := rand.New(rand.NewPCG(10, 11))
	_, keys, _ := start(t, open, crashdisk.New())
	var hosts [2]*registry.Registry
	var doubts [2]*Doubt
	var err error
	for i := range hosts {
		doubts[i] = NewDoubt(keys)
		hosts[i], err = registry.Open(ctx, doubts[i])
		must(t, err)
	}
	given := map[uuid.UUID]map[uint64]byte{} // epochs that were answered, and whose
	for i := range 300 {
		k := byte(rng.IntN(2))
		r, by, n := hosts[k], claimant(k+1), id(byte(1+rng.IntN(4)))
		before, berr := r.Get(ctx, n)
		doubts[k].Draw(func() Fate { return []Fate{Answered, Answered, Made, Lost, Late}[rng.IntN(5)] })
		var err error
		mine := berr == nil && before.Host == by.Host
		switch rng.IntN(6) {
		case 0:
			var in registry.Intent
			if in, err = r.Begin(ctx, registry.Intent{ID: n, Host: by.Host}); err == nil && berr == nil {
				t.Fatalf("change %d: begun, and it is there", i)
			}
			if err == nil {
				err = r.Finish(ctx, in, registry.Record{ID: n, Name: fmt.Sprint("n", i), Host: by.Host, Epoch: 1})
				clear(given[n])
			}
		case 1:
			in, terr := r.Take(ctx, n, by.Host, 0)
			if err = terr; err == nil {
				err = r.End(ctx, in)
			}
		case 2, 3:
			from := before.Epoch * uint64(rng.IntN(2))
			var e uint64
			if e, err = r.Claim(ctx, n, by, from); err == nil {
				if given[n] == nil {
					given[n] = map[uint64]byte{}
				}
				if _, twice := given[n][e]; twice || from == 0 && !mine {
					t.Fatalf("change %d: host %d claims epoch %d of %+v from %d", i, k, e, before, from)
				}
				given[n][e] = k
			}
		case 4:
			holder := registry.Holder{Host: by.Host, Epoch: before.Epoch}
			if err = r.Rename(ctx, n, holder, fmt.Sprint("r", i)); err == nil && !mine {
				t.Fatalf("change %d: host %d renames %+v", i, k, before)
			}
		case 5:
			if err = r.Remove(ctx, n, registry.Holder{Host: by.Host, Epoch: before.Epoch}); err == nil && !mine {
				t.Fatalf("change %d: host %d removes %+v", i, k, before)
			}
		}
		doubts[k].Heal()
		after, aerr := r.Get(ctx, n) // which finds out
		if berr == nil && !mine && (aerr != nil || after.Host == before.Host && after != before) {
			t.Fatalf("change %d by host %d: %v: %+v became %+v, %v", i, k, err, before, after, aerr)
		}
		must(t, registry.Check(ctx, keys))
	}
}
