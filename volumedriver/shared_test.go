package volumedriver

import (
	"context"
	"testing"

	"openvstorage/backend/mem"
	"openvstorage/internal/disk/crashdisk"
)

// Two processes with registries of their own have vDisks in one backend. A process that starts
// anew, with a registry that knows nobody, leaves the other's namespaces as they are, also those
// that were not written to yet: that it does not know them is no reason to remove them (P8).
func TestSharedBackend(t *testing.T) {
	ctx := context.Background()
	b := mem.New(0)
	shared := func(o *Options) { o.Backend, o.Shared = b, true }
	one, err := openRig(crashdisk.New(), shared)
	if err != nil {
		t.Fatal(err)
	}
	defer one.close()
	if _, err := one.host.Create(ctx, "new", modelDisk); err != nil {
		t.Fatal(err)
	}
	two, err := openRig(crashdisk.New(), shared)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := b.ListNamespaces(ctx); err != nil || len(list) != 1 {
		t.Errorf("namespaces %v, %v: that of the other's vDisk is gone", list, err)
	}
	if err := two.close(); err != nil {
		t.Fatal(err)
	}
	if err := one.host.Sync(ctx, "new", nil); err != nil {
		t.Error(err)
	}
}
