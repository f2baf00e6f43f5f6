package arakoon

import (
	"context"
	"fmt"

	"openvstorage/arakoon/state"
)

// Level is the level of the group, as far as this member has applied.
func (i ImageCalls) Level() uint32 { return i.node.state.Level() }

// Knows is the newest level that this member's release knows.
func (i ImageCalls) Knows() uint32 {
	if k := i.node.opt.Knows; k != 0 {
		return min(k, state.LevelNewest)
	}
	return state.LevelNewest
}

// RaiseLevel brings the group to a level, up to Knows, for good: a release that does not
// know the level can be no member any more. known asserts that every member, the
// learners among them, has reported that its release knows the level, and that no other
// will be added meanwhile; without it only a group of one member is raised. A group of one
// member is also raised by the first write that needs it. The leader alone can do it.
//
// A member whose release does not know the level after all stops at the entry, named, with
// nothing of it applied: so a wrong assertion costs that member, and no data.
func (i ImageCalls) RaiseLevel(ctx context.Context, level uint32, known bool) error {
	n := i.node
	if level > n.Knows() {
		return fmt.Errorf("arakoon: %s: %w", n.opt.Dir, &LevelUnknownError{Level: level, Knows: n.Knows()})
	}
	if level <= n.state.Level() {
		return nil
	}
	_, _, err := n.write(ctx, state.Raise(level, !known), [16]byte{}, 0)
	return err
}

// LevelUnknownError: a group cannot be raised to a level, as a member's release does not know
// it. Nothing was done.
type LevelUnknownError struct {
	Level, Knows uint32
}

func (e *LevelUnknownError) Error() string {
	return fmt.Sprintf("level %d is not known, this release knows up to %d", e.Level, e.Knows)
}

// comeTo is for a write that needs a higher level than the group has.
func (i ImageCalls) comeTo(ctx context.Context, need uint32) error {
	n := i.node
	if !n.leading.Load() {
		return &NotLeaderError{Leader: n.leader.Load()}
	}
	c := n.state.Applied().Conf
	if has := n.state.Level(); need > n.Knows() || len(c.GetVoters()) != 1 || len(c.GetVotersOutgoing())+len(c.GetLearners()) > 0 {
		return &LevelError{Need: need, Has: has}
	}
	return n.RaiseLevel(ctx, need, false)
}
