package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	albahere "openvstorage/alba/embedded"
	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/size"
	"openvstorage/volumedriver"
)

// What fills up under the data directory, while the disks of the backend have room.
// In each case the file system (or the user's quota) is full below the directory,
// over and over: others take what the process gives up.
var fills = []struct {
	name string
	fill func(fs *faultdisk.FS) *faultdisk.Quota
}{
	{"all", func(fs *faultdisk.FS) *faultdisk.Quota { return fs.Limit("/data", 0).Disk(1 << 30) }},
	{"a little left", func(fs *faultdisk.FS) *faultdisk.Quota { return fs.Limit("/data", 2<<20).Disk(1 << 30) }},
	{"quota", func(fs *faultdisk.FS) *faultdisk.Quota { return fs.Limit("/data", 0).User() }},
	{"names", func(fs *faultdisk.FS) *faultdisk.Quota { return fs.Limit("/data", 1<<40).Disk(1 << 40).Names(24) }},
	{"buffer", func(fs *faultdisk.FS) *faultdisk.Quota { return fs.Limit("/data/buffer", 0) }},
	{"arakoon", func(fs *faultdisk.FS) *faultdisk.Quota { return fs.Limit("/data/arakoon", 0) }},
	{"map", func(fs *faultdisk.FS) *faultdisk.Quota { return fs.Limit("/data/map", 0) }},
	{"cache", func(fs *faultdisk.FS) *faultdisk.Quota { return fs.Limit("/data/cache", 0) }},
}

// fullRig is a whole process on a disk that runs full.
type fullRig struct {
	t    *testing.T
	mem  *crashdisk.FS
	fs   *faultdisk.FS
	rng  *rand.Rand
	w    *whole
	want []byte // of the vDisk
	ops  uint64
}

const fullDisk = 16 << 20

func newFullRig(t *testing.T) *fullRig {
	r := &fullRig{t: t, mem: crashdisk.New(), rng: rand.New(rand.NewPCG(1, 7)), want: make([]byte, fullDisk)}
	r.fs = faultdisk.New(r.mem)
	r.open()
	_, err := r.w.Host.Create(context.Background(), "v", fullDisk)
	must(t, err)
	return r
}

func (r *fullRig) open() {
	r.t.Helper()
	r.await(r.begin(nil))
}

// begin begins a start, which logs to logger unless that is nil.
func (r *fullRig) begin(logger *slog.Logger) <-chan error {
	opened := make(chan error, 1)
	go func() {
		w, err := openWholeWith(r.fs, func(o *hostOptions) {
			o.writeBuffer = 64 * size.MiB
			if logger != nil {
				o.logger = logger
			}
			sizes := o.tune
			o.tune = func(a *albahere.Options) {
				sizes(a)
				a.Dirs = []string{"/asd/1", "/asd/2", "/asd/3"}
			}
		})
		r.w = w
		opened <- err
	}()
	return opened
}

// await waits for the end of a start.
func (r *fullRig) await(opened <-chan error) {
	r.t.Helper()
	select {
	case err := <-opened:
		must(r.t, err)
	case <-time.After(time.Minute):
		r.t.Fatal("the start waits")
	}
}

// write writes n ranges, flushing now and then. What it is told of no error is
// demanded ever after.
func (r *fullRig) write(ctx context.Context, n int) error {
	dev, release, err := openDisk(ctx, r.w.Host, "v")
	if err != nil {
		return err
	}
	defer release()
	for range n {
		r.ops++
		at := r.rng.IntN(fullDisk/4096-64) * 4096
		p := make([]byte, (1+r.rng.IntN(64))*4096)
		for i := 0; i < len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], r.ops<<16+uint64(i))
		}
		if err := dev.Write(ctx, []device.Span{{Off: int64(at), Data: p}}); err != nil {
			return fmt.Errorf("write %d: %w", r.ops, err)
		}
		copy(r.want[at:], p)
		if r.rng.IntN(8) == 0 {
			if err := dev.Flush(ctx); err != nil {
				return fmt.Errorf("flush after write %d: %w", r.ops, err)
			}
		}
	}
	return nil
}

// read demands what was written, and that nothing is halted.
func (r *fullRig) read() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var dev device.Device
	for { // a vDisk that met no room while it was opened opens by itself
		d, release, err := openDisk(ctx, r.w.Host, "v")
		if err == nil {
			defer release()
			dev = d
			break
		}
		if ctx.Err() != nil {
			r.t.Fatal(err)
		}
	}
	got := make([]byte, fullDisk)
	must(r.t, dev.Read(ctx, got, 0))
	if !bytes.Equal(got, r.want) {
		r.t.Fatal("not what was written")
	}
	infos, err := r.w.Host.List(ctx)
	must(r.t, err)
	for _, i := range infos {
		if i.State != volumedriver.StateRunning {
			r.t.Fatalf("%s is %s: %s", i.Name, i.State, i.Reason)
		}
	}
}

