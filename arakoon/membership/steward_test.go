package membership

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"openvstorage/arakoon/placement"
	"openvstorage/arakoon/roster"
	"openvstorage/internal/keyswap"
)

var errLost = errors.New("the call failed, or its answer was lost")

// world is one group, its roster and its hosts, in memory. Calls fail at random, before or
// after they have had their effect.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	faults float64

	roster roster.Roster
	hosts  []placement.Host

	view    View
	removed map[uint64]bool
	made    map[uint64]uuid.UUID // which host has ever made a member
	has     map[uint64]bool      // its files are there
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 14)), removed: map[uint64]bool{}, made: map[uint64]uuid.UUID{}, has: map[uint64]bool{}}
	w.join("a")
	first := w.hosts[0].ID
	w.roster.Groups = []roster.Group{{Name: "g", Life: 1, Next: 2, Members: []roster.Member{{ID: 1, Host: first}}}}
	w.view = View{Voters: []uint64{1}, Leader: 1}
	w.made[1], w.has[1] = first, true
	return w
}

func (w *world) join(zone string) {
	id := uuid.UUID{15: byte(len(w.hosts) + 1)}
	w.hosts = append(w.hosts, placement.Host{ID: id, Zone: zone, Holds: true, Alive: true})
	w.roster.Hosts = append(w.roster.Hosts, roster.Host{ID: id, Zone: zone})
}

// call has an effect, or fails before it, or after it.
func (w *world) call(effect func() error) error {
	if w.rng.Float64() < w.faults/2 {
		return errLost
	}
	err := effect()
	if w.rng.Float64() < w.faults/2 {
		return errLost
	}
	return err
}

func (w *world) Read(context.Context) (r *roster.Roster, err error) {
	err = w.call(func() error {
		if err := w.roster.Check(); err != nil {
			w.t.Fatal(err)
		}
		c := w.roster
		c.Groups = slices.Clone(c.Groups)
		r = &c
		return nil
	})
	return r, err
}

func (w *world) Write(_ context.Context, was, now roster.Group) error {
	return w.call(func() error {
		if string(was.Append(nil)) != string(w.roster.Groups[0].Append(nil)) {
			return ErrChanged
		}
		if now.Next < was.Next {
			w.t.Fatal("numbers are given away twice")
		}
		w.roster.Groups[0] = now
		return nil
	})
}

func (w *world) View(context.Context, string) (v View, err error) {
	err = w.call(func() error {
		v = w.view
		v.Voters, v.Learners, v.CaughtUp = slices.Clone(v.Voters), slices.Clone(v.Learners), nil
		for _, id := range v.Learners {
			if w.has[id] && w.host(w.made[id]).Alive {
				v.CaughtUp = append(v.CaughtUp, id)
			}
		}
		return nil
	})
	return v, err
}

func (w *world) host(id uuid.UUID) placement.Host {
	return w.hosts[slices.IndexFunc(w.hosts, func(h placement.Host) bool { return h.ID == id })]
}

func (w *world) AddLearner(_ context.Context, _ string, id uint64) error {
	return w.call(func() error {
		if w.removed[id] || w.view.has(id) {
			return fmt.Errorf("member %d: %w", id, ErrUsed)
		}
		if id >= w.roster.Groups[0].Next {
			w.t.Fatalf("member %d was not given away durably", id)
		}
		w.view.Learners = append(w.view.Learners, id)
		return nil
	})
}

func (w *world) Change(_ context.Context, _ string, voters, learners []uint64) error {
	return w.call(func() error {
		reached := 0
		for _, id := range w.view.Voters {
			if w.has[id] && w.host(w.made[id]).Alive {
				reached++
			}
		}
		if reached <= len(w.view.Voters)/2 {
			return errors.New("no quorum")
		}
		for _, id := range slices.Concat(voters, learners) {
			if !w.view.has(id) {
				w.t.Fatalf("member %d comes from nowhere", id)
			}
		}
		for _, id := range voters {
			if !w.has[id] {
				w.t.Fatalf("member %d votes, and no host has it", id)
			}
		}
		for _, id := range slices.Concat(w.view.Voters, w.view.Learners) {
			if !slices.Contains(voters, id) && !slices.Contains(learners, id) {
				w.removed[id] = true
			}
		}
		w.view.Voters, w.view.Learners = slices.Clone(voters), slices.Clone(learners)
		if !slices.Contains(voters, w.view.Leader) {
			w.view.Leader = voters[0]
		}
		return nil
	})
}

