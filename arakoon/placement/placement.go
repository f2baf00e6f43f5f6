package placement

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// VotersMost is the largest number of voters of a group.
const VotersMost = 5

// Host is a host as a place for members.
type Host struct {
	ID     uuid.UUID
	Zone   string
	Holds  bool // it has the role arakoon
	Alive  bool // it has been heard of lately
	Leaves bool // it is drained, removed, or given up: its members go elsewhere
}

// takes reports whether members may stay on a host.
func (h Host) takes() bool { return h.Holds && !h.Leaves }

// Member is a member of the group.
type Member struct {
	ID       uint64
	Host     uuid.UUID
	Voter    bool
	CaughtUp bool // it lacks so little that it may vote
	Leads    bool
}

// Group is a group as it is now.
type Group struct {
	Members      []Member
	Changing     bool // a change of the members is under way
	RequireZones int  // that must hold what is answered now; 0 and 1: no requirement
	Most         int  // voters; 0: VotersMost
}

// Kind says what a step does.
type Kind uint8

const (
	Rest   Kind = iota // nothing is to be done
	Wait               // something is to be done that is not possible now; Why says what it waits for
	Add                // make a new member, a learner, on Step.Host
	Change             // make Voters and Learners the members, in one joint change
)

// Step is what to do next.
type Step struct {
	Kind             Kind
	Host             uuid.UUID // of Add
	Voters, Learners []uint64  // of Change, ascending
	Why              string    // for people
}

// Next returns the next step. It is deterministic, and does not depend on the order of its
// arguments.
func Next(hosts []Host, g Group) Step {
	if g.Changing {
		return Step{Kind: Wait, Why: "a change of the members is under way"}
	}
	p := newPlan(hosts, g)
	if len(p.voters()) == 0 {
		return Step{Kind: Wait, Why: "no voter is known"}
	}
	voters, learners := p.target()
	if z := p.zones(voters, learners); g.RequireZones > 1 && z < g.RequireZones {
		return Step{Kind: Wait, Why: fmt.Sprintf("%d zones are required, and hosts that may hold members are in %d", g.RequireZones, z)}
	}
	if s, ok := p.add(append(slices.Clone(voters), learners...)); ok {
		return s
	}
	return p.change(voters, learners)
}

// plan is the hosts and the group in the form that the decisions need.
type plan struct {
	group Group
	hosts []Host // by preference within a zone
	at    map[uuid.UUID]Member
}

