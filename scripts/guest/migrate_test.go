package guest_test

import (
	"strings"
	"testing"

	"openvstorage/scripts/guest"
)

// TestMigrate: a guest under load moves from one QEMU to the next and on, all on one
// vDisk. The guest sees no error, and what it has synced is there. Over the mount,
// QEMU's lock on the file moves with the guest, and keeps out a third QEMU.
func TestMigrate(t *testing.T) {
	s := up(t)
	for _, door := range doors {
		s.ovs("vdisk", "create", door, "--size", "512MiB")
		block := s.block(door, door)
		if door == "fuse" {
			block += ",locking=on"
		}
		all := []*guest.Machine{s.guest("load", block)}
		awaitSynced(t, all[0], 10)
		for range 2 {
			from := all[len(all)-1]
			if door == "fuse" {
				s.refused(block)
			}
			to := s.machine(guest.Config{Step: "load", Block: block, Incoming: true})
			must(t, from.Migrate(to, workMax))
			must(t, from.QMP("quit", nil))
			must(t, from.Wait(stopMax))
			all = append(all, to)
			awaitSynced(t, to, 10)
		}
		if door == "fuse" {
			s.refused(block)
		}
		all[len(all)-1].Kill()
		for _, m := range all {
			if strings.Contains(m.Console(), "STEP error") {
				t.Errorf("%s: the guest saw an error:\n%s", door, m.Console())
			}
		}
		s.recover(s.block(door, door), synced(all...))
	}
}

// refused starts a QEMU on a file that another has, which must not get it.
func (s *system) refused(block string) {
	s.t.Helper()
	m := s.guest("check", block)
	must(s.t, m.Wait(stopMax))
	if !strings.Contains(m.Console(), "lock") {
		s.t.Errorf("a second QEMU gets a file that is locked:\n%s", m.Console())
	}
}
