package volumetest

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"openvstorage/device"
	"openvstorage/internal/disk"
	"openvstorage/volumedriver"
)

// System is a volume driver and what it rests on, all on one disk.
type System struct {
	Host *volumedriver.Host
	// Close ends the system, and reports anything that is wrong with what it leaves.
	Close func() error
	// Err returns why what the vDisks rest on has failed and must be opened again, nil if
	// it has not. The function may be nil.
	Err func() error
	// Doubt(true) leaves some calls on the registry and the backend unanswered from now
	// on; Doubt(false) makes all be answered again. Of the unanswered calls some take
	// effect at once, some later and some never. The function is nil if the system
	// cannot do that.
	Doubt func(on bool)
}

// Opener opens the system that a disk holds. On an empty disk it makes one.
type Opener func(fs disk.FS) (*System, error)

// Seed returns the seed of this run. An environment variable can set it, to repeat a run.
func Seed(t *testing.T) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("OVS_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("OVS_TEST_SEED=%d", seed)
	return seed
}

// Cuts returns how many times the power is cut: as often as the environment says, or else
// the test's own number.
func Cuts(usual int) int {
	if n, err := strconv.Atoi(os.Getenv("OVS_POWER_CUTS")); err == nil {
		return n
	}
	return usual
}

// writable is a vDisk.
func writable(t *testing.T, h *volumedriver.Host, name string) device.Device {
	t.Helper()
	return opened(t, h, name).(device.Device)
}

// opened is a vDisk or a snapshot.
func opened(t *testing.T, h *volumedriver.Host, name string) device.Reader {
	t.Helper()
	d, release, err := h.OpenDevice(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	release()
	return d
}

// readAll reads a whole device.
func readAll(t *testing.T, d device.Reader) []byte {
	t.Helper()
	b := make([]byte, d.Size())
	for off := 0; off < len(b); off += 1 << 20 {
		p := b[off:min(off+1<<20, len(b))]
		if err := d.TryRead(p, int64(off)); err == nil {
			continue
		}
		if err := d.Read(context.Background(), p, int64(off)); err != nil {
			t.Fatalf("read at %d: %v", off, err)
		}
	}
	return b
}

// diff is where two byte slices differ first, or -1.
func diff(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}
