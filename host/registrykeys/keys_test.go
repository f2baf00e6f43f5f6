package registrykeys_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"openvstorage/arakoon"
	"openvstorage/host/registrykeys"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/volumedriver/registry"
	"openvstorage/volumedriver/registry/registrytest"

	"github.com/google/uuid"
)

var testCluster = uuid.MustParse("7d444840-9dc0-11d1-b245-5ffdce74fad2")

var host = registry.Claimant{Host: uuid.MustParse("7d444840-9dc0-11d1-b245-5ffdce74fad3"), Name: "host"}

func openNode(fsys disk.FS) (*arakoon.Node, error) {
	return arakoon.Open(arakoon.Options{
		FS: fsys, Dir: "/registry", Cluster: testCluster, Member: 1,
		SegmentBytes: 64 << 10, CompactBytes: 64 << 10, MemTableBytes: 256 << 10, StateCacheBytes: 256 << 10,
	})
}

func open(fsys disk.FS) (registry.Keys, func() error, error) {
	node, err := openNode(fsys)
	if err != nil {
		return nil, nil, err
	}
	return registrykeys.New(node), node.Close, nil
}

func TestRegistry(t *testing.T) { registrytest.Run(t, open) }

// After a failed sync nobody can tell what is stored, and the registry says so
// until it is opened again.
func TestFailedSync(t *testing.T) {
	ctx := t.Context()
	d := crashdisk.New()
	faults := faultdisk.New(d)
	node, err := openNode(faults)
	if err != nil {
		t.Fatal(err)
	}
	r, err := registry.Open(ctx, registrykeys.New(node))
	if err != nil {
		t.Fatal(err)
	}
	a := registry.Record{ID: uuid.New(), Name: "a"}
	if err := r.Register(ctx, a); err != nil {
		t.Fatal(err)
	}
	faults.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Err: errors.New("broken")})
	if _, err := r.Claim(ctx, a.ID, host, 0); !errors.Is(err, registry.ErrFailed) {
		t.Fatal(err)
	}
	if _, err := r.List(ctx); !errors.Is(err, registry.ErrFailed) {
		t.Fatal(err)
	}
	_ = node.Close()
	keys, stop, err := open(d.Kill())
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if r, err = registry.Open(ctx, keys); err != nil {
		t.Fatal(err)
	}
	if e, err := r.Claim(ctx, a.ID, host, 0); err != nil || e == 0 || e > 2 {
		t.Fatal(e, err)
	}
}

// busy refuses the first calls.
type busy struct {
	registrykeys.Node
	left int
}

func (b *busy) Do(ctx context.Context, seq *arakoon.Sequence) ([]arakoon.Result, error) {
	if b.left--; b.left >= 0 {
		return nil, fmt.Errorf("%w: it is", arakoon.ErrBusy)
	}
	return nil, ctx.Err()
}

func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if done, err := registrykeys.New(&busy{left: 36}).Swap(t.Context(), nil); err != nil || !done {
			t.Error(done, err)
		}
		if done, err := registrykeys.New(&busy{left: 37}).Swap(t.Context(), nil); !errors.Is(err, arakoon.ErrBusy) || done {
			t.Error(done, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		b := &busy{left: 2}
		cancel()
		if _, err := registrykeys.New(b).Swap(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// What was proposed and given up is in the log, or never will be, when Settle
// returns.
func TestSettle(t *testing.T) {
	fsys := faultdisk.New(crashdisk.New())
	node, err := openNode(fsys)
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	keys := registrykeys.New(node)
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	fsys.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Before: func(faultdisk.Op, string) {
		once.Do(func() { close(held) })
		<-release
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-held
		cancel()
	}()
	seq := new(arakoon.Sequence).Set([]byte("k"), []byte("v"))
	if _, err := node.Do(ctx, seq); !errors.Is(err, arakoon.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	if v, err := keys.Get(t.Context(), []byte("k")); err != nil || v != nil {
		t.Fatalf("%q, %v: it was to be under way still", v, err)
	}
	if err := keys.Settle(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that settles cannot give up: %v", err)
	}
	go func() { release <- struct{}{}; close(release) }()
	if err := keys.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v, err := keys.Get(t.Context(), []byte("k")); err != nil || string(v) != "v" {
		t.Errorf("%q, %v: it was made before", v, err)
	}
}
