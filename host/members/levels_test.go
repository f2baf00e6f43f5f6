package members

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"

	"openvstorage/arakoon/state"
)

// What everybody knows is what the one knows that knows least. Whoever does not answer knows
// nothing, whatever it said once. Hosts that lack a level are named once, with their members.
func TestWhatAllKnow(t *testing.T) {
	one, two, three := uuid.New(), uuid.New(), uuid.New()
	l := Levels{
		Groups: []GroupLevel{
			{Group: "abm", Level: 1, Members: []MemberLevel{{Member: 1, Host: one, Knows: state.LevelNewest}, {Member: 4, Host: two, Knows: 1}}},
			{Group: Config, Level: 2, Members: []MemberLevel{{Member: 1, Host: one, Knows: state.LevelNewest}, {Member: 5, Host: two, Knows: 1}}},
		},
		Hosts: []HostLevel{{Host: three, Knows: state.LevelNewest}},
	}
	if most := l.Most(); most != 1 {
		t.Errorf("all know %d", most)
	}
	if lacks := l.lacks(1); len(lacks) > 0 {
		t.Error(lacks)
	}
	if got, want := strings.Join(l.lacks(2), "; "), "host "+two.String()+" (abm/4, registry/5) runs an older release, which knows level 1"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
	l.Hosts[0] = HostLevel{Host: three, Err: errors.New("it is off")}
	if most := l.Most(); most != 0 {
		t.Errorf("with one away all know %d", most)
	}
	if got, want := strings.Join(l.lacks(1), "; "), "host "+three.String()+" does not answer: it is off"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
}
