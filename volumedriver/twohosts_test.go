package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"openvstorage/volumedriver/registry"

	"github.com/google/uuid"
)

// twinOps are operations on a host that has "a", which holds pattern 1, with snapshot "s".
// each leads from one set of vDisks to another.
var twinOps = map[string]struct {
	do          func(ctx context.Context, h *Host) error
	before, now map[string]int // what each vDisk holds
}{
	"create": {
		func(ctx context.Context, h *Host) error { _, err := h.Create(ctx, "n", modelDisk); return err },
		map[string]int{"a": 1}, map[string]int{"a": 1, "n": -1},
	},
	"clone": {
		func(ctx context.Context, h *Host) error { _, err := h.Clone(ctx, "a", "s", "n", nil); return err },
		map[string]int{"a": 1}, map[string]int{"a": 1, "n": 1},
	},
	"clone of now": {
		func(ctx context.Context, h *Host) error { _, err := h.Clone(ctx, "a", "", "n", nil); return err },
		map[string]int{"a": 1}, map[string]int{"a": 1, "n": 1},
	},
	"delete": {
		func(ctx context.Context, h *Host) error { return h.Delete(ctx, "a") },
		map[string]int{"a": 1}, map[string]int{},
	},
	"rename": {
		func(ctx context.Context, h *Host) error { return h.Rename(ctx, "a", "n") },
		map[string]int{"a": 1}, map[string]int{"n": 1},
	},
	"rollback": {
		func(ctx context.Context, h *Host) error { return h.Rollback(ctx, "a", "s") },
		map[string]int{"a": 1}, map[string]int{"a": 1},
	},
}

// prepared are two hosts: the first has "a" and the second "b".
func prepared(t *testing.T) *twins {
	w := newTwins(t)
	ctx := context.Background()
	for i, name := range []string{"a", "b"} {
		s := w.of[i]
		_, err := s.host.Create(ctx, name, modelDisk)
		must(t, err)
		d := open(t, s.host, name)
		write(t, d, 0, 4, i+1)
		must(t, d.Flush(ctx))
		_, err = s.host.SnapshotCreate(ctx, name, "s")
		must(t, err)
	}
	must(t, w.of[0].host.Sync(ctx, "a", nil))
	return w
}

// holdsAll checks what the vDisks of a host hold.
func (s *side) holdsAll(want map[string]int) {
	s.t.Helper()
	got := map[string]int{}
	for _, name := range s.has() {
		got[name] = s.content(name)
	}
	if !maps.Equal(got, want) {
		s.t.Fatalf("host %d has %v, want %v", s.id[0], got, want)
	}
}

// forEachCall does an operation on the first host again and again, each time with another
// of its swaps and backend calls at which at is called.
func forEachCall(t *testing.T, check func(t *testing.T, w *twins, n int, after bool, op string) (reached bool)) {
	for op := range twinOps {
		t.Run(op, func(t *testing.T) {
			for _, after := range []bool{false, true} {
				n := 1
				for check(t, prepared(t), n, after, op) {
					n++
				}
				if least := map[string]int{"rename": 1, "rollback": 0}[op]; n-1 < least || n > 200 {
					t.Errorf("%d calls", n-1)
				}
			}
		})
	}
}

// A second host that starts while the first is in the middle of something, at any of its
// swaps and backend calls, takes and deletes nothing of it: the first goes on as if it were
// alone.
func TestSecondHostStartsInTheMiddle(t *testing.T) {
	forEachCall(t, func(t *testing.T, w *twins, n int, after bool, op string) bool {
		one, two := w.of[0], w.of[1]
		paused, goOn := make(chan struct{}), make(chan struct{})
		one.m.arm(n, after, func() {
			close(paused)
			<-goOn
		})
		done := make(chan error, 1)
		go func() { done <- twinOps[op].do(one.alive, one.host) }()
		var err error
		reached := false
		select {
		case err = <-done:
			close(goOn)
			one.m.disarm()
		case <-paused:
			reached = true
			two.restart(unharmed)
			two.holdsAll(map[string]int{"b": 2})
			close(goOn)
			err = <-done
		}
		if err != nil {
			t.Fatalf("call %d, after %v: %v", n, after, err)
		}
		one.holdsAll(twinOps[op].now)
		one.restart(unharmed)
		one.holdsAll(twinOps[op].now)
		two.holdsAll(map[string]int{"b": 2})
		w.whole()
		return reached
	})
}

