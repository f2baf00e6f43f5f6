package host

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// nbdCerts are files with certificates.
type nbdCerts struct {
	NBDTLS
	ca *nbdtest.CA
}

func newNBDCerts(t *testing.T, server string) nbdCerts {
	dir := t.TempDir()
	c := nbdCerts{ca: nbdtest.NewCA(t), NBDTLS: NBDTLS{
		Mode: nbd.TLSRequired, Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"),
	}}
	c.ca.WriteCA(c.CA)
	c.ca.WriteCert(c.ca.Server(server), c.Cert, c.Key)
	return c
}

// shown is the name in the certificate that is used now; the files are looked at, however
// short ago that was.
func shown(t *testing.T, files *certFiles) string {
	t.Helper()
	files.at = time.Time{}
	config, err := files.current()
	if err != nil {
		t.Fatal(err)
	}
	return config.Certificates[0].Leaf.Subject.CommonName
}

func TestCertificateFilesAreReadAgain(t *testing.T) {
	c := newNBDCerts(t, "first")
	var log bytes.Buffer
	files, err := newCertFiles(c.NBDTLS, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if got := shown(t, files); got != "first" || log.Len() > 0 {
		t.Errorf("%s\n%s", got, &log)
	}
	c.ca.WriteCert(c.ca.Server("second"), c.Cert, c.Key)
	if got := shown(t, files); got != "second" || !strings.Contains(log.String(), "new certificate of NBD") {
		t.Errorf("%s\n%s", got, &log)
	}
	// Not more often than once in a while.
	c.ca.WriteCert(c.ca.Server("third"), c.Cert, c.Key)
	files.at = time.Now().Add(time.Hour)
	if config, _ := files.current(); config.Certificates[0].Leaf.Subject.CommonName != "second" {
		t.Error("read at once")
	}
	if got := shown(t, files); got != "third" {
		t.Error(got)
	}
}

// What cannot be used is said once, and what was there before is used on.
func TestBadCertificateFilesChangeNothing(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, c nbdCerts)
		text   string
	}{
		"another's key": {func(t *testing.T, c nbdCerts) {
			c.ca.WriteCert(c.ca.Server("new"), c.Cert, filepath.Join(t.TempDir(), "key"))
		}, "does not match"},
		"no PEM":         {func(t *testing.T, c nbdCerts) { write(t, c.Cert, "hello", 0o600) }, "cert.pem"},
		"no PEM of a CA": {func(t *testing.T, c nbdCerts) { write(t, c.CA, "hello", 0o600) }, "no certificate"},
		"gone":           {func(t *testing.T, c nbdCerts) { remove(t, c.Key) }, "no such file"},
		"too long":       {func(t *testing.T, c nbdCerts) { write(t, c.CA, strings.Repeat("x", pemMax+1), 0o600) }, "longer"},
		"for all eyes": {func(t *testing.T, c nbdCerts) {
			if err := os.Chmod(c.Key, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "chmod 600"},
		"expired": {func(t *testing.T, c nbdCerts) { c.ca.WriteCert(c.ca.Expired("new"), c.Cert, c.Key) }, "expired"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			c := newNBDCerts(t, "old")
			var log bytes.Buffer
			files, err := newCertFiles(c.NBDTLS, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			test.change(t, c)
			for range 3 {
				if got := shown(t, files); got != "old" {
					t.Errorf("%s is used", got)
				}
			}
			if n := strings.Count(log.String(), "cannot be used"); n != 1 || !strings.Contains(log.String(), test.text) {
				t.Errorf("said %d times, want once, with %q:\n%s", n, test.text, &log)
			}
			if _, err := newCertFiles(c.NBDTLS, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), test.text) {
				t.Errorf("a start: %v", err)
			}
			c.ca.WriteCA(c.CA)
			c.ca.WriteCert(c.ca.Server("new"), c.Cert, c.Key)
			if err := os.Chmod(c.Key, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := shown(t, files); got != "new" {
				t.Errorf("when they are good again %s is used", got)
			}
		})
	}
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// Only TLS that nobody can go without, and certificates of both sides, make an address safe.
func TestWhichTLSIsSafe(t *testing.T) {
	for _, mode := range []nbd.TLSMode{nbd.TLSOff, nbd.TLSAllowed, nbd.TLSRequired} {
		for _, ca := range []string{"", "/ca"} {
			if got := (NBDTLS{Mode: mode, CA: ca}).Safe(); got != (mode == nbd.TLSRequired && ca != "") {
				t.Errorf("%v with CA %q: %v", mode, ca, got)
			}
		}
	}
}

// Without a CA nobody is asked; with one, whoever has a certificate of it opens everything.
func TestWhoMayOpenByNBD(t *testing.T) {
	c := newNBDCerts(t, "server")
	for _, ca := range []string{"", c.CA} {
		o := c.NBDTLS
		o.CA = ca
		files, err := newCertFiles(o, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		s, err := nbd.NewServer(nbdtest.Exports{"disk": nbdtest.NewMemory(1 << 20)}, nbd.Options{TLS: nbd.TLS{Config: files.current, Authorize: authorizeNBD}})
		if err != nil {
			t.Fatal(err)
		}
		for _, has := range []bool{true, false} {
			config := c.ca.ClientTLS(c.ca.Client("vm"))
			if !has {
				config.Certificates = nil
			}
			if err := opens(t, s, config); (err == nil) != (has || ca == "") {
				t.Errorf("CA %q, a certificate %v: %v", ca, has, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// opens opens an export and writes to it.
func opens(t *testing.T, s *nbd.Server, config *tls.Config) error {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.ServeTLS(ctx, ln, nbd.TLSRequired) }()
	c, err := nbdclient.Dial(t.Context(), "tcp", ln.Addr().String(), nbdclient.Options{Export: "disk", TLS: config})
	if err == nil {
		_, err = c.WriteAt([]byte("x"), 0)
		err = errors.Join(err, c.Close())
	}
	cancel()
	return errors.Join(err, <-ended)
}

// TestRecipeOfCertificates makes certificates as docs/operations.md says, and uses them.
func TestRecipeOfCertificates(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	page, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "Certificates by openssl.")
	_, rest, _ = strings.Cut(rest, "```sh\n")
	recipe, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("no recipe")
	}
	recipe = strings.Replace(recipe, "IP:192.0.2.1", "IP:127.0.0.1", 1)
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", recipe)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	files, err := newCertFiles(NBDTLS{Cert: path("server-cert.pem"), Key: path("server-key.pem"), CA: path("ca-cert.pem")}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s, err := nbd.NewServer(nbdtest.Exports{"disk": nbdtest.NewMemory(1 << 20)}, nbd.Options{TLS: nbd.TLS{Config: files.current, Authorize: authorizeNBD}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cert, err := tls.LoadX509KeyPair(path("client-cert.pem"), path("client-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := files.current()
	if err != nil {
		t.Fatal(err)
	}
	if err := opens(t, s, &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: ca.ClientCAs}); err != nil {
		t.Error(err)
	}
}

// An address that lets everybody in is said at each start, and no other.
func TestOpenAddressesAreSaidLoudly(t *testing.T) {
	listen := func(network, address string) net.Listener {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	d := &daemon{nbdLns: []net.Listener{listen("unix", filepath.Join(t.TempDir(), "s")), listen("tcp", "127.0.0.1:0"), listen("tcp", "0.0.0.0:0")}}
	for _, test := range []struct {
		of   NBDTLS
		text string
	}{
		{NBDTLS{}, "nothing is encrypted"},
		{NBDTLS{Mode: nbd.TLSAllowed, CA: "/ca"}, "may go without TLS"},
		{NBDTLS{Mode: nbd.TLSRequired}, "are asked for no certificate"},
		{NBDTLS{Mode: nbd.TLSRequired, CA: "/ca"}, ""},
	} {
		var log bytes.Buffer
		d.opt.NBDTLS, d.logger = test.of, slog.New(slog.NewTextHandler(&log, nil))
		d.warnOpen()
		said := strings.Count(log.String(), "INSECURE")
		if test.text == "" && said != 0 || test.text != "" && (said != 1 || !strings.Contains(log.String(), test.text)) {
			t.Errorf("%+v: %s", test.of, &log)
		}
	}
}
