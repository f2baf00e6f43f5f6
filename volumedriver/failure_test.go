package volumedriver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"openvstorage/backend"
	"openvstorage/backend/fault"
	"openvstorage/device"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pattern is n clusters that say which write they are of.
func pattern(i, n int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("%07d.", i)), n*512)
}

func write(t *testing.T, d device.Device, cluster, n, i int) {
	t.Helper()
	must(t, d.Write(context.Background(), []device.Span{{Off: int64(cluster) * 4096, Data: pattern(i, n)}}))
}

func holdsPattern(t *testing.T, d device.Reader, cluster, n, i int) {
	t.Helper()
	p := make([]byte, n*4096)
	must(t, d.Read(context.Background(), p, int64(cluster)*4096))
	if at := diff(p, pattern(i, n)); at >= 0 {
		t.Fatalf("cluster %d does not hold write %d: it differs at %d: %q", cluster, i, at, p[at:at+8])
	}
}

// newRig opens a host with a vDisk "v" of size bytes.
func newRig(t *testing.T, fs disk.FS, size uint64, change func(*Options)) (*rig, device.Device) {
	t.Helper()
	r, err := openRig(fs, change)
	must(t, err)
	_, err = r.host.Create(context.Background(), "v", size)
	must(t, err)
	return r, open(t, r.host, "v")
}

func reopen(t *testing.T, fs disk.FS, change func(*Options)) *rig {
	t.Helper()
	r, err := openRig(fs, change)
	must(t, err)
	t.Cleanup(func() { must(t, r.close()) })
	return r
}

func volumeOf(t *testing.T, r *rig, name string) *Volume {
	t.Helper()
	v, err := r.host.table.named(name)
	must(t, err)
	return v
}

// A TLog that cannot be written is retired with every SCO that it names (O3):
// what was flushed before survives the power cut after.
func TestFailedTLogWriteLosesNothing(t *testing.T) {
	ctx := context.Background()
	under := crashdisk.New()
	fs := faultdisk.New(under)
	r, d := newRig(t, fs, modelDisk, nil)
	write(t, d, 0, 4, 1)
	must(t, d.Flush(ctx))
	rule := fs.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: "tlog-*", Times: 1, Err: unix.EIO})
	if err := d.Write(ctx, []device.Span{{Off: 8 * 4096, Data: pattern(2, 1)}}); !errors.Is(err, unix.EIO) {
		t.Fatalf("write to a TLog that fails: %v", err)
	}
	rule.Remove()
	write(t, d, 8, 1, 3)
	must(t, d.Flush(ctx))
	must(t, r.host.Sync(ctx, "v", nil))
	image := under.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
	must(t, r.close())
	after := reopen(t, image, nil)
	holdsPattern(t, open(t, after.host, "v"), 0, 4, 1)
	holdsPattern(t, open(t, after.host, "v"), 8, 1, 3)
}

// The local page store holds nothing that cannot be rebuilt.
func TestLostPageStore(t *testing.T) {
	ctx := context.Background()
	fs := crashdisk.New()
	r, d := newRig(t, fs, 64<<20, nil)
	for i := range 16 {
		write(t, d, i*512, 1, i)
	}
	v := volumeOf(t, r, "v")
	must(t, v.store.checkpointTo(ctx, v.buf.Written()))
	write(t, d, 0, 1, 99)
	must(t, r.close())
	must(t, fs.RemoveAll("/data/map"))
	after := reopen(t, fs, nil)
	d = open(t, after.host, "v")
	holdsPattern(t, d, 0, 1, 99)
	for i := 1; i < 16; i++ {
		holdsPattern(t, d, i*512, 1, i)
	}
	// And it goes on: new checkpoints, and page objects that are merged.
	for i := range 14 {
		write(t, d, i*512, 1, 100+i)
	}
	v = volumeOf(t, after, "v")
	must(t, v.store.checkpointTo(ctx, v.buf.Written()))
	v.store.stop()
	v.gc.sweepDue.Store(true)
	v.gc.due.Store(true)
	must(t, v.gc.collect(ctx))
	holdsPattern(t, d, 3*512, 1, 103)
	holdsPattern(t, d, 15*512, 1, 15)
}

