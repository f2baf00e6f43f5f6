package volumedriver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/backend"
	"openvstorage/backend/fault"
	"openvstorage/device"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/writebuffer"

	"golang.org/x/sys/unix"
)

// A page store that lacks room for a moment while it is opened is not thrown away,
// however often it is tried meanwhile; one that goes on lacking it is.
func TestPagesLackRoom(t *testing.T) {
	const marker = "/data/map/marker"
	for _, op := range []faultdisk.Op{faultdisk.Datasync | faultdisk.Sync, faultdisk.Write} {
		for _, lacks := range []time.Duration{time.Second, time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				mem := crashdisk.New()
				r, err := openRig(mem, nil)
				must(t, err)
				must(t, r.close())
				f, err := mem.OpenFile(marker, disk.Write|disk.Create, 0o600)
				must(t, err)
				must(t, f.Close())
				faults := faultdisk.New(mem)
				rule := faults.Inject(faultdisk.Rule{Ops: op, Path: "/data/map/...", Err: unix.ENOSPC})
				var told sync.Once
				r, err = openRig(faults, func(o *Options) {
					o.OnFull = func(error) { told.Do(func() { time.AfterFunc(min(lacks, 10*time.Second), rule.Remove) }) }
				})
				must(t, err)
				told.Do(func() { t.Fatal("nobody was told") })
				_, err = mem.Stat(marker)
				if gone := errors.Is(err, fs.ErrNotExist); gone != (lacks == time.Hour) {
					t.Errorf("%v for %v: the store was thrown away: %v", op, lacks, gone)
				}
				must(t, r.close())
			})
		}
	}
}

// A vDisk whose recovered writes find no room is open at once: it is read, and says
// why it does not take writes, which wait as flushes do. Whatever cuts it short, no
// write that was acknowledged before is lost; and with room all goes on by itself.
func TestResumeWaitsForRoom(t *testing.T) {
	ctx := context.Background()
	for _, rule := range []faultdisk.Rule{
		{Ops: faultdisk.Allocate, Path: "/data/buffer/..."},
		{Ops: faultdisk.Datasync, Path: "/data/buffer/..."},
		{Ops: faultdisk.Write | faultdisk.Allocate, Path: "tlog-*", Short: 10},
		{Ops: faultdisk.SyncDir, Path: "/data/buffer/*"},
	} {
		for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT} {
			t.Run(rule.Ops.String()+" "+errno.Error(), func(t *testing.T) {
				t.Parallel()
				mem := crashdisk.New()
				r, d := newRig(t, mem, modelDisk, nil)
				write(t, d, 0, 4, 1)
				must(t, d.Flush(ctx))
				write(t, d, 2, 4, 2)
				image := mem.Kill()
				must(t, r.close())

				rule := rule
				rule.Err = errno
				faults := faultdisk.New(image)
				lack := faults.Inject(rule)
				r, err := openRig(faults, nil)
				must(t, err)
				d = open(t, r.host, "v")
				holds := func(d device.Device) {
					t.Helper()
					holdsPattern(t, d, 0, 2, 1)
					holdsPattern(t, d, 2, 4, 2)
				}
				holds(d)
				i, err := r.host.Info(ctx, "v")
				if must(t, err); i.State != StateRunning || !strings.Contains(i.Reason, errno.Error()) {
					t.Fatalf("state %s, reason %q", i.State, i.Reason)
				}
				written, flushed := make(chan error, 1), make(chan error, 1)
				go func() { written <- d.Write(ctx, []device.Span{{Off: 10 * 4096, Data: pattern(3, 1)}}) }()
				go func() { flushed <- d.Flush(ctx) }()
				short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
				if err := d.Flush(short); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a flush that gave up: %v", err)
				}
				if err := d.Write(short, []device.Span{{Off: 11 * 4096, Data: pattern(4, 1)}}); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a write that gave up: %v", err)
				}
				cancel()
				v := volumeOf(t, r, "v")
				for range 3 { // as the second and third try do
					if err := v.buf.GoOn(ctx); !errors.Is(err, errno) {
						t.Fatal(err)
					}
				}
				select {
				case err := <-written:
					t.Fatalf("a write went through: %v", err)
				case err := <-flushed:
					t.Fatalf("a flush went through: %v", err)
				default:
				}
				// Killed, and cut, while it waits.
				for n, left := range []*crashdisk.FS{image.Kill(), image.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll), image.Crash(rand.New(rand.NewPCG(2, 1)), crashdisk.Mixed)} {
					after, err := openRig(left, nil)
					must(t, err)
					d := open(t, after.host, "v")
					holdsPattern(t, d, 0, 2, 1)
					if n == 0 {
						holds(d)
					}
					write(t, d, 8, 1, 9)
					must(t, d.Flush(ctx))
					must(t, after.close())
				}
				lack.Remove()
				must(t, <-written)
				must(t, <-flushed)
				holds(d)
				write(t, d, 12, 1, 5)
				must(t, d.Flush(ctx))
				cut := image.Crash(rand.New(rand.NewPCG(3, 1)), crashdisk.LoseAll)
				must(t, r.host.Sync(ctx, "v", nil))
				if i, err = r.host.Info(ctx, "v"); err != nil || i.Reason != "" {
					t.Errorf("with room again: %q, %v", i.Reason, err)
				}
				must(t, r.close())
				for _, left := range []*crashdisk.FS{cut, image} {
					after, err := openRig(left, nil)
					must(t, err)
					d := open(t, after.host, "v")
					holds(d)
					holdsPattern(t, d, 10, 1, 3)
					holdsPattern(t, d, 12, 1, 5)
					must(t, after.close())
				}
			})
		}
	}
}

