package asd

import (
	"path"
	"testing"

	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/osdisk"
)

func TestConformance(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		osdtest.Run(t, func(t *testing.T) osd.OSD { return openNew(t, small(crashdisk.New())) })
	})
	t.Run("one descriptor", func(t *testing.T) {
		osdtest.Run(t, func(t *testing.T) osd.OSD {
			opt := small(crashdisk.New())
			opt.Descriptors = NewDescriptors(1)
			return openNew(t, opt)
		})
	})
	t.Run("real", func(t *testing.T) {
		osdtest.Run(t, func(t *testing.T) osd.OSD {
			return openNew(t, Options{FS: osdisk.New(), Dir: path.Join(t.TempDir(), "disk"), SegmentBytes: 16 << 20})
		})
	})
}
