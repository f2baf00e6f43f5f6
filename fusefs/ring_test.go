package fusefs_test

import (
	"testing"

	"openvstorage/fusefs/transport/ringtest"
)

// Over rings the mount is the same: the other tests, where the kernel offers
// them.
func TestOverRings(t *testing.T) {
	needsFUSE(t)
	ringtest.Set(t, true)
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"operations", TestOperations}, {"table", TestOperationsTable}, {"model", TestModel}, {"kept", TestKept},
		{"small files", TestSmallFiles}, {"small files fail", TestSmallFilesFail}, {"copies", TestCopyRange}, {"killed", TestInterrupted},
	} {
		t.Run(c.name, c.test)
	}
}
