package state

import "fmt"

// Levels of a group. A level says what every member of the group can read, so what may be
// proposed. The state holds it, it only rises, and a release that does not know a group's
// level refuses to open its state.
const (
	LevelFirst = 1 // all releases
	// LevelSteps is the level of confirm, leases and marks.
	LevelSteps = 2
	// LevelZones is the level of zones that must hold everything.
	LevelZones = 3
	// LevelHosts is the level of ALBA over many hosts: functions of its managers, no step.
	LevelHosts = 4
)

// knows is the newest level that whoever opens a state with these options can read.
func (o Options) knows() uint32 {
	if o.Knows == 0 {
		return LevelNewest
	}
	return min(o.Knows, LevelNewest)
}

// mayOpen refuses the state of a group whose level is not known.
func (o Options) mayOpen(m meta) error {
	if m.level > o.knows() {
		return newerLevel("state of ", m.level, o.knows())
	}
	return nil
}

func newerLevel(what string, level, knows uint32) error {
	return fmt.Errorf("%w: %slevel %d, this release knows up to %d; run a release that knows it", ErrNewer, what, level, knows)
}

// StepsOf names the kinds of step that may be proposed from a level on and not before.
func StepsOf(level uint32) (names []string) {
	for op := byte(opSet); op <= opLast; op++ {
		if stepLevel(op) == level {
			names = append(names, stepNames[op])
		}
	}
	return names
}

// LevelError is the error for a sequence that needs a higher level than the group has.
// Nothing was proposed.
type LevelError struct {
	Need, Has uint32
}

func (e *LevelError) Error() string {
	return fmt.Sprintf("arakoon: the group is at level %d, and level %d is needed; raise it once every member runs a release that knows that level", e.Has, e.Need)
}

// Level is the level of the group as of what is applied.
func (s *State) Level() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meta.level
}

// Level is the level that a group must have for the sequence to be proposed.
func (s *Sequence) Level(r *Registry) uint32 {
	level := max(s.level, LevelFirst)
	for _, c := range s.calls {
		level = max(level, r.functions[c.functionKey].Level)
	}
	return level
}

// Raise makes the sequence that brings a group to a level. A lower level than the group has
// changes nothing. If alone is set, it fails with CodeLevel unless the group has one
// member at that moment; otherwise whoever proposes it has heard from each member that its
// release knows the level. A member whose release does not know the level stops.
func Raise(level uint32, alone bool) *Sequence {
	s := new(Sequence)
	s.step(opRaise, nil)
	s.body = appendFlag(appendU32(s.body, level), alone)
	s.level = LevelFirst // it is what makes a level
	return s
}

// raise brings the group to a level.
func (t *tx) raise(level uint32, alone bool) *Error {
	if level > t.knows {
		fatal(newerLevel("the group is raised to ", level, t.knows))
	}
	c := t.conf
	if others := len(c.GetVoters()) + len(c.GetVotersOutgoing()) + len(c.GetLearners()) + len(c.GetLearnersNext()); alone && others > 1 {
		return &Error{Code: CodeLevel, Message: fmt.Sprintf("the group has %d members, and none but the first was asked whether it knows level %d", others, level)}
	}
	t.level = max(t.level, level)
	return nil
}
