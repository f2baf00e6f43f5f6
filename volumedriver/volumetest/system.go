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
	// Close ends it, and tells of anything that is wrong with what is left.
	Close func() error
	// Err, if not nil, tells why what the vDisks rest on has failed and must be
	// opened again, nil if it has not.
	Err func() error
	// Doubt has some of the calls on what it rests on, its registry and backend,
	// not be answered from now on, or all be. Of those that are not answered some
	// take effect, some later, and some never. Nil: it cannot.
	Doubt func(on bool)
}

// Opener opens the system that a disk holds, making it on an empty one.
type Opener func(fs disk.FS) (*System, error)

// Seed returns the seed of this run: fixed by the environment to repeat one.
func Seed(t *testing.T) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("OVS_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("OVS_TEST_SEED=%d", seed)
	return seed
}

// Cuts is how many times the power is cut: what the environment says, or what
// the test does by itself.
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
