package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/asd"
	"openvstorage/alba/fleet"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

// background are options of a backend whose maintenance runs by itself.
func background(fs disk.FS) Options {
	o := options(fs)
	o.Maintain = Maintain{Retry: time.Second}
	o.CacheBytes = 0
	return o
}

// trouble is what befalls a disk.
type trouble struct {
	name, state string
	begin       func(fs *faultdisk.FS, dir string) (end func())
}

var troubles = []trouble{
	{"hang", "failing", func(fs *faultdisk.FS, dir string) func() {
		door := faultdisk.NewGate()
		i := fs.Inject(faultdisk.Rule{Path: dir + "/...", Before: door.Wait})
		return func() { i.Remove(); door.Open() }
	}},
	{"sync hangs", "failing", func(fs *faultdisk.FS, dir string) func() {
		door := faultdisk.NewGate()
		i := fs.Inject(faultdisk.Rule{Ops: faultdisk.Write | faultdisk.Datasync | faultdisk.SyncDir, Path: dir + "/...", Before: door.Wait})
		return func() { i.Remove(); door.Open() }
	}},
	{"slow", "slow", func(fs *faultdisk.FS, dir string) func() {
		i := fs.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: dir + "/...", Before: func(faultdisk.Op, string) { time.Sleep(700 * time.Millisecond) }})
		return i.Remove
	}},
	{"calls", "slow", func(fs *faultdisk.FS, dir string) func() {
		i := fs.Inject(faultdisk.Rule{Path: dir + "/...", Before: func(faultdisk.Op, string) { time.Sleep(600 * time.Millisecond) }})
		return i.Remove
	}},
	{"read-only", "read-only", func(fs *faultdisk.FS, dir string) func() {
		i := fs.Inject(faultdisk.Rule{Ops: changing, Path: dir + "/...", Err: unix.EROFS})
		j := fs.Inject(faultdisk.Rule{Ops: faultdisk.Open, Path: path.Join(dir, asd.IdentityName), Err: unix.EROFS})
		return func() { i.Remove(); j.Remove() }
	}},
}

// load puts objects and reads them back, and notes the worst that befell it.
type load struct {
	mu      sync.Mutex
	longest time.Duration
	errs    []error
	ops     int
}

func (l *load) took(since time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops++
	l.longest = max(l.longest, time.Since(since))
	if err != nil {
		l.errs = append(l.errs, err)
	}
}

func (l *load) run(ctx context.Context, b *Backend, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 5))
	ns := b.Namespace("ns")
	kept := 0
	for i := 0; ctx.Err() == nil; i++ {
		name, want := fmt.Sprintf("%d-%d", seed, i), data(4*i+3)
		begin := time.Now()
		err := ns.Put(context.Background(), name, want)
		l.took(begin, err)
		if err == nil {
			kept = i
		}
		at := rng.IntN(kept + 1)
		if kept-at > 30 {
			at = kept - rng.IntN(30)
		}
		want = data(4*at + 3)
		got := make([]byte, len(want))
		begin = time.Now()
		n, err := ns.Get(context.Background(), fmt.Sprintf("%d-%d", seed, at), got, 0)
		if err == nil && !bytes.Equal(got[:n], want) {
			err = fmt.Errorf("object %d has other bytes", at)
		}
		l.took(begin, err)
		time.Sleep(700 * time.Millisecond)
	}
}

func (b *Backend) stateOf(t *testing.T, number uint64) OSD {
	t.Helper()
	o, err := b.OSD(ctx, number)
	must(t, err)
	return o
}

// Forty times a disk hangs, is slow, or takes no writes, while objects are put and
// read: no call fails, none takes over five seconds, and within ten what is shown is
// right, when it begins and when it is over.
func TestTroubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newDisk(t)
		fs := faultdisk.New(mem)
		b, err := Open(ctx, background(fs))
		must(t, err)
		must(t, b.CreateNamespace(ctx, "ns"))
		running, stop := context.WithCancel(ctx)
		var l load
		var all sync.WaitGroup
		for i := range uint64(3) {
			all.Go(func() { l.run(running, b, i) })
		}
		time.Sleep(3 * time.Second)
		rounds := 24 // each costs more than the one before, as more objects are there
		if testing.Short() {
			rounds = len(troubles)
		}
		for i := range rounds {
			what, disk := troubles[i%len(troubles)], i/len(troubles)%DefaultASD
			number := uint64(disk + 1)
			end := what.begin(fs, asdDir(disk))
			time.Sleep(10 * time.Second)
			for range 5 { // and it stays so
				if o := b.stateOf(t, number); string(o.State) != what.state || o.Reason == "" {
					t.Errorf("round %d: after 10 s of %s disk %d is %s: %s", i, what.name, number, o.State, o.Reason)
				}
				time.Sleep(time.Second)
			}
			if s, err := b.Status(ctx); err != nil || s.Health == HealthOK || len(s.Reasons) == 0 {
				t.Errorf("round %d: the backend is %s, %v, %v", i, s.Health, s.Reasons, err)
			}
			end()
			time.Sleep(10 * time.Second)
			if o := b.stateOf(t, number); o.State != "ok" {
				t.Errorf("round %d: 10 s after %s disk %d is %s: %s", i, what.name, number, o.State, o.Reason)
			}
			l.mu.Lock()
			if l.longest > 5*time.Second || len(l.errs) > 0 {
				t.Fatalf("round %d: after %s of disk %d the longest call took %v; errors: %v", i, what.name, number, l.longest, errors.Join(l.errs...))
			}
			l.longest = 0
			l.mu.Unlock()
		}
		stop()
		all.Wait()
		t.Logf("%d calls", l.ops)
		time.Sleep(time.Minute)
		s, err := b.Status(ctx)
		if must(t, err); s.Health != HealthOK || s.Narrow > 0 {
			t.Errorf("in the end: %+v", s)
		}
		must(t, b.Close())
	})
}