func newPlan(hosts []Host, g Group) *plan {
	p := &plan{group: g, hosts: slices.Clone(hosts), at: make(map[uuid.UUID]Member)}
	for _, m := range g.Members {
		p.at[m.Host] = m
	}
	slices.SortFunc(p.hosts, func(a, b Host) int {
		return cmp.Or(cmp.Compare(p.rank(b), p.rank(a)), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return p
}

// rank says how much is to be said for a host: that members stay where they are.
func (p *plan) rank(h Host) int {
	m, has := p.at[h.ID]
	switch {
	case has && m.Leads:
		return 5
	case has && m.Voter && h.Alive:
		return 4
	case has && m.Voter:
		return 3
	case has && h.Alive:
		return 2
	case h.Alive:
		return 1
	}
	return 0 // a learner that is away: others can catch up sooner
}

// usable reports whether a member may be on a host: one stays there while the host is away,
// and a new one is made only on a host that is there.
func (p *plan) usable(h Host) bool {
	_, has := p.at[h.ID]
	return h.takes() && (has || h.Alive)
}

func (p *plan) voters() (ids []uint64) {
	for _, m := range p.group.Members {
		if m.Voter {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// target returns the hosts that voters and learners are to be on.
func (p *plan) target() (voters, learners []Host) {
	var usable []Host
	for _, h := range p.hosts {
		if p.usable(h) {
			usable = append(usable, h)
		}
	}
	most := cmp.Or(p.group.Most, VotersMost)
	count := min(len(usable), most)
	if count%2 == 0 {
		count-- // also -1 for none, of which nothing is picked
	}
	if len(usable) == 2 && most > 1 {
		both := spread(nil, usable, 2)
		return both[:1], both[1:]
	}
	away, others := p.pinned(usable, count)
	return spread(away, others, max(count, 0)), nil
}

// pinned returns the hosts that are away and keep their voters, and the others. If the group
// shrinks none keeps its voter for being away: those that are there are of more use.
func (p *plan) pinned(usable []Host, count int) (away, others []Host) {
	has := 0
	for _, h := range usable {
		if p.at[h.ID].Voter {
			has++
		}
	}
	for _, h := range usable {
		if p.at[h.ID].Voter && !h.Alive && has <= count {
			away = append(away, h)
		} else {
			others = append(others, h)
		}
	}
	return away, others
}

// spread picks hosts in addition to those that are picked already: each time the most
// preferred one of the zones of which the fewest were picked.
func spread(picked, hosts []Host, count int) []Host {
	left, used := slices.Clone(hosts), make(map[string]int)
	for _, h := range picked {
		used[h.Zone]++
	}
	for len(picked) < count {
		best := 0
		for i, h := range left {
			if used[h.Zone] < used[left[best].Zone] {
				best = i
			}
		}
		picked = append(picked, left[best])
		used[left[best].Zone]++
		left = slices.Delete(left, best, best+1)
	}
	return picked
}

func (p *plan) zones(lists ...[]Host) int {
	seen := make(map[string]bool)
	for _, l := range lists {
		for _, h := range l {
			seen[h.Zone] = true
		}
	}
	delete(seen, "") // whoever is in no zone counts for none
	return len(seen)
}

// add makes members on hosts that are to have one and have none: one at a time.
func (p *plan) add(wanted []Host) (Step, bool) {
	for _, h := range wanted {
		if _, has := p.at[h.ID]; !has {
			return Step{Kind: Add, Host: h.ID, Why: fmt.Sprintf("host %s in zone %q is to hold a member", h.ID, h.Zone)}, true
		}
	}
	return Step{}, false
}

// change makes the members those on the target's hosts, if that is needed and can be done.
func (p *plan) change(voters, learners []Host) Step {
	s := Step{Kind: Change}
	for _, h := range voters {
		m := p.at[h.ID]
		if !m.Voter && !m.CaughtUp {
			return Step{Kind: Wait, Why: fmt.Sprintf("member %d on host %s is catching up", m.ID, h.ID)}
		}
		s.Voters = append(s.Voters, m.ID)
	}
	for _, h := range learners {
		s.Learners = append(s.Learners, p.at[h.ID].ID)
	}
	slices.Sort(s.Voters)
	slices.Sort(s.Learners)
	if p.same(s) {
		return Step{Kind: Rest}
	}
	if len(s.Voters) == 0 {
		return Step{Kind: Wait, Why: "no host is left that may hold a voter"}
	}
	for _, set := range [][]uint64{p.voters(), s.Voters} {
		if alive := p.alive(set); alive <= len(set)/2 {
			return Step{Kind: Wait, Why: fmt.Sprintf("of voters %d only %d can be reached, which is no majority", set, alive)}
		}
	}
	p.handOver(&s)
	s.Why = fmt.Sprintf("voters %d and learners %d become voters %d and learners %d", p.voters(), p.learners(), s.Voters, s.Learners)
	return s
}

// handOver has whoever leads stay a voter for one step more if no other voter stays that can
// be reached: the lead goes to a voter only, and who is to take it is none yet.
func (p *plan) handOver(s *Step) {
	for _, m := range p.group.Members {
		if m.Voter && slices.Contains(s.Voters, m.ID) && p.alive([]uint64{m.ID}) > 0 {
			return
		}
	}
	for _, m := range p.group.Members {
		if m.Voter && m.Leads && p.alive([]uint64{m.ID}) > 0 {
			s.Voters = append(s.Voters, m.ID)
			s.Learners = slices.DeleteFunc(s.Learners, func(id uint64) bool { return id == m.ID })
		}
	}
	slices.Sort(s.Voters)
}

func (p *plan) learners() (ids []uint64) {
	for _, m := range p.group.Members {
		if !m.Voter {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// same reports whether a change would change nothing.
func (p *plan) same(s Step) bool {
	v, l := p.voters(), p.learners()
	slices.Sort(v)
	slices.Sort(l)
	return slices.Equal(v, s.Voters) && slices.Equal(l, s.Learners)
}

// alive counts the members that are on hosts which have been heard of.
func (p *plan) alive(ids []uint64) (n int) {
	for _, h := range p.hosts {
		if m, has := p.at[h.ID]; has && h.Alive && slices.Contains(ids, m.ID) {
			n++
		}
	}
	return n
}
