package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// host makes the host number n.
func host(n int, zone string) Host {
	return Host{ID: uuid.UUID{15: byte(n)}, Zone: zone, Holds: true, Alive: true}
}

// world is a group and its hosts, on which steps are taken.
type world struct {
	hosts []Host
	group Group
	next  uint64
}

// newWorld has a group of one on the first host.
func newWorld(hosts ...Host) *world {
	return &world{hosts: hosts, next: 1, group: Group{Members: []Member{{ID: 1, Host: hosts[0].ID, Voter: true, CaughtUp: true, Leads: true}}}}
}

// take takes a step, as a group would.
func (w *world) take(s Step) {
	switch s.Kind {
	case Add:
		w.next++
		w.group.Members = append(w.group.Members, Member{ID: w.next, Host: s.Host})
	case Change:
		var now []Member
		for _, m := range w.group.Members {
			m.Voter = slices.Contains(s.Voters, m.ID)
			if m.Voter || slices.Contains(s.Learners, m.ID) {
				now = append(now, m)
			}
		}
		w.group.Members = now
		if !slices.ContainsFunc(now, func(m Member) bool { return m.Leads }) {
			for i := range now {
				if now[i].Voter && w.alive(now[i]) {
					now[i].Leads = true
					break
				}
			}
		}
	}
}

func (w *world) hostOf(m Member) Host {
	return w.hosts[slices.IndexFunc(w.hosts, func(h Host) bool { return h.ID == m.Host })]
}

func (w *world) alive(m Member) bool { return w.hostOf(m).Alive }

// catchUp has the learners on hosts that are there catch up.
func (w *world) catchUp() {
	for i, m := range w.group.Members {
		w.group.Members[i].CaughtUp = m.CaughtUp || w.alive(m)
	}
}

// settle takes steps until none is left that can be taken.
func (w *world) settle(t *testing.T) Step {
	t.Helper()
	for range 100 {
		w.catchUp()
		s := Next(w.hosts, w.group)
		if s.Kind == Rest || s.Kind == Wait {
			return s
		}
		w.take(s)
	}
	t.Fatal("it never rests")
	return Step{}
}

// String is voters by zone, then learners: "a1 b2 +c3".
func (w *world) String() string {
	var voters, learners []string
	for _, m := range w.group.Members {
		h := w.hostOf(m)
		name := fmt.Sprintf("%s%d", h.Zone, h.ID[15])
		if m.Voter {
			voters = append(voters, name)
		} else {
			learners = append(learners, "+"+name)
		}
	}
	slices.Sort(voters)
	slices.Sort(learners)
	return strings.Join(append(voters, learners...), " ")
}

func TestGrowsWithTheHosts(t *testing.T) {
	w := newWorld(host(1, "a"))
	for _, step := range []struct {
		host Host
		want string
	}{
		{Host{}, "a1"},
		{host(2, "b"), "a1 +b2"},
		{host(3, "c"), "a1 b2 c3"},
		{host(4, "c"), "a1 b2 c3"}, // an even number does not rest
		{host(5, "b"), "a1 b2 b5 c3 c4"},
		{host(6, "a"), "a1 b2 b5 c3 c4"}, // nobody moves without need
	} {
		if step.host.Holds {
			w.hosts = append(w.hosts, step.host)
		}
		if s := w.settle(t); s.Kind != Rest || w.String() != step.want {
			t.Errorf("with %d hosts: %s, %+v; want %s", len(w.hosts), w, s, step.want)
		}
	}
	// And back: hosts leave one after the other.
	for _, step := range []struct {
		leaves int
		want   string
	}{
		{4, "a1 a6 b2 b5 c3"},
		{5, "a1 b2 c3"}, {2, "a1 a6 c3"}, {6, "a1 +c3"}, {3, "a1"},
	} {
		w.hosts[step.leaves-1].Leaves = true
		if s := w.settle(t); s.Kind != Rest || w.String() != step.want {
			t.Errorf("without host %d: %s, %+v; want %s", step.leaves, w, s, step.want)
		}
	}
}

