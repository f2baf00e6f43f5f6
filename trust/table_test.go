package trust_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"openvstorage/trust"
)

// object returns an object of the kind that a rule is about.
func object(r trust.Rule, name string) trust.Object { return trust.Object{Kind: r.Object, Name: name} }

func host(roles trust.Roles) trust.Peer {
	return trust.Peer{Kind: trust.HostPeer, Proven: true, Identity: trust.Identity{Cluster: id(0xc1), Host: id(2), Roles: roles}}
}

func human(role trust.Role) trust.Peer {
	return trust.Peer{Kind: trust.PersonPeer, Proven: true, Identity: trust.Identity{Cluster: id(0xc1), Name: "joe", Role: role}}
}

// callers are all sorts of peers, by the names that docs/trust.md has for them.
var callers = []struct {
	name string
	peer trust.Peer
}{
	{"driver", host(trust.RoleDriver)}, {"proxy", host(trust.RoleProxy)}, {"asd", host(trust.RoleASD)}, {"arakoon", host(trust.RoleArakoon)},
	{"maintenance", host(trust.RoleMaintenance)}, {"dashboard", host(trust.RoleDashboard)},
	{"admin", human(trust.Admin)}, {"viewer", human(trust.Viewer)}, {"metrics", human(trust.Metrics)}, {"nbd", human(trust.NBD)},
	{"local", trust.Local()}, {"joiner", trust.Peer{}},
}

const tableHead = "| Call | About | Who |\n|---|---|---|\n"

// TestTableInDocs walks every call of the table with every sort of peer, and holds what
// is allowed to the table of docs/trust.md, which people read. So no change of the one
// goes unseen.
func TestTableInDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/trust.md")
	if err != nil {
		t.Fatal(err)
	}
	// The page has other tables too.
	_, table, found := strings.Cut(string(text), tableHead)
	if !found {
		t.Fatalf("docs/trust.md has no table that begins with\n%s", tableHead)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	want := strings.Split(strings.TrimSpace(table), "\n")
	var got []string
	for _, r := range trust.Rules() {
		var who []string
		for _, c := range callers {
			if trust.Decide(c.peer, r.Call, object(r, id(2).String())) == nil {
				who = append(who, c.name)
			}
		}
		about := r.Object.String()
		if r.Self {
			about += ", a host its own"
		}
		got = append(got, "| `"+r.Call+"` | "+about+" | "+strings.Join(who, ", ")+" |")
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/trust.md is to have this table:\n%s", strings.Join(got, "\n"))
	}
}

// TestEveryCall walks every call with every sort of peer through what must hold of each,
// whatever the table says.
func TestEveryCall(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range trust.Rules() {
		if seen[r.Call] {
			t.Errorf("%s has two rows: the second is never looked at", r.Call)
		}
		seen[r.Call] = true
		on := object(r, id(2).String())
		for _, c := range callers {
			allowed := trust.Decide(c.peer, r.Call, on) == nil
			refuses := func(why string, p trust.Peer, o trust.Object) {
				t.Helper()
				err := trust.Decide(p, r.Call, o)
				wants(t, r.Call+" by "+c.name+", "+why, err, trust.ErrRefused, r.Call, p.String(), o.String())
			}
			other := on
			if other.Kind++; other.Kind > trust.OSDObject {
				other.Kind = trust.NoObject
			}
			refuses("about another kind of object", c.peer, other)
			if c.peer.Kind == trust.HostPeer {
				none := c.peer
				none.Identity.Roles = 0
				refuses("without roles", none, on)
				expired := c.peer
				if expired.Expired = true; r.Call != "join/renew" {
					refuses("expired", expired, on)
				}
				if r.Self {
					refuses("about another host", c.peer, object(r, id(3).String()))
				}
			}
			if unproven := c.peer; c.peer.Kind != trust.Nobody && c.peer.Kind != trust.LocalPeer {
				if unproven.Proven = false; r.Proof || c.peer.Kind == trust.PersonPeer {
					refuses("unproven", unproven, on)
				}
			}
			if c.peer.Kind != trust.PersonPeer {
				continue
			}
			if reader := c.peer; r.Writes {
				reader.Identity.ReadOnly = true
				refuses("reading only", reader, on)
			}
			scoped := c.peer
			scoped.Identity.VDisks = "team"
			if !r.Filtered {
				refuses("outside of its vDisks", scoped, object(r, "teams"))
			}
			if r.Object == trust.VDiskObject && allowed != (trust.Decide(scoped, r.Call, object(r, "team/a")) == nil) {
				t.Errorf("%s by %s: a scope makes a difference within it", r.Call, c.name)
			}
			if r.Writes && allowed && c.peer.Identity.Role != trust.Admin && !strings.HasPrefix(r.Call, "nbd/") {
				t.Errorf("%s changes something, and %s may call it", r.Call, c.name)
			}
		}
		if trust.Decide(trust.Peer{}, r.Call, on) == nil && r.Call != "join/join" {
			t.Errorf("%s: anybody may call it", r.Call)
		}
		for _, call := range []string{"trust/key", "trust/write", "join/renew", "ca/open"} {
			if r.Call == call && trust.Decide(human(trust.Admin), call, on) == nil {
				t.Errorf("%s: an admin may call it", call)
			}
		}
	}
	for _, c := range callers {
		for _, call := range []string{"", "vdisk", "vdisk/format", strings.Repeat("x", 5000)} {
			if err := trust.Decide(c.peer, call, trust.Nothing); err == nil || len(err.Error()) > 1000 {
				t.Errorf("%.20q by %s: %v", call, c.name, err)
			}
		}
	}
	if err := trust.Decide(trust.Peer{Kind: 99}, "status", trust.Nothing); err == nil {
		t.Error("a peer of no known kind may look at the status")
	}
}

