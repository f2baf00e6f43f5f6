package volumedriver

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"openvstorage/backend/local"
	"openvstorage/device"
	"openvstorage/internal/disk"
	"openvstorage/volumedriver/registry"
	"openvstorage/volumedriver/registry/registrytest"

	"github.com/google/uuid"
)

// modelDisk is the size of the vDisk that is worked on.
const modelDisk = 4 << 20

// testHost is the host of a rig.
var testHost = uuid.MustParse("7d444840-9dc0-11d1-b245-5ffdce74fad2")

// rig is a host on a crash-model disk: buffer, page store, backend and
// registry all on it, so that one image holds them all.
type rig struct {
	fs    disk.FS
	back  *local.Store
	keys  *registrytest.Files
	doubt *registrytest.Doubt // between the registry and its keys
	reg   *registry.Registry
	host  *Host
}

func openRig(fs disk.FS, change func(*Options)) (r *rig, err error) {
	ctx := context.Background()
	r = &rig{fs: fs}
	for _, d := range []string{"/data", "/data/backend", "/data/registry", "/data/buffer"} {
		if err := fs.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{"/", "/data"} {
		if err := fs.SyncDir(d); err != nil {
			return nil, err
		}
	}
	if r.back, err = local.Open(fs, "/data/backend", local.Options{}); err != nil {
		return nil, err
	}
	if r.keys, err = registrytest.Open(fs, "/data/registry"); err != nil {
		return nil, err
	}
	r.doubt = registrytest.NewDoubt(r.keys)
	if r.reg, err = registry.Open(ctx, r.doubt); err != nil {
		return nil, err
	}
	opt := Options{
		FS: fs, Dir: "/data", WriteBuffer: 64 << 20, MapCache: 1 << 20, Backend: r.back, Registry: r.reg,
		Host: testHost, Owner: "test", IdleSeal: time.Hour,
	}
	if os.Getenv("OVS_TEST_LOG") != "" {
		opt.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if change != nil {
		change(&opt)
	}
	r.host, err = Open(ctx, opt)
	return r, err
}

func (r *rig) close() error {
	if err := r.host.Close(context.Background()); err != nil {
		return err
	}
	if err := r.reg.Close(); err != nil {
		return err
	}
	if err := r.keys.Close(); err != nil {
		return err
	}
	return r.back.Close()
}

func open(t *testing.T, h *Host, name string) device.Device {
	t.Helper()
	d, release, err := openDisk(context.Background(), h, name)
	if err != nil {
		t.Fatal(err)
	}
	release()
	return d
}

// openDisk is OpenDevice of a vDisk.
func openDisk(ctx context.Context, h *Host, name string) (device.Device, func(), error) {
	d, release, err := h.OpenDevice(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return d.(device.Device), release, nil
}

func diff(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}