// A host that is killed at any of its swaps and backend calls finishes or removes what was
// half made at its own next start. A start of the other host in between changes nothing.
func TestKilledHostCleansUpItself(t *testing.T) {
	forEachCall(t, func(t *testing.T, w *twins, n int, after bool, op string) bool {
		ctx := context.Background()
		one, two := w.of[0], w.of[1]
		one.m.arm(n, after, one.die)
		err := twinOps[op].do(one.alive, one.host)
		one.m.disarm()
		reached := one.m.isDead() != nil
		if err != nil && !reached {
			t.Fatalf("call %d, after %v: %v", n, after, err)
		}
		one.close()
		state := func() string {
			namespaces, err := w.back.ListNamespaces(ctx)
			must(t, err)
			r, err := registry.Open(ctx, w.keys)
			must(t, err)
			records, err := r.List(ctx)
			must(t, err)
			records = slices.DeleteFunc(records, func(r registry.Record) bool { return r.Host == two.id })
			intents, err := r.Intents(ctx)
			must(t, err)
			return fmt.Sprintf("%v\n%+v\n%+v", namespaces, records, intents)
		}
		before := state()
		two.restart(unharmed)
		two.holdsAll(map[string]int{"b": 2})
		if now := state(); now != before {
			t.Fatalf("call %d, after %v: the other host's start made of\n%s\nthis:\n%s", n, after, before, now)
		}
		one.restart(unharmed)
		if now := twinOps[op].now; slices.Equal(one.has(), slices.Sorted(maps.Keys(now))) {
			one.holdsAll(now)
		} else {
			one.holdsAll(twinOps[op].before)
		}
		w.whole()
		return reached
	})
}

// What another host has is listed with its host, and nothing can be done to it; its name
// is taken.
func TestElsewhere(t *testing.T) {
	ctx := context.Background()
	w := prepared(t)
	one, two := w.of[0], w.of[1]
	i, err := one.host.Info(ctx, "b")
	if must(t, err); i.State != StateElsewhere || i.Host != two.id || !strings.Contains(i.Reason, two.id.String()) || !strings.Contains(i.Reason, "twin 2") {
		t.Errorf("told as %+v", i)
	}
	list, err := one.host.List(ctx)
	if must(t, err); len(list) != 2 || list[0].Host != one.id || list[1].Name != "b" || list[1].Epoch != 1 {
		t.Errorf("listed as %+v", list)
	}
	_, err = two.host.Create(ctx, "dir/late", modelDisk) // that nobody has asked for here yet
	must(t, err)
	for what, do := range map[string]func(name string) error{
		"open":          func(name string) error { _, _, err := one.host.OpenDevice(ctx, name); return err },
		"open snapshot": func(name string) error { _, _, err := one.host.OpenDevice(ctx, name+"@s"); return err },
		"resize":        func(name string) error { return one.host.Resize(ctx, name, 2*modelDisk) },
		"snapshot":      func(name string) error { _, err := one.host.SnapshotCreate(ctx, name, "x"); return err },
		"snapshots":     func(name string) error { _, err := one.host.SnapshotList(ctx, name); return err },
		"no snapshot":   func(name string) error { return one.host.SnapshotDelete(ctx, name, "s") },
		"rollback":      func(name string) error { return one.host.ForceRollback(ctx, name, "s") },
		"clone":         func(name string) error { _, err := one.host.Clone(ctx, name, "", "c", nil); return err },
		"sync":          func(name string) error { return one.host.Sync(ctx, name, nil) },
		"rename":        func(name string) error { return one.host.Rename(ctx, name, "other") },
		"delete":        func(name string) error { return one.host.ForceDelete(ctx, name) },
	} {
		for _, name := range []string{"dir/late", "b"} {
			if err := do(name); !errors.Is(err, ErrElsewhere) || !strings.Contains(err.Error(), two.id.String()) {
				t.Errorf("%s of %s: %v", what, name, err)
			}
		}
	}
	if err := one.host.RenameBelow(ctx, "dir", "to", registry.Beside{}); !errors.Is(err, ErrElsewhere) {
		t.Errorf("rename of a directory: %v", err)
	}
	_, err = one.host.Create(ctx, "b", modelDisk)
	if !errors.Is(err, ErrExists) {
		t.Errorf("create: %v", err)
	}
	if err := one.host.Rename(ctx, "a", "b"); !errors.Is(err, ErrExists) {
		t.Errorf("rename to it: %v", err)
	}
	exports, err := one.host.Exports(ctx)
	if must(t, err); !slices.Equal(exports, []string{"a", "a@s"}) {
		t.Errorf("exports: %v", exports)
	}
	one.holdsAll(map[string]int{"a": 1})
	must(t, two.host.Delete(ctx, "b"))
	if _, err := one.host.Info(ctx, "b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("when it is deleted: %v", err)
	}
}

