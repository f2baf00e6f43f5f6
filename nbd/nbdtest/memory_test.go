package nbdtest_test

import (
	"testing"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdtest"
)

func TestMemory(t *testing.T) {
	nbdtest.TestDevice(t, func(_ testing.TB, size int64) nbd.Device { return nbdtest.NewMemory(size) })
}
