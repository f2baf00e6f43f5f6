package members

import (
	"testing"

	"github.com/google/uuid"

	"openvstorage/arakoon/groups"
	"openvstorage/arakoon/roster"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
)

func TestMemberOf(t *testing.T) {
	for dir, want := range map[string]uint64{"abm": 1, "abm.7": 7, "abm.1": 0, "abm.0": 0, "abm.x": 0, "abm2": 0, "nsm-0": 0, "abm.": 0, "abm.7.marks": 0} {
		got, ok := memberOf(dir, "abm")
		if ok != (want > 0) || ok && got != want {
			t.Errorf("%s: %d, %v", dir, got, ok)
		}
	}
}

func open(t *testing.T, fs disk.FS, cluster uuid.UUID) (*Members, *datadir.Directory) {
	t.Helper()
	d, err := datadir.Open(fs, "/d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if cluster == uuid.Nil {
		cluster = d.ID
	}
	m, err := Open(Options{Cluster: cluster, Self: d.ID, FS: fs, Dir: d, Groups: []groups.Spec{{Name: Config}, {Name: "abm"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m, d
}

// A first host has member 1 of each group; one that has joined has what its record says, and
// begins no group of its own.
func TestSpecs(t *testing.T) {
	m, _ := open(t, crashdisk.New(), uuid.Nil)
	specs, err := m.Specs()
	if err != nil || len(specs) != 2 || specs[0].Member != 1 || specs[1].Member != 1 {
		t.Errorf("a first host: %+v, %v", specs, err)
	}
	m, d := open(t, crashdisk.New(), uuid.New())
	if specs, err = m.Specs(); err != nil || len(specs) > 0 {
		t.Errorf("a host that holds nothing: %+v, %v", specs, err)
	}
	made := func(names ...string) {
		t.Helper()
		if err := d.Change(func(r *datadir.Record) { r.Groups = names }); err != nil {
			t.Fatal(err)
		}
	}
	made("abm.4")
	if specs, err = m.Specs(); err != nil || len(specs) != 1 || specs[0].Name != "abm" || specs[0].Member != 4 {
		t.Errorf("a host that holds one member: %+v, %v", specs, err)
	}
	made("abm.4", "abm.5")
	if _, err = m.Specs(); err == nil {
		t.Error("two members of one group are opened")
	}
}

// A first host whose groups have members elsewhere knows so by its file alone.
func TestOthers(t *testing.T) {
	fs := crashdisk.New()
	m, d := open(t, fs, uuid.Nil)
	other := uuid.New()
	r := &roster.Roster{
		Revision: 1, Hosts: []roster.Host{{ID: d.ID}, {ID: other}},
		Groups: []roster.Group{{Name: "abm", Next: 2, Members: []roster.Member{{ID: 1, Host: d.ID}}}},
	}
	r.Sort()
	take := func(want bool) {
		t.Helper()
		if err := m.take(r); err != nil {
			t.Fatal(err)
		}
		if got, err := Others(fs, d); err != nil || got != want {
			t.Errorf("revision %d: %v, %v", r.Revision, got, err)
		}
	}
	take(false)
	next := *r
	next.Revision = 2
	next.PutGroup(roster.Group{Name: "abm", Next: 3, Members: []roster.Member{{ID: 1, Host: d.ID}, {ID: 2, Host: other}}})
	r = &next
	take(true)
	if got := m.On(other); len(got) != 1 || got[0] != "abm/2" {
		t.Errorf("on the other host: %v", got)
	}
	if want, got := "groups: two hosts, nothing fails over by itself; join a third", m.Safety(); got != want {
		t.Errorf("%q, not %q", got, want)
	}
}