// A host whose vDisk was taken over changes and deletes nothing of it any more: it is
// told, and the vDisk halts there. A clone that it was making never becomes visible.
func TestTakenOver(t *testing.T) {
	ctx := context.Background()
	for what, do := range map[string]func(s *side) error{
		"rename": func(s *side) error { return s.host.Rename(ctx, "a", "x") },
		"delete": func(s *side) error { return s.host.ForceDelete(ctx, "a") },
		"look":   func(s *side) error { _, _ = s.host.List(ctx); return volumeOf(t, &rig{host: s.host}, "a").Err() },
	} {
		t.Run(what, func(t *testing.T) {
			w := prepared(t)
			one, two := w.of[0], w.of[1]
			v := volumeOf(t, &rig{host: one.host}, "a")
			_, err := two.reg.Claim(ctx, v.id, registry.Claimant{Host: two.id, Name: "taker"}, v.epoch)
			must(t, err)
			err = do(one)
			if !errors.Is(err, ErrHalted) && !errors.Is(err, ErrElsewhere) || !strings.Contains(err.Error(), two.id.String()) {
				t.Errorf("the former owner hears %v", err)
			}
			if err := v.Err(); !errors.Is(err, ErrHalted) {
				t.Errorf("it goes on: %v", err)
			}
			if names, err := w.back.ListNamespaces(ctx); err != nil || len(names) != 2 {
				t.Errorf("namespaces: %v, %v", names, err)
			}
			one.restart(unharmed)
			one.holdsAll(map[string]int{})
			two.restart(unharmed) // "a" halts here: its local files are on the other host
			two.owns("a", "b")
		})
	}
	t.Run("clone", func(t *testing.T) {
		w := prepared(t)
		one, two := w.of[0], w.of[1]
		v := volumeOf(t, &rig{host: one.host}, "a")
		_, err := one.host.CloneAs(ctx, "a", "s", nil, func(_ uuid.UUID, commit func(string) error) error {
			_, err := two.reg.Claim(ctx, v.id, registry.Claimant{Host: two.id, Name: "taker"}, v.epoch)
			must(t, err)
			return commit("n")
		})
		if !errors.Is(err, ErrElsewhere) {
			t.Errorf("a clone of what was taken over meanwhile: %v", err)
		}
		one.restart(unharmed)
		two.restart(unharmed)
		two.owns("a", "b")
		w.whole()
	})
}

// Two hosts do random things side by side, and are killed at random calls, in their starts
// too. No vDisk of the one is taken or deleted by the other; what was half made is
// finished or removed by its owner's next start.
func TestTwoHostsModel(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			m := &twinModel{twins: newTwins(t), rng: rand.New(rand.NewPCG(seed, 14))}
			for i := range m.have {
				m.have[i] = map[string]int{}
			}
			for range 40 {
				m.step()
			}
			for i, s := range m.of {
				s.restart(unharmed)
				s.holdsAll(m.have[i])
			}
			m.whole()
		})
	}
}

