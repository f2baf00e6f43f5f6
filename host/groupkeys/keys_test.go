package groupkeys_test

import (
	"context"
	"errors"
	"testing"

	"openvstorage/arakoon"
	"openvstorage/host/groupkeys"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/keyswap"
	"openvstorage/trust"
	"openvstorage/trust/trusttest"

	"github.com/google/uuid"
)

var testCluster = uuid.MustParse("7d444840-9dc0-11d1-b245-5ffdce74fad2")

func openNode(t *testing.T, fsys disk.FS) *arakoon.Node {
	t.Helper()
	n, err := arakoon.Open(arakoon.Options{
		FS: fsys, Dir: "/registry", Cluster: testCluster, Member: 1,
		SegmentBytes: 64 << 10, CompactBytes: 64 << 10, MemTableBytes: 256 << 10, StateCacheBytes: 256 << 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func TestStore(t *testing.T) {
	trusttest.TestStore(t, func(t *testing.T) trust.Store { return (&groupkeys.Keys{Node: openNode(t, crashdisk.New())}) })
}

// What was answered is there after the process is killed.
func TestSwapIsDurable(t *testing.T) {
	d := crashdisk.New()
	n := openNode(t, d)
	keys := &groupkeys.Keys{Node: n}
	if done, err := keys.Swap(t.Context(), []keyswap.Swap{{Key: []byte("trust/v"), New: []byte("1")}}); err != nil || !done {
		t.Fatal(done, err)
	}
	after := (&groupkeys.Keys{Node: openNode(t, d.Kill())})
	if v, err := after.Get(t.Context(), []byte("trust/v")); err != nil || string(v) != "1" {
		t.Errorf("%q, %v", v, err)
	}
}

// A caller that has gone changes nothing, and one that goes while its swap is under way
// does not keep it from being answered.
func TestSwapOutlivesItsCaller(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	n := openNode(t, crashdisk.New())
	swaps := []keyswap.Swap{{Key: []byte("k"), New: []byte("1")}}
	if done, err := (&groupkeys.Keys{Node: n}).Swap(gone, swaps); done || !errors.Is(err, context.Canceled) {
		t.Error(done, err)
	}
	ctx, leave := context.WithCancel(t.Context())
	if done, err := (&groupkeys.Keys{Node: leaving{n, leave}}).Swap(ctx, swaps); !done || err != nil {
		t.Error(done, err)
	}
}

// leaving has the caller go when its change begins.
type leaving struct {
	groupkeys.Node
	leave context.CancelFunc
}

func (l leaving) Do(ctx context.Context, seq *arakoon.Sequence) ([]arakoon.Result, error) {
	l.leave()
	return l.Node.Do(ctx, seq)
}
