package memtest_test

import (
	"testing"

	"github.com/google/uuid"

	"openvstorage/device"
	"openvstorage/device/devicetest"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

func TestDisk(t *testing.T) {
	devicetest.Run(t, devicetest.Odd, func(t testing.TB, size int64) device.Device {
		p := memtest.New(treetest.New())
		err := p.CreateAs(t.Context(), size, func(_ uuid.UUID, commit func(string) error) error { return commit("v") })
		if err != nil {
			t.Fatal(err)
		}
		d, release, err := p.Open(t.Context(), "v")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(release)
		return d.(device.Device)
	})
}
