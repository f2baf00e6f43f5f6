package transport_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"openvstorage/device"
	"openvstorage/fusefs/transport"
	"openvstorage/fusefs/transport/ringtest"
)

// limit is how long what must not hang may take.
const limit = 30 * time.Second

// file is one in memory. Every other of its requests says that it would have to
// wait, the first time; while gate is closed all of them do wait.
type file struct {
	gofs.Inode
	mu    sync.Mutex
	data  []byte
	turn  int
	gate  chan struct{} // nil: open
	began chan struct{} // one for each that waits
}

func (f *file) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	out.Mode, out.Size = syscall.S_IFREG|0o600, uint64(len(f.data))
	return 0
}

func (f *file) Open(context.Context, uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES, 0
}

func (f *file) wait(ctx context.Context) syscall.Errno {
	f.mu.Lock()
	f.turn++
	gate, turn := f.gate, f.turn
	f.mu.Unlock()
	if !transport.MayWait(ctx) {
		if gate != nil || turn%2 == 0 {
			return syscall.EAGAIN
		}
		return 0
	}
	if gate == nil {
		return 0
	}
	f.began <- struct{}{}
	select {
	case <-gate:
		return 0
	case <-ctx.Done():
		return syscall.EINTR
	}
}

func (f *file) Read(ctx context.Context, _ gofs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if e := f.wait(ctx); e != 0 {
		return nil, e
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return fuse.ReadResultData(dest[:copy(dest, f.data[min(off, int64(len(f.data))):])]), 0
}

func (f *file) Write(ctx context.Context, _ gofs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if len(data)%2 == 0 && transport.Gather(ctx, f, off, data) {
		return 0, transport.Gathered
	}
	if e := f.wait(ctx); e != 0 {
		return 0, e
	}
	if bytes.HasPrefix(data, []byte("panic")) {
		panic("as the test wants")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint32(copy(f.data[off:], data)), 0
}

func (f *file) WriteGathered(batch []device.Span) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.turn++; f.gate != nil || f.turn%3 == 0 {
		return syscall.EAGAIN
	}
	for _, w := range batch {
		copy(f.data[w.Off:], w.Data)
	}
	return 0
}

func (f *file) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno { return syscall.EDQUOT }

// root is a directory with files of fixed names, and as many more as it lists.
type root struct {
	gofs.Inode
	files map[string]*file
	more  int
}

func (r *root) OnAdd(ctx context.Context) {
	for name, f := range r.files {
		r.AddChild(name, r.NewPersistentInode(ctx, f, gofs.StableAttr{Mode: syscall.S_IFREG}), false)
	}
}

func (r *root) Readdir(context.Context) (gofs.DirStream, syscall.Errno) {
	list := make([]fuse.DirEntry, r.more)
	for i := range list {
		list[i] = fuse.DirEntry{Name: fmt.Sprintf("%0200d", i), Mode: syscall.S_IFREG}
	}
	return gofs.NewListDirStream(list), 0
}

const fileSize = 4 << 20

func newFile() *file { return &file{data: make([]byte, fileSize), began: make(chan struct{}, 1024)} }

// ways runs a test for each way to the kernel.
func ways(t *testing.T, test func(t *testing.T, way transport.Ways)) {
	needsDevice(t)
	t.Run("device", func(t *testing.T) { test(t, transport.NoRing) })
	t.Run("ring", func(t *testing.T) {
		ringtest.Set(t, true)
		test(t, transport.RingOnly)
	})
}

func needsDevice(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and /dev/fuse")
	}
	f.Close()
}

func options(way transport.Ways) transport.Options {
	return transport.Options{
		Name: "transporttest", Direct: true, MaxWrite: 1 << 20, Background: 64, Ways: way, Capabilities: fuse.CAP_ASYNC_DIO, Self: true,
	}
}

func mount(t *testing.T, way transport.Ways, r *root) (string, *transport.Conn) {
	t.Helper()
	return mountWith(t, options(way), r)
}

func mountWith(t *testing.T, opt transport.Options, r *root) (string, *transport.Conn) {
	t.Helper()
	dir := t.TempDir()
	c, err := transport.Mount(dir, gofs.NewNodeFS(r, &gofs.Options{NullPermissions: true}), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = transport.Detach(dir) // a test may have done so
		ended := make(chan struct{})
		go func() { c.Wait(); close(ended) }()
		within(t, "the end of the mount", ended)
	})
	return dir, c
}