// While the backend has room a full disk makes writes wait, and never fail; with room
// all goes on without a restart (P6).
func TestFullWhileRunning(t *testing.T) {
	for _, f := range fills {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			r := newFullRig(t)
			must(t, r.write(context.Background(), 100))
			for range 2 {
				q := f.fill(r.fs)
				done := make(chan error, 1)
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
				go func() { done <- r.write(ctx, 600) }() // more than the buffer holds
				took, filled := 0, false
				for !filled && took < 100 {
					select {
					case err := <-done:
						done <- err
						filled = true
					case <-time.After(5 * time.Millisecond): // somebody takes what there is, or the writer is through
						took++
						if left := q.Left(); left < 1<<30 {
							q.Grow(-left)
						}
					}
				}
				q.Remove()
				err := <-done
				cancel()
				if err != nil {
					t.Fatal(err)
				}
				r.read()
			}
			_, err := r.w.Host.Create(context.Background(), "other", fullDisk)
			must(t, err)
			must(t, r.w.Host.Sync(context.Background(), "v", nil))
			must(t, r.w.Close(context.Background()))
			r.open()
			r.read()
			must(t, r.w.Close(context.Background()))
		})
	}
}

// A start on a full disk is ready and serves reads, after a stop and after kill -9;
// and when there is room, writes go on.
func TestFullStart(t *testing.T) {
	for _, f := range fills {
		if f.name == "arakoon" {
			continue // on a file system of its own, with nothing that could go: it waits, and says so
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			r := newFullRig(t)
			must(t, r.write(context.Background(), 300))
			for n := range 2 {
				if n == 0 {
					must(t, r.w.Close(context.Background()))
				} else { // what is killed writes no more
					image := r.mem.Kill()
					must(t, r.w.Close(context.Background()))
					r.mem, r.fs = image, faultdisk.New(image)
				}
				q := f.fill(r.fs)
				r.open()
				r.read()
				q.Remove()
				must(t, r.write(context.Background(), 300))
				r.read()
			}
			must(t, r.w.Close(context.Background()))
		})
	}
}

// heard is a log that tells when a start says that it waits.
type heard struct {
	slog.Handler
	once sync.Once
	said chan struct{}
}

func (h *heard) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "waits") {
		h.once.Do(func() { close(h.said) })
	}
	return nil
}
func (h *heard) Enabled(context.Context, slog.Level) bool { return true }
func (h *heard) WithAttrs([]slog.Attr) slog.Handler       { return h }

// A start on a full disk that finds nothing to give up any more is ready all the same
// and serves reads, unless the groups themselves have no room at all: then it says
// what it waits for. With room all goes on by itself.
func TestFullStartWithNothingLeft(t *testing.T) {
	for _, f := range fills {
		for _, spares := range []bool{true, false} {
			t.Run(fmt.Sprint(f.name, ", spares ", spares), func(t *testing.T) {
				t.Parallel()
				r := newFullRig(t)
				must(t, r.write(context.Background(), 300))
				image := r.mem.Kill()
				must(t, r.w.Close(context.Background()))
				r.mem, r.fs = image, faultdisk.New(image)
				gone := []string{"/data/reserve"}
				names, err := r.fs.ReadDir("/data/buffer/pool")
				must(t, err)
				for _, name := range names {
					gone = append(gone, "/data/buffer/pool/"+name)
				}
				for _, group := range []string{"registry", "abm", "nsm-0"} {
					if !spares {
						gone = append(gone, "/data/arakoon/"+group+"/log/spare")
					}
				}
				for _, name := range gone {
					if err := r.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
						t.Fatal(err)
					}
				}
				q := f.fill(r.fs)
				switch f.name {
				case "names":
					q.Names(0)
				case "a little left":
					q.Grow(-q.Left())
				}
				log := &heard{said: make(chan struct{})}
				opened := r.begin(slog.New(log))
				alone := f.name == "buffer" || f.name == "map" || f.name == "cache" // the groups have room
				if alone {
					r.await(opened)
					r.read()
				} else {
					select {
					case <-log.said:
					case err := <-opened: // it has said so, and emptied DIR/map
						must(t, err)
						<-log.said
						alone = true
						r.read()
					case <-time.After(time.Minute):
						t.Fatal("it waits, and does not say so")
					}
				}
				written := make(chan error, 1)
				if f.name == "buffer" {
					go func() { written <- r.write(context.Background(), 20) }()
				} else {
					written <- nil
				}
				q.Remove()
				must(t, <-written)
				if !alone {
					r.await(opened)
				}
				must(t, r.write(context.Background(), 50))
				r.read()
				must(t, r.w.Close(context.Background()))
			})
		}
	}
}

// A stop on a full disk ends, and what was written is there afterwards.
func TestFullStop(t *testing.T) {
	for _, f := range fills {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			r := newFullRig(t)
			must(t, r.write(context.Background(), 200))
			q := f.fill(r.fs)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- r.write(ctx, 100) }()
			select {
			case err := <-done:
				must(t, err)
			case <-time.After(time.Second): // it waits
				cancel()
				if err := <-done; err != nil && !errors.Is(err, context.Canceled) || errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
				// What was under way was done or not.
				dev, release, err := openDisk(context.Background(), r.w.Host, "v")
				must(t, err)
				must(t, dev.Read(context.Background(), r.want, 0))
				release()
			}
			cancel()
			stopped := make(chan error, 1)
			go func() { stopped <- r.w.Close(context.Background()) }()
			select {
			case err := <-stopped:
				if err != nil {
					t.Logf("stop: %v", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("the stop waits")
			}
			q.Remove()
			r.open()
			r.read()
			must(t, r.w.Close(context.Background()))
		})
	}
}
