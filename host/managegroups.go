package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/compare"
	"openvstorage/arakoon/groups"
	"openvstorage/arakoon/kv"
	"openvstorage/arakoon/kvclient"
	"openvstorage/arakoon/state"
	"openvstorage/host/members"
	"openvstorage/internal/control"
)

// managedGroups shows the Arakoon groups to the management socket: the members that this
// process has, and by whoever leads the groups of the cluster that this host is of.
type managedGroups struct {
	open     func() *groups.Groups       // nil while they are not open
	members  *members.Members            // of a host of a cluster; else nil
	checkers map[string]*compare.Checker // of a machine that is in no cluster
}

var _ control.Arakoon = managedGroups{}

// manageGroups makes what the management socket shows of the groups that are open.
func (e *embedded) manageGroups(logger *slog.Logger) managedGroups {
	m := managedGroups{open: func() *groups.Groups { return e.groups }, members: e.members, checkers: map[string]*compare.Checker{}}
	if e.members != nil {
		return m
	}
	for _, name := range e.groups.Names() {
		m.checkers[name] = compare.New(compare.Options{Group: name, Node: here{e.groups, name}, Logger: logger})
	}
	return m
}

// manageGroups makes what the management socket of a host that has joined shows.
func (j *joined) manageGroups() managedGroups {
	return managedGroups{open: j.opened, members: j.members}
}

// here is a group's member as it was opened last.
type here struct {
	of   *groups.Groups
	name string
}

var _ compare.Node = here{}

func (h here) Status() arakoon.Status   { return h.of.Node(h.name).Status() }
func (h here) Members() arakoon.Members { return h.of.Node(h.name).Members() }
func (h here) Leading() bool            { return h.of.Node(h.name).Leading() }
func (h here) Hash(ctx context.Context) (uint64, [32]byte, error) {
	return h.of.Node(h.name).Hash(ctx)
}

