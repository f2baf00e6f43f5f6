package guest_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// data returns how many bytes of a vDisk are not holes, as its door says: the
// mount by SEEK_DATA, NBD by block status.
func (s *system) data(door, vdisk string) (sum int64) {
	s.t.Helper()
	if door == "nbd" {
		out, err := exec.Command("nbdinfo", "--map", "--json", s.URI(vdisk)).Output()
		must(s.t, err)
		var extents []struct {
			Length int64 `json:"length"`
			Type   int   `json:"type"` // 0 is data
		}
		must(s.t, json.Unmarshal(out, &extents))
		for _, e := range extents {
			if e.Type == 0 {
				sum += e.Length
			}
		}
		return sum
	}
	f, err := os.Open(filepath.Join(s.mount, vdisk+".raw"))
	must(s.t, err)
	defer f.Close()
	for hole := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), hole, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return sum
		}
		must(s.t, err)
		hole, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		must(s.t, err)
		sum += hole - data
	}
}

// TestSpace: zeros that a guest writes, and what it trims, take no room.
func TestSpace(t *testing.T) {
	const mib = 1 << 20
	s := up(t)
	for _, door := range doors {
		s.ovs("vdisk", "create", door, "--size", "256MiB")
		m := s.guest("space", s.block(door, door))
		for _, stage := range []struct {
			step     string
			min, max int64
		}{
			{"written ok", 64 * mib, 64 * mib},
			{"zeroed ok", 32 * mib, 32 * mib},
			{"filled ok", 96 * mib, 112 * mib}, // with what the file system keeps itself
			{"trimmed ok", 0, 16 * mib},
		} {
			_, err := m.Await(stage.step, 0, workMax)
			must(t, err)
			n := s.data(door, door)
			t.Logf("%s, %s: %.1f MiB are data", door, stage.step, float64(n)/mib)
			if n < stage.min || n > stage.max {
				t.Errorf("%s, %s: %d bytes are data, want %d to %d", door, stage.step, n, stage.min, stage.max)
			}
			must(t, m.Go())
		}
		must(t, m.Wait(stopMax))
	}
}
