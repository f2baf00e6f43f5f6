package volumetest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"openvstorage/device"
	"openvstorage/volumedriver"
)

// diskSize is the size of the vDisk that is worked on.
const diskSize = 4 << 20

// worker does random operations on a device and keeps the history.
type worker struct {
	t    *testing.T
	rng  *rand.Rand
	host *volumedriver.Host
	h    *history
	n    int
	// stuck: the backend accepts nothing, and whoever waits for it waits for ever.
	stuck bool
}

func (w *worker) step() {
	ctx := context.Background()
	d := writable(w.t, w.host, "v")
	off := w.rng.Int64N(int64(w.h.size))
	n := min(1+w.rng.Int64N(256<<10), int64(w.h.size)-off)
	if w.rng.IntN(3) > 0 { // aligned, mostly small
		off &^= 4095
		n = min(4096*(1+w.rng.Int64N(8)), int64(w.h.size)-off)
	}
	check := func(err error) {
		if err != nil {
			w.t.Fatalf("operation %d: %v", len(w.h.ops), err)
		}
	}
	switch k := w.rng.IntN(100); {
	case k >= 90 && k < 96 && w.stuck:
	case k < 69:
		w.n++
		data := bytes.Repeat([]byte(fmt.Sprintf("%07d.", w.n)), int(n)/8+1)[:n]
		if d.TryWrite([]device.Span{{Off: off, Data: data}}) != nil {
			check(d.Write(ctx, []device.Span{{Off: off, Data: data}}))
		}
		w.h.addRange(off, n, func(s *modelState, from, to int64) { copy(s.data[from:to], data[from-off:]) })
	case k < 77:
		check(d.Trim(ctx, off, n))
		w.h.addRange(off, n, func(s *modelState, from, to int64) { clear(s.data[from:to]) })
	case k < 82:
		check(d.Zero(ctx, off, n, w.rng.IntN(2) == 0))
		w.h.addRange(off, n, func(s *modelState, from, to int64) { clear(s.data[from:to]) })
	case k < 90:
		check(d.Flush(ctx))
		w.h.flushed = len(w.h.ops)
	case k < 92:
		w.n++
		name := fmt.Sprintf("s%d", w.n)
		_, err := w.host.SnapshotCreate(ctx, "v", name)
		check(err)
		w.h.add(func(s *modelState) { s.snaps[name] = bytes.Clone(s.data) })
		w.h.flushed = len(w.h.ops)
	case k < 93:
		if name := w.someSnapshot(); name != "" {
			check(w.host.Rollback(ctx, "v", name))
			w.h.add(func(s *modelState) { copy(s.data, s.snaps[name]) })
			w.h.flushed = len(w.h.ops)
		}
	case k < 94:
		if name := w.someSnapshot(); name != "" {
			check(w.host.SnapshotDelete(ctx, "v", name))
			w.h.deleted[name] = true
		}
	case k < 95:
		check(w.host.Sync(ctx, "v", nil))
		w.h.flushed = len(w.h.ops)
	case k < 96:
		check(w.host.Checkpoint(ctx, "v"))
		w.h.flushed = len(w.h.ops)
	case k < 99: // several closed TLogs are stored as one group
		check(w.host.CloseTLog("v"))
	default:
		p := make([]byte, n)
		check(d.Read(ctx, p, off))
		if want := w.h.after(len(w.h.ops)).data[off : off+n]; !bytes.Equal(p, want) {
			w.t.Fatalf("read of %d bytes at %d after %d operations differs at %d", n, off, len(w.h.ops), diff(p, want))
		}
	}
}

func (w *worker) someSnapshot() string {
	list, err := w.host.SnapshotList(context.Background(), "v")
	if err != nil {
		w.t.Fatal(err)
	}
	if len(list) == 0 {
		return ""
	}
	return list[w.rng.IntN(len(list))].Name
}
