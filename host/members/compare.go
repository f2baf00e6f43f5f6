package members

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"openvstorage/arakoon"
	"openvstorage/arakoon/compare"
	"openvstorage/arakoon/kvclient"
)

// asked is a group as package compare asks it: the member here while it leads, and otherwise
// whoever leads. So its states can be compared from any host.
type asked struct {
	of *group

	mu      sync.Mutex
	leader  uint64 // that has made the newest hash
	members arakoon.Members
}

var _ compare.Node = (*asked)(nil)

// Leading implements compare.Node.
func (a *asked) Leading() bool {
	n := a.of.node.Load()
	return n != nil && n.Leading()
}

// Status implements compare.Node: its ID is the member that the newest hash is of.
func (a *asked) Status() arakoon.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := arakoon.Status{ID: a.leader}
	if n := a.of.node.Load(); n != nil {
		s.Applied = n.Applied()
	}
	return s
}

// Members implements compare.Node.
func (a *asked) Members() arakoon.Members {
	if n := a.of.node.Load(); n != nil {
		return n.Members()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.members
}

func (a *asked) note(leader uint64, members arakoon.Members) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leader, a.members = leader, members
}

// Hash implements compare.Node.
func (a *asked) Hash(ctx context.Context) (index uint64, sum [32]byte, err error) {
	if n := a.of.node.Load(); n != nil && n.Leading() {
		a.note(a.of.member.Load(), n.Members())
		return n.Hash(ctx)
	}
	c, err := a.of.store.remote()
	if err != nil {
		return 0, sum, err
	}
	leader, index, sum, err := c.Hash(ctx)
	if err != nil {
		return 0, sum, err
	}
	s, err := c.Status(ctx, leader)
	if err != nil {
		return 0, sum, err
	}
	a.note(leader, arakoon.Members{Voters: s.Voters, Learners: s.Learners, Outgoing: s.Outgoing})
	return index, sum, nil
}

// checker makes what compares the states of a group's members.
func (g *group) checker() *compare.Checker {
	return compare.New(compare.Options{Group: g.name, Node: &asked{of: g}, Logger: g.of.o.Logger, Ask: func(ctx context.Context, member, index uint64) (sum [32]byte, err error) {
		c, err := g.store.remote()
		if err != nil {
			return sum, err
		}
		return c.HashAt(ctx, member, index)
	}})
}

// Checker compares the states of a group's members, nil for a group that is not known. While
// this host leads the group it does that in the background.
func (m *Members) Checker(name string) *compare.Checker {
	if g := m.all[name]; g != nil {
		return g.check
	}
	return nil
}

// Client is a group for whoever follows its master, as the group's users on this host do while
// it has other members.
func (m *Members) Client(name string) (*kvclient.Client, error) {
	g := m.all[name]
	if g == nil {
		return nil, fmt.Errorf("group %q is not known to this release", name)
	}
	return g.store.remote()
}

// Alarms says in words what is wrong with members, as this host knows: one of its own has
// failed, or those of a group that was compared here have other states than each other.
func (m *Members) Alarms() (list []string) {
	open := m.opened.Load()
	for _, name := range m.Names() {
		g := m.all[name]
		if open != nil {
			if fate, _ := open.Fate(name); fate.Failed != nil {
				list = append(list, fmt.Sprintf("group %s: member %d failed: %v", name, g.member.Load(), fate))
			}
		}
		if r, ok := g.check.Last(); ok && !r.Equal() {
			list = append(list, fmt.Sprintf("group %s: MEMBERS HAVE DIFFERENT STATES at revision %d: member %d is unlike the others: take a backup, compare what `ovs arakoon dump state` says of each, and replace the wrong one (`ovs host remove`, and another host joins)", name, r.Index, r.Wrong()))
		}
	}
	return list
}

var descDiffer = prometheus.NewDesc("ovs_group_states_differ", "1 if members of a group were found to have different states, told where they were compared.", []string{"group"}, nil)

// Describe implements prometheus.Collector.
func (m *Members) Describe(ch chan<- *prometheus.Desc) { ch <- descDiffer }

// Collect implements prometheus.Collector.
func (m *Members) Collect(ch chan<- prometheus.Metric) {
	for _, name := range m.Names() {
		if r, ok := m.all[name].check.Last(); ok {
			value := 0.0
			if !r.Equal() {
				value = 1
			}
			ch <- prometheus.MustNewConstMetric(descDiffer, prometheus.GaugeValue, value, name)
		}
	}
}
