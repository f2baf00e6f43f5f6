package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clusterHost is what `ovs host list --json` says of a host.
type clusterHost struct {
	ID        string   `json:"id"`
	State     string   `json:"state"`
	First     bool     `json:"first"`
	Self      bool     `json:"self"`
	Connected *bool    `json:"connected"`
	Addresses []string `json:"addresses"`
	Zone      string   `json:"zone"`
}

func (s *system) hosts() (list []clusterHost) {
	s.t.Helper()
	must(s.t, json.Unmarshal([]byte(s.ovs("host", "list", "--json")), &list))
	return list
}

// hostAddress is an address of loopback that no other test takes: a host's names are its
// own in a cluster.
func hostAddress(t *testing.T, n int) string {
	t.Helper()
	_, port, _ := strings.Cut(freeAddress(t), ":")
	return fmt.Sprintf("127.94.0.%d:%s", n, port)
}

// fails runs `ovs up` that has to fail, and say the words.
func fails(t *testing.T, dir string, words string, flags ...string) {
	t.Helper()
	out, err := exec.Command(bin, append([]string{"up", "--data", dir}, flags...)...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), words) {
		t.Errorf("ovs up %q: %v; it is to say %q\n%s", flags, err, words, out)
	}
}

// TestTwoHosts: a second process joins with a token, both list both hosts after a restart
// of either, a token is good for one host, and one that was removed is let in no more.
func TestTwoHosts(t *testing.T) {
	at := []string{hostAddress(t, 1), hostAddress(t, 2), hostAddress(t, 3)}
	one := up(t, "--backend", "local", "--listen", at[0], "--zone", "a")
	one.create("disk", 1<<20)
	token := strings.TrimSpace(one.ovs("host", "token"))
	two := upAt(t, filepath.Join(t.TempDir(), "two"), "--listen", at[1], "--zone", "b", "--join", token)

	third := filepath.Join(t.TempDir(), "three")
	fails(t, third, "is good for one", "--listen", at[2], "--join", token)
	fails(t, filepath.Join(t.TempDir(), "four"), "damaged or not whole", "--listen", at[2], "--join", token[:len(token)-3]+"abc")
	fails(t, one.Data+"x", "--listen", "--zone", "a")

	must(t, two.Stop(stopMax))
	fails(t, two.Data, "give --listen")
	fails(t, two.Data, "serves no vDisks", "--listen", at[1], "--nbd-tcp", "127.0.0.1:0")
	two.command.Args = two.command.Args[:len(two.command.Args)-2] // without --join
	two.start()
	must(t, one.Stop(stopMax))
	one.start()
	both := func(s *system) bool {
		list := s.hosts()
		ok := len(list) == 2
		for _, h := range list {
			ok = ok && h.State == "joined" && h.Connected != nil && *h.Connected && len(h.Addresses) == 1 && (h.Zone == "a") == h.First
		}
		return ok
	}
	for _, s := range []*system{one, two} {
		eventually(t, time.Minute, "both hosts are connected", func() bool { return both(s) })
	}
	if out := two.ovs("status"); !strings.Contains(out, "members of groups, and the disks that were given to it; it has no vDisks in this release") {
		t.Errorf("status of a host that has joined:\n%s", out)
	}
	// The records of trust are not for hands, and the authority's sealed key for nobody.
	if out := one.ovs("arakoon", "prefix", "registry", "trust/"); !strings.Contains(out, "trust/a") || strings.Contains(out, "OVSCAKEY") || strings.Contains(out, "4f565343414b4559") {
		t.Errorf("the records of trust:\n%s", out)
	}
	for _, args := range [][]string{{"get", "registry", "trust/a"}, {"set", "registry", "trust/hx", "v", "--i-know"}, {"delete-prefix", "registry", "tru", "--i-know"}} {
		if out, err := one.Run(append([]string{"arakoon"}, args...)...); err == nil {
			t.Errorf("ovs arakoon %q: %s", args, out)
		}
	}
	if _, err := two.Run("vdisk", "list"); err == nil || !strings.Contains(err.Error(), "has joined cluster") {
		t.Errorf("vDisks of a host that has joined: %v", err)
	}
	if out := one.ovs("vdisk", "list"); !strings.Contains(out, "disk") {
		t.Errorf("vDisks of the first host:\n%s", out)
	}
	for _, h := range one.hosts() {
		if !h.First {
			one.ovs("host", "remove", h.ID)
		}
	}
	linked := func() bool {
		var s struct{ Cluster struct{ Linked bool } }
		must(t, json.Unmarshal([]byte(two.ovs("status", "--json")), &s))
		return s.Cluster.Linked
	}
	eventually(t, time.Minute, "the connection has ended", func() bool { return !linked() })
	must(t, two.Stop(stopMax))
	two.start() // by what it has seen
	if linked() {
		t.Error("a host that was removed is let in")
	}
}