func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s does not come", what)
	}
}

// Bytes of all lengths, by several at once, come and go whole, whether or not
// their request has to wait; what the library answers does too.
func TestBytes(t *testing.T) {
	ways(t, func(t *testing.T, way transport.Ways) {
		f := newFile()
		dir, c := mount(t, way, &root{files: map[string]*file{"f": f}, more: 3000})
		var all sync.WaitGroup
		const parts = 8
		for part := range parts {
			all.Go(func() {
				r := rand.New(rand.NewPCG(7, uint64(part)))
				h, err := os.OpenFile(filepath.Join(dir, "f"), os.O_RDWR, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer h.Close()
				model := make([]byte, fileSize/parts)
				base := int64(part * len(model))
				for i := range 150 {
					n := 1 + r.IntN(1<<r.IntN(20))
					off := r.IntN(len(model))
					p := make([]byte, min(n, len(model)-off))
					if i%2 == 0 {
						for k := range p {
							p[k] = byte(r.Uint32())
						}
						copy(model[off:], p)
						if _, err := h.WriteAt(p, base+int64(off)); err != nil {
							t.Error(err)
						}
					} else if _, err := h.ReadAt(p, base+int64(off)); err != nil || !bytes.Equal(p, model[off:off+len(p)]) {
						t.Errorf("part %d, operation %d: %d bytes at %d differ: %v", part, i, len(p), off, err)
					}
				}
				if err := h.Sync(); !errors.Is(err, syscall.EDQUOT) {
					t.Errorf("the error of fsync: %v", err)
				}
				if n, err := h.ReadAt(make([]byte, 10), fileSize+5); n != 0 || err == nil {
					t.Errorf("read behind the end: %d, %v", n, err)
				}
			})
		}
		all.Wait()
		if list, err := os.ReadDir(dir); err != nil || len(list) != 3000 {
			t.Errorf("%d entries, %v", len(list), err)
		}
		if _, err := os.Stat(filepath.Join(dir, strings.Repeat("x", 255))); !errors.Is(err, syscall.ENOENT) {
			t.Error(err)
		}
		if err := c.Unmount(context.Background()); err != nil {
			t.Fatal(err)
		}
		s := c.Stats()
		if s.Waiting != 0 || s.WaitingBytes != 0 || s.Waited == 0 {
			t.Errorf("at the end: %+v", s)
		}
		if ring := way == transport.RingOnly; ring != (s.Ring > 1000) || ring != (s.Queues > 0) {
			t.Errorf("the other way: %+v", s)
		}
	})
}

// While more requests wait than there is room for, others go on; whoever waits is
// answered in the end.
func TestOthersGoOn(t *testing.T) {
	ways(t, func(t *testing.T, way transport.Ways) {
		slow, quick := newFile(), newFile()
		slow.gate = make(chan struct{})
		dir, _ := mount(t, way, &root{files: map[string]*file{"slow": slow, "quick": quick}})
		h, err := os.OpenFile(filepath.Join(dir, "slow"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		var all sync.WaitGroup
		const many = 6 // entries of a ring may all be on one CPU, and it has 8 at least
		for i := range many {
			all.Go(func() {
				if _, err := h.WriteAt([]byte{byte(i + 1)}, int64(i)); err != nil {
					t.Error(err)
				}
			})
		}
		for range many {
			within(t, "a request that waits", slow.began)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			q, err := os.OpenFile(filepath.Join(dir, "quick"), os.O_RDWR, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer q.Close()
			got := make([]byte, 7)
			_, werr := q.WriteString("through")
			if _, err := q.ReadAt(got, 0); errors.Join(werr, err) != nil || string(got) != "through" {
				t.Errorf("%q, %v, %v", got, werr, err)
			}
		}()
		within(t, "what another file is asked", done)
		close(slow.gate)
		all.Wait()
		slow.mu.Lock()
		defer slow.mu.Unlock()
		for i := range many {
			if slow.data[i] != byte(i+1) {
				t.Errorf("byte %d is %d", i, slow.data[i])
			}
		}
	})
}

// A process that is killed in a request that waits is gone at once.
func TestKilledClient(t *testing.T) {
	ways(t, func(t *testing.T, way transport.Ways) {
		f := newFile()
		f.gate = make(chan struct{})
		dir, c := mount(t, way, &root{files: map[string]*file{"f": f}})
		for _, what := range []string{"if=/dev/zero of=" + filepath.Join(dir, "f"), "of=/dev/null if=" + filepath.Join(dir, "f")} {
			dd := exec.Command("dd", append(strings.Fields(what), "bs=4k", "count=1", "conv=notrunc")...)
			if err := dd.Start(); err != nil {
				t.Fatal(err)
			}
			within(t, "the request", f.began)
			if err := dd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { _ = dd.Wait(); close(done) }()
			within(t, "the end of a killed process", done)
		}
		if s := c.Stats(); s.Waiting > 2 {
			t.Errorf("killed, and they wait still: %+v", s)
		}
	})
}

// full is a mount in which every byte that may wait does, and both readers with
// them, and the processes that wait.
func full(t *testing.T) (f *file, dir string, c *transport.Conn, all []*exec.Cmd) {
	t.Helper()
	needsDevice(t)
	f = newFile()
	f.gate = make(chan struct{})
	opt := options(transport.NoRing)
	opt.Memory = transport.MemoryMin(opt.MaxWrite)
	dir, c = mountWith(t, opt, &root{files: map[string]*file{"f": f}})
	const room = 7 // of 8: each has a header
	for range 2 * room {
		dd := exec.Command("dd", "if=/dev/zero", "of="+filepath.Join(dir, "f"), "bs=1M", "count=1", "conv=notrunc")
		if err := dd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, dd)
	}
	for range room {
		within(t, "a request that waits", f.began)
	}
	for deadline := time.Now().Add(limit); c.Stats().Stalled < 2; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("room for more than there is: %+v", c.Stats())
		}
	}
	if s := c.Stats(); s.WaitingBytes > s.WaitingLimit || s.WaitingLimit != opt.Memory || s.WaitingMax != 32 {
		t.Errorf("%+v", s)
	}
	return f, dir, c, all
}

// overWithin waits for the end of all processes; if it does not come, the gate
// is opened.
func overWithin(t *testing.T, f *file, what string, all []*exec.Cmd) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, dd := range all {
			_ = dd.Wait()
		}
	}()
	select {
	case <-done:
	case <-time.After(limit):
		close(f.gate)
		t.Error(what)
	}
}