func TestSpreadsOverZones(t *testing.T) {
	w := newWorld(host(1, "a"), host(2, "a"), host(3, "a"))
	if w.settle(t); w.String() != "a1 a2 a3" {
		t.Error(w)
	}
	// A host in another zone takes the place of one, and none of the leader's.
	w.hosts = append(w.hosts, host(4, "b"))
	if w.settle(t); w.String() != "a1 a2 b4" {
		t.Error(w)
	}
	w.hosts = append(w.hosts, host(5, "c"))
	if w.settle(t); w.String() != "a1 a2 a3 b4 c5" {
		t.Error(w)
	}
	w.group.Most = 3
	if w.settle(t); w.String() != "a1 b4 c5" {
		t.Error(w)
	}
}

func TestHostThatIsAwayKeepsItsVoter(t *testing.T) {
	w := newWorld(host(1, "a"), host(2, "b"), host(3, "c"), host(4, "d"))
	w.settle(t)
	w.hosts[2].Alive = false
	if s := w.settle(t); s.Kind != Rest || w.String() != "a1 b2 c3" {
		t.Errorf("%s, %+v", w, s)
	}
	w.hosts[2].Leaves = true // given up
	if s := w.settle(t); s.Kind != Rest || w.String() != "a1 b2 d4" {
		t.Errorf("%s, %+v", w, s)
	}
}

func TestWaits(t *testing.T) {
	for _, c := range []struct {
		what string
		make func() *world
		want string
	}{
		{"a change is under way", func() *world {
			w := newWorld(host(1, "a"), host(2, "b"))
			w.group.Changing = true
			return w
		}, "under way"},
		{"no majority can be reached", func() *world {
			w := newWorld(host(1, "a"), host(2, "b"), host(3, "c"), host(4, "d"))
			w.settle(t)
			w.hosts[1].Alive, w.hosts[2].Alive = false, false
			w.hosts[1].Leaves, w.hosts[2].Leaves = true, true
			return w
		}, "no majority"},
		{"the only host leaves", func() *world {
			w := newWorld(host(1, "a"))
			w.hosts[0].Leaves = true
			return w
		}, "no host is left"},
		{"a zone that is required would be left", func() *world {
			w := newWorld(host(1, "a"), host(2, "b"), host(3, "a"))
			w.group.RequireZones = 2
			w.settle(t)
			w.hosts[1].Leaves = true
			return w
		}, "2 zones are required"},
	} {
		w := c.make()
		before := ""
		if s := w.settle(t); s.Kind != Wait || !strings.Contains(s.Why, c.want) {
			t.Errorf("%s: %s %+v", c.what, before, s)
		}
	}
	w := newWorld(host(1, "a"), host(2, "b"), host(3, "c"))
	for range 2 {
		w.take(Next(w.hosts, w.group))
	}
	if s := Next(w.hosts, w.group); s.Kind != Wait || !strings.Contains(s.Why, "catching up") {
		t.Errorf("a learner that lags: %+v", s)
	}
}

// TestAnyHistory has hosts come, go, die and be given up in any order. Whatever happens, no
// step breaks a promise, and where nothing stands in the way the group is as large as the
// hosts allow.
// The only voter of two hosts leaves: the other one is a voter before it goes.
func TestOnlyVoterLeaves(t *testing.T) {
	w := newWorld(host(1, "a"), host(2, "b"))
	w.settle(t)
	w.hosts[0].Leaves = true
	if s := Next(w.hosts, w.group); s.Kind != Change || !slices.Equal(s.Voters, []uint64{1, 2}) {
		t.Fatalf("%+v", s)
	}
	if s := w.settle(t); s.Kind != Rest || w.String() != "b2" {
		t.Errorf("%s, %+v", w, s)
	}
}