// keyGroup is what both a member and a client of the group can do with keys.
type keyGroup interface {
	Get(ctx context.Context, c arakoon.Consistency, key []byte) ([]byte, error)
	Exists(ctx context.Context, c arakoon.Consistency, key []byte) (bool, error)
	Range(ctx context.Context, c arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error
	Reverse(ctx context.Context, c arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error
	Count(ctx context.Context, c arakoon.Consistency, first, last []byte) (uint64, error)
	Write(ctx context.Context, seq *arakoon.Sequence) (uint64, []arakoon.Result, error)
	Watch(ctx context.Context, prefix []byte, from uint64, fn func(arakoon.Events) error) error
}

// nodeKeys is a member as a keyGroup.
type nodeKeys struct{ *arakoon.Node }

func (n nodeKeys) Count(ctx context.Context, c arakoon.Consistency, first, last []byte) (uint64, error) {
	return n.Node.Count(ctx, c, arakoon.Bounds{First: first, Last: last})
}

// keys is a group for those who use its keys: the member here if it is the group's only one, or
// what it has itself is asked for (local), and otherwise whoever leads.
func (m managedGroups) keys(group string, local bool) (keyGroup, error) {
	n, err := m.node(group)
	if local || m.members == nil || n != nil && n.Err() == nil && len(n.Members().All()) == 1 {
		if err != nil {
			return nil, err
		}
		return nodeKeys{n}, nil
	}
	return m.client(group)
}

// watched is a group for those who watch its keys: any member can tell of them.
func (m managedGroups) watched(group string) (keyGroup, error) {
	if n, err := m.node(group); err == nil && (n.Err() == nil || m.members == nil) {
		return nodeKeys{n}, nil
	}
	return m.client(group)
}

// client is a group by whoever leads it.
func (m managedGroups) client(group string) (*kvclient.Client, error) {
	if m.members == nil || !slices.Contains(m.names(), group) {
		return nil, m.unknown(group)
	}
	return m.members.Client(group)
}

// names are the groups that can be asked about, in order.
func (m managedGroups) names() (names []string) {
	if m.members != nil {
		return m.members.Names()
	}
	names = m.open().Names()
	slices.Sort(names)
	return names
}

func (m managedGroups) unknown(group string) error {
	return fmt.Errorf("group %q: %w; there are %s", group, control.ErrNotFound, strings.Join(m.names(), ", "))
}

// node returns the member of a group that is here.
func (m managedGroups) node(group string) (*arakoon.Node, error) {
	if open := m.open(); open != nil {
		if n := open.Node(group); n != nil {
			return n, nil
		}
	}
	if !slices.Contains(m.names(), group) {
		return nil, m.unknown(group)
	}
	return nil, &kindError{fmt.Errorf("group %s has no member on this host, or none that is open yet: run it on a host that holds one (`ovs host list`)", group), control.ErrElsewhere}
}

// groupError says of which group an error is, and gives it the kind of the protocol.
func groupError(group string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("group %s: %w", group, err)
	var other *arakoon.NotLeaderError
	var absent *arakoon.ErrNotFound
	var step *arakoon.Error
	var gone *arakoon.ErrCompacted
	switch {
	case errors.Is(err, arakoon.ErrUnknownOutcome):
		return &kindError{err, control.ErrUnknownOutcome}
	case errors.As(err, &absent):
		return &kindError{err, control.ErrNotFound}
	case errors.Is(err, arakoon.ErrBusy):
		return &kindError{err, control.ErrBusy}
	case errors.As(err, &other) && other.Leader != 0:
		return &kindError{fmt.Errorf("%w: member %d leads: run it on that host", err, other.Leader), control.ErrElsewhere}
	case errors.Is(err, arakoon.ErrNotLeader):
		return &kindError{fmt.Errorf("%w; try again when a member leads", err), control.ErrBusy}
	case errors.As(err, &step) && (step.Code == state.CodeTooLarge || step.Code == state.CodeBadCommand):
		return &kindError{err, control.ErrInvalid}
	case errors.As(err, &gone):
		return &kindError{fmt.Errorf("%w: events are kept from revision %d on: read the keys anew, and watch from there", err, gone.First), control.ErrNotFound}
	}
	return Kind(err)
}

// Groups implements control.Arakoon, as the methods below do.
func (m managedGroups) Groups(ctx context.Context, group string) (list []control.ArakoonGroup, err error) {
	names := m.names()
	if group != "" {
		names = []string{group}
	}
	for _, name := range names {
		n, err := m.node(name)
		switch {
		case err == nil:
			list = append(list, m.group(name, n))
		case !errors.Is(err, control.ErrElsewhere):
			return nil, err
		default:
			list = append(list, m.remote(ctx, name))
		}
	}
	return list, nil
}

// askTime bounds how long others are asked about a group that has no member here.
const askTime = 3 * time.Second

// remote is a group that has no member here, as its master sees it.
func (m managedGroups) remote(ctx context.Context, name string) control.ArakoonGroup {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	g := control.ArakoonGroup{Group: name, Role: "elsewhere"}
	var s kv.Status
	c, err := m.client(name)
	if err == nil {
		if g.Leader, err = c.WhoMaster(ctx); err == nil {
			s, err = c.Status(ctx, g.Leader)
		}
	}
	if err != nil {
		g.Obstacle = err.Error()
		return g
	}
	g.Term, g.Commit, g.Applied, g.Obstacle, g.Full = s.Term, s.Commit, s.Applied, s.Obstacle, s.Full
	g.Voters, g.Learners, g.Outgoing = s.Voters, s.Learners, s.Outgoing
	for _, f := range s.Followers {
		state := "Probe"
		switch {
		case f.Snapshot:
			state = "Snapshot"
		case f.Replicating:
			state = "Replicate"
		}
		g.Members = append(g.Members, control.ArakoonMember{Member: f.Member, Match: f.Match, Lag: f.Lag, State: state, Active: f.Active, Learner: f.Learner})
	}
	return g
}

// checker compares the states of a group's members.
func (m managedGroups) checker(group string) *compare.Checker {
	if m.members != nil {
		return m.members.Checker(group)
	}
	return m.checkers[group]
}

func (m managedGroups) group(name string, n *arakoon.Node) control.ArakoonGroup {
	s, f := n.Status(), n.Figures()
	g := control.ArakoonGroup{
		Group: name, Member: s.ID, Role: s.Role, Term: s.Term, Leader: s.Leader, Commit: s.Commit, Applied: s.Applied, Level: n.Level(), Obstacle: s.Obstacle,
		Full: n.Stats().Full, Voters: s.Members.Voters, Learners: s.Members.Learners, Outgoing: s.Members.Outgoing,
		LogBytes: f.LogBytes, StateBytes: f.StateBytes, Watchers: f.Watchers, Sessions: f.Sessions, Leases: f.Leases, Zones: s.Requirement.Zones,
		Since: moment(f.Lead.Since), Elections: f.Lead.Elections, LastElection: moment(f.Lead.LastElection), Changes: f.Lead.Changes,
	}
	for _, p := range s.Peers {
		g.Members = append(g.Members, control.ArakoonMember{Member: p.ID, Match: p.Match, Lag: p.Lag, State: p.State, Active: p.RecentActive, Learner: p.Learner, Zone: p.Zone})
	}
	if open := m.open(); open != nil {
		if fate, _ := open.Fate(name); fate.Failed != nil {
			g.Obstacle = "member failed: " + fate.String()
		}
	}
	if c := m.checker(name); c != nil {
		if r, ok := c.Last(); ok {
			compared := hashes(name, r)
			g.Compared = &compared
		}
	}
	return g
}

// moment is a time as the protocol has it, nil if there is none.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func hashes(group string, r compare.Result) control.ArakoonHashes {
	out := control.ArakoonHashes{Group: group, Revision: r.Index, Time: r.Time.UTC(), Equal: r.Equal()}
	for _, h := range r.Members {
		one := control.ArakoonHash{Member: h.Member}
		if one.Hash = fmt.Sprintf("%x", h.Sum); h.Err != nil {
			one.Hash, one.Error = "", h.Err.Error()
		}
		out.Members = append(out.Members, one)
	}
	return out
}

// Leases reads them from the member here, as soon as it has all that whoever leads had answered.
func (m managedGroups) Leases(ctx context.Context, group string) (list []control.ArakoonLease, err error) {
	n, err := m.node(group)
	if err != nil {
		return nil, err
	}
	at := arakoon.Consistent
	if !n.Leading() && m.members != nil {
		newest, err := m.newest(ctx, group)
		if err != nil {
			return nil, groupError(group, err)
		}
		at = arakoon.AtLeast(newest)
	}
	leases, err := n.ListLeases(ctx, at)
	list = []control.ArakoonLease{} // none is no answer of the protocol
	for _, l := range leases {
		list = append(list, control.ArakoonLease{Name: l.Name, Owner: l.Owner, Fence: l.Fence, Renewed: l.Renewed, TTL: l.TTL})
	}
	return list, groupError(group, err)
}

// newest is a revision of a group that has all that was answered before the call.
func (m managedGroups) newest(ctx context.Context, group string) (uint64, error) {
	c, err := m.client(group)
	if err != nil {
		return 0, err
	}
	_, seen, err := c.GetSeen(ctx, arakoon.Consistent, []byte("host/generation"))
	var absent *arakoon.ErrNotFound
	if errors.As(err, &absent) {
		return c.Nop(ctx)
	}
	return seen.Revision, err
}

func (m managedGroups) Transfer(ctx context.Context, group string, to uint64) (uint64, error) {
	n, err := m.node(group)
	if err == nil && (m.members == nil || n.Leading()) {
		if err := n.Transfer(ctx, to); err != nil {
			return 0, groupError(group, err)
		}
		return n.Leader(), nil
	}
	c, err := m.client(group)
	if err != nil {
		return 0, err
	}
	if err := c.DropMaster(ctx, to); err != nil {
		return 0, groupError(group, err)
	}
	leader, err := c.WhoMaster(ctx)
	return leader, groupError(group, err)
}

func (m managedGroups) Hash(ctx context.Context, group string) (control.ArakoonHashes, error) {
	c := m.checker(group)
	if c == nil {
		return control.ArakoonHashes{}, m.unknown(group)
	}
	r, err := c.Compare(ctx)
	if err != nil {
		return control.ArakoonHashes{}, groupError(group, err)
	}
	return hashes(group, r), nil
}

// counted counts and passes on the pieces of a backup.
type counted struct {
	group string
	write func(group string, piece []byte) error
	bytes int64
}

func (c *counted) Write(p []byte) (int, error) {
	if err := c.write(c.group, p); err != nil {
		return 0, err
	}
	c.bytes += int64(len(p))
	return len(p), nil
}

func (m managedGroups) Backup(ctx context.Context, group string, write func(group string, piece []byte) error) (list []control.ArakoonBackup, err error) {
	names := []string{group}
	if group == "" {
		names = m.names()
		// The backup is to say how far vDisks were flushed. A host that has joined claims
		// nothing, and has none.
		if open := m.open(); open != nil {
			if _, _, err := open.Beat(ctx); err != nil {
				return nil, groupError(strings.Join(names, ", "), err)
			}
		}
	}
	var nodes []arakoon.Momentary
	for _, name := range names {
		n, err := m.node(name)
		if err != nil {
			return nil, err
		}
		one := arakoon.Momentary{Node: n}
		if m.members != nil && !n.Leading() {
			one.Newest = func(ctx context.Context) (uint64, error) { return m.newest(ctx, name) }
		}
		nodes = append(nodes, one)
	}
	moments, err := arakoon.MomentsAt(ctx, nodes...)
	if err != nil {
		return nil, groupError(strings.Join(names, ", "), err)
	}
	defer func() {
		for _, held := range moments {
			err = errors.Join(err, held.Close())
		}
	}()
	for i, held := range moments {
		to := &counted{group: names[i], write: write}
		if err := held.Backup(ctx, to); err != nil {
			return nil, groupError(names[i], err)
		}
		// Files go as soon as they are not needed: the next group may be large.
		if err := held.Close(); err != nil {
			return nil, groupError(names[i], err)
		}
		list = append(list, control.ArakoonBackup{Group: names[i], Revision: held.Revision(), Bytes: to.bytes})
	}
	return list, nil
}