// A stop with a disk that hangs ends within ten seconds, gives back what it has
// locked, names the disk, and touches it no more. A start is ready without it within
// ten seconds, and has it as soon as it answers.
func TestStopAndStartWithAHangingDisk(t *testing.T) {
	for _, busy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			mem := newDisk(t)
			fs := faultdisk.New(mem)
			b, err := Open(ctx, background(fs))
			must(t, err)
			fill(t, b, "ns", 0, 8)
			dir := asdDir(1)
			door := faultdisk.NewGate()
			rule := fs.Inject(faultdisk.Rule{Path: dir + "/...", Before: door.Wait})
			if busy {
				fill(t, b, "ns", 8, 12) // something hangs already
			}
			begin := time.Now()
			err = b.Close()
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("the stop took %v", took)
			}
			if !errors.Is(err, fleet.ErrNotAnswering) || !strings.Contains(err.Error(), dir) {
				t.Errorf("the stop says: %v", err)
			}
			for i := range DefaultASD {
				lock, err := mem.Lock(path.Join(asdDir(i), asd.LockName))
				must(t, err)
				must(t, lock.Close())
			}
			begin = time.Now()
			b, err = Open(ctx, background(fs))
			must(t, err)
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("the start took %v", took)
			}
			if o := b.stateOf(t, 2); o.State != "failing" || o.Reason == "" {
				t.Errorf("after the start the disk is %+v", o)
			}
			fill(t, b, "ns", 12, 16)
			time.Sleep(time.Minute)
			if n := fs.Count(faultdisk.Any, dir+"/..."); n > 200 {
				t.Errorf("%d calls on a disk that does not answer", n)
			}
			rule.Remove()
			door.Open()
			time.Sleep(10 * time.Second)
			if o := b.stateOf(t, 2); o.State != "ok" {
				t.Errorf("with the disk answering it is %+v", o)
			}
			n := 8
			if busy {
				n = 16
			}
			holds(t, b, "ns", n)
			time.Sleep(time.Minute)
			must(t, b.Close())
			b = open(t, mem)
			settled(t, b)
			holds(t, b, "ns", n)
			must(t, b.Close())
		})
	}
}

// A disk that hangs at the very first start is named, and nothing waits for it.
func TestFirstStartWithAHangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := faultdisk.New(newDisk(t))
		door := faultdisk.NewGate()
		fs.Inject(faultdisk.Rule{Path: asdDir(1) + "/...", Before: door.Wait})
		_, err := Open(ctx, background(fs))
		if !errors.Is(err, fleet.ErrNotAnswering) || !strings.Contains(err.Error(), asdDir(1)) {
			t.Errorf("the start says: %v", err)
		}
		door.Open()
	})
}

// Where all disks take their time, so that nobody has the time to ask one after the
// other, none of them is failing, and whoever asks waits as for one.
func TestAskedSideBySide(t *testing.T) {
	for _, call := range []time.Duration{900 * time.Millisecond, 1500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			fs := faultdisk.New(newDisk(t))
			b, err := Open(ctx, background(fs))
			must(t, err)
			fill(t, b, "ns", 0, 4)
			fs.Inject(faultdisk.Rule{Path: "/data/asd/...", Before: func(faultdisk.Op, string) { time.Sleep(call) }})
			for range 5 {
				begin := time.Now()
				asking, cancel := context.WithTimeout(ctx, statusTimeout)
				s, disks, err := b.status(asking)
				cancel()
				if err != nil || time.Since(begin) > 3*time.Second {
					t.Errorf("the status took %v: %v", time.Since(begin), err)
				}
				for _, d := range disks {
					if !d.is.Takes() || d.is.Gone {
						t.Errorf("with %v a call disk %d is %s: %s (%v)", call, d.Number, d.State, d.Reason, s.Reasons)
					}
				}
				begin = time.Now()
				if _, free, err := b.Usage(ctx); err != nil || free == 0 || time.Since(begin) > 3*time.Second {
					t.Errorf("usage: %d free, %v, after %v", free, err, time.Since(begin))
				}
				time.Sleep(700 * time.Millisecond)
			}
			fs.Clear()
			time.Sleep(10 * time.Second)
			must(t, b.Close())
		})
	}
}

// So is one that hangs where mount points are looked for, and links in its path followed.
func TestNewDiskHangsWhereItsMountIsLookedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newDisk(t)
		for _, dir := range []string{"/mnt/0", "/mnt/1", "/mnt/2"} {
			must(t, fs.MkdirAll(dir, 0o700))
		}
		o := background(&systems{fs, map[string]uint64{"/mnt/0": 10, "/mnt/1": 11, "/mnt/2": 12}})
		o.Dirs = []string{"/mnt/0", "/mnt/1", "/mnt/2"}
		hung := ""
		door := faultdisk.NewGate()
		o.Absent = func(dir string) (string, string, bool) {
			if dir == hung {
				door.Wait(0, dir)
			}
			return "", "", false
		}
		hung = "/mnt/1"
		if _, err := Open(ctx, o); !errors.Is(err, fleet.ErrNotAnswering) || !strings.Contains(err.Error(), hung) {
			t.Errorf("the start says: %v", err)
		}
		door.Open()
		synctest.Wait()
		b, err := Open(ctx, o)
		must(t, err)
		door, hung = faultdisk.NewGate(), "/mnt/3" // of a disk to be added
		if err := b.CheckPlace(hung); !errors.Is(err, fleet.ErrNotAnswering) {
			t.Error(err)
		}
		door.Open()
		must(t, b.Close())
	})
}
