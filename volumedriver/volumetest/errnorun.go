package volumetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"openvstorage/device"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/volumedriver"
)

// errnoSize is the size of the vDisks that are worked on.
const errnoSize = 1 << 20

// errnoDisk is a vDisk with its model.
type errnoDisk struct {
	name  string
	h     *history
	acked int // operations that were acknowledged
	// unsure: an operation has failed, and may have happened or not. No operation
	// follows it in the run.
	unsure bool
}

func (d errnoDisk) copy() *errnoDisk {
	d.h = d.h.until(len(d.h.ops))
	return &d
}

// errnoBase holds what runs start from: the images of a system that was closed, of one
// that was killed, and of one whose power was cut. Each has a snapshot, a clone, and
// flushed data in the write buffer and in the backend.
type errnoBase struct {
	images map[string]*crashdisk.FS
	models map[string][]*errnoDisk
}

// disks are the vDisks of an image.
func (b *errnoBase) disks(image string) (list []*errnoDisk) {
	for _, d := range b.models[image] {
		list = append(list, d.copy())
	}
	return list
}

func newErrnoBase(t *testing.T, open Opener, rng *rand.Rand) *errnoBase {
	mem := crashdisk.New()
	r := &errnoRun{open: open, mem: mem, fs: faultdisk.New(mem)}
	r.disks = []*errnoDisk{{name: "v", h: newHistory(errnoSize)}, {name: "c", h: newHistory(errnoSize)}}
	must := func(err error) {
		if err = errors.Join(append(r.told, err)...); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	r.sys, err = open(mem)
	must(err)
	ctx := context.Background()
	_, err = r.sys.Host.Create(ctx, "v", errnoSize)
	must(err)
	v, c := r.disks[0], r.disks[1]
	for range 3 {
		r.write(v, rng.Int64N(200), 40)
		must(r.sys.Host.Sync(ctx, "v", nil))
		must(r.sys.Host.Checkpoint(ctx, "v"))
	}
	_, err = r.sys.Host.Clone(ctx, "v", "", "c", nil)
	must(err)
	c.h = v.h.until(len(v.h.ops))
	c.acked, c.h.flushed = len(c.h.ops), len(c.h.ops)
	r.write(c, 3, 20)
	r.flush(c)
	r.snapshot(v, "s")
	r.write(v, 100, 30)
	must(r.sys.Host.CloseTLog("v"))
	r.write(v, 60, 9)
	r.flush(v)
	b := &errnoBase{images: map[string]*crashdisk.FS{}, models: map[string][]*errnoDisk{}}
	b.images["cut"] = mem.Crash(rng, crashdisk.Mixed)
	b.models["cut"] = r.disks
	r.disks = []*errnoDisk{v.copy(), c.copy()}
	r.write(r.disks[0], 7, 3)
	must(nil)
	b.images["killed"], b.models["killed"] = mem.Kill(), r.disks
	must(r.sys.Close())
	b.images["closed"], b.models["closed"] = mem, r.disks
	return b
}

// errnoRun is one run of a system.
type errnoRun struct {
	open  Opener
	mem   *crashdisk.FS
	fs    *faultdisk.FS
	sys   *System // nil: it refused to start
	disks []*errnoDisk

	moment atomic.Value // for counting
	told   []error      // errors that the system returned or listed
	halted []string     // reasons of what was halted, or had failed, at the end of the work
	n      int          // number of the last write
}

// all makes a whole run. It calls begin at the moment at: from there on things go wrong.
// The error is of something that must not happen even then.
func (r *errnoRun) all(at string, begin func()) (err error) {
	moment := func(m string) {
		r.moment.Store(m)
		if m == at {
			begin()
		}
	}
	moment(atStart)
	if r.sys, err = r.open(r.fs); err != nil {
		r.told = append(r.told, err)
		return nil
	}
	moment(atWork)
	err = r.work()
	moment(atStop)
	if e := r.sys.Close(); e != nil {
		r.told = append(r.told, e)
	}
	if at == atNothing {
		err = errors.Join(append(r.told, err)...)
	}
	return err
}

// work does one or more operations of each kind.
func (r *errnoRun) work() error {
	v, c := r.disks[0], r.disks[1]
	h := r.sys.Host
	r.write(v, 20, 5)
	r.flush(v)
	r.read(c)
	r.write(c, 50, 10)
	r.do(nil, "sync c", func(ctx context.Context) error { return h.Sync(ctx, "c", nil) })
	r.snapshot(v, "t")
	r.write(v, 0, 30)
	r.do(nil, "close the TLog of v", func(context.Context) error { return h.CloseTLog("v") })
	r.write(v, 90, 20)
	r.do(nil, "sync v", func(ctx context.Context) error { return h.Sync(ctx, "v", nil) })
	r.do(nil, "checkpoint v", func(ctx context.Context) error { return h.Checkpoint(ctx, "v") })
	made := r.do(nil, "create w", func(ctx context.Context) error {
		_, err := h.Create(ctx, "w", errnoSize)
		return err
	})
	r.write(v, 5, 2)
	r.flush(v)
	r.read(v)
	r.write(c, 9, 1)
	r.flush(c)
	return r.checkAll(made)
}

// patience is how long a call may take when nothing has failed.
const patience = 20 * time.Second

// do makes a call. It gives the call up when what the vDisks rest on has failed.
func (r *errnoRun) do(d *errnoDisk, what string, call func(context.Context) error) bool {
	if d != nil && d.unsure {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	go func() {
		for tick := time.NewTicker(time.Millisecond); r.failed() == nil; {
			select {
			case <-tick.C:
			case <-done:
				tick.Stop()
				return
			}
		}
		cancel()
	}()
	err := call(ctx)
	if err == nil {
		return true
	}
	if r.failed() == nil || !errors.Is(err, context.Canceled) {
		r.told = append(r.told, fmt.Errorf("%s: %w", what, err))
	}
	if d != nil {
		d.unsure = true
	}
	return false
}

// failed returns why what the vDisks rest on has failed, nil if it has not.
func (r *errnoRun) failed() error {
	if r.sys.Err == nil {
		return nil
	}
	return r.sys.Err()
}

// with calls fn with a vDisk's device.
func (r *errnoRun) with(d *errnoDisk, what string, fn func(context.Context, device.Device) error) bool {
	return r.do(d, what+" "+d.name, func(ctx context.Context) error {
		dev, release, err := r.sys.Host.OpenDevice(ctx, d.name)
		if err != nil {
			return err
		}
		defer release()
		return fn(ctx, dev.(device.Device))
	})
}

// write writes n clusters, some of them trimmed afterwards.
func (r *errnoRun) write(d *errnoDisk, cluster, n int64) {
	if d.unsure {
		return
	}
	r.n++
	off, size := cluster*4096, min(n*4096, errnoSize-cluster*4096)
	data := bytes.Repeat(fmt.Appendf(nil, "%07d.", r.n), int(size)/8)
	d.h.addRange(off, size, func(s *modelState, from, to int64) { copy(s.data[from:to], data[from-off:]) })
	if r.with(d, "write", func(ctx context.Context, dev device.Device) error {
		return dev.Write(ctx, []device.Span{{Off: off, Data: data}})
	}) {
		d.acked = len(d.h.ops)
	}
}

func (r *errnoRun) flush(d *errnoDisk) {
	if r.with(d, "flush", func(ctx context.Context, dev device.Device) error { return dev.Flush(ctx) }) {
		d.h.flushed = d.acked
	}
}

func (r *errnoRun) snapshot(d *errnoDisk, name string) {
	if d.unsure {
		return
	}
	d.h.add(func(s *modelState) { s.snaps[name] = bytes.Clone(s.data) })
	if r.do(d, "snapshot "+d.name, func(ctx context.Context) error {
		_, err := r.sys.Host.SnapshotCreate(ctx, d.name, name)
		return err
	}) {
		d.acked = len(d.h.ops)
		d.h.flushed = d.acked
	}
}

// read reads a vDisk. A read may fail because of the one errno of the run; it succeeds
// when it is made again.
func (r *errnoRun) read(d *errnoDisk) {
	for try := range 2 {
		_, err := r.contents(d)
		if err == nil {
			return
		}
		r.told = append(r.told, err)
		if try == 1 && !r.isHalted(d) && r.failed() == nil {
			r.told = append(r.told, fmt.Errorf("%s cannot be read again, and is not halted: %w", d.name, errAlways))
		}
	}
}

var errAlways = errors.New("this must never be")

func (r *errnoRun) contents(d *errnoDisk) (got []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dev, release, err := r.sys.Host.OpenDevice(ctx, d.name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", d.name, err)
	}
	defer release()
	got = make([]byte, errnoSize)
	for off := 0; off < len(got) && err == nil; off += 256 << 10 {
		if err = dev.Read(ctx, got[off:off+256<<10], int64(off)); err != nil {
			err = fmt.Errorf("read %s: %w", d.name, err)
		}
	}
	return got, err
}

func (r *errnoRun) isHalted(d *errnoDisk) bool {
	i, err := r.sys.Host.Info(context.Background(), d.name)
	return err != nil || i.State == volumedriver.StateHalted
}

// checkAll notes which vDisks are halted, and reads all: no byte may be wrong, and only a
// halted one may fail. made says whether the vDisk w was created; if that failed, w may be
// listed as halted until the next start.
func (r *errnoRun) checkAll(made bool) error {
	list, err := r.sys.Host.List(context.Background())
	if err != nil {
		return err
	}
	for _, i := range list {
		if i.State == volumedriver.StateHalted {
			if i.Name != "w" || made {
				r.halted = append(r.halted, i.Reason)
			}
			r.told = append(r.told, errors.New(i.Reason))
		}
	}
	if err := r.failed(); err != nil {
		r.halted = append(r.halted, err.Error())
		r.told = append(r.told, err)
	}
	for _, d := range r.disks {
		got, e := r.contents(d)
		if e != nil && !r.isHalted(d) && r.failed() == nil { // the one error that there is
			r.told = append(r.told, e)
			if got, e = r.contents(d); e != nil {
				return fmt.Errorf("not halted, and not read: %w", e)
			}
		}
		if e == nil {
			_, e = d.reached(got, d.acked)
			err = errors.Join(err, e)
		}
	}
	return err
}

// reached finds how many of its operations a vDisk holds, at least so many.
func (d *errnoDisk) reached(got []byte, least int) (int, error) {
	s := d.h.after(least)
	for n := least; ; n++ {
		if bytes.Equal(s.data, got) {
			return n, nil
		}
		if n == len(d.h.ops) {
			break
		}
		d.h.ops[n](s)
	}
	at := diff(got, d.h.after(least).data)
	return 0, fmt.Errorf("%s holds no state from operation %d to %d of %d: it differs in cluster %d, %q", d.name, least, len(d.h.ops), len(d.h.ops), at/4096, got[at:at+8])
}

// judgeTold demands that the errors of the run name the file and the errno.
func (r *errnoRun) judgeTold(errno syscall.Errno, name string) error {
	var errs []error
	for _, err := range r.told {
		text := err.Error()
		switch {
		case errors.Is(err, errAlways):
		case strings.Contains(text, errno.Error()) && (strings.Contains(text, path.Base(name)) || strings.Contains(text, path.Dir(name))):
			continue
		case errors.Is(err, context.DeadlineExceeded):
			err = fmt.Errorf("it waits for ever: %w", err)
		default:
			err = fmt.Errorf("it names %q and the error not: %w", name, err)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// anew starts again with nothing wrong: all is there, and well.
func (r *errnoRun) anew(judge Opener, c ErrnoCase) error {
	least := func(d *errnoDisk) int { return d.acked }
	if c.Image == "cut" || c.Op&(faultdisk.Datasync|faultdisk.Sync|faultdisk.Prewrite) != 0 {
		least = func(d *errnoDisk) int { return d.h.flushed } // the rest may have gone with the failed sync
	}
	if err := r.reopened(judge, r.mem, least); err != nil {
		return fmt.Errorf("started again: %w", err)
	}
	return nil
}

func (r *errnoRun) reopened(judge Opener, fs disk.FS, least func(*errnoDisk) int) error {
	sys, err := judge(fs)
	if err != nil {
		return err
	}
	again := &errnoRun{sys: sys}
	for _, d := range r.disks {
		got, e := again.contents(d)
		if e == nil {
			_, e = d.reached(got, least(d))
		}
		err = errors.Join(err, e)
	}
	list, e := sys.Host.List(context.Background())
	for _, i := range list {
		if i.State == volumedriver.StateHalted {
			e = errors.Join(e, errors.New(i.Reason))
		}
	}
	return errors.Join(err, e, sys.Close())
}
