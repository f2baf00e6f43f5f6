package abm_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// An item has one holder, who is known by its fence; whoever lost it can do nothing to it.
func TestWorkLife(t *testing.T) {
	s, m := manager(t)
	c := abm.Queue{Client: m}
	_, err := c.TakeWork(ctx, "one")
	want(t, "of an empty queue", err, abm.ErrNotFound)
	items := []abm.NewWork{{Name: "a", Data: []byte("do a")}, {Name: "b"}, {Name: "a"}}
	for range 2 { // its retry adds nothing
		if n, err := c.AddWork(ctx, items); err != nil || fmt.Sprint(n) != "[1 2 1]" {
			t.Fatal(n, err)
		}
	}
	one, err := c.TakeWork(ctx, "one")
	if err != nil || one.Name != "a" || string(one.Data) != "do a" || one.Holder != "one" || one.Attempts != 1 {
		t.Fatal(one, err)
	}
	if err := c.KeepWork(ctx, one); err != nil {
		t.Fatal(err)
	}
	_, err = c.TakeOver(ctx, one, "two")
	want(t, "from one who lives", err, abm.ErrLease)
	one.Beat++
	two, err := c.TakeOver(ctx, one, "two")
	if err != nil || two.Fence <= one.Fence || two.Attempts != 2 {
		t.Fatal(two, err)
	}
	want(t, "a beat of the first", c.KeepWork(ctx, one), abm.ErrLease)
	want(t, "an end of the first", c.FinishWork(ctx, one), abm.ErrLease)
	want(t, "a failure of the first", c.FailWork(ctx, one, "late"), abm.ErrLease)
	check(t, s)
	for range 2 {
		if err := c.FailWork(ctx, two, "disk 3 is away"); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.TakeOver(ctx, two, "three")
	want(t, "what has failed", err, abm.ErrConflict)
	want(t, "of one that waits", c.DropWork(ctx, 2), abm.ErrInUse)
	list, err := c.Work(ctx, 0, 10, userfn.Consistent)
	if err != nil || len(list) != 2 || list[0].State != abm.WorkFailed || list[0].Reason != "disk 3 is away" || list[1].State != abm.WorkWaiting {
		t.Fatal(list, err)
	}
	for range 2 {
		if err := c.RetryWork(ctx, 1); err != nil {
			t.Fatal(err)
		}
	}
	again, err := c.TakeWork(ctx, "three")
	if err != nil || again.Number != 1 {
		t.Fatal(again, err)
	}
	for range 2 {
		if err := c.ReturnWork(ctx, again); err != nil {
			t.Fatal(err)
		}
	}
	if again, err = c.TakeWork(ctx, "three"); err != nil || again.Number != 1 {
		t.Fatal(again, err)
	}
	for range 2 {
		if err := c.FinishWork(ctx, again); err != nil {
			t.Fatal(err)
		}
	}
	if totals, err := c.WorkTotals(ctx, userfn.Consistent); err != nil || totals.Items != 1 || totals.Failed != 0 || totals.Last != 2 {
		t.Fatal(totals, err)
	}
	check(t, s)
}

// The queue takes MaxWork items and no more: a call is entered whole or not at all.
func TestWorkIsBounded(t *testing.T) {
	s, m := manager(t)
	c := abm.Queue{Client: m}
	if _, err := c.AddWork(ctx, []abm.NewWork{{Name: "7"}}); err != nil {
		t.Fatal(err)
	}
	// As if all others were in it.
	totals, err := record.Encode(1, &abm.WorkTotals{Last: 1, Items: abm.MaxWork})
	if err != nil {
		t.Fatal(err)
	}
	s.Edit(func(tx userfn.Tx) { tx.Set([]byte("abm/T"), totals) })
	before := s.Dump()
	_, err = c.AddWork(ctx, []abm.NewWork{{Name: "7"}, {Name: "one more"}})
	want(t, "one more", err, abm.ErrFull)
	if string(s.Dump()) != string(before) {
		t.Fatal("it left something")
	}
	if n, err := c.AddWork(ctx, []abm.NewWork{{Name: "7"}}); err != nil || n[0] != 1 {
		t.Fatal(n, err)
	}
}

// Random calls of several holders: what one finishes under its fence is finished once, and names,
// lists and totals agree after every call.
func TestWorkRandomCalls(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 2))
		s, m := manager(t)
		c := abm.Queue{Client: m}
		fences := map[uint64]bool{}
		var taken []abm.Work // some of them lost meanwhile
		for range 300 {
			switch rng.IntN(7) {
			case 0, 1:
				_, _ = c.AddWork(ctx, []abm.NewWork{{Name: fmt.Sprint(rng.IntN(9))}})
			case 2:
				if w, err := c.TakeWork(ctx, "h"); err == nil {
					taken = append(taken, w)
				}
			case 3:
				list, err := c.Work(ctx, 0, 10, userfn.Consistent)
				if err != nil {
					t.Fatal(err)
				}
				if len(list) > 0 {
					if w, err := c.TakeOver(ctx, list[rng.IntN(len(list))], "i"); err == nil {
						taken = append(taken, w)
					}
				}
			case 4:
				n := uint64(1 + rng.IntN(20))
				_ = c.RetryWork(ctx, n)
				_ = c.DropWork(ctx, n)
			default:
				if len(taken) == 0 {
					continue
				}
				w := taken[rng.IntN(len(taken))]
				end := []func() error{func() error { return c.FinishWork(ctx, w) }, func() error { return c.FailWork(ctx, w, "r") },
					func() error { return c.ReturnWork(ctx, w) }, func() error { return c.KeepWork(ctx, w) }}[rng.IntN(4)]
				_ = end()
			}
			check(t, s)
		}
		for _, w := range taken {
			if fences[w.Fence] {
				t.Fatalf("seed %d: fence %d twice", seed, w.Fence)
			}
			fences[w.Fence] = true
		}
	}
}

// Progress is entered by whoever saw the last one, and a job's name is free when it is cleared.
func TestJobProgress(t *testing.T) {
	_, m := manager(t)
	c := abm.Queue{Client: m}
	j := abm.Job{Name: "rewrite", Total: 10, Cursor: []byte("a")}
	for range 2 { // its retry
		if v, err := c.Progress(ctx, j); err != nil || v != 1 {
			t.Fatal(v, err)
		}
	}
	_, err := c.Progress(ctx, abm.Job{Name: "rewrite", Total: 20})
	want(t, "a second begin", err, abm.ErrConflict)
	j.Version, j.Done = 1, 5
	if v, err := c.Progress(ctx, j); err != nil || v != 2 {
		t.Fatal(v, err)
	}
	want(t, "clearing what went on", c.ClearJob(ctx, "rewrite", 1), abm.ErrConflict)
	if list, err := c.Jobs(ctx, userfn.Consistent); err != nil || len(list) != 1 || list[0].Done != 5 || list[0].Version != 2 || list[0].Name != "rewrite" {
		t.Fatal(list, err)
	}
	for range 2 {
		if err := c.ClearJob(ctx, "rewrite", 2); err != nil {
			t.Fatal(err)
		}
	}
	j.Version = 2
	_, err = c.Progress(ctx, j)
	want(t, "of a job that was cleared", err, abm.ErrConflict)
	for i := range abm.MaxJobs {
		if _, err := c.Progress(ctx, abm.Job{Name: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.Progress(ctx, abm.Job{Name: "one more"})
	want(t, "one more", err, abm.ErrFull)
}
