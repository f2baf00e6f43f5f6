package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"openvstorage/arakoon"
	"openvstorage/arakoon/compare"
	"openvstorage/arakoon/groups"
	"openvstorage/arakoon/state"
	"openvstorage/host/members"
	"openvstorage/internal/control"
)

// managedGroups shows the Arakoon groups to the management socket: the members that this
// process has.
type managedGroups struct {
	of       *groups.Groups
	checkers map[string]*compare.Checker
	members  *members.Members // of a host that others can join; else nil
	host     uuid.UUID
}

var _ control.Arakoon = managedGroups{}

// manageGroups makes what the management socket shows of the groups that are open.
func (e *embedded) manageGroups(host uuid.UUID, logger *slog.Logger) managedGroups {
	m := managedGroups{of: e.groups, members: e.members, host: host, checkers: map[string]*compare.Checker{}}
	for _, name := range e.groups.Names() {
		m.checkers[name] = compare.New(compare.Options{Group: name, Node: e.groups.Node(name), Logger: logger})
	}
	return m
}

// node returns the member of a group.
func (m managedGroups) node(group string) (*arakoon.Node, error) {
	if n := m.of.Node(group); n != nil {
		return n, nil
	}
	names := m.of.Names()
	slices.Sort(names)
	return nil, fmt.Errorf("group %q: %w; this process has members of %s", group, control.ErrNotFound, strings.Join(names, ", "))
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
func (m managedGroups) Groups(_ context.Context, group string) (list []control.ArakoonGroup, err error) {
	names := m.of.Names()
	if group != "" {
		names = []string{group}
	}
	slices.Sort(names)
	for _, name := range names {
		n, err := m.node(name)
		if err != nil {
			return nil, err
		}
		list = append(list, m.group(name, n))
	}
	return list, nil
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
	if c := m.checkers[name]; c != nil {
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

func (m managedGroups) Leases(ctx context.Context, group string) (list []control.ArakoonLease, err error) {
	n, err := m.node(group)
	if err != nil {
		return nil, err
	}
	leases, err := n.ListLeases(ctx, arakoon.Consistent)
	list = []control.ArakoonLease{} // none is no answer of the protocol
	for _, l := range leases {
		list = append(list, control.ArakoonLease{Name: l.Name, Owner: l.Owner, Fence: l.Fence, Renewed: l.Renewed, TTL: l.TTL})
	}
	return list, groupError(group, err)
}

func (m managedGroups) Transfer(ctx context.Context, group string, to uint64) (uint64, error) {
	n, err := m.node(group)
	if err != nil {
		return 0, err
	}
	if err := n.Transfer(ctx, to); err != nil {
		return 0, groupError(group, err)
	}
	return n.Leader(), nil
}

func (m managedGroups) Hash(ctx context.Context, group string) (control.ArakoonHashes, error) {
	if _, err := m.node(group); err != nil {
		return control.ArakoonHashes{}, err
	}
	c := m.checkers[group]
	if c == nil {
		return control.ArakoonHashes{}, fmt.Errorf("group %q: %w: its member was made after the start of this process; start it again", group, control.ErrBusy)
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
		names = m.of.Names()
		slices.Sort(names)
	}
	var nodes []*arakoon.Node
	for _, name := range names {
		n, err := m.node(name)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	moments, err := arakoon.Moments(ctx, nodes...)
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
