package lint

import (
	"slices"
	"strings"
	"testing"
)

// everybody may import these: they know nothing of the product.
var everybody = []string{
	"internal/bell", "internal/broadcast", "internal/chance", "internal/counted", "internal/ctxlock", "internal/disk", "internal/format", "internal/generation", "internal/keyswap", "internal/naming", "internal/size", "internal/wal",
}

// allowed is the table of which package may import which, besides everybody. Imports
// point down only. A pattern that ends in "/..." means a package and all below it, one
// that ends in "/*" those directly below it.
var allowed = []struct {
	from string
	to   []string
	why  string
}{
	{"sco", nil, "formats know no policy and no network"},
	{"tlog", []string{"sco"}, "an entry holds locations"},
	{"metadata", []string{"sco"}, "the map's values are locations"},
	{"metadata/*", []string{"metadata", "sco", "internal/disk/pebblefs"}, "where pages are kept"},
	{"writebuffer", []string{"sco", "tlog"}, "it owns the files of both"},

	{"backend", nil, "a contract"},
	{"device", nil, "a contract"},
	{"device/devicetest", []string{"device"}, "its suite"},
	{"backend/*", []string{"backend"}, "stores, decorators and the suite"},

	{"volumedriver/catalog", []string{"sco"}, "it lists origins and locations"},
	{"volumedriver/pageobject", []string{"sco"}, "map pages as backend objects"},
	{"volumedriver/registry", nil, "names, owners and epochs, no data"},
	{"volumedriver/registry/registrytest", []string{"volumedriver/registry", "internal/disk/*"}, "the suite of a registry over a store of keys"},
	{"volumedriver/volumetest", []string{"volumedriver", "device", "device/devicetest", "internal/disk/*"}, "the tests of vDisks over any backend"},
	{"volumedriver", []string{
		"sco", "tlog", "metadata/...", "writebuffer", "backend", "device", "volumedriver/*", "internal/disk/pebblefs",
	}, "a volume's life; never alba, arakoon, or a front end"},

	{"trust", []string{"trust/internal/cost"}, "who is who, and who may do what; the calls are words, and the store an interface"},
	{"trust/internal/cost", nil, "what a passphrase costs, which tests make cheap"},
	{"trust/trusttest", []string{"trust", "trust/internal/cost"}, "the suite of a store of records"},

	{"arakoon/...", []string{"arakoon/...", "internal/disk/pebblefs"}, "a store of its own"},
	{"arakoon/membership", []string{"internal/wire"}, "a steward has hosts make members"},
	{"arakoon/transport", []string{"internal/wire"}, "its messages between hosts"},
	{"arakoon/kv", []string{"internal/wire"}, "its operations are requests of the wire"},
	{"arakoon/kvclient", []string{"internal/wire"}, "it asks for them"},
	{"arakoon/groups", []string{"internal/datadir"}, "the record of a data directory says which groups were made"},
	{"alba/...", []string{"alba/...", "arakoon/...", "backend", "internal/disk/pebblefs", "internal/disk/stopdisk"}, "never hears of SCO, TLog or volume"},
	{"alba/embedded", []string{"internal/datadir"}, "a backend by itself has a data directory of its own"},

	{"host/groupkeys", []string{"arakoon", "trust"}, "keys of a group that are swapped, for whoever has records there"},
	{"host/registrykeys", []string{"arakoon", "host/groupkeys", "volumedriver/registry"}, "the registry's keys on a group; here the two meet"},
	{"host/treekeys", []string{"arakoon", "fusefs/filetree"}, "a mount's tree on a group; here the two meet"},

	{"host/roster", []string{"trust"}, "where hosts are, in the store of trust"},
	{"host/cluster", []string{"arakoon/state", "host/roster", "internal/control", "internal/datadir", "internal/wire", "trust"}, "a host's identity and its listener; what is served there comes from above"},
	{"host/members", []string{"arakoon", "arakoon/*", "host/cluster", "host/roster", "host/groupkeys", "internal/control", "internal/datadir", "internal/wire", "trust"}, "members of groups on the hosts of a cluster; here these meet"},
	{"host/recovery", []string{"alba/abm", "alba/cluster", "alba/nsm", "alba/nsm/userfn", "arakoon", "arakoon/groups", "arakoon/roster", "arakoon/state", "volumedriver/registry", "host/cluster", "host/members", "host/groupkeys", "internal/datadir", "trust"}, "a host goes on alone; here these meet"},

	{"host/restore", []string{"alba/abm", "alba/asd", "alba/nsm", "arakoon", "arakoon/*", "internal/datadir", "volumedriver", "volumedriver/registry", "writebuffer"}, "numbers of all that groups hold; here these meet"},

	{"nbd", []string{"device"}, "a front end; never volumedriver"},
	{"nbd/*", []string{"device", "nbd", "nbd/*"}, "clients, suites, another server"},
	{"fusefs/...", []string{"device", "fusefs/...", "internal/uring"}, "a front end; never volumedriver"},

	{"blockdev", nil, "files and sockets as block devices; what is served on them is not its affair"},

	{"internal/disk/*", []string{"internal/disk/*", "internal/uring"}, "disks and their suite"},
	{"internal/uring", nil, "memory shared with the kernel"},
	{"internal/ctxlock", nil, "locks that are waited for with a context"},
	{"internal/gate", nil, "a door for tests"},
	{"internal/faults", []string{"internal/gate"}, "faults for tests"},
	{"backend/fault", []string{"internal/faults", "internal/gate"}, "holds calls"},
	{"alba/osdwire", []string{"alba/osd", "alba/osd/osdtest", "internal/gate", "internal/wire", "internal/wire/field"}, "an OSD behind a connection; it knows no other part of ALBA"},
	{"alba/proxy", []string{"backend", "backend/backendtest", "backend/fault", "backend/mem", "internal/gate", "internal/wire", "internal/wire/field"}, "a store behind a connection; it knows no part of ALBA"},
	{"alba/osd/osdtest", []string{"internal/faults", "internal/gate"}, "holds calls"},
	{"internal/systemd", nil, "the service manager, which knows nothing of the product"},
	{"internal/wal", nil, "framing of records, no files"},
	{"internal/descriptors", nil, "shares of what a process may have open"},
	{"internal/naming", nil, "what vDisks may be called"},
	{"internal/generation", nil, "older copies told from newer ones, no files"},
	{"internal/mounts", nil, "what is mounted on a machine, and what should be"},
	{"internal/datadir", nil, "the layout of a data directory"},
	{"internal/format/unknown", nil, "for tests: what a release does not know"},
	{"internal/wire", nil, "frames between hosts; what is said in them is others' affair"},
	{"internal/image", []string{"internal/control", "nbd", "nbd/nbdclient"}, "a client of ovs up, as those of guests are"},
	{"internal/inspect/...", []string{"sco", "tlog", "volumedriver/catalog", "alba/asd", "alba/osd", "alba/manifest", "arakoon/raftlog", "backend/local", "internal/disk/osdisk", "internal/inspect/..."}, "formats of files, whoever writes them"},
	{"internal/control/...", []string{"internal/control/..."}, "a protocol: it declares what it needs of whoever is managed"},

	{"host/attach", []string{"blockdev", "internal/datadir", "nbd", "nbd/nbdclient"}, "block devices of vDisks, of which it knows names and sizes"},
	{"host/metrics", []string{"nbd", "fusefs", "fusefs/transport", "internal/disk/osdisk"}, "counters"},

	{"host", []string{"..."}, "wiring: everything meets here, and nothing imports it but cmd"},
	{"cmd/...", []string{"..."}, "flags, exit codes, printing"},
	{"scripts/bench", []string{
		"scripts/...", "nbd/...", "internal/control", "internal/datadir", "alba/...", "arakoon", "arakoon/groups", "backend", "internal/disk/osdisk",
	}, "measures the server, and the backend by itself"},
	{"scripts/wirebench", []string{"internal/wire"}, "measures it beside others, in a module of its own"},
	{"scripts/member", []string{"arakoon/...", "internal/disk/osdisk", "internal/wire", "scripts/group"}, "one member of a group as a process, for tests"},
	{"scripts/group", []string{"arakoon", "arakoon/kvclient", "internal/wire", "scripts/server"}, "starts such processes, and asks them"},
	{"scripts/chaos", []string{"arakoon", "arakoon/kvclient", "scripts/group", "scripts/server"}, "does them harm"},
	{"scripts/etcdbench", []string{"arakoon", "arakoon/kvclient", "scripts/group", "scripts/server"}, "measures them beside etcd, in a module of its own"},
	{"scripts/e2e", []string{"scripts/...", "device", "nbd/...", "internal/control", "internal/datadir", "fusefs/transport/ringtest"}, "real clients against the binary, and what it leaves behind"},
	{"scripts/...", []string{"scripts/...", "device", "nbd/...", "internal/control", "fusefs/transport/ringtest"}, "real clients against the binary"},
}

