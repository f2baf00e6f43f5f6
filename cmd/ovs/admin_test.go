package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openvstorage/internal/control"
)

// on is a host as host n lists it, by the zone that it was started with.
func (f *fleet) on(n, host int) control.ClusterHost {
	f.t.Helper()
	for _, h := range f.hosts(n) {
		if h.Zone == fmt.Sprintf("z%d", host) {
			return h
		}
	}
	f.t.Fatalf("host %d is not listed", host)
	return control.ClusterHost{}
}

// says fails unless a command fails and its error has a word.
func (f *fleet) says(n int, word string, args ...string) {
	f.t.Helper()
	if out, err := f.try(n, args...); err == nil || !strings.Contains(err.Error(), word) {
		f.t.Errorf("ovs %v: %v, %s; it is to say %q", args, err, out, word)
	}
}

// member is the number of a group's member on a host, "" if it has none.
func member(h control.ClusterHost, group string) string {
	for _, m := range h.Members {
		if number, ok := strings.CutPrefix(m, group+"/"); ok {
			return number
		}
	}
	return ""
}

// master is which member leads a group, as host 1 knows.
func (f *fleet) master(group string) (leads string) {
	f.t.Helper()
	var list []control.ArakoonGroup
	if err := json.Unmarshal([]byte(f.ovs(1, "arakoon", "status", "--json")), &list); err != nil {
		f.t.Fatal(err)
	}
	for _, g := range list {
		if g.Group == group {
			leads = fmt.Sprint(g.Leader)
		}
	}
	return leads
}

// Hosts are drained and maintained, their roles and addresses changed; what would end a group is refused by
// its name.
func TestAdministration(t *testing.T) {
	f := newFleet(t)
	f.up(1)
	f.join(2)
	f.join(3)
	f.three()
	id := map[int]string{}
	for n := 1; n <= 3; n++ {
		id[n] = f.on(1, n).ID.String()
	}

	// A host without the role arakoon holds no members, and changes nothing.
	token := strings.TrimSpace(f.ovs(2, "host", "token", "--roles", "asd,proxy")) // by a host that has joined
	if err := f.start(4, token, "--roles", "asd"); err == nil || !strings.Contains(err.Error(), "the token is for the roles proxy,asd") {
		t.Errorf("--roles of another token: %v", err)
	}
	if err := f.start(4, token, "--roles", "proxy,asd"); err != nil {
		t.Fatal(err)
	}
	id[4] = f.on(1, 4).ID.String()
	f.says(4, "role arakoon", "host", "token")
	f.says(1, "holds no members", "host", "drain", id[4])

	// Maintenance: the lead goes elsewhere, the members stay, and a second host has to wait.
	f.await("the lead is on host 3", func() bool {
		_, _ = f.try(1, "arakoon", "master", "abm", member(f.on(1, 3), "abm"))
		return f.master("abm") == member(f.on(1, 3), "abm")
	})
	held := f.on(1, 3).Members
	f.ovs(2, "host", "maintenance", id[3], "on")
	f.await("another host leads", func() bool { return f.master("abm") != member(f.on(1, 3), "abm") })
	f.says(1, "group abm would have 1 of 3 voters", "host", "maintenance", id[2], "on")
	f.kill(3)
	f.ovs(1, "host", "maintenance", id[3], "on") // again, which changes nothing
	f.up(3)
	f.await("it is in maintenance still, and host 3 knows", func() bool { return strings.Contains(f.ovs(3, "status"), "MAINTENANCE") })
	if h := f.on(1, 3); !h.Maintenance || fmt.Sprint(h.Members) != fmt.Sprint(held) {
		t.Errorf("%+v; it had %v", h, held)
	}
	f.ovs(1, "host", "maintenance", id[3], "off")

	// With the role arakoon host 4 may hold members, and does when host 3 is drained.
	f.ovs(1, "host", "roles", id[4], "arakoon,proxy,asd")
	f.await("its certificate has the role", func() bool { return strings.Contains(f.ovs(4, "status"), "proxy,asd,arakoon") })
	f.ovs(1, "host", "drain", id[3])
	if h := f.on(1, 3); len(h.Members) > 0 || !h.Draining {
		t.Errorf("host 3 is drained: %+v", h)
	}
	f.await("host 4 holds members", func() bool { return len(f.on(1, 4).Members) == 3 })
	f.three()
	f.ovs(1, "host", "drain", id[3], "--undo")
	f.says(1, "first host", "host", "roles", id[1], "arakoon")
	f.ovs(4, "host", "roles", id[4], "asd") // by itself
	f.await("the members are on host 3 again", func() bool { return len(f.on(1, 3).Members) == 3 && len(f.on(1, 4).Members) == 0 })
	f.three()

	// A host that moved while it was away.
	f.kill(2)
	moved := strings.Replace(f.address(2), ":26400", ":26401", 1)
	f.says(1, "answers at", "host", "address", id[3], moved)
	f.says(1, id[3], "host", "address", id[2], f.address(3))
	f.ovs(3, "host", "address", id[2], moved)
	if h := f.on(1, 2); len(h.Addresses) != 1 || h.Addresses[0] != moved {
		t.Errorf("%+v", h)
	}
	f.up(2) // it says itself where it is
	f.await("its own address", func() bool { h := f.on(1, 2); return *h.Connected && h.Addresses[0] == f.address(2) })
}

