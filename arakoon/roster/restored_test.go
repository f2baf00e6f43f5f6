package roster

import (
	"reflect"
	"testing"

	"github.com/google/uuid"
)

// TestRestored: of a cluster one host is left, with one member of each group. No number is
// one that was given away, before the backup or after, and others get no members.
func TestRestored(t *testing.T) {
	self, other := uuid.UUID{1}, uuid.UUID{2}
	r := &Roster{Revision: 7, Hosts: []Host{{ID: self, Zone: "a", Leaves: true, Maintenance: true}, {ID: other, Zone: "b"}}, Groups: []Group{
		{Name: "abm", Life: 3, RequireZones: 2, Next: 4, Members: []Member{{1, self}, {2, other}}},
		{Name: "registry", Life: 1, Next: 9, Members: []Member{{8, other}}},
	}}
	numbers := r.Restored(self, 4)
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	abm, _ := r.Group("abm")
	registry, _ := r.Group("registry")
	if numbers["abm"] != 1 || numbers["registry"] <= 9+1<<19 || registry.Next <= numbers["registry"] || abm.Next <= 4+1<<19 || r.Revision <= 7+1<<19 {
		t.Errorf("%v, %+v", numbers, r)
	}
	if abm.Life != 4 || registry.Life != 4 || abm.RequireZones != 0 || len(abm.Members) != 1 || len(registry.Members) != 1 || r.Hosts[0].Leaves || r.Hosts[0].Maintenance || !r.Hosts[1].Leaves {
		t.Errorf("%+v", r)
	}

	// What its keys hold is the same roster; keys of others are not its own.
	again := new(Roster)
	if err := again.TakeAny([]byte("vdisk/M"), []byte{1}); err != nil {
		t.Error(err)
	}
	for key, value := range r.Values() {
		if err := again.TakeAny([]byte(key), value); err != nil {
			t.Error(err)
		}
	}
	if again.Sort(); !reflect.DeepEqual(r, again) {
		t.Errorf("%+v reads back as %+v", r, again)
	}
	if err := again.TakeAny([]byte("roster/x"), nil); err == nil {
		t.Error("a key that this release does not know is taken")
	}
}
