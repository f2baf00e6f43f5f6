package host

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Whoever may change the CA of clients may open everything, as whoever reads the key may.
func TestCAThatOthersMayChangeIsRefused(t *testing.T) {
	for name, change := range map[string]func(nbdCerts) error{
		"file":      func(c nbdCerts) error { return os.Chmod(c.CA, 0o666) },
		"directory": func(c nbdCerts) error { return os.Chmod(filepath.Dir(c.CA), 0o777) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newNBDCerts(t, "server")
			c.CA = filepath.Join(t.TempDir(), "ca.pem")
			c.ca.WriteCA(c.CA)
			if err := os.Chmod(c.CA, 0o644); err != nil { // everybody may read it
				t.Fatal(err)
			}
			if _, err := newCertFiles(c.NBDTLS, slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			if err := change(c); err != nil {
				t.Fatal(err)
			}
			if _, err := newCertFiles(c.NBDTLS, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "other users") {
				t.Errorf("a CA that others may change: %v", err)
			}
		})
	}
}

// New files that could not be used are used when they can be, though they have not changed: what
// was wrong may be their directory, or that there was no descriptor left.
func TestGoodFilesAreReadWhenTheyCanBe(t *testing.T) {
	c := newNBDCerts(t, "old")
	dir := filepath.Dir(c.Key)
	var log strings.Builder
	files, err := newCertFiles(c.NBDTLS, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	c.ca.WriteCert(c.ca.Server("new"), c.Cert, c.Key)
	for _, step := range []struct {
		mode os.FileMode
		want string
	}{{0o777, "old"}, {0o777, "old"}, {0o700, "new"}} {
		if err := os.Chmod(dir, step.mode); err != nil {
			t.Fatal(err)
		}
		if got := shown(t, files); got != step.want || strings.Count(log.String(), "cannot be used") != 1 {
			t.Errorf("%04o: %s\n%s", step.mode, got, &log)
		}
	}
}

// What is no file does not keep the look at the files waiting: a FIFO that nobody writes to
// would, and with it all renewals.
func TestCertificateThatIsNoFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cert.pem")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readPEM(name, nil); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a FIFO: %v", err)
	}
}