// TestClusterNBD: a certificate of the role nbd opens the vDisks in its scope, which it
// alone lists, and writes nothing if it is read-only. When it is revoked its connections
// end.
func TestClusterNBD(t *testing.T) {
	need(t, "nbdinfo", "nbdsh")
	path, err := exec.LookPath("nbdsh") // beside the Python that has its module, see nbdsh
	must(t, err)
	t.Setenv("PATH", filepath.Dir(path)+":"+os.Getenv("PATH"))
	s := up(t, "--backend", "local", "--listen", hostAddress(t, 9), "--nbd-tcp", "127.94.0.9:0", "--nbd-tls", "required")
	s.create("team/a", 1<<20)
	s.create("other", 1<<20)
	dir := t.TempDir()
	issue := func(name string, flags ...string) (certs, serial string) {
		certs = filepath.Join(dir, name)
		var made struct{ Serial string }
		must(t, json.Unmarshal([]byte(s.ovs(append([]string{"ca", "issue", "--name", name, "--role", "nbd", "--out", certs, "--json"}, flags...)...)), &made))
		return certs, made.Serial
	}
	address := ""
	for line := range strings.Lines(s.Output()) {
		if rest, ok := strings.CutPrefix(line, "nbd "); ok && strings.Contains(rest, "127.94.0.9") {
			address = strings.TrimSpace(rest)
		}
	}
	uri := func(certs, export string) string {
		return "nbds://" + strings.TrimPrefix(address, "tcp:") + "/" + export + "?tls-certificates=" + certs
	}
	all, serial := issue("all", "--vdisk", "team")
	only, _ := issue("only", "--ro")
	if out := sh(t, "nbdinfo", "--list", "--json", uri(all, "")); !strings.Contains(out, "team/a") || strings.Contains(out, "other") {
		t.Errorf("a certificate for some lists\n%s", out)
	}
	opened := func(certs, export string) string {
		return fmt.Sprintf("h.set_uri_allow_local_file(True)\nh.connect_uri(%q)\n", uri(certs, export))
	}
	sh(t, "nbdsh", "-c", opened(all, "team/a")+"h.pwrite(b'x' * 512, 0)\nh.flush()\nassert h.pread(512, 0) == b'x' * 512")
	sh(t, "nbdsh", "-c", opened(only, "other")+"assert h.is_read_only()")
	if out, err := exec.Command("nbdinfo", uri(all, "other")).CombinedOutput(); err == nil {
		t.Errorf("a vDisk out of its scope is opened:\n%s", out)
	}
	held := exec.Command("nbdsh", "-c", opened(all, "team/a")+`
print("open", flush=True)
import sys
sys.stdin.readline()
try:
    h.pread(512, 0)
    print("read")
except nbd.Error:
    print("ended")
`)
	in, err := held.StdinPipe()
	must(t, err)
	out, err := held.StdoutPipe()
	must(t, err)
	held.Stderr = os.Stderr
	must(t, held.Start())
	said := bufio.NewReader(out)
	line, err := said.ReadString('\n')
	must(t, err)
	if line != "open\n" {
		t.Fatalf("it prints %q", line)
	}
	s.ovs("ca", "revoke", serial)
	eventually(t, time.Minute, "a revoked certificate opens nothing", func() bool {
		return exec.Command("nbdinfo", uri(all, "team/a")).Run() != nil
	})
	_, err = in.Write([]byte("\n"))
	must(t, err)
	if line, _ := said.ReadString('\n'); line != "ended\n" {
		t.Errorf("the connection of a revoked certificate: %q", line)
	}
	_ = held.Wait()
}
