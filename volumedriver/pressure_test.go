package volumedriver

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/backend/fault"
	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
)

// While a writer waits for a backend that is away, the storers of vDisks that
// have nothing to store rest. Time passes in a synctest bubble only when all do:
// storers that woke each other kept this test, and two processors, busy for ever.
func TestStorersRestWhileAWriterWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var back *fault.Store
		r, d := newRig(t, crashdisk.New(), 256<<20, func(o *Options) { back = fault.New(o.Backend); o.Backend = back })
		for _, name := range []string{"idle", "idler"} {
			_, err := r.host.Create(t.Context(), name, modelDisk)
			must(t, err)
		}
		away := back.Add(fault.Rule{Ops: []fault.Op{fault.Put}, Err: errors.New("away")})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		writes := 0
		for ; ; writes++ {
			if err := d.Write(ctx, []device.Span{{Off: int64(writes) << 20, Data: pattern(writes, 256)}}); err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("write %d: %v", writes, err)
				}
				break
			}
		}
		if writes < 32 {
			t.Fatalf("write %d was the first to wait, the buffer has 64 MiB", writes)
		}
		away.Remove()
		must(t, d.Write(t.Context(), []device.Span{{Off: int64(writes) << 20, Data: pattern(writes, 256)}}))
		must(t, r.close())
	})
}