func (w *world) Require(_ context.Context, _ string, zones int) error {
	return w.call(func() error {
		names := map[string]bool{}
		for _, id := range slices.Concat(w.view.Voters, w.view.Learners) {
			if w.has[id] && w.host(w.made[id]).Alive {
				names[w.host(w.made[id]).Zone] = true
			}
		}
		if zones > len(names) {
			w.t.Fatalf("%d zones are required, and members that are there are in %d", zones, len(names))
		}
		w.view.Zones = zones
		return nil
	})
}

func (w *world) Places(context.Context, *roster.Roster) []placement.Host {
	return slices.Clone(w.hosts)
}

func (w *world) Make(_ context.Context, host uuid.UUID, _ string, id uint64) error {
	if !w.host(host).Alive {
		return errLost
	}
	return w.call(func() error {
		if by, was := w.made[id]; was {
			if by != host {
				w.t.Fatalf("member %d is made on hosts %v and %v", id, by, host)
			}
			if !w.has[id] {
				return fmt.Errorf("member %d: %w", id, ErrUsed)
			}
			return nil
		}
		if !slices.Contains(w.view.Learners, id) {
			w.t.Fatalf("member %d is made, and the group has not committed it as a learner", id)
		}
		w.made[id], w.has[id] = host, true
		return nil
	})
}

func (w *world) Drop(_ context.Context, host uuid.UUID, _ string, id uint64) error {
	if !w.host(host).Alive {
		return errLost
	}
	return w.call(func() error {
		if w.has[id] && !w.removed[id] {
			w.t.Fatalf("files of member %d are deleted, and the group has not removed it", id)
		}
		w.has[id] = false
		return nil
	})
}

func (w *world) steward() *Steward { return &Steward{Rosters: w, Groups: w, Hosts: w} }

