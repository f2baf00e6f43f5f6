package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"openvstorage/backend"
	"openvstorage/backend/fault"
	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
)

// errAway is what a backend says of what too few disks answer for.
var errAway = fmt.Errorf("disk 7 is away: %w", backend.ErrUnavailable)

// cloned is a host with a clone c of v, all of whose first 8 clusters are in the backend
// alone.
func cloned(t *testing.T, change func(*Options)) (*rig, *fault.Store) {
	t.Helper()
	fs := crashdisk.New()
	r, _ := faulty(t, fs)
	_, err := r.host.Create(soon(t), "v", modelDisk)
	must(t, err)
	write(t, open(t, r.host, "v"), 0, 8, 1)
	_, err = r.host.Clone(soon(t), "v", "", "c", nil)
	must(t, err)
	_, err = r.host.SnapshotCreate(soon(t), "c", "s")
	must(t, err)
	must(t, r.close())
	var back *fault.Store
	r, err = openRig(fs, func(o *Options) {
		back = fault.New(o.Backend)
		o.Backend = back
		if change != nil {
			change(o)
		}
	})
	must(t, err)
	return r, back
}

// starves waits until so many requests of a vDisk wait for disks, and demands that it is
// listed with the reason.
func starves(t *testing.T, h *Host, name string, n int) {
	t.Helper()
	ctx := soon(t)
	v, err := h.table.named(name)
	must(t, err)
	for {
		if got, _, _ := v.diskWaits.waiting(); got == n {
			break
		}
		must(t, ctx.Err())
		runtime.Gosched()
	}
	i, err := h.Info(ctx, name)
	must(t, err)
	if i.State != StateRunning || (n > 0) != strings.Contains(i.Reason, "disk 7 is away") {
		t.Errorf("with %d waiting it is %s: %s", n, i.State, i.Reason)
	}
}

// waiters are requests that need what is in the backend alone.
var waiters = map[string]func(context.Context, device.Device) error{
	"read":      func(ctx context.Context, d device.Device) error { return d.Read(ctx, make([]byte, 4*4096), 4096) },
	"part read": func(ctx context.Context, d device.Device) error { return d.Read(ctx, make([]byte, 512), 512) },
	"part write": func(ctx context.Context, d device.Device) error {
		return d.Write(ctx, []device.Span{{Off: 4096 + 512, Data: []byte("new")}})
	},
	"zero of parts": func(ctx context.Context, d device.Device) error { return d.Zero(ctx, 4096+512, 4096, true) },
	"trim of parts": func(ctx context.Context, d device.Device) error { return d.Trim(ctx, 4096+512, 4096) },
}

// A request that needs what too few disks answer for waits, is listed, and is done when
// they do, as if nothing had been. It can be given up.
func TestReadsWaitForDisks(t *testing.T) {
	for what, do := range waiters {
		t.Run(what, func(t *testing.T) {
			r, back := cloned(t, nil)
			d := open(t, r.host, "c")
			away := back.Add(fault.Rule{Ops: []fault.Op{fault.Get}, Object: "sco-*", Err: errAway})
			ctx, cancel := context.WithCancel(soon(t))
			given, done := make(chan error, 1), make(chan error, 1)
			go func() { given <- do(ctx, d) }()
			starves(t, r.host, "c", 1)
			go func() { done <- do(soon(t), d) }()
			starves(t, r.host, "c", 2)
			cancel()
			if err := <-given; !errors.Is(err, context.Canceled) {
				t.Errorf("given up: %v", err)
			}
			starves(t, r.host, "c", 1)
			write(t, d, 100, 4, 2) // others go on
			holdsPattern(t, d, 100, 4, 2)
			must(t, d.Flush(soon(t)))
			othersGoOn(t, r.host, "")
			select {
			case err := <-done:
				t.Fatalf("it did not wait: %v", err)
			default:
			}
			away.Remove()
			must(t, <-done)
			starves(t, r.host, "c", 0)
			if what == "read" {
				holdsPattern(t, d, 0, 8, 1)
			}
			must(t, r.close())
		})
	}
}

// A snapshot waits likewise.
func TestSnapshotReadsWaitForDisks(t *testing.T) {
	r, back := cloned(t, nil)
	d, release, err := r.host.OpenDevice(soon(t), "c@s")
	must(t, err)
	defer release()
	away := back.Add(fault.Rule{Ops: []fault.Op{fault.Get}, Object: "sco-*", Err: errAway})
	done := make(chan error, 1)
	go func() { done <- d.Read(soon(t), make([]byte, 4096), 4096) }()
	starves(t, r.host, "c", 1)
	away.Remove()
	must(t, <-done)
	must(t, r.close())
}

// A bound ends a wait with EIO and the reason, which may be at once; and what is known
// to be bad is not waited for.
func TestReadWaitIsBounded(t *testing.T) {
	for _, bound := range []time.Duration{-1, time.Millisecond, 250 * time.Millisecond} {
		r, back := cloned(t, func(o *Options) { o.ReadWait = bound })
		d := open(t, r.host, "c")
		away := back.Add(fault.Rule{Ops: []fault.Op{fault.Get}, Object: "sco-*", Err: errAway})
		begin := time.Now()
		for what, do := range waiters {
			if err := do(soon(t), d); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "disk 7 is away") {
				t.Errorf("%s after %v: %v", what, bound, err)
			}
		}
		if took := time.Since(begin); took < bound*time.Duration(len(waiters)) {
			t.Errorf("they took %v", took)
		}
		starves(t, r.host, "c", 0)
		away.Remove()
		holdsPattern(t, d, 0, 8, 1)
		must(t, r.close())
	}
	r, back := cloned(t, nil)
	for _, bad := range []error{backend.ErrCorrupt, syscall.EIO} {
		rule := back.Add(fault.Rule{Ops: []fault.Op{fault.Get}, Object: "sco-*", Err: bad})
		for what, do := range waiters {
			if err := do(soon(t), open(t, r.host, "c")); !errors.Is(err, syscall.EIO) {
				t.Errorf("%s of what is bad: %v", what, err)
			}
		}
		rule.Remove()
	}
	must(t, r.close())
}

