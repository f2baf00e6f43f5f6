package nbd_test

import (
	"bytes"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdtest"
)

// TLS of other implementations: GnuTLS, in libnbd and QEMU.

// uriTLS is the URI of an export for libnbd with the certificate in a directory.
func (s *secured) uriTLS(export, dir string) string {
	_, port, _ := net.SplitHostPort(s.addr)
	u := url.URL{Scheme: "nbds", Host: "localhost:" + port, Path: "/" + export, RawQuery: "tls-certificates=" + dir}
	return u.String()
}

// imageTLS are qemu-img's arguments for an export with the certificate in a directory.
func (s *secured) imageTLS(export, dir string) (object, options string) {
	_, port, _ := net.SplitHostPort(s.addr)
	return "tls-creds-x509,id=t,endpoint=client,dir=" + dir, "driver=nbd,host=localhost,port=" + port + ",export=" + export + ",tls-creds=t"
}

// runFails runs a program that must fail, and returns what it printed.
func runFails(t *testing.T, clients nbdtest.Clients, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), clients.Program(t, name), args...).CombinedOutput()
	if err == nil {
		t.Errorf("%s %s: no error\n%s", name, strings.Join(args, " "), out)
	}
	return string(out)
}

func TestTLSWithLibnbd(t *testing.T) { nbdtest.EachClients(t, testTLSWithLibnbd) }

func testTLSWithLibnbd(t *testing.T, c nbdtest.Clients) {
	exports := nbdtest.Exports{"a/1": nbdtest.NewMemory(8 << 20), "b/1": nbdtest.NewMemory(8 << 20), "all/iso": nbdtest.NewMemory(8 << 20)}
	s := serveTLS(t, exports, nbd.TLSRequired, nbd.Limits{}, func(o *nbd.TLS, _ *nbdtest.CA) { o.Authorize = team })
	dir := s.ca.WriteClient(s.ca.Client("a"))
	if out := runClient(t, c, "nbdinfo", "--list", s.uriTLS("", dir)); !strings.Contains(out, `"a/1"`) || !strings.Contains(out, "with TLS") || strings.Contains(out, "b/1") {
		t.Errorf("list:\n%s", out)
	}
	if out := runClient(t, c, "nbdinfo", "--json", s.uriTLS("all/iso", dir)); !strings.Contains(out, `"is_read_only": true`) || !strings.Contains(out, `"TLS": true`) {
		t.Errorf("all/iso:\n%s", out)
	}
	runFails(t, c, "nbdinfo", s.uriTLS("b/1", dir))
	plain := strings.Replace(strings.Replace(s.uriTLS("a/1", ""), "nbds:", "nbd:", 1), "?tls-certificates=", "", 1)
	runFails(t, c, "nbdinfo", plain)
	runFails(t, c, "nbdinfo", s.uriTLS("a/1", s.ca.WriteClient(s.ca.Expired("a"))))
	runFails(t, c, "nbdinfo", s.uriTLS("a/1", nbdtest.NewCA(t).WriteClient(s.ca.Client("a"))))

	from, back := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "back")
	want := bytes.Repeat([]byte("0123456789abcde\n"), 8<<20/16)
	if err := os.WriteFile(from, want, 0o600); err != nil {
		t.Fatal(err)
	}
	runClient(t, c, "nbdcopy", from, s.uriTLS("a/1", dir))
	runClient(t, c, "nbdcopy", s.uriTLS("a/1", dir), back)
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v; what comes back is the same: %v", err, bytes.Equal(got, want))
	}
	if st := s.Stats(); st.Errors > 0 {
		t.Errorf("%d requests got errors", st.Errors)
	}
}

func TestTLSWithQEMU(t *testing.T) { nbdtest.EachClients(t, testTLSWithQEMU) }

func testTLSWithQEMU(t *testing.T, c nbdtest.Clients) {
	exports := nbdtest.Exports{"a/1": nbdtest.NewMemory(8 << 20), "b/1": nbdtest.NewMemory(8 << 20)}
	s := serveTLS(t, exports, nbd.TLSRequired, nbd.Limits{}, func(o *nbd.TLS, _ *nbdtest.CA) { o.Authorize = team })
	dir := s.ca.WriteClient(s.ca.Client("a"))
	object, image := s.imageTLS("a/1", dir)
	from := filepath.Join(t.TempDir(), "from")
	want := bytes.Repeat([]byte("0123456789abcde\n"), 8<<20/16)
	if err := os.WriteFile(from, want, 0o600); err != nil {
		t.Fatal(err)
	}
	runClient(t, c, "qemu-img", "convert", "-n", "--object", object, "--target-image-opts", "-f", "raw", from, image)
	runClient(t, c, "qemu-img", "compare", "--object", object, "--image-opts", image, "driver=raw,file.driver=file,file.filename="+from)
	if out := runClient(t, c, "qemu-img", "info", "--object", object, "--image-opts", image); !strings.Contains(out, "8 MiB") {
		t.Errorf("info:\n%s", out)
	}
	_, other := s.imageTLS("b/1", dir)
	if out := runFails(t, c, "qemu-img", "info", "--object", object, "--image-opts", other); !strings.Contains(out, "opens no export of this name") {
		t.Errorf("b/1:\n%s", out)
	}
	if out := runFails(t, c, "qemu-img", "info", "--image-opts", strings.TrimSuffix(image, ",tls-creds=t")); !strings.Contains(out, "TLS") {
		t.Errorf("without TLS:\n%s", out)
	}
}
