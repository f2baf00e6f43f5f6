package kvtest

import (
	"testing"

	"openvstorage/arakoon"
	"openvstorage/internal/disk/crashdisk"

	"github.com/google/uuid"
)

// TestNode: a member in this process.
func TestNode(t *testing.T) {
	Run(t, func(t *testing.T) Store {
		n, err := arakoon.Open(arakoon.Options{
			FS: crashdisk.New(), Dir: "/node", Cluster: uuid.New(), Member: 3, Functions: Functions,
			SegmentBytes: 4 << 20, MemTableBytes: 1 << 20, StateCacheBytes: 1 << 20,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		return n
	})
}
