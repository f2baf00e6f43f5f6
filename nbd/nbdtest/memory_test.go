package nbdtest_test

import (
	"testing"

	"openvstorage/device"
	"openvstorage/device/devicetest"
	"openvstorage/nbd/nbdtest"
)

func TestMemory(t *testing.T) {
	devicetest.Run(t, devicetest.Odd, func(_ testing.TB, size int64) device.Device { return nbdtest.NewMemory(size) })
}