// A registry that knows nothing deletes nothing.
func TestLostRegistry(t *testing.T) {
	ctx := context.Background()
	fs := crashdisk.New()
	r, d := newRig(t, fs, modelDisk, nil)
	write(t, d, 0, 64, 1)
	must(t, r.host.Sync(ctx, "v", nil))
	must(t, r.close())
	must(t, fs.RemoveAll("/data/registry"))
	after := reopen(t, fs, nil)
	names, err := after.back.ListNamespaces(ctx)
	must(t, err)
	if len(names) != 1 {
		t.Errorf("%d namespaces are left, one was there", len(names))
	}
}

// A buffer directory that is gone is damage, not an empty log.
func TestLostBuffer(t *testing.T) {
	ctx := context.Background()
	fs := crashdisk.New()
	r, d := newRig(t, fs, modelDisk, nil)
	write(t, d, 0, 1, 1)
	must(t, d.Flush(ctx))
	dir := path.Join("/data/buffer", volumeOf(t, r, "v").id.String())
	must(t, r.close())
	must(t, fs.RemoveAll(dir))
	after := reopen(t, fs, nil)
	i, err := after.host.Info(ctx, "v")
	must(t, err)
	if i.State != StateHalted || !strings.Contains(i.Reason, dir) {
		t.Errorf("state %s, reason %q", i.State, i.Reason)
	}
	if _, _, err := after.host.OpenDevice(ctx, "v"); !errors.Is(err, ErrHalted) {
		t.Errorf("it opens: %v", err)
	}
}

// damage flips a bit of every copy of text in the SCO files of the buffer.
func damage(t *testing.T, fs disk.FS, dir string, text []byte) (file string) {
	t.Helper()
	names, err := fs.ReadDir(dir)
	must(t, err)
	for _, name := range names {
		if !strings.HasPrefix(name, "sco-") {
			continue
		}
		f, err := fs.OpenFile(path.Join(dir, name), disk.Write, 0)
		must(t, err)
		n, err := f.Size()
		must(t, err)
		b := make([]byte, n)
		_, err = f.ReadAt(b, 0)
		must(t, err)
		if at := bytes.Index(b, text); at >= 0 {
			_, err = f.WriteAt([]byte{b[at] ^ 1}, int64(at))
			must(t, err)
			file = name
		}
		must(t, f.Close())
	}
	return file
}

// Damage to what was durable halts the vDisk (P3): writes fail, the damaged
// cluster fails by name, and everything else reads right, what was written
// after the damaged cluster too.
func TestDamagedCluster(t *testing.T) {
	ctx := context.Background()
	fs := crashdisk.New()
	r, d := newRig(t, fs, modelDisk, nil)
	for i := range 8 {
		write(t, d, i, 1, 10+i)
	}
	write(t, d, 0, 1, 20)
	dir := path.Join("/data/buffer", volumeOf(t, r, "v").id.String())
	must(t, r.close())
	file := damage(t, fs, dir, pattern(13, 1))
	after := reopen(t, fs, nil)
	i, err := after.host.Info(ctx, "v")
	must(t, err)
	if i.State != StateHalted || !strings.Contains(i.Reason, file) {
		t.Fatalf("state %s, reason %q, damaged %s", i.State, i.Reason, file)
	}
	d = open(t, after.host, "v")
	holdsPattern(t, d, 0, 1, 20)
	holdsPattern(t, d, 7, 1, 17)
	if err := d.Read(ctx, make([]byte, 4096), 3*4096); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), file) {
		t.Errorf("the damaged cluster reads: %v", err)
	}
	if err := d.Write(ctx, []device.Span{{Off: 0, Data: pattern(1, 1)}}); !errors.Is(err, ErrHalted) || !errors.Is(err, syscall.EIO) {
		t.Errorf("a halted vDisk takes a write: %v", err)
	}
	if _, err := after.host.SnapshotCreate(ctx, "v", "s"); !errors.Is(err, ErrHalted) {
		t.Errorf("a halted vDisk takes a snapshot: %v", err)
	}
	must(t, after.host.Delete(ctx, "v"))
}