// A disk that is bad for a moment at a start is waited out as want of room is; of one
// that stays bad the vDisk is halted within a minute or so, and is read all the same.
func TestResumeOnBadDisk(t *testing.T) {
	ctx := context.Background()
	for _, op := range []faultdisk.Op{faultdisk.Open, faultdisk.Write, faultdisk.Allocate, faultdisk.SyncDir} {
		for _, lasts := range []time.Duration{0, takeUpBad / 2, time.Hour} {
			t.Run(op.String()+" "+lasts.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					mem := crashdisk.New()
					r, d := newRig(t, mem, modelDisk, nil)
					write(t, d, 0, 4, 1)
					must(t, d.Flush(ctx))
					image := mem.Kill()
					must(t, r.close())

					faults := faultdisk.New(image)
					// A TLog of this start, and the directory that names it.
					rule := faultdisk.Rule{Ops: op, Path: "tlog-*", Err: unix.EIO}
					switch {
					case op == faultdisk.SyncDir:
						rule.Path = "/data/buffer/*"
					case op == faultdisk.Open:
						rule.Path, rule.Where = "", func(name string) bool {
							_, err := image.Stat(name)
							return strings.Contains(name, "/tlog-") && err != nil
						}
					}
					if lasts == 0 {
						rule.Times = 1
					}
					inject := faults.Inject(rule)
					r, err := openRig(faults, nil)
					must(t, err)
					if inject.Fired() == 0 {
						t.Fatal("the disk was never bad")
					}
					d = open(t, r.host, "v")
					holdsPattern(t, d, 0, 4, 1)
					i, err := r.host.Info(ctx, "v")
					if must(t, err); i.State != StateRunning || !strings.Contains(i.Reason, unix.EIO.Error()) {
						t.Fatalf("state %s, reason %q", i.State, i.Reason)
					}
					if lasts < time.Hour {
						time.AfterFunc(lasts, inject.Remove)
						write(t, d, 8, 1, 9) // waits
						must(t, d.Flush(ctx))
						must(t, r.close())
						after := reopen(t, image, nil)
						d = open(t, after.host, "v")
						holdsPattern(t, d, 0, 4, 1)
						holdsPattern(t, d, 8, 1, 9)
						return
					}
					begun := time.Now()
					if err := d.Write(ctx, []device.Span{{Data: pattern(3, 1)}}); !errors.Is(err, unix.EIO) {
						t.Errorf("a write to a disk that stays bad: %v", err)
					}
					if took := time.Since(begun); took < takeUpBad/2 || took > 2*takeUpBad {
						t.Errorf("it was refused after %v", took)
					}
					holdsPattern(t, d, 0, 4, 1)
					_ = r.close()
				})
			})
		}
	}
}

