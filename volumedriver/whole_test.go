package volumedriver_test

import (
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/volumedriver"
	"openvstorage/volumedriver/volumetest"
)

// openLocal opens vDisks over the local backend. The same tests run over ALBA
// in cmd/ovs.
func openLocal(fs disk.FS) (*volumetest.System, error) {
	h, stop, err := volumedriver.OpenForTest(fs)
	if err != nil {
		return nil, err
	}
	return &volumetest.System{Host: h, Close: stop}, nil
}

func TestModel(t *testing.T) { volumetest.Model(t, openLocal, 12, 150) }

// The bar is 500 cuts.
func TestPowerCut(t *testing.T) { volumetest.PowerCuts(t, openLocal, volumetest.Cuts(500)) }

func TestManyWriters(t *testing.T) { volumetest.ManyWriters(t, openLocal, 8) }
