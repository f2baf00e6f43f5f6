package osdisk

import (
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/disktest"
)

func TestConformance(t *testing.T) {
	disktest.Run(t, func(t *testing.T) (disk.FS, string) { return New(), t.TempDir() })
}