// A deletion that a crash interrupts is finished at the next start, and the
// buffer's room comes back.
func TestInterruptedDelete(t *testing.T) {
	ctx := context.Background()
	fs := crashdisk.New()
	r, d := newRig(t, fs, 64<<20, nil)
	for i := range 30 {
		write(t, d, i*256, 256, i)
	}
	must(t, r.reg.MarkDeleting(ctx, volumeOf(t, r, "v").id, volumeOf(t, r, "v").held))
	image := fs.Kill()
	must(t, r.close())
	after := reopen(t, image, nil)
	list, err := after.host.List(ctx)
	must(t, err)
	names, err := after.back.ListNamespaces(ctx)
	must(t, err)
	pool, err := image.ReadDir("/data/buffer/pool")
	must(t, err)
	u := after.host.buffer.Usage()
	if len(list) != 0 || len(names) != 0 || u.Dirty != 0 || u.Bytes > int64(len(pool)+1)*after.host.buffer.SCOSize() {
		t.Errorf("%d vDisks, %d namespaces, %d files in the pool, %+v", len(list), len(names), len(pool), u)
	}
}

// More vDisks than the buffer has files: all of them can be written.
func TestManyVolumesSmallBuffer(t *testing.T) {
	r, err := openRig(crashdisk.New(), nil)
	must(t, err)
	defer func() { must(t, r.close()) }()
	const n = 40 // the buffer has 16 files
	for round := range 2 {
		for i := range n {
			name := fmt.Sprintf("v%d", i)
			if round == 0 {
				_, err := r.host.Create(context.Background(), name, modelDisk)
				must(t, err)
			}
			write(t, open(t, r.host, name), round, 3, i)
		}
	}
	for i := range n {
		holdsPattern(t, open(t, r.host, fmt.Sprintf("v%d", i)), 1, 3, i)
	}
}

// A backend out of space: a writer that lacks room is told so (P6), nothing is lost,
// and everything goes on when there is space again.
func TestBackendFull(t *testing.T) {
	ctx := context.Background()
	var back *fault.Store
	r, d := newRig(t, crashdisk.New(), 256<<20, func(o *Options) { back = fault.New(o.Backend); o.Backend = back })
	defer func() { must(t, r.close()) }()
	rule := back.Add(fault.Rule{Ops: []fault.Op{fault.Put}, Err: backend.ErrNoSpace})
	refused := -1
	for i := range 256 {
		if err := d.Write(ctx, []device.Span{{Off: int64(i) << 20, Data: pattern(i, 256)}}); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("write %d: %v", i, err)
			}
			refused = i
			break
		}
	}
	if refused < 32 {
		t.Fatalf("write %d was the first to be refused, the buffer has 64 MiB", refused)
	}
	rule.Remove()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := d.Write(ctx, []device.Span{{Off: int64(refused) << 20, Data: pattern(refused, 256)}})
		if err == nil {
			break
		} else if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		must(t, r.host.Sync(ctx, "v", nil))
	}
	for i := range refused + 1 {
		holdsPattern(t, d, i*256, 256, i)
	}
}

// Clones of clones, each written on, none seen by the others; what hangs off
// something keeps it, by name.
func TestCloneTree(t *testing.T) {
	ctx := context.Background()
	fs := crashdisk.New()
	r, d := newRig(t, fs, modelDisk, nil)
	write(t, d, 0, 8, 1)
	_, err := r.host.SnapshotCreate(ctx, "v", "base")
	must(t, err)
	write(t, d, 1, 1, 2)
	clone := func(src, snap, dst string) device.Device {
		_, err := r.host.Clone(ctx, src, snap, dst, nil)
		must(t, err)
		return open(t, r.host, dst)
	}
	write(t, clone("v", "base", "a"), 2, 1, 3)
	write(t, clone("a", "", "b"), 3, 1, 4)
	if err := r.host.Delete(ctx, "v"); !errors.Is(err, ErrHasChildren) || !strings.Contains(err.Error(), "a") {
		t.Errorf("a vDisk with a clone is deleted: %v", err)
	}
	if err := r.host.SnapshotDelete(ctx, "v", "base"); !errors.Is(err, ErrHasChildren) || !strings.Contains(err.Error(), "a") {
		t.Errorf("a snapshot with a clone is deleted: %v", err)
	}
	must(t, r.close())
	after := reopen(t, fs, nil)
	check := func(name string, want ...int) {
		for cluster, i := range want {
			holdsPattern(t, open(t, after.host, name), cluster, 1, i)
		}
	}
	check("v", 1, 2, 1, 1, 1)
	check("a", 1, 1, 3, 1, 1)
	check("b", 1, 1, 3, 4, 1)
	must(t, after.host.Delete(ctx, "b"))
	must(t, after.host.Delete(ctx, "a"))
	must(t, after.host.SnapshotDelete(ctx, "v", "base"))
	must(t, after.host.Delete(ctx, "v"))
	names, err := after.back.ListNamespaces(ctx)
	must(t, err)
	if len(names) != 0 {
		t.Errorf("%d namespaces are left", len(names))
	}
}

