package crashdisk

import (
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/disktest"
)

func TestConformance(t *testing.T) {
	disktest.Run(t, func(t *testing.T) (disk.FS, string) {
		d := New()
		d.SetWouldBlock(0.3, 1)
		if err := d.MkdirAll("/test", 0o755); err != nil {
			t.Fatal(err)
		}
		return d, "/test"
	})
}