// TestManagementCalls: every call of docs/management.md, which package control holds to
// its server, has a row.
func TestManagementCalls(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash("../docs/management.md"))
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]bool{}
	for _, r := range trust.Rules() {
		calls[r.Call] = true
	}
	found := regexp.MustCompile("(?m)^\\| `([a-z/-]+)` \\|").FindAllSubmatch(text, -1)
	for _, m := range found {
		if !calls[string(m[1])] {
			t.Errorf("management call %s has no row in the table of package trust: nobody may make it", m[1])
		}
	}
	if len(found) < 20 {
		t.Errorf("docs/management.md has %d calls", len(found))
	}
}

func TestKeyCall(t *testing.T) {
	one := func(key string) (from, to []byte) { return []byte(key), []byte(key + "\x00") }
	for _, c := range []struct {
		from, to    string // to "": the end of all keys
		read, write string
	}{
		{"vdisk/", "vdisk0", "kv/read", "kv/write"},
		{"a", "trust/", "kv/read", "kv/write"},
		{"a", "trust/\x00", "trust/read", "trust/write"},
		{"trust/h", "trust/i", "trust/read", "trust/write"},
		{"trust/", "trust0", "trust/key", "trust/write"},
		{"", "", "trust/key", "trust/write"},
		{"trust/b", "", "trust/read", "trust/write"},
		{"trust0", "", "kv/read", "kv/write"},
		{"trust", "trust/", "kv/read", "kv/write"},
	} {
		var to []byte
		if c.to != "" {
			to = []byte(c.to)
		}
		if read, write := trust.KeyCall(false, []byte(c.from), to), trust.KeyCall(true, []byte(c.from), to); read != c.read || write != c.write {
			t.Errorf("%q to %q: %s and %s", c.from, c.to, read, write)
		}
	}
	for key, want := range map[string]string{"trust/a": "trust/key", "trust/ab": "trust/read", "trust/v": "trust/read", "x": "kv/read"} {
		if from, to := one(key); trust.KeyCall(false, from, to) != want {
			t.Errorf("%q: %s", key, trust.KeyCall(false, from, to))
		}
	}
}

func BenchmarkAllow(b *testing.B) {
	w := newWorld(b)
	refresh(b, w.first.cache)
	m := w.first.credentials.Material()
	p := trust.Peer{Kind: trust.HostPeer, Proven: true, Identity: m.Identity(), Serial: trust.SerialOf(m.Certificate), Print: trust.FingerprintOf(m.Certificate)}
	on := trust.VDisk("disk1")
	b.ReportAllocs()
	for b.Loop() {
		if err := w.first.guard.Allow(p, "dtl/write", on); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHandshake(b *testing.B) {
	w := newWorld(b)
	refresh(b, w.first.cache)
	server := w.first.guard.Server(raft)
	for b.Loop() {
		s, _, serverErr, clientErr := shakeNow(server, w.first.guard.Client(b.Context(), trust.Dial{Protocol: raft}))
		if serverErr != nil || clientErr != nil {
			b.Fatal(serverErr, clientErr)
		}
		s.NetConn().Close()
	}
}

func BenchmarkOpenAuthority(b *testing.B) {
	w := newWorld(b)
	sealed, err := w.authority.Seal(passphrase)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := trust.OpenAuthority(w.authority.Certificate(), sealed, passphrase); err != nil {
			b.Fatal(err)
		}
	}
}
