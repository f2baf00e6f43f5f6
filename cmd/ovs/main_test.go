package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rogpeppe/go-internal/testscript"

	"openvstorage/device"
	"openvstorage/fusefs/filetree"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/internal/control"
	"openvstorage/internal/control/controltest"
	"openvstorage/volumedriver"
	"openvstorage/volumedriver/registry"
)

// TestMain makes this binary be `ovs` itself, and `fakeovs`, which is ovs with
// a host that keeps nothing: for what does not depend on data.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"ovs": main,
		"fakeovs": func() {
			openHost = func(context.Context, hostOptions) (host, error) {
				return &fakeHost{Host: controltest.Host{Halted: "broken"}, disks: map[string]*memory{}}, nil
			}
			main()
		},
	})
}

// fakeHost is the fake of controltest with devices of memory.
type fakeHost struct {
	controltest.Host
	mu    sync.Mutex
	disks map[string]*memory
}

func (h *fakeHost) CreateAs(ctx context.Context, size uint64, naming volumedriver.Naming) (info volumedriver.Info, err error) {
	err = naming(uuid.New(), func(name string) (err error) {
		info, err = h.Create(ctx, name, size)
		return err
	})
	return info, err
}

func (h *fakeHost) CloneAs(ctx context.Context, src, snap string, progress func(done, total int64), naming volumedriver.Naming) (info volumedriver.Info, err error) {
	err = naming(uuid.New(), func(name string) (err error) {
		info, err = h.Clone(ctx, src, snap, name, progress)
		return err
	})
	return info, err
}

func (h *fakeHost) OpenDevice(ctx context.Context, name string) (device.Reader, func(), error) {
	info, err := h.Info(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	if info.Size > 64<<20 {
		return nil, nil, fmt.Errorf("vDisk %q is larger than the fake keeps", name)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.disks[name] == nil {
		h.disks[name] = &memory{data: make([]byte, info.Size)}
	}
	return h.disks[name], func() {}, nil
}

func (h *fakeHost) Exports(ctx context.Context) ([]string, error) {
	list, err := h.List(ctx)
	names := map[string]bool{}
	for _, v := range list {
		names[v.Name] = true
		for _, s := range v.Snapshots {
			names[v.Name+"@"+s.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(names)), err
}

func (h *fakeHost) Collectors() []prometheus.Collector {
	return []prometheus.Collector{prometheus.NewGauge(prometheus.GaugeOpts{Name: "ovs_fake", Help: "That this is the fake."})}
}

func (h *fakeHost) ALBA() control.ALBA { return nil }

func (h *fakeHost) Stat(context.Context, string) (volumedriver.Stat, error) {
	return volumedriver.Stat{}, volumedriver.ErrNotFound
}

func (h *fakeHost) StatID(context.Context, uuid.UUID) (volumedriver.Stat, error) {
	return volumedriver.Stat{}, volumedriver.ErrNotFound
}

func (h *fakeHost) Stats(context.Context) []volumedriver.Stat { return nil }

func (h *fakeHost) Listed() uint64 { return 0 }

func (h *fakeHost) DeleteIf(context.Context, string, func(volumedriver.Info) error) error {
	return errors.New("nothing of the fake is mounted")
}

// RollbackTold tells nobody: nothing of the fake is mounted.
func (h *fakeHost) RollbackTold(ctx context.Context, name, snap string, _ bool, _ func(context.Context, uuid.UUID) error) error {
	return h.Rollback(ctx, name, snap)
}

func (h *fakeHost) RenameBelow(context.Context, string, string, func(func([]registry.Swap) error) error) error {
	return errors.New("the fake renames vDisks one by one")
}

func (h *fakeHost) Space(context.Context) (used, free uint64, err error) {
	return 1 << 30, 3 << 30, nil
}

func (h *fakeHost) FileKeys() filetree.Keys { return treetest.New() }

func (h *fakeHost) Close(context.Context) error { return nil }

// memory is a device.Device.
type memory struct {
	mu   sync.Mutex
	data []byte
}

func (m *memory) Size() int64 { return int64(len(m.data)) }

func (m *memory) TryRead(p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(p, m.data[off:])
	return nil
}

func (m *memory) Read(_ context.Context, p []byte, off int64) error { return m.TryRead(p, off) }

func (m *memory) TryWrite(batch []device.Span) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range batch {
		copy(m.data[s.Off:], s.Data)
	}
	return nil
}

func (m *memory) Write(_ context.Context, batch []device.Span) error { return m.TryWrite(batch) }
func (m *memory) Flush(context.Context) error                        { return nil }

func (m *memory) Trim(ctx context.Context, off, n int64) error { return m.Zero(ctx, off, n, false) }

func (m *memory) Zero(_ context.Context, off, n int64, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.data[off : off+n])
	return nil
}

func (m *memory) Extents(_ context.Context, _, n int64, fn func(device.Extent) bool) error {
	fn(device.Extent{Length: n})
	return nil
}

func (m *memory) Prefetch(context.Context, int64, int64) error { return syscall.EOPNOTSUPP }

var (
	_ host          = (*fakeHost)(nil)
	_ device.Device = (*memory)(nil)
)