// settle makes passes until nothing is left to do.
func (w *world) settle() placement.Step {
	w.t.Helper()
	var last Report
	for range 60 {
		reports, err := w.steward().Pass(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		last = reports[0]
		if last.Step.Kind == placement.Rest && last.Err == nil {
			return last.Step
		}
	}
	w.t.Fatalf("it never rests: %+v; voters %d, learners %d", last, w.view.Voters, w.view.Learners)
	return placement.Step{}
}

func TestThreeHosts(t *testing.T) {
	w := newWorld(t, 1)
	w.settle()
	w.join("b")
	w.settle()
	if !slices.Equal(w.view.Voters, []uint64{1}) || !slices.Equal(w.view.Learners, []uint64{2}) {
		t.Errorf("two hosts: %+v", w.view)
	}
	w.join("c")
	w.settle()
	if !slices.Equal(w.view.Voters, []uint64{1, 2, 3}) || len(w.view.Learners) > 0 {
		t.Errorf("three hosts: %+v", w.view)
	}
}

// A learner's files are lost before it ever voted: its number is given up, and the host gets
// another.
func TestLearnerThatItsHostHasLost(t *testing.T) {
	w := newWorld(t, 1)
	w.join("b")
	w.settle()
	w.has[2] = false
	w.settle()
	if !slices.Equal(w.view.Learners, []uint64{3}) || !w.removed[2] || w.made[3] != w.hosts[1].ID {
		t.Errorf("%+v", w.view)
	}
}

// Two stewards have read the same roster: the one that writes second does nothing.
func TestKeptIsWrittenOnlyOverWhatWasRead(t *testing.T) {
	s := &oneStore{values: map[string][]byte{}}
	k := Kept{roster.Book{Store: s}}
	host := roster.Host{ID: uuid.UUID{15: 1}}
	was := roster.Group{Name: "g", Next: 2, Members: []roster.Member{{ID: 1, Host: host.ID}}}
	err := k.Change(t.Context(), func(r *roster.Roster) error {
		r.PutHost(host)
		r.PutGroup(was)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	now := was
	now.Next = 3
	if err := k.Write(t.Context(), was, now); err != nil {
		t.Fatal(err)
	}
	now.Next = 4
	if err := k.Write(t.Context(), was, now); !errors.Is(err, ErrChanged) {
		t.Error(err)
	}
	if r, err := k.Read(t.Context()); err != nil || r.Groups[0].Next != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

// oneStore is a store for one caller.
type oneStore struct{ values map[string][]byte }

func (s *oneStore) Range(_ context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	for k, v := range s.values {
		if strings.HasPrefix(k, string(prefix)) && !fn([]byte(k), v) {
			break
		}
	}
	return nil
}

func (s *oneStore) Swap(_ context.Context, swaps []keyswap.Swap) (bool, error) {
	for _, w := range swaps {
		if string(s.values[string(w.Key)]) != string(w.Old) {
			return false, nil
		}
	}
	for _, w := range swaps {
		s.values[string(w.Key)] = w.New
	}
	return true, nil
}

// The group has a member that the roster does not list, as after an old roster was put back:
// nothing is removed for that.
func TestRosterThatIsOld(t *testing.T) {
	w := newWorld(t, 1)
	w.join("b")
	w.settle()
	w.roster.Groups[0].Members = w.roster.Groups[0].Members[:1]
	reports, err := w.steward().Pass(t.Context())
	if err != nil || reports[0].Err == nil {
		t.Errorf("%+v, %v", reports, err)
	}
	if !slices.Equal(w.view.Learners, []uint64{2}) || len(w.removed) > 0 {
		t.Errorf("%+v", w.view)
	}
}

// Stewards are stopped anywhere, two work at a time, calls fail and answers are lost, hosts
// come, go and are given up. Each promise of the package holds at each call (see world), and
// when all is well again the group is where placement wants it.
func TestAnyHistory(t *testing.T) {
	for seed := range uint64(1500) {
		w := newWorld(t, seed)
		w.faults = []float64{0, 0.1, 0.4}[seed%3]
		for range 60 {
			switch w.rng.IntN(8) {
			case 0:
				if len(w.hosts) < 8 {
					w.join(string(rune('a' + w.rng.IntN(3))))
				}
			case 1:
				h := &w.hosts[w.rng.IntN(len(w.hosts))]
				h.Alive = !h.Alive
			case 2:
				h := &w.hosts[w.rng.IntN(len(w.hosts))]
				h.Leaves = !h.Leaves
			}
			_, _ = w.steward().Pass(t.Context())
		}
		w.faults = 0
		for i := range w.hosts {
			w.hosts[i].Alive, w.hosts[i].Leaves = true, false
		}
		for range 3 {
			w.join("d")
		}
		w.settle()
		if n := len(w.view.Voters); n != 3 && n != 5 {
			t.Fatalf("seed %d: %d voters", seed, n)
		}
		if len(w.roster.Groups[0].Members) != len(w.view.Voters)+len(w.view.Learners) {
			t.Fatalf("seed %d: roster %+v, group %+v", seed, w.roster.Groups[0].Members, w.view)
		}
	}
}

// Zones are required when members of so many are there, not before; and what is required is
// lowered when the roster says so. A roster that says nothing changes nothing.
func TestStewardRequiresZones(t *testing.T) {
	w := newWorld(t, 2)
	w.join("a")
	w.roster.Groups[0].RequireZones = 2
	w.view.MayRequire = true
	for range 20 {
		reports, err := w.steward().Pass(t.Context())
		if err != nil || reports[0].Err != nil {
			t.Fatal(err, reports)
		}
	}
	if w.view.Zones != 0 || len(w.view.Learners) != 1 {
		t.Fatalf("members in one zone: %+v", w.view)
	}
	w.hosts[1].Zone = "b"
	w.view.MayRequire = false
	if _, err := w.steward().Pass(t.Context()); err != nil || w.view.Zones != 0 {
		t.Fatal(err, w.view)
	}
	w.view.MayRequire = true
	if w.settle(); w.view.Zones != 2 {
		t.Fatalf("%+v", w.view)
	}
	w.roster.Groups[0].RequireZones = 1
	if w.settle(); w.view.Zones != 1 {
		t.Fatalf("%+v", w.view)
	}
	w.view.Zones, w.roster.Groups[0].RequireZones = 2, 0
	if w.settle(); w.view.Zones != 2 {
		t.Fatalf("%+v", w.view)
	}
}