// matches reports whether a package matches a pattern of the table.
func matches(pattern, pkg string) bool {
	if pattern == "..." {
		return true
	}
	if dir, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == dir || strings.HasPrefix(pkg, dir+"/")
	}
	if dir, ok := strings.CutSuffix(pattern, "/*"); ok {
		rest, ok := strings.CutPrefix(pkg, dir+"/")
		return ok && !strings.Contains(rest, "/")
	}
	return pattern == pkg
}

// mayImport reports whether the table allows the import, and whether it has a row for
// from at all.
func mayImport(from, to string) (ok, known bool) {
	for _, row := range allowed {
		if !matches(row.from, from) {
			continue
		}
		known = true
		if slices.ContainsFunc(row.to, func(p string) bool { return matches(p, to) }) {
			return true, true
		}
	}
	return known && slices.Contains(everybody, to), known
}

// testMayImport reports what tests may import besides: the test disks, the gate,
// packages of their own tree, and what lies below something that their package may
// import, such as a store in memory behind a contract.
func testMayImport(from, to string) bool {
	if ok, _ := mayImport(from, to); ok || matches("internal/disk/...", to) || to == "internal/gate" {
		return true
	}
	top, _, _ := strings.Cut(from, "/")
	if top != "internal" && matches(top+"/...", to) {
		return true
	}
	if matches(from+"/...", to) {
		return true
	}
	for up := to; strings.Contains(up, "/"); {
		up = up[:strings.LastIndex(up, "/")]
		if ok, _ := mayImport(from, up); ok {
			return true
		}
	}
	return false
}