// The end of the vDisk ends what waits.
func TestReadWaitEndsWithTheVDisk(t *testing.T) {
	for what, end := range map[string]func(t *testing.T, r *rig) error{
		"deleted": func(t *testing.T, r *rig) error { return r.host.ForceDelete(soon(t), "c") },
		"closed":  func(_ *testing.T, r *rig) error { return r.host.Close(context.Background()) },
	} {
		r, back := cloned(t, nil)
		d := open(t, r.host, "c")
		back.Add(fault.Rule{Ops: []fault.Op{fault.Get}, Object: "sco-*", Err: errAway})
		done := make(chan error, 1)
		go func() { done <- d.Read(soon(t), make([]byte, 4096), 4096) }()
		starves(t, r.host, "c", 1)
		must(t, end(t, r))
		if err := <-done; err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
		if what != "closed" {
			must(t, r.close())
		}
	}
}

// So it is with pages of the map that are in the backend alone: whoever needs one waits,
// and gets no extent twice.
func TestMapWaitsForDisks(t *testing.T) {
	fs := crashdisk.New()
	r, _ := faulty(t, fs)
	_, err := r.host.Create(soon(t), "v", 1<<30)
	must(t, err)
	d := open(t, r.host, "v")
	for i := range 8 { // a page for each
		write(t, d, i*20_000, 4, i)
	}
	_, err = r.host.SnapshotCreate(soon(t), "v", "s")
	must(t, err)
	v, err := r.host.table.named("v")
	must(t, err)
	must(t, v.store.checkpointTo(soon(t), v.buf.Written()))
	must(t, r.close())
	must(t, fs.RemoveAll("/data/map"))
	for what, do := range map[string]func(context.Context, device.Device) error{
		"read": func(ctx context.Context, d device.Device) error {
			return d.Read(ctx, make([]byte, 4*4096), 60_000*4096)
		},
		"write": func(ctx context.Context, d device.Device) error {
			return d.Write(ctx, []device.Span{{Off: 60_000 * 4096, Data: pattern(9, 2)}})
		},
		"zero":           func(ctx context.Context, d device.Device) error { return d.Zero(ctx, 60_000*4096, 4096, true) },
		"zero of a part": func(ctx context.Context, d device.Device) error { return d.Zero(ctx, 60_000*4096, 100, true) },
		"extents": func(ctx context.Context, d device.Device) error {
			at, data := int64(0), int64(0)
			err := d.Extents(ctx, 0, 1<<30, func(e device.Extent) bool {
				if at += e.Length; !e.Zero {
					data += e.Length
				}
				return true
			})
			if err == nil && (at != 1<<30 || data != 8*4*4096) {
				return fmt.Errorf("%d bytes, %d of them data: %w", at, data, io.ErrUnexpectedEOF)
			}
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			var back *fault.Store
			r, err := openRig(fs.Kill(), func(o *Options) {
				back = fault.New(o.Backend)
				o.Backend = back
			})
			must(t, err)
			d := open(t, r.host, "v")
			away := back.Add(fault.Rule{Ops: []fault.Op{fault.Get}, Err: errAway})
			done := make(chan error, 1)
			go func() { done <- do(soon(t), d) }()
			starves(t, r.host, "v", 1)
			away.Remove()
			must(t, <-done)
			starves(t, r.host, "v", 0)
			must(t, r.close())
		})
	}
	// A start while they are away: the vDisk is opened when they are back.
	var back *fault.Store
	r, err = openRig(fs, func(o *Options) {
		back = fault.New(o.Backend)
		o.Backend = back
		back.Add(fault.Rule{Ops: []fault.Op{fault.Get}, Count: 3, Err: errAway})
	})
	must(t, err)
	for ctx := soon(t); ; runtime.Gosched() {
		must(t, ctx.Err())
		i, err := r.host.Info(ctx, "v")
		must(t, err)
		if i.State == StateRunning {
			break
		}
		if i.State == StateHalted {
			t.Fatal(i.Reason)
		}
	}
	holdsPattern(t, open(t, r.host, "v"), 20_000, 4, 1)
	must(t, r.close())
}

// A write that waits for disks ends when its vDisk halts, though they stay away: reads
// of what is halted go on waiting.
func TestHaltedWriteDoesNotWait(t *testing.T) {
	r, back := cloned(t, nil)
	d := open(t, r.host, "c")
	away := back.Add(fault.Rule{Ops: []fault.Op{fault.Get}, Object: "sco-*", Err: errAway})
	for what, do := range map[string]func() error{
		"write": func() error { return d.Write(soon(t), []device.Span{{Off: 4096 + 512, Data: []byte("new")}}) },
		"zero":  func() error { return d.Zero(soon(t), 4096+512, 100, true) },
	} {
		done := make(chan error, 1)
		go func() { done <- do() }()
		starves(t, r.host, "c", 1)
		volumeOf(t, r, "c").halt(errors.New("sync failed"))
		if err := <-done; !errors.Is(err, ErrHalted) {
			t.Errorf("%s: %v", what, err)
		}
		volumeOf(t, r, "c").halted.Store(nil)
	}
	away.Remove()
	_ = r.close()
}