// The first host is lost for ever: another, which has the passphrase, lets hosts join.
func TestFirstHostIsLostForEver(t *testing.T) {
	f := newFleet(t)
	f.up(1)
	f.join(2)
	f.join(3)
	f.three()
	passphrase := filepath.Join(f.dir, "passphrase")
	text, err := os.ReadFile(filepath.Join(f.data(1), "trust", "passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{passphrase: text, passphrase + ".wrong": []byte("correct horse battery\n")} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.says(2, "host "+f.id(1), "ca", "issue", "--name", "n", "--role", "admin", "--out", filepath.Join(f.dir, "n"))
	f.says(2, "passphrase", "ca", "open", "--file", passphrase+".wrong")
	f.says(2, "--file", "ca", "open") // there is no terminal
	f.ovs(2, "ca", "open", "--keep", "--command", "cat "+passphrase)
	lost := f.id(1)
	f.kill(1)
	if err := os.RemoveAll(f.data(1)); err != nil {
		t.Fatal(err)
	}

	f.kill(2) // it has the passphrase, and signs after its next start too
	f.up(2)
	f.await("host 2 signs", func() bool { return strings.Contains(f.ovs(2, "ca", "show"), "this host signs  yes") })
	var line string
	f.await("a token by host 3, which signs nothing", func() bool {
		out, err := f.try(3, "host", "token")
		line = strings.TrimSpace(out)
		return err == nil
	})
	if err := f.start(4, line); err != nil {
		t.Fatal(err)
	}
	f.ovs(3, "host", "remove", lost, "--lost")
	f.await("three voters again", func() bool {
		full := 0
		for _, h := range f.hosts(2) {
			if len(h.Members) == 3 && h.State == "joined" {
				full++
			}
		}
		return full == 3 && strings.Contains(f.ovs(4, "status"), "3 voters each, one host may be lost")
	})
	f.ovs(2, "ca", "reseal", "--file", passphrase+".wrong")
	f.ovs(2, "ca", "issue", "--name", "n", "--role", "admin", "--out", filepath.Join(f.dir, "n"))
	f.kill(2)
	f.up(2)
	f.await("host 2 signs, by the new passphrase", func() bool { return strings.Contains(f.ovs(2, "ca", "show"), "this host signs  yes") })

	// Tokens are withdrawn by their number.
	line = strings.TrimSpace(f.ovs(4, "host", "token"))
	var list []control.TokenInfo
	if err := json.Unmarshal([]byte(f.ovs(3, "host", "token", "list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, k := range list {
		if k.State == "good" {
			f.ovs(2, "host", "token", "withdraw", k.ID[:8])
		}
	}
	if err := f.start(5, line); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("a token that was withdrawn: %v", err)
	}
}

// All members leave the first host, which serves its vDisks by the groups elsewhere, after its next start too.
func TestFirstHostIsDrained(t *testing.T) {
	f := newFleet(t)
	f.up(1)
	f.ovs(1, "vdisk", "create", "v", "--size", "64MiB")
	f.says(1, "can go nowhere", "host", "drain", f.on(1, 1).ID.String())
	for n := 2; n <= 4; n++ {
		f.join(n)
	}
	f.three()
	w := f.write("v")
	first := f.on(2, 1).ID.String()
	f.ovs(2, "host", "drain", first)
	f.three()
	if h := f.on(2, 1); len(h.Members) > 0 || !h.Draining {
		t.Errorf("it is drained: %+v", h)
	}
	before := w.rounds.Load()
	f.await("writes go on", func() bool { return w.rounds.Load() > before+3 })
	w.end(t)
	f.ovs(1, "vdisk", "create", "without-members", "--size", "1MiB")
	f.kill(1)
	f.up(1)
	f.ovs(1, "vdisk", "info", "without-members")
	f.ovs(1, "host", "token")
	f.ovs(1, "host", "drain", first, "--undo")
	if h := f.on(2, 1); h.Draining {
		t.Errorf("it takes members again: %+v", h)
	}
}

// Nobody is given up, though they answer, without whom a group would stop.
func TestNeededHostIsNotGivenUp(t *testing.T) {
	f := newFleet(t)
	f.up(1)
	f.join(2)
	f.mirrored()
	first, second := f.on(1, 1).ID.String(), f.on(1, 2).ID.String()
	f.says(2, "would have 0 of 1 voters", "host", "remove", first, "--lost")
	f.ovs(1, "host", "drain", second)
	f.says(1, "can go nowhere", "host", "drain", first)
	if s := f.ovs(1, "status"); !strings.Contains(s, "or end a drain") {
		t.Errorf("what would help is not said: %s", s)
	}
	f.ovs(1, "vdisk", "create", "v", "--size", "1MiB")
}
