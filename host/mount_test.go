package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openvstorage/internal/mounts"
)

// A data directory is not made where something should be mounted, and one that is
// there is opened.
func TestDataDirectoryOnUnmounted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	real := mountTable
	defer func() { mountTable = real }()
	mountTable = func() mounts.Table {
		return mounts.Table{Mounted: map[string]bool{"/": true}, Planned: map[string]string{filepath.Dir(dir): "/etc/fstab"}}
	}
	d := &daemon{}
	if err := d.checkMount(dir); err == nil || !strings.Contains(err.Error(), "--allow-unmounted") {
		t.Error(err)
	}
	d.opt.ALBA.AllowUnmounted = true
	if err := d.checkMount(dir); err != nil {
		t.Error(err)
	}
	d.opt.ALBA.AllowUnmounted = false
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ovs.format"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.checkMount(dir); err != nil {
		t.Error(err)
	}
	mountTable = func() mounts.Table { return mounts.Table{} }
	if err := d.checkMount(filepath.Join(dir, "other")); err != nil {
		t.Error(err)
	}
}
