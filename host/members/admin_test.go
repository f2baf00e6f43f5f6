package members

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"openvstorage/arakoon/roster"
	"openvstorage/internal/disk/crashdisk"
)

// three is a roster of three hosts in three zones, and a group with member n on host n.
func three() (*roster.Roster, roster.Group) {
	g := roster.Group{Name: "abm", Next: 4}
	r := &roster.Roster{}
	for n := byte(1); n <= 3; n++ {
		r.PutHost(roster.Host{ID: uuid.UUID{n}, Zone: string('a' + rune(n)), Addresses: []string{"h:1"}})
		g.Members = append(g.Members, roster.Member{ID: uint64(n), Host: uuid.UUID{n}})
	}
	r.PutGroup(g)
	r.Sort()
	return r, g
}

// A maintenance is refused, by the name of the group, where the group would stop.
func TestWithout(t *testing.T) {
	r, g := three()
	r.PutHost(roster.Host{ID: uuid.UUID{4}, Addresses: []string{"h:1"}})
	r.Sort()
	g.Members = append(g.Members, roster.Member{ID: 4, Host: uuid.UUID{4}})
	host := func(n ...byte) map[uuid.UUID]bool {
		away := map[uuid.UUID]bool{}
		for _, n := range n {
			away[uuid.UUID{n}] = true
		}
		return away
	}
	all := map[uint64]bool{1: true, 2: true, 3: true}
	for _, c := range []struct {
		what  string
		s     standing
		zones int
		away  map[uuid.UUID]bool
		want  string // "": it goes on
	}{
		{"one of three", standing{voters: []uint64{1, 2, 3}, there: all}, 0, host(1), ""},
		{"a second one in maintenance", standing{voters: []uint64{1, 2, 3}, there: all}, 0, host(1, 2), "group abm would have 1 of 3 voters"},
		{"another one that is away", standing{voters: []uint64{1, 2, 3}, there: map[uint64]bool{1: true, 2: true}}, 0, host(1), "1 of 3"},
		{"the only voter", standing{voters: []uint64{1}, there: map[uint64]bool{1: true, 2: true}}, 0, host(1), "0 of 1"},
		{"a learner", standing{voters: []uint64{1}, there: all}, 0, host(2), ""},
		{"two zones of three", standing{voters: []uint64{1, 2, 3}, there: all}, 2, host(3), ""},
		{"a zone too few", standing{voters: []uint64{1}, there: map[uint64]bool{1: true, 2: true}}, 2, host(2), "requires 2 zones, and would have members in 1"},
		{"one in no zone", standing{voters: []uint64{1, 2, 4}, there: map[uint64]bool{1: true, 2: true, 4: true}}, 2, host(2), "requires 2 zones, and would have members in 1"},
		{"a change of the members", standing{voters: []uint64{1, 2, 3}, there: all, busy: true}, 0, host(1), "about to change"},
	} {
		c.s.name, c.s.zones = "abm", c.zones
		err := c.s.without(g, r, c.away)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v; it is to say %q", c.what, err, c.want)
		}
	}
}

// The lead of a host in maintenance goes to a voter that is there, and to no other.
func TestSuccessor(t *testing.T) {
	_, g := three()
	away := map[uuid.UUID]bool{{1}: true}
	for _, c := range []struct {
		what string
		s    standing
		want uint64
	}{
		{"another leads", standing{leader: 2, voters: []uint64{1, 2, 3}, there: map[uint64]bool{1: true, 2: true, 3: true}}, 0},
		{"all are there", standing{leader: 1, voters: []uint64{1, 2, 3}, there: map[uint64]bool{1: true, 2: true, 3: true}}, 2},
		{"one is away", standing{leader: 1, voters: []uint64{1, 2, 3}, there: map[uint64]bool{1: true, 3: true}}, 3},
		{"one is a learner", standing{leader: 1, voters: []uint64{1, 3}, there: map[uint64]bool{1: true, 2: true, 3: true}}, 3},
		{"nobody else is there", standing{leader: 1, voters: []uint64{1, 2, 3}, there: map[uint64]bool{1: true}}, 0},
	} {
		if to := c.s.successor(g, away); to != c.want {
			t.Errorf("%s: member %d is to lead, not %d", c.what, c.want, to)
		}
	}
}

// What a person has said of a host stays when the host says where it is.
func TestModesStay(t *testing.T) {
	fs := crashdisk.New()
	m, _ := open(t, fs, uuid.Nil)
	r, _ := three()
	h, _ := r.Host(uuid.UUID{2})
	h.Leaves, h.Maintenance = true, true
	r.PutHost(h)
	r.Sort()
	r.Revision = 7
	if err := m.take(r); err != nil {
		t.Fatal(err)
	}
	again, _ := open(t, fs.Kill(), uuid.Nil) // after a start
	for _, of := range []*Members{m, again} {
		if leaves, maintenance := of.Mode(uuid.UUID{2}); !leaves || !maintenance {
			t.Errorf("leaves %v, maintenance %v", leaves, maintenance)
		}
		if leaves, maintenance := of.Mode(uuid.UUID{1}); leaves || maintenance {
			t.Error("of another host")
		}
	}
}
