package volumedriver

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"openvstorage/backend/fault"
	"openvstorage/internal/disk"
	"openvstorage/volumedriver/registry/registrytest"
)

// OpenForTest opens vDisks over the local backend, all on one disk.
func OpenForTest(fs disk.FS) (h *Host, stop func() error, err error) {
	r, err := openRig(fs, nil)
	if err != nil {
		return nil, nil, err
	}
	return r.host, r.close, nil
}

// OpenInDoubt is OpenForTest with calls on registry and backend that are not
// answered while doubt says so.
func OpenInDoubt(fs disk.FS, seed uint64) (h *Host, doubt func(on bool), stop func() error, err error) {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 5))
	var on atomic.Bool
	draw := func(one int) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return on.Load() && rng.IntN(one) == 0
		}
	}
	r, err := openRig(fs, func(o *Options) {
		back := fault.New(o.Backend)
		changes := []fault.Op{fault.CreateNamespace, fault.DeleteNamespace, fault.Put, fault.PutIf, fault.Delete}
		// Whose time has run out does not ask again; others do.
		for _, err := range []error{context.DeadlineExceeded, errors.New("no answer")} {
			back.Add(fault.Rule{Ops: changes, Err: err, Draw: draw(60)})
			back.Add(fault.Rule{Ops: changes, Err: err, Draw: draw(60), After: true})
			back.Add(fault.Rule{Ops: changes, Err: err, Draw: draw(60), Late: true})
		}
		back.Add(fault.Rule{Ops: []fault.Op{fault.Stat, fault.Get}, Err: errors.New("no answer"), Draw: draw(60)})
		o.Backend = back
	})
	if err != nil {
		return nil, nil, nil, err
	}
	some := draw(4)
	r.doubt.Draw(func() registrytest.Fate {
		if !some() {
			return registrytest.Answered
		}
		mu.Lock()
		defer mu.Unlock()
		return registrytest.Fate(1 + rng.IntN(3))
	})
	r.doubt.Silence(draw(4))
	return r.host, on.Store, r.close, nil
}
