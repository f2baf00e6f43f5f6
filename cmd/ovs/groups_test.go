package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"openvstorage/internal/control"
	"openvstorage/internal/disk/pebblefs"
)

// status is how a host sees a group.
func (f *fleet) group(n int, name string) control.ArakoonGroup {
	f.t.Helper()
	var list []control.ArakoonGroup
	if err := json.Unmarshal([]byte(f.ovs(n, "arakoon", "status", name, "--json")), &list); err != nil || len(list) != 1 {
		f.t.Fatalf("host %d: %v, %v", n, list, err)
	}
	return list[0]
}

// All commands about groups work on every host, whoever leads; and a member whose state is not
// that of the others is found, and told where it is looked for.
func TestGroupsFromAnyHost(t *testing.T) {
	f := newFleet(t)
	f.up(1)
	f.ovs(1, "arakoon", "confirm", "abm", "test/level", "2", "--i-know") // a group of one raises its level by itself
	f.ovs(1, "arakoon", "delete", "abm", "test/level", "--i-know")
	f.join(2)
	f.join(3)
	f.three()
	says := func(n int, want string, args ...string) {
		t.Helper()
		if out := f.ovs(n, args...); !strings.Contains(out, want) {
			t.Errorf("host %d: ovs %v: %q is not in %q", n, args, want, out)
		}
	}
	lead := f.group(1, "abm").Leader
	for n := 1; n <= 3; n++ {
		key := "test/" + strconv.Itoa(n)
		says(n, "abm", "arakoon", "status")
		says(n, strconv.FormatUint(lead, 10), "arakoon", "who-master", "abm")
		says(n, "revision", "arakoon", "set", "abm", key, "1", "--i-know")
		says(n, "1", "arakoon", "get", "abm", key)
		says(n, "1", "arakoon", "get", "abm", key, "--local")
		says(n, "true", "arakoon", "exists", "abm", key)
		says(n, "changed", "arakoon", "test-and-set", "abm", key, "--expect", "1", "--value", "2", "--i-know")
		says(n, "changed", "arakoon", "confirm", "abm", key, "2", "--i-know")
		says(n, "old value", "arakoon", "replace", "abm", key, "3", "--i-know")
		says(n, key, "arakoon", "prefix", "abm", "test/")
		says(n, key, "arakoon", "range", "abm", "test/", "test0")
		says(n, key, "arakoon", "rev-range", "abm", "test/", "test0")
		says(n, strconv.Itoa(n), "arakoon", "count", "abm", "test/")
		says(n, "", "arakoon", "lease", "ls", "registry")
		says(n, "member 3", "arakoon", "hash", "abm")
		file := filepath.Join(f.dir, "backup-"+strconv.Itoa(n))
		says(n, "", "arakoon", "backup", "abm", "--to", file)
		says(n, "", "arakoon", "verify", file)
		says(n, "", "backup", "metadata", "--to", file+".all")
	}
	says(3, "", "arakoon", "delete", "abm", "test/1", "--i-know")
	says(2, "", "arakoon", "delete-prefix", "abm", "test/", "--i-know")
	says(3, "0", "arakoon", "count", "abm", "test/")
	for n := 1; n <= 3; n++ { // the lead goes to the member of each host
		to := f.group(n, "abm").Member
		f.ovs(n%3+1, "arakoon", "master", "abm", strconv.FormatUint(to, 10))
		f.await("it leads", func() bool { return f.group(n, "abm").Role == "leader" })
	}
	f.ovs(1, "arakoon", "drop-master", "abm")

	// Host 3's member gets a key that the others do not have, as by a fault of this release.
	member := f.group(3, "abm").Member
	f.kill(3)
	dirs, err := filepath.Glob(filepath.Join(f.data(3), "arakoon", "abm."+strconv.FormatUint(member, 10), "state*"))
	if err != nil || len(dirs) == 0 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		if s, err := os.Stat(dir); err != nil || !s.IsDir() {
			continue
		}
		db, err := pebble.Open(dir, &pebble.Options{DisableWAL: true, FormatMajorVersion: pebblefs.Format})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Set([]byte("u"+"fault"), []byte("x"), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	f.up(3)
	f.await("the member is found", func() bool {
		out, err := f.try(2, "arakoon", "hash", "abm")
		return err != nil && strings.Contains(err.Error(), "different states") && strings.Contains(out, "member")
	})
	says(2, "ALARM", "status")
	says(2, "member ["+strconv.FormatUint(member, 10)+"] is unlike the others", "status")
	says(2, "DIFFERENT", "arakoon", "status", "abm")
}