// Processes that are killed are gone at once also while so many requests wait
// that none is read any more, nor what the kernel tells of their signals.
func TestKilledWhileFull(t *testing.T) {
	f, _, _, all := full(t)
	for _, dd := range all {
		if err := dd.Process.Kill(); err != nil {
			t.Error(err)
		}
	}
	overWithin(t, f, "killed, and they wait still", all)
}

// A mount that is aborted ends, though its readers wait for room and do not see it.
func TestAbortedWhileFull(t *testing.T) {
	f, dir, c, all := full(t)
	_ = unix.Unmount(dir, unix.MNT_FORCE) // it is in use, and so stays, without a connection
	overWithin(t, f, "aborted, and they wait still", all)
	_ = transport.Detach(dir)
	ended := make(chan struct{})
	go func() { c.Wait(); close(ended) }()
	within(t, "the end of the mount", ended)
}

// Signals that do not kill end nothing: a Go program, this one, sends itself some
// all the time.
func TestSignals(t *testing.T) {
	ways(t, func(t *testing.T, way transport.Ways) {
		f := newFile()
		f.gate = make(chan struct{})
		dir, _ := mount(t, way, &root{files: map[string]*file{"f": f}})
		h, err := os.OpenFile(filepath.Join(dir, "f"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		written := make(chan error, 1)
		thread := make(chan int, 1)
		go func() {
			runtime.LockOSThread()
			thread <- unix.Gettid()
			_, err := unix.Pwrite(int(h.Fd()), []byte("whole"), 0) // does not try again
			written <- err
		}()
		within(t, "a request that waits", f.began)
		tid := <-thread
		for range 20 {
			if err := unix.Tgkill(os.Getpid(), tid, unix.SIGURG); err != nil {
				t.Fatal(err)
			}
			<-time.After(2 * time.Millisecond)
		}
		close(f.gate)
		if err := <-written; err != nil {
			t.Errorf("a write that got signals: %v", err)
		}
	})
}

// A mount that is taken away under requests that wait ends; they fail.
func TestTakenAway(t *testing.T) {
	ways(t, func(t *testing.T, way transport.Ways) {
		f := newFile()
		f.gate = make(chan struct{})
		dir, c := mount(t, way, &root{files: map[string]*file{"f": f}})
		if err := c.Unmount(context.Background()); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(filepath.Join(dir, "f"))
		if !errors.Is(err, syscall.ENOENT) {
			t.Errorf("after the unmount: %v", err)
		}
	})
	ways(t, func(t *testing.T, way transport.Ways) {
		dir, c := mount(t, way, &root{files: map[string]*file{"f": newFile()}})
		h, err := os.Open(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Unmount(context.Background()); !errors.Is(err, unix.EBUSY) {
			t.Errorf("unmount of a mount that is in use: %v", err)
		}
		h.Close()
	})
}

// A connection that is aborted under requests that wait ends; they fail.
func TestAborted(t *testing.T) {
	const control = "/sys/fs/fuse/connections"
	ways(t, func(t *testing.T, way transport.Ways) {
		f := newFile()
		f.gate = make(chan struct{})
		dir, c := mount(t, way, &root{files: map[string]*file{"f": f}})
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			t.Fatal(err)
		}
		if list, err := os.ReadDir(control); err != nil || len(list) == 0 {
			if err := unix.Mount("fusectl", control, "fusectl", 0, ""); err != nil {
				t.Skip("needs ", control, ": ", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(control, unix.MNT_DETACH) })
		}
		h, err := os.OpenFile(filepath.Join(dir, "f"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if _, err := h.WriteAt([]byte("lost"), 0); err == nil {
					t.Error("a write of an aborted mount succeeds")
				}
			})
		}
		for range 4 {
			within(t, "a request that waits", f.began)
		}
		if err := os.WriteFile(filepath.Join(control, fmt.Sprint(unix.Minor(st.Dev)), "abort"), []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { all.Wait(); c.Wait(); close(ended) }()
		within(t, "the end of an aborted mount", ended)
	})
}

// A file system that panics fails the request, not the process.
func TestPanic(t *testing.T) {
	ways(t, func(t *testing.T, way transport.Ways) {
		dir, _ := mount(t, way, &root{files: map[string]*file{"f": newFile()}})
		for range 2 {
			h, err := os.OpenFile(filepath.Join(dir, "f"), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.WriteString("panic"); !errors.Is(err, syscall.EIO) {
				t.Error(err)
			}
			h.Close()
		}
	})
}

// Where the kernel does not allow rings, whoever insists on them is told how it
// would, and others have the device.
func TestNotAllowed(t *testing.T) {
	ringtest.Set(t, false)
	opt := transport.Options{Name: "transporttest", Direct: true, MaxWrite: 1 << 20, Background: 64, Ways: transport.RingOnly}
	_, err := transport.Mount(t.TempDir(), gofs.NewNodeFS(&root{}, &gofs.Options{}), opt)
	if err == nil || !strings.Contains(err.Error(), "echo Y > /sys/module/fuse/parameters/enable_uring") {
		t.Errorf("%v", err)
	}
	_, c := mount(t, transport.BestWay, &root{})
	if s := c.Stats(); s.Queues != 0 || s.Device == 0 {
		t.Errorf("%+v", s)
	}
}

// Rings that would need more memory than they may have are not made.
func TestRingsTooLarge(t *testing.T) {
	needsDevice(t)
	ringtest.Set(t, true)
	if runtime.NumCPU() == 1 {
		t.Skip("one CPU needs the least that may be given")
	}
	opt := options(transport.RingOnly)
	opt.Memory = transport.MemoryMin(opt.MaxWrite)
	fs := gofs.NewNodeFS(&root{}, &gofs.Options{NullPermissions: true})
	if _, err := transport.Mount(t.TempDir(), fs, opt); err == nil || !strings.Contains(err.Error(), "allow more") {
		t.Errorf("mounted: %v", err)
	}
	opt.Ways = transport.BestWay
	_, c := mountWith(t, opt, &root{})
	if s := c.Stats(); s.Queues != 0 {
		t.Errorf("%+v", s)
	}
}
