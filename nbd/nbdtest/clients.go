package nbdtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Clients are programs of one release of Debian that speak NBD.
type Clients struct {
	// Suite that scripts/fetch-clients has fetched; "": what is installed here.
	Suite string
	dir   string // of the programs; "": all of $PATH
}

// suites are the releases whose clients are fetched: the next one, and the one after it.
var suites = []string{"trixie", "sid"}

// EachClients runs a test with the clients that are installed, and then with those of later releases,
// which come first in $PATH meanwhile. Releases that were not fetched are skipped.
func EachClients(t *testing.T, test func(t *testing.T, c Clients)) {
	t.Run("installed", func(t *testing.T) {
		// First the distribution's own: another Python has no module nbd.
		t.Setenv("PATH", "/usr/bin:"+os.Getenv("PATH"))
		test(t, Clients{})
	})
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			base := clientsDir()
			c := Clients{Suite: suite, dir: filepath.Join(base, suite, "bin")}
			if _, err := os.Stat(c.dir); base == "" || err != nil {
				t.Skipf("the clients of Debian %s were not fetched: run scripts/install-test-tools", suite)
			}
			t.Setenv("PATH", c.dir+":/usr/bin:"+os.Getenv("PATH"))
			test(t, c)
		})
	}
}

// clientsDir is where scripts/install-test-tools keeps the clients that it has fetched; "" if that
// cannot be found out.
func clientsDir() string {
	if dir := os.Getenv("OVS_CLIENTS"); dir != "" {
		return dir
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "ovs-clients")
}

// Program returns the path of a client. Without the client the test is skipped; that of another
// release is not used in its place.
func (c Clients) Program(t *testing.T, name string) string {
	t.Helper()
	if c.dir == "" {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("%s is not installed", name)
		}
		return path
	}
	path := filepath.Join(c.dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the clients of Debian %s that were fetched have no %s", c.Suite, name)
	}
	return path
}