type twinModel struct {
	*twins
	rng  *rand.Rand
	have [2]map[string]int
	made int
}

// step does something on one host, and may kill it, or have the other start meanwhile.
func (m *twinModel) step() {
	m.t.Helper()
	i := m.rng.IntN(2)
	s, other := m.of[i], m.of[1-i]
	do, next := m.draw(i)
	started := false
	n, after := 1+m.rng.IntN(12), m.rng.IntN(2) == 0
	switch m.rng.IntN(3) {
	case 0:
		s.m.arm(n, after, s.die)
	case 1:
		s.m.arm(n, after, func() {
			started = true
			other.restart(unharmed)
		})
	}
	err := do(s.alive, s.host)
	s.m.disarm()
	switch dead := s.m.isDead() != nil; {
	case !dead && err != nil:
		m.t.Fatalf("host %d: %v", i+1, err)
	case dead:
		if m.rng.IntN(2) == 0 { // the other one starts first
			other.restart(unharmed)
			started = true
		}
		s.restart(func() (int, bool) { return m.rng.IntN(8), m.rng.IntN(2) == 0 })
		if slices.Equal(s.has(), slices.Sorted(maps.Keys(next))) {
			m.have[i] = next
		}
	default:
		m.have[i] = next
	}
	s.holdsAll(m.have[i])
	if started {
		other.holdsAll(m.have[1-i])
	}
}

// draw returns something that host i can do, and what it has afterwards.
func (m *twinModel) draw(i int) (do func(context.Context, *Host) error, next map[string]int) {
	have := m.have[i]
	next = maps.Clone(have)
	m.made++
	name := fmt.Sprint("h", i, "-", m.made)
	names := slices.Sorted(maps.Keys(have))
	k := m.rng.IntN(5)
	if len(names) == 0 {
		k = 0
	} else if len(names) > 6 {
		k = 2
	}
	one := ""
	if len(names) > 0 {
		one = names[m.rng.IntN(len(names))]
	}
	switch k {
	case 0:
		next[name] = -1
		return func(ctx context.Context, h *Host) error { _, err := h.Create(ctx, name, modelDisk); return err }, next
	case 1:
		next[name] = have[one]
		return func(ctx context.Context, h *Host) error { _, err := h.Clone(ctx, one, "", name, nil); return err }, next
	case 2:
		for _, n := range names { // one without clones
			if i, err := m.of[i].host.Info(context.Background(), n); err == nil && len(i.Children) == 0 {
				one = n
			}
		}
		delete(next, one)
		return func(ctx context.Context, h *Host) error { return h.Delete(ctx, one) }, next
	case 3:
		next[name] = have[one]
		delete(next, one)
		return func(ctx context.Context, h *Host) error { return h.Rename(ctx, one, name) }, next
	}
	seed := m.rng.IntN(256)
	d := open(m.t, m.of[i].host, one)
	write(m.t, d, 0, 4, seed)
	must(m.t, d.Flush(context.Background()))
	have[one], next[one] = seed, seed
	return func(ctx context.Context, h *Host) error { return h.Sync(ctx, one, nil) }, next
}

// A name that another host has given up can be taken at once, by whoever has not looked
// at the registry since.
func TestNameThatAnotherHostGaveUp(t *testing.T) {
	ctx := context.Background()
	w := prepared(t)
	one, two := w.of[0], w.of[1]
	if _, err := one.host.List(ctx); err != nil { // it has seen "b"
		t.Fatal(err)
	}
	must(t, two.host.Rename(ctx, "b", "c"))
	_, err := one.host.Create(ctx, "b", modelDisk)
	must(t, err)
	if _, err := one.host.List(ctx); err != nil { // and now "c"
		t.Fatal(err)
	}
	must(t, two.host.Delete(ctx, "c"))
	must(t, one.host.Rename(ctx, "b", "c"))
	_, err = one.host.Clone(ctx, "a", "s", "b", nil)
	must(t, err)
	one.holdsAll(map[string]int{"a": 1, "b": 1, "c": -1})
	two.holdsAll(map[string]int{})
	w.whole()
}
