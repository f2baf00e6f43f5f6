package lint

import (
	"slices"
	"strings"
	"testing"
)

// everybody may import these: they know nothing of the product.
var everybody = []string{"internal/counted", "internal/disk", "internal/format", "internal/generation", "internal/naming", "internal/size", "internal/wal"}

// allowed is the table of who may import whom, besides everybody. Imports
// point down only. A pattern that ends in "/..." means a package and all below
// it, one that ends in "/*" those directly below it.
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
	{"backend/*", []string{"backend"}, "stores, decorators and the suite"},

	{"volumedriver/catalog", []string{"sco"}, "it lists origins and locations"},
	{"volumedriver/pageobject", []string{"sco"}, "map pages as backend objects"},
	{"volumedriver/registry", nil, "names, owners and epochs, no data"},
	{"volumedriver/registry/registrytest", []string{"volumedriver/registry", "internal/disk/*"}, "the suite of a registry over a store of keys"},
	{"volumedriver/snapshot", []string{"sco", "tlog", "metadata", "volumedriver/catalog"}, "decisions over these"},
	{"volumedriver/dtl", []string{"sco", "tlog"}, "copies of what the buffer holds"},
	{"volumedriver/scrub", []string{"sco", "tlog", "metadata", "backend", "volumedriver/catalog"}, "rewrites SCOs"},
	{"volumedriver/volumetest", []string{"volumedriver", "internal/disk/*"}, "the tests of vDisks over any backend"},
	{"volumedriver", []string{
		"sco", "tlog", "metadata/...", "writebuffer", "backend", "volumedriver/*", "internal/disk/pebblefs",
	}, "a volume's life; never alba, arakoon, or a front end"},

	{"arakoon/...", []string{"arakoon/...", "internal/disk/pebblefs"}, "a store of its own"},
	{"arakoon/groups", []string{"internal/datadir"}, "the record of a data directory says which groups were made"},
	{"arakoon/registrykeys", []string{"volumedriver/registry"}, "the registry's keys on a group; here the two meet"},
	{"arakoon/treekeys", []string{"fusefs/filetree"}, "a mount's tree on a group; here the two meet"},
	{"alba/...", []string{"alba/...", "arakoon/...", "backend", "internal/disk/pebblefs", "internal/disk/stopdisk"}, "never hears of SCO, TLog or volume"},
	{"alba/embedded", []string{"internal/datadir"}, "a backend by itself has a data directory of its own"},
	{"config/...", []string{"config/...", "arakoon/..."}, "only cmd imports it"},

	{"nbd", nil, "a front end over an interface of its own; never volumedriver"},
	{"nbd/*", []string{"nbd", "nbd/*"}, "clients, suites, another server"},
	{"fusefs/...", []string{"fusefs/...", "internal/uring"}, "a front end over an interface of its own; never volumedriver"},

	{"blockdev", []string{"blockdev/*"}, "files and sockets as block devices; what is served on them is not its affair"},
	{"blockdev/genl", nil, "how the kernel is spoken to"},
	{"blockdev/genl/genltest", []string{"blockdev/genl"}, "a kernel for tests"},

	{"internal/disk/*", []string{"internal/disk/*", "internal/uring"}, "disks and their suite"},
	{"internal/uring", nil, "memory shared with the kernel"},
	{"internal/gate", nil, "a door for tests"},
	{"backend/fault", []string{"internal/gate"}, "holds calls"},
	{"alba/osd/osdtest", []string{"internal/gate"}, "holds calls"},
	{"internal/wal", nil, "framing of records, no files"},
	{"internal/descriptors", nil, "shares of what a process may have open"},
	{"internal/naming", nil, "what vDisks may be called"},
	{"internal/generation", nil, "older copies told from newer ones, no files"},
	{"internal/mounts", nil, "what is mounted on a machine, and what should be"},
	{"internal/datadir", nil, "the layout of a data directory"},
	{"internal/control/...", []string{"volumedriver", "alba/embedded", "alba/abm", "alba/policy", "alba/preset", "internal/control/..."}, "management calls on vDisks and their backend"},

	{"cmd/...", []string{"..."}, "wiring"},
	{"scripts/bench", []string{
		"scripts/...", "nbd/...", "internal/control", "internal/datadir", "alba/...", "arakoon", "arakoon/groups", "backend", "internal/disk/osdisk",
	}, "measures the server, and the backend by itself"},
	{"scripts/...", []string{"scripts/...", "nbd/...", "internal/control", "fusefs/transport/ringtest"}, "real clients against the binary"},
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

// mayImport reports whether the table has the edge, and whether it knows from
// at all.
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

// testMayImport is what tests may on top: the disks, the gate, their own tree, and what
// lies below something that their package may import, such as a store in
// memory behind a contract.
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

// What the design says in words, so that no row of the table undoes it.
func TestNeverImports(t *testing.T) {
	for _, c := range []struct{ from, to string }{
		{"nbd", "volumedriver"},
		{"nbd/nbdtest", "volumedriver"},
		{"fusefs", "volumedriver"},
		{"blockdev", "volumedriver"},
		{"blockdev", "nbd"},
		{"fusefs", "arakoon/treekeys"},
		{"arakoon", "fusefs/filetree"},
		{"volumedriver", "alba/client"},
		{"volumedriver", "arakoon/client"},
		{"volumedriver", "arakoon/registrykeys"},
		{"volumedriver/registry", "arakoon"},
		{"arakoon", "volumedriver/registry"},
		{"volumedriver", "config"},
		{"volumedriver", "nbd"},
		{"writebuffer", "backend"},
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

// Doubles that break things on purpose stay out of the product.
func TestNoTestDiskInProduct(t *testing.T) {
	doubles := []string{"internal/disk/crashdisk", "internal/disk/faultdisk", "internal/disk/disktest", "internal/gate", "backend/fault"}
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
