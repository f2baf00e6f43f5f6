package recovery

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"openvstorage/arakoon/roster"
	"openvstorage/host/members"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
)

// A config group of a backup has an older roster than the host was told since: the newer one
// counts. Of another group only its own entry changes.
func TestRosterOfABackup(t *testing.T) {
	fs := crashdisk.New()
	must(t, fs.MkdirAll(dir, 0o700))
	self, gone, later := uuid.UUID{1}, uuid.UUID{2}, uuid.UUID{3}
	file, err := members.LoadRoster(fs, dir, self)
	must(t, err)
	newer := &roster.Roster{Revision: 9, Hosts: []roster.Host{{ID: self}, {ID: later}}}
	for _, s := range specs {
		newer.PutGroup(roster.Group{Name: s.Name, Life: 2, Next: 7, Members: []roster.Member{{ID: 1, Host: self}}})
	}
	newer.Sort()
	must(t, file.Put(newer))
	r := &Recovery{file: file, o: Options{From: FromBackup}, plan: Plan{Host: self, Life: 3, Groups: []Group{{Name: members.Config, Member: 1, Next: 2, From: FromBackup}}}}
	older := &roster.Roster{Revision: 4, Hosts: []roster.Host{{ID: self}, {ID: gone}}}
	older.PutGroup(roster.Group{Name: members.Config, Next: 3, Members: []roster.Member{{ID: 1, Host: self}, {ID: 2, Host: gone}}})
	must(t, r.rewrite(older))
	must(t, older.Check())
	if _, known := older.Host(gone); known || len(older.Hosts) != 2 {
		t.Errorf("hosts: %+v", older.Hosts)
	}
	g, _ := older.Group(members.Config)
	if g.Life != 3 || g.Next != 7 || !slices.Equal(g.Members, []roster.Member{{ID: 1, Host: self}}) {
		t.Errorf("%+v", g)
	}
	if g, _ := older.Group("abm"); g.Life != 2 || g.Next != 7 {
		t.Errorf("another group: %+v", g)
	}
}

// The decision to make a group anew is one that an older release refuses, and reads back; that
// of members that survive keeps its version.
func TestDecisionVersions(t *testing.T) {
	fs := crashdisk.New()
	must(t, fs.MkdirAll(dir, 0o700))
	began := time.Unix(1, 0).UTC()
	d := &decision{Version: decisionAnew, Life: 3, Began: began, Groups: []Group{{Name: "nsm-0", Member: 1, Next: 2, From: FromBackup, Revision: 8, OfLife: 1, Keys: 4, By: 5, Missing: "m"}}}
	must(t, d.write(fs, dir))
	b, err := disk.ReadWhole(fs, dir+"/"+decisionFile, decisionMax)
	must(t, err)
	for _, line := range []string{`"version": 2`, `"from": "backup"`, `"revision": 8`, `"of_life": 1`, `"keys": 4`, `"by": 5`} {
		if !strings.Contains(string(b), line) {
			t.Errorf("%s lacks %s", b, line)
		}
	}
	got, err := readDecision(fs, dir)
	must(t, err)
	if got.from() != FromBackup || got.Groups[0].By != 5 || !strings.Contains(Check(fs, dir).Error(), "ovs recover nsm-0 FILE --from backup --data "+dir) {
		t.Errorf("%+v, %v", got, Check(fs, dir))
	}
	if alone := (&decision{Version: decisionAlone, Groups: []Group{{Name: "abm"}}}); alone.from() != FromSurvivor || alone.flags() != "" {
		t.Errorf("%+v", alone)
	}
}