func TestImportsPointDown(t *testing.T) {
	for _, s := range sources(t) {
		for _, to := range s.imports() {
			ok, known := mayImport(s.pkg, to)
			if s.test {
				ok = testMayImport(s.pkg, to)
			}
			switch {
			case ok:
			case !known && !s.test:
				t.Errorf("%s: package %s has no row in the table of allowed imports; add one to internal/lint/deps_test.go that says what it may import",
					s.path, s.pkg)
			default:
				t.Errorf("%s: %s must not import %s.\n\tIts row allows %s.\n\tIf the edge points down, add it to the table in internal/lint/deps_test.go; if not, declare the interface that you need where you need it.",
					s.path, s.pkg, to, rowsOf(s.pkg))
			}
		}
	}
}

// rowsOf says what the table allows a package.
func rowsOf(pkg string) string {
	to := slices.Clone(everybody)
	why := ""
	for _, row := range allowed {
		if matches(row.from, pkg) {
			to = append(to, row.to...)
			why = " (" + row.why + ")"
		}
	}
	return strings.Join(to, ", ") + why
}

// A row that names a package which does not exist allows an import that nobody has
// thought about.
func TestTableNamesPackages(t *testing.T) {
	exists := map[string]bool{}
	for _, s := range sources(t) {
		exists[s.pkg] = true
	}
	check := func(where, pattern string) {
		for pkg := range exists {
			if matches(pattern, pkg) {
				return
			}
		}
		t.Errorf("%s names %q, and no package is called so", where, pattern)
	}
	for _, pkg := range everybody {
		check("the list of what everybody may import", pkg)
	}
	for _, row := range allowed {
		check("the table", row.from)
		for _, to := range row.to {
			check("the table's row "+row.from, to)
		}
	}
}

// Prohibitions that the design states in words. They hold even if somebody changes a
// row of the table.
func TestNeverImports(t *testing.T) {
	for _, c := range []struct{ from, to string }{
		{"nbd", "volumedriver"},
		{"nbd/nbdtest", "volumedriver"},
		{"fusefs", "volumedriver"},
		{"blockdev", "volumedriver"},
		{"blockdev", "nbd"},
		{"volumedriver", "host"},
		{"alba/embedded", "host"},
		{"internal/control", "host"},
		{"internal/control", "volumedriver"},
		{"internal/control", "alba/embedded"},
		{"internal/control", "alba/preset"},
		{"internal/image", "volumedriver"},
		{"host/attach", "host"},
		{"host/attach", "volumedriver"},
		{"host/attach", "internal/control"},
		{"fusefs", "host/treekeys"},
		{"arakoon", "fusefs/filetree"},
		{"volumedriver", "alba/client"},
		{"volumedriver", "arakoon"},
		{"volumedriver", "host/registrykeys"},
		{"volumedriver/registry", "arakoon"},
		{"arakoon", "volumedriver/registry"},
		{"arakoon/state", "volumedriver/registry"},
		{"arakoon", "host/registrykeys"},
		{"alba/embedded", "host/registrykeys"},
		{"alba/embedded", "volumedriver"},
		{"alba/embedded", "fusefs/filetree"},
		{"volumedriver", "nbd"},
		{"writebuffer", "backend"},
		{"writebuffer", "device"},
		{"metadata", "backend"},
		{"backend/local", "sco"},
		{"alba/asd", "sco"},
		{"alba/asd", "volumedriver"},
		{"sco", "tlog"},
		{"sco", "internal/control"},
		{"tlog", "writebuffer"},
		{"internal/disk/osdisk", "sco"},
		{"volumedriver/catalog", "volumedriver"},
	} {
		if ok, _ := mayImport(c.from, c.to); ok {
			t.Errorf("the table lets %s import %s", c.from, c.to)
		}
	}
}

// Test doubles that break things on purpose stay out of the product.
func TestNoTestDiskInProduct(t *testing.T) {
	doubles := []string{"internal/disk/crashdisk", "internal/disk/faultdisk", "internal/disk/disktest", "internal/gate", "internal/faults", "backend/fault"}
	for _, s := range sources(t) {
		if s.test || slices.Contains(doubles, s.pkg) || strings.HasSuffix(s.pkg, "test") {
			continue
		}
		for _, to := range s.imports() {
			if slices.Contains(doubles, to) {
				t.Errorf("%s: imports %s outside a test", s.path, to)
			}
		}
	}
}
