package guest_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"openvstorage/scripts/guest"
)

// kernel starts a guest whose kernel is the NBD client of the vDisk "disk".
func (s *system) kernel(c guest.Config) *guest.Machine {
	s.t.Helper()
	_, port, err := net.SplitHostPort(s.tcp)
	must(s.t, err)
	c.Net, c.Args = true, append(c.Args, "port="+port)
	return s.machine(c)
}

// done waits until a guest has done a step and is off.
func (s *system) done(m *guest.Machine, step string) {
	s.t.Helper()
	_, err := m.Await(step+" ok", 0, workMax)
	must(s.t, err)
	must(s.t, m.Wait(stopMax))
}

// TestKernelNBD: the kernel's client with two connections over TCP. On it are a file
// system, fio, and a device mapper target that loses writes.
func TestKernelNBD(t *testing.T) {
	s := up(t)
	s.ovs("vdisk", "create", "disk", "--size", "512MiB")
	s.done(s.kernel(guest.Config{Step: "nbd"}), "nbd")
	s.done(s.kernel(guest.Config{Step: "flakey"}), "flakey")

	// The kernel unpacks one archive after the other.
	initrd := filepath.Join(s.temp, "initrd-fio.gz")
	var both []byte
	for _, name := range []string{"initrd.gz", "fio.gz"} {
		part, err := os.ReadFile(filepath.Join(guest.Prepared(), name))
		must(t, err)
		both = append(both, part...)
	}
	must(t, os.WriteFile(initrd, both, 0o644))
	s.done(s.kernel(guest.Config{Step: "nbdfio", Initrd: initrd, Memory: 768}), "nbdfio")
}

// TestKernelNBDLost: ovs is killed under the kernel's client and started again. However
// nbd-client connected, the file system sees errors, and the device stays dead until
// somebody connects it again: the process that -persist leaves is gone too. After that
// the file system has everything that it had synced.
func TestKernelNBDLost(t *testing.T) {
	s := up(t)
	s.ovs("vdisk", "create", "disk", "--size", "512MiB")
	for _, how := range []string{"persist", "timeout"} {
		m := s.kernel(guest.Config{Step: "nbdlost", Args: []string{"how=" + how}})
		awaitSynced(t, m, 10)
		s.Kill()
		s.start()
		step, err := m.Await("error", 0, workMax)
		must(t, err)
		t.Logf("%s: %s", how, step.Text)
		must(t, m.Go())
		step, err = m.Await("alone", 0, workMax)
		must(t, err)
		if step.Text != "alone no" {
			t.Errorf("%s: the device comes again by itself: docs/vms.md says that it does not", how)
		}
		s.done(m, "check")
		has := said(m.Console(), "has")
		for f, sum := range synced(m) {
			if has[f] != sum {
				t.Errorf("%s: %s was synced with sum %s and has %q", how, f, sum, has[f])
			}
		}
		t.Logf("%s: %d files are there", how, len(has))
	}
}
