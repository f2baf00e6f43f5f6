package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// unit lays the service out as it is installed, but for where the program lies, and
// with devices.conf if that is asked for. It returns a systemd-analyze that looks
// there.
func unit(t *testing.T, devices bool) (analyze func(args ...string) (string, error)) {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd here")
	}
	self, err := os.Executable()
	must(t, err)
	dir := t.TempDir()
	install := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join("../../scripts/systemd", from))
		must(t, err)
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, to)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, to), []byte(strings.ReplaceAll(string(b), "/usr/local/bin/ovs", self)), 0o644))
	}
	install("ovs.service", "ovs.service")
	install("ovs.socket", "ovs.socket")
	if devices {
		install("devices.conf", "ovs.service.d/devices.conf")
	}
	return func(args ...string) (string, error) {
		c := exec.Command(program, append(args, filepath.Join(dir, "ovs.service"))...)
		c.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
		out, err := c.CombinedOutput()
		return string(out), err
	}
}

// The unit is one that systemd takes, and exposes no more than what it does needs:
// almost nothing, if there is no mount and no block device. In tenths, of 100.
func TestUnit(t *testing.T) {
	for _, c := range []struct {
		name    string
		devices bool
		most    string
	}{
		{"NBD only", false, "15"},
		{"with devices", true, "48"},
	} {
		t.Run(c.name, func(t *testing.T) {
			analyze := unit(t, c.devices)
			out, err := analyze("verify", "--man=no", "ovs.socket")
			for line := range strings.Lines(out) {
				if strings.Contains(line, "ovs.s") || strings.Contains(line, "devices.conf") {
					t.Error(strings.TrimSpace(line))
				}
			}
			if err != nil {
				t.Logf("systemd-analyze verify: %v: %s", err, out)
			}
			out, err = analyze("security", "--offline=true", "--no-pager", "--threshold="+c.most)
			if strings.Contains(out, "unrecognized option") || strings.Contains(out, "not supported") {
				t.Skip("this systemd cannot say how exposed a unit is that is not loaded")
			}
			if err != nil {
				t.Errorf("more exposed than %s: %v\n%s", c.most, err, out)
			}
			if root := strings.Contains(out, "Service runs as root user"); root != c.devices {
				t.Errorf("runs as root: %v\n%s", root, out)
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
