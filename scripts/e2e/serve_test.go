package e2e

import (
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"openvstorage/nbd/nbdclient"
	"openvstorage/scripts/server"
)

// freeAddress is a loopback address that nobody listened on a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// TestTCPAndMetrics: the export over TCP, and the metrics over HTTP.
func TestTCPAndMetrics(t *testing.T) {
	need(t, "nbdinfo", "qemu-io")
	tcp, metrics := freeAddress(t), freeAddress(t)
	s := up(t, "--nbd-tcp", tcp, "--metrics", metrics)
	s.create("disk", gib)
	uri := "nbd://" + tcp + "/disk"
	sh(t, "qemu-io", "-f", "raw", "-c", "write -P 9 0 1M", "-c", "flush", "-c", "read -P 9 0 1M", uri)
	if got := strings.TrimSpace(sh(t, "nbdinfo", "--size", uri)); got != "1073741824" {
		t.Errorf("nbdinfo --size over TCP says %s", got)
	}
	resp, err := http.Get("http://" + metrics + "/metrics")
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "# TYPE") {
		t.Errorf("metrics: %s\n%.500s", resp.Status, body)
	}
	for _, name := range metricNames(t) { // the ones that the manual promises
		if !strings.Contains(string(body), "\n"+name) {
			t.Errorf("no metric %s", name)
		}
	}
}

// metricNames are those that docs/operations.md lists, but for those of hosts of a cluster.
func metricNames(t *testing.T) (names []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.md")
	must(t, err)
	for _, m := range regexp.MustCompile("(?m)^\\| `(ovs_[a-z_]+)[^|]*\\|([^|]*)").FindAllStringSubmatch(string(text), -1) {
		if !strings.HasPrefix(m[2], " In a cluster:") {
			names = append(names, m[1])
		}
	}
	if len(names) < 20 {
		t.Fatalf("docs/operations.md lists %d metrics", len(names))
	}
	return names
}

// TestBeyondLoopback: without TLS the export is not offered to the network
// unless that is asked for.
func TestBeyondLoopback(t *testing.T) {
	if *standIn != "" {
		t.Skip("needs ovs")
	}
	o := server.Ovs{Bin: bin, Data: t.TempDir(), Flags: []string{"--nbd-tcp", "0.0.0.0:0"}}
	if p, err := server.Start(o.Up()); err == nil {
		p.Kill()
		t.Error("ovs listens beyond loopback without --insecure")
	} else if !strings.Contains(err.Error(), "insecure") {
		t.Errorf("the refusal does not name --insecure: %v", err)
	}
}

// TestSnapshotIsReadOnlyToNBDInfo: clients learn it in the handshake.
func TestSnapshotIsReadOnlyToNBDInfo(t *testing.T) {
	need(t, "nbdinfo")
	s := up(t)
	s.create("disk", gib)
	s.ovs("vdisk", "snapshot", "create", "disk", "snap")
	sh(t, "nbdinfo", "--is", "read-only", s.URI("disk@snap"))
	if _, err := nbdclient.Dial(t.Context(), "unix", s.Socket, nbdclient.Options{Export: "disk@none"}); err == nil {
		t.Error("an export of a missing snapshot was opened")
	}
}