func TestAnyHistory(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 14))
		w := newWorld(host(1, "a"))
		w.group.RequireZones = rng.IntN(2) * 2 * rng.IntN(2)
		for range 40 {
			h := &w.hosts[rng.IntN(len(w.hosts))]
			switch rng.IntN(6) {
			case 0, 1:
				if len(w.hosts) < 9 {
					w.hosts = append(w.hosts, host(len(w.hosts)+1, string(rune('a'+rng.IntN(3)))))
				}
			case 2:
				h.Alive = false
			case 3:
				h.Alive = true
			case 4:
				h.Leaves = !h.Leaves
			case 5:
				w.catchUp()
			}
			before := len(w.group.Members)
			s := Next(w.hosts, w.group)
			rng.Shuffle(len(w.hosts), func(i, j int) { w.hosts[i], w.hosts[j] = w.hosts[j], w.hosts[i] })
			if again := Next(w.hosts, w.group); again.Kind != s.Kind || again.Host != s.Host || !slices.Equal(again.Voters, s.Voters) {
				t.Fatalf("seed %d: %+v, and in another order %+v", seed, s, again)
			}
			w.judge(t, seed, s)
			w.take(s)
			if len(w.group.Members) > before+1 {
				t.Fatalf("seed %d: %d members at once", seed, len(w.group.Members)-before)
			}
		}
		for i := range w.hosts {
			w.hosts[i].Alive = true
		}
		w.hosts = append(w.hosts, host(10, "a"), host(11, "b"), host(12, "c"))
		if s := w.settle(t); s.Kind != Rest {
			t.Fatalf("seed %d: all is well, and %s gets %+v", seed, w, s)
		}
		if n := len((&plan{group: w.group}).voters()); n != 3 && n != 5 {
			t.Fatalf("seed %d: %d voters on %d hosts", seed, n, len(w.hosts))
		}
	}
}

// judge holds a step against the promises of the package.
func (w *world) judge(t *testing.T, seed uint64, s Step) {
	t.Helper()
	if s.Kind != Change {
		return
	}
	gives, takes := false, false // whether whoever leads goes, and another voter can take the lead
	for _, m := range w.group.Members {
		in := slices.Contains(s.Voters, m.ID)
		gives = gives || m.Leads && !in
		takes = takes || m.Voter && in && w.alive(m)
		if m.Leads && in && w.hostOf(m).Leaves { // until another voter can take it
			s.Voters = slices.DeleteFunc(slices.Clone(s.Voters), func(id uint64) bool { return id == m.ID })
		}
	}
	if gives && !takes && w.leaderIsThere() {
		t.Fatalf("seed %d: nobody can take the lead after %+v: %s", seed, s, w)
	}
	if len(s.Voters)%2 == 0 {
		t.Fatalf("seed %d: %d voters", seed, len(s.Voters))
	}
	reached, of, stay := 0, 0, 0
	for _, m := range w.group.Members {
		if m.Voter && !w.hostOf(m).Leaves {
			stay++
		}
	}
	zones := make(map[string]bool)
	for _, m := range w.group.Members {
		in := slices.Contains(s.Voters, m.ID)
		if m.Voter {
			of++
		}
		if m.Voter && w.alive(m) {
			reached++
		}
		if h := w.hostOf(m); m.Voter && !in && !h.Leaves && !h.Alive && len(s.Voters) >= stay {
			t.Fatalf("seed %d: a host that is merely away loses its voter to %+v: %s", seed, s, w)
		}
		if in && !m.Voter && !m.CaughtUp {
			t.Fatalf("seed %d: a learner that lags is promoted: %+v", seed, s)
		}
		if in || slices.Contains(s.Learners, m.ID) {
			zones[w.hostOf(m).Zone] = true
		}
	}
	if reached <= of/2 {
		t.Fatalf("seed %d: a change that %d of %d voters cannot commit: %+v", seed, reached, of, s)
	}
	if len(zones) < w.group.RequireZones {
		t.Fatalf("seed %d: %d zones", seed, len(zones))
	}
}

func (w *world) leaderIsThere() bool {
	return slices.ContainsFunc(w.group.Members, func(m Member) bool { return m.Leads && w.alive(m) })
}
