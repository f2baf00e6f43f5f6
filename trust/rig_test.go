package trust_test

import (
	"context"
	"encoding/pem"
	"math/rand/v2"
	"os"
	"testing"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/trust"
	"openvstorage/trust/trusttest"
)

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// dialing is a store that makes a connection for each read.
type dialing struct {
	*trusttest.Store
	dial func(context.Context) error
}

func (d *dialing) Get(ctx context.Context, key []byte) ([]byte, error) {
	if err := d.dial(ctx); err != nil {
		return nil, err
	}
	return d.Store.Get(ctx, key)
}

func TestStoreInMemory(t *testing.T) {
	trusttest.TestStore(t, func(*testing.T) trust.Store { return trusttest.NewStore() })
}

// cut returns what a disk has after a power cut.
func cut(fsys *crashdisk.FS, seed uint64) *crashdisk.FS {
	return fsys.Crash(rand.New(rand.NewPCG(seed, 1)), crashdisk.Mixed)
}

func chmod(t testing.TB, name string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}
