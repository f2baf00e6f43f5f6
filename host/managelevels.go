package host

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"openvstorage/arakoon"
	"openvstorage/arakoon/groups"
	"openvstorage/host/members"
	"openvstorage/internal/control"
)

// Levels implements control.Arakoon.
func (m managedGroups) Levels(ctx context.Context) (control.ArakoonLevels, error) {
	if m.members == nil {
		return m.ownLevels(), nil
	}
	l, err := members.Leveling{Members: m.members}.Levels(ctx)
	if err != nil {
		return control.ArakoonLevels{}, Kind(err)
	}
	out := control.ArakoonLevels{Groups: []control.ArakoonLevel{}, Raise: l.Most()}
	for _, g := range l.Groups {
		one := control.ArakoonLevel{Group: g.Group, Level: g.Level}
		for _, of := range g.Members {
			one.Members = append(one.Members, control.LevelKnown{Member: of.Member, Host: of.Host, Knows: of.Knows, Error: text(of.Err)})
		}
		out.Groups = append(out.Groups, one)
	}
	for _, h := range l.Hosts {
		out.Hosts = append(out.Hosts, control.LevelKnown{Host: h.Host, Knows: h.Knows, Error: text(h.Err)})
	}
	return out, nil
}

// text is that of an error, "" if there is none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// ownLevels are those of a machine that is in no cluster: all members are in this process.
func (m managedGroups) ownLevels() (out control.ArakoonLevels) {
	open := m.open()
	for _, name := range m.names() {
		n := open.Node(name)
		out.Raise = n.Knows()
		out.Groups = append(out.Groups, control.ArakoonLevel{
			Group: name, Level: n.Level(), Members: []control.LevelKnown{{Member: n.Status().ID, Host: groups.HostOf(open), Knows: n.Knows()}},
		})
	}
	return out
}

// Raise implements control.Arakoon.
func (m managedGroups) Raise(ctx context.Context, group string, level uint32) (control.ArakoonLevels, error) {
	if group != "" && !slices.Contains(m.names(), group) {
		return control.ArakoonLevels{}, m.unknown(group)
	}
	raise := m.raiseOwn
	if m.members != nil {
		raise = members.Leveling{Members: m.members}.Raise
	}
	if err := raise(ctx, group, level); err != nil {
		return control.ArakoonLevels{}, levelError(err)
	}
	return m.Levels(ctx)
}

// levelError gives an error of a raise its kind of the protocol.
func levelError(err error) error {
	var unknown *arakoon.LevelUnknownError
	switch {
	case errors.Is(err, arakoon.ErrUnknownOutcome):
		return &kindError{err, control.ErrUnknownOutcome}
	case errors.As(err, &unknown):
		return &kindError{err, control.ErrInvalid}
	case errors.Is(err, members.ErrLevel):
		return &kindError{err, control.ErrBusy}
	}
	return Kind(err)
}

// raiseOwn raises groups whose only members are in this process.
func (m managedGroups) raiseOwn(ctx context.Context, group string, level uint32) error {
	names := m.names()
	if group != "" {
		names = []string{group}
	}
	for _, name := range names {
		n := m.open().Node(name)
		to := level
		if to == 0 {
			to = n.Knows()
		}
		if err := n.RaiseLevel(ctx, to, false); err != nil {
			return fmt.Errorf("group %s: %w", name, err)
		}
	}
	return nil
}
