package volumedriver_test

import (
	"strconv"
	"testing"
	"testing/synctest"

	"openvstorage/internal/disk"
	"openvstorage/volumedriver"
	"openvstorage/volumedriver/volumetest"
)

// openLocal opens vDisks over the local backend. The same tests run over ALBA
// in package host.
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

// The bar of unknown outcomes; those of a whole process are in package host.
func TestUnknown(t *testing.T) {
	seed := volumetest.Seed(t)
	for lane := range uint64(4) {
		t.Run(strconv.FormatUint(lane, 10), func(t *testing.T) {
			t.Parallel()
			n := seed + lane<<32
			synctest.Test(t, func(t *testing.T) {
				volumetest.Unknown(t, func(fs disk.FS) (*volumetest.System, error) {
					n++
					h, doubt, stop, err := volumedriver.OpenInDoubt(fs, n)
					if err != nil {
						return nil, err
					}
					return &volumetest.System{Host: h, Close: stop, Doubt: doubt}, nil
				}, 25, 40)
			})
		})
	}
}

func TestManyWriters(t *testing.T) { volumetest.ManyWriters(t, openLocal, 8) }
