package registrytest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/volumedriver/registry"
)

// testDoubt makes random changes, many of which are not answered; for a while their
// outcomes cannot be found out. A change that was reported as made was made, and one that
// was reported as failed was not. One of unknown outcome was made or not, and once
// somebody has read which, it stays so.
func testDoubt(t *testing.T, open Opener) {
	rng := rand.New(rand.NewPCG(8, 9))
	_, keys, _ := start(t, open, crashdisk.New())
	doubt := NewDoubt(keys)
	r, err := registry.Open(ctx, doubt)
	must(t, err)
	model := map[byte]*registry.Record{}
	unknown := 0
	for i := range 600 {
		n := byte(1 + rng.IntN(5))
		var before, after *registry.Record
		if before = model[n]; before != nil {
			next := *before
			after = &next
		}
		doubt.Draw(func() Fate { return []Fate{Answered, Answered, Made, Lost, Late}[rng.IntN(5)] })
		doubt.Silence(func() bool { return rng.IntN(2) == 0 })
		var err error
		switch k := rng.IntN(5); {
		case before == nil:
			after = &registry.Record{ID: id(n), Name: fmt.Sprint("n", i)}
			err = r.Register(ctx, *after)
		case k == 0:
			after.Name = fmt.Sprint("n", i)
			err = r.Rename(ctx, id(n), before.Holder(), after.Name)
		case k == 1:
			after.Deleting = true
			err = r.MarkDeleting(ctx, id(n), before.Holder())
		case k == 2:
			after = nil
			err = r.Remove(ctx, id(n), before.Holder())
		default:
			var e uint64
			if e, err = r.Claim(ctx, id(n), claimant(1), 0); err == nil && e <= before.Epoch {
				t.Fatalf("change %d: epoch %d after %d", i, e, before.Epoch)
			}
			after.Owner, after.Host = "host 1", id(201)
			after.Epoch++
		}
		doubt.Heal()
		now, rerr := r.Get(ctx, id(n))
		is := func(rec *registry.Record) bool {
			return rec == nil && errors.Is(rerr, registry.ErrNotFound) || rec != nil && rerr == nil && now == *rec
		}
		switch unsure := errors.Is(err, registry.ErrUnknownOutcome); {
		case unsure && (is(before) || is(after)):
			unknown++
		case !unsure && err == nil && is(after):
		case !unsure && err != nil && is(before):
		default:
			t.Fatalf("change %d: %v; it was %+v, was to be %+v, is %+v, %v", i, err, before, after, now, rerr)
		}
		if model[n] = &now; rerr != nil {
			delete(model, n)
		}
		must(t, registry.Check(ctx, doubt))
	}
	if unknown < 30 {
		t.Errorf("only %d outcomes were unknown", unknown)
	}
}