// Overwriting leaves no garbage behind but what waits for a checkpoint.
func TestSpaceComesBack(t *testing.T) {
	ctx := context.Background()
	r, d := newRig(t, crashdisk.New(), 64<<20, nil)
	defer func() { must(t, r.close()) }()
	for pass := range 8 {
		for i := range 64 {
			write(t, d, i*256, 256, pass*64+i)
		}
	}
	must(t, r.host.Sync(ctx, "v", nil))
	v := volumeOf(t, r, "v")
	must(t, v.store.checkpointTo(ctx, v.buf.Written()))
	used := func() (n int64) {
		must(t, v.namespace().List(ctx, "sco-", func(i backend.Info) bool { n += i.Size; return true }))
		return n
	}
	for range 100 { // what the checkpoint lets go is collected at the storer's next step
		if used() < 96<<20 {
			return
		}
		must(t, v.store.checkpointTo(ctx, v.buf.Written()))
		must(t, r.host.Sync(ctx, "v", nil))
		v.store.ring()
		select {
		case <-v.store.stored.Next():
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Errorf("%d MiB of SCOs for a vDisk of 64 MiB", used()>>20)
}

// A vDisk that nobody writes is stored without being asked.
func TestIdleIsStored(t *testing.T) {
	r, d := newRig(t, crashdisk.New(), modelDisk, func(o *Options) { o.IdleSeal = 10 * time.Millisecond })
	defer func() { must(t, r.close()) }()
	write(t, d, 0, 8, 1)
	v := volumeOf(t, r, "v")
	written := v.buf.Written()
	for v.cat.storedSeq() < written {
		<-v.store.stored.Next()
	}
}

// A registry that does not know a clone is no witness that the clone never was:
// its parent keeps what it needs.
func TestRegistryWithoutAClone(t *testing.T) {
	ctx := context.Background()
	fs := crashdisk.New()
	r, d := newRig(t, fs, modelDisk, nil)
	write(t, d, 0, 64, 1)
	_, err := r.host.Clone(ctx, "v", "", "c", nil)
	must(t, err)
	write(t, d, 0, 64, 2)
	write(t, open(t, r.host, "c"), 1, 1, 3)
	for _, name := range []string{"v", "c"} {
		must(t, r.host.Sync(ctx, name, nil))
	}
	id := volumeOf(t, r, "c").id
	record, err := r.reg.Get(ctx, id)
	must(t, err)
	must(t, r.reg.Remove(ctx, id, record.Holder()))
	must(t, r.close())

	after, err := openRig(fs, nil)
	must(t, err)
	v := volumeOf(t, after, "v")
	children, snapshots := len(v.cat.current().Children), len(v.cat.current().Snapshots)
	if children != 1 || snapshots != 1 {
		t.Errorf("the parent has %d clones and %d snapshots, and had one of each", children, snapshots)
	}
	must(t, v.store.checkpointTo(ctx, v.buf.Written()))
	v.store.stop()
	v.gc.due.Store(true)
	must(t, v.gc.collect(ctx))
	must(t, after.reg.Register(ctx, record))
	must(t, after.close())

	again := reopen(t, fs, nil)
	c := open(t, again.host, "c")
	holdsPattern(t, c, 0, 1, 1)
	holdsPattern(t, c, 1, 1, 3)
}
