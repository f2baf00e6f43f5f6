package volumedriver

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"openvstorage/backend"
	"openvstorage/backend/fault"
	"openvstorage/internal/disk/crashdisk"
)

// A disk with holes in it is read from the backend as a full one is: its blocks lie
// side by side in an SCO, and one call gets them.
func TestHolesCostNoReads(t *testing.T) {
	ctx := context.Background()
	const clusters = 64
	rng := rand.New(rand.NewPCG(1, 2))
	for what, written := range map[string]func(i int) bool{
		"each second":  func(i int) bool { return i%2 == 0 },
		"each third":   func(i int) bool { return i%3 == 2 },
		"the last one": func(i int) bool { return i == clusters-1 },
		"all":          func(int) bool { return true },
		"by chance":    func(int) bool { return rng.IntN(3) > 0 },
	} {
		t.Run(what, func(t *testing.T) {
			var back *fault.Store
			r, d := newRig(t, crashdisk.New(), modelDisk, func(o *Options) { back = fault.New(o.Backend); o.Backend = back })
			defer func() { must(t, r.close()) }()
			want := make([]byte, clusters*4096)
			for i := range clusters {
				if written(i) {
					write(t, d, i, 1, i)
					copy(want[i*4096:], pattern(i, 1))
				}
			}
			must(t, d.Zero(ctx, 4096, 4096, true)) // one that is allocated, and zeros
			clear(want[4096:8192])
			_, err := r.host.Clone(ctx, "v", "", "clone", nil)
			must(t, err)
			clone := open(t, r.host, "clone")
			p := make([]byte, len(want))
			must(t, clone.Read(ctx, p, 0)) // the SCO's checksums are known from now on
			reads := back.Add(fault.Rule{Ops: []fault.Op{fault.Get}, Object: "sco*"})
			clear(p)
			must(t, clone.Read(ctx, p, 0))
			if at := diff(p, want); at >= 0 {
				t.Fatalf("byte %d differs", at)
			}
			// The cluster that was zeroed is a block of the SCO that is passed over.
			if n := reads.Hits(); n > 2 {
				t.Errorf("%d reads", n)
			}
		})
	}
}

// Whatever is wrong with a read of blocks side by side, they are read by themselves:
// what can be read is, and what cannot is named.
func TestSpreadFails(t *testing.T) {
	ctx := context.Background()
	var back *fault.Store
	r, d := newRig(t, crashdisk.New(), modelDisk, func(o *Options) { back = fault.New(o.Backend); o.Backend = back })
	defer func() { must(t, r.close()) }()
	var want []byte
	for i := range 3 {
		write(t, d, 2*i, 1, i)
		want = append(append(want, pattern(i, 1)...), make([]byte, 4096)...)
	}
	_, err := r.host.Clone(ctx, "v", "", "clone", nil)
	must(t, err)
	clone := open(t, r.host, "clone")
	p := make([]byte, len(want))
	must(t, clone.Read(ctx, p, 0))

	once := back.Add(fault.Rule{Ops: []fault.Op{fault.Get}, Count: 1, Err: backend.ErrCorrupt})
	clear(p)
	must(t, clone.Read(ctx, p, 0))
	if !bytes.Equal(p, want) {
		t.Errorf("byte %d differs", diff(p, want))
	}
	once.Remove()
	back.Add(fault.Rule{Ops: []fault.Op{fault.Get}, Err: backend.ErrCorrupt})
	if err := clone.Read(ctx, p, 0); !errors.Is(err, syscall.EIO) || !errors.Is(err, backend.ErrCorrupt) {
		t.Errorf("%v", err)
	}
}