// A start on a backend that takes no changes any more ends, and says so: it is not tried
// for ever.
func TestStartOnFailedBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		mem := crashdisk.New()
		r, d := newRig(t, mem, modelDisk, nil)
		write(t, d, 0, 4, 1)
		must(t, d.Flush(ctx))
		image := mem.Kill()
		must(t, r.close())
		begun := time.Now()
		r, err := openRig(image, func(o *Options) {
			back := fault.New(o.Backend)
			rule := back.Add(fault.Rule{Ops: []fault.Op{fault.Put, fault.PutIf}, Err: fmt.Errorf("a sync: %w", backend.ErrFailed)})
			time.AfterFunc(time.Hour, rule.Remove)
			o.Backend = back
		})
		must(t, err)
		if took := time.Since(begun); took > putMax {
			t.Errorf("the start took %v", took)
		}
		if i, err := r.host.Info(ctx, "v"); err != nil || !strings.Contains(i.Reason, backend.ErrFailed.Error()) {
			t.Errorf("state %s, reason %q, %v", i.State, i.Reason, err)
		}
		_ = r.close()
		after := reopen(t, image, nil)
		holdsPattern(t, open(t, after.host, "v"), 0, 4, 1)
	})
}

// A vDisk that waits for room is stopped, and deleted, without waiting for it.
func TestStopWhileResumeWaits(t *testing.T) {
	ctx := context.Background()
	for _, remove := range []bool{false, true} {
		mem := crashdisk.New()
		r, d := newRig(t, mem, modelDisk, nil)
		write(t, d, 0, 4, 1)
		image := mem.Kill()
		must(t, r.close())
		faults := faultdisk.New(image)
		faults.Inject(faultdisk.Rule{Ops: faultdisk.Allocate, Path: "/data/buffer/...", Err: unix.ENOSPC})
		r, err := openRig(faults, nil)
		must(t, err)
		holdsPattern(t, open(t, r.host, "v"), 0, 4, 1)
		if remove {
			must(t, r.host.Delete(ctx, "v"))
			must(t, r.close())
			continue
		}
		begun := time.Now()
		if err := r.host.Close(ctx); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("stopped: %v", err)
		}
		if took := time.Since(begun); took > roomPatience/2 {
			t.Errorf("the stop took %v", took)
		}
		must(t, errors.Join(r.reg.Close(), r.keys.Close(), r.back.Close()))
		after := reopen(t, image.Kill(), nil)
		holdsPattern(t, open(t, after.host, "v"), 0, 4, 1)
	}
}

// Nothing new is acknowledged while the word of a person who accepts a loss cannot be
// taken away: it would hold for what is written after it, too.
func TestAcceptedLossEndsFirst(t *testing.T) {
	ctx := context.Background()
	mem := crashdisk.New()
	r, d := newRig(t, mem, modelDisk, nil)
	write(t, d, 0, 4, 1)
	must(t, d.Flush(ctx))
	word := r.host.buffer.Dir(volumeOf(t, r, "v").id) + "/" + writebuffer.AcceptLoss
	image := mem.Kill()
	must(t, r.close())
	f, err := image.OpenFile(word, disk.Write|disk.Create, 0o600)
	must(t, err)
	must(t, f.Close())
	faults := faultdisk.New(image)
	rule := faults.Inject(faultdisk.Rule{Ops: faultdisk.Remove, Path: writebuffer.AcceptLoss, Err: unix.ENOSPC})
	after := reopen(t, faults, nil)
	d = open(t, after.host, "v")
	holdsPattern(t, d, 0, 4, 1)
	if i, err := after.host.Info(ctx, "v"); err != nil || i.State != StateRunning || i.Reason == "" {
		t.Errorf("state %s, reason %q, %v", i.State, i.Reason, err)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := d.Write(short, []device.Span{{Off: 10 * 4096, Data: pattern(3, 1)}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a write: %v", err)
	}
	rule.Remove()
	write(t, d, 10, 1, 3)
	must(t, after.host.Sync(ctx, "v", nil))
	if _, err := image.Stat(word); err == nil {
		t.Error("the word stays")
	}
}
