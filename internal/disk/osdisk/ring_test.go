package osdisk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/disktest"
)

// ringFS is the host's file system with a crowd of its own.
type ringFS struct {
	disk.FS
	crowd *crowd
}

func (d ringFS) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	f.(*File).crowd = d.crowd
	return f, nil
}

// testRing makes a ring that goes with the test.
func testRing(t testing.TB) *ring {
	t.Helper()
	r, err := newRing()
	if err != nil {
		t.Skip("no io_uring here:", err)
	}
	t.Cleanup(func() { stop(t, r) })
	return r
}

// stop makes the poller give up, and so the reaper end, and frees the ring.
func stop(t testing.TB, r *ring) {
	if err := r.poll.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Error(err)
	}
	<-r.ended
	if len(r.free) != ringReads {
		t.Errorf("%d reads never came back", ringReads-len(r.free))
	}
	r.poll.Close()
	r.q.Unmap()
}

// always is a crowd whose every read goes to r.
func always(r *ring) *crowd {
	return &crowd{size: 1, make: func() (*ring, error) { return r, nil }}
}

func refused() *crowd {
	return &crowd{size: 1, make: func() (*ring, error) { return nil, unix.EPERM }}
}

func TestConformanceByRing(t *testing.T) {
	r := testRing(t)
	disktest.Run(t, func(t *testing.T) (disk.FS, string) {
		return ringFS{New(), always(r)}, t.TempDir()
	})
	if r.taken.Load() == 0 {
		t.Error("no read went to the ring")
	}
}

func TestConformanceWithoutRing(t *testing.T) {
	disktest.Run(t, func(t *testing.T) (disk.FS, string) {
		return ringFS{New(), refused()}, t.TempDir()
	})
}

func TestCrowd(t *testing.T) {
	r := new(ring)
	c := crowd{size: 3, make: func() (*ring, error) { return r, nil }}
	for i, want := range []*ring{nil, nil, r, r} {
		if got := c.join(); got != want {
			t.Errorf("reader %d goes to ring %p, want %p", i, got, want)
		}
	}
	c.leave()
	c.leave()
	c.leave()
	if c.join() != nil {
		t.Error("two readers are a crowd")
	}
}

func TestRingReadAtEnds(t *testing.T) {
	f := create(t)
	r := testRing(t)
	f.crowd = always(r)
	if _, err := f.WriteAt([]byte("hello"), 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off  int64
		len  int
		want string
		err  error
	}{
		{0, 5, "hello", nil}, {1, 3, "ell", nil}, {3, 10, "lo", io.EOF},
		{5, 1, "", io.EOF}, {1 << 40, 4, "", io.EOF}, {-1, 1, "", unix.EINVAL}, {2, 0, "", nil},
		{0, ringMax + 1, "hello", io.EOF},
	} {
		p := make([]byte, c.len)
		if n, err := f.ReadAt(p, c.off); string(p[:n]) != c.want || !errors.Is(err, c.err) {
			t.Errorf("ReadAt(%d bytes, %d) = %q, %v", c.len, c.off, p[:n], err)
		}
	}
	f.Close()
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("ReadAt after Close: %v", err)
	}
	dir, err := open(t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	dir.crowd = always(r)
	if _, err := dir.ReadAt(make([]byte, 1), 0); !errors.Is(err, unix.EISDIR) {
		t.Errorf("ReadAt of a directory: %v", err)
	}
}

func TestRingReadAllocatesNothing(t *testing.T) {
	f := create(t)
	f.crowd = always(testRing(t))
	page := make([]byte, 4096)
	if _, err := f.WriteAt(page, 0); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { f.ReadAt(page, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// content is what the file of the stress tests holds at off.
func content(off int64) byte { return byte(off*7 + off>>12) }

// many reads f from more goroutines than the ring has slots, out of the page
// cache as far as the kernel goes along with that, until each has made its
// reads or enough says so.
func many(t *testing.T, f *File, reads int, closed bool) {
	const size = 4 << 20
	p := make([]byte, size)
	for i := range p {
		p[i] = content(int64(i))
	}
	if _, err := f.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Datasync(); err != nil {
		t.Fatal(err)
	}
	unix.Fadvise(f.d.fd, 0, 0, unix.FADV_DONTNEED)
	var wg sync.WaitGroup
	for g := range 2 * ringReads {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(g)))
			p := make([]byte, 12<<10)
			for range reads {
				p := p[:1+rnd.IntN(len(p))]
				off := rnd.Int64N(size)
				clear(p)
				n, err := f.ReadAt(p, off)
				if closed && errors.Is(err, fs.ErrClosed) {
					return
				}
				if want := min(len(p), int(size-off)); n != want || (err == io.EOF) != (n < len(p)) || err != nil && err != io.EOF {
					t.Errorf("ReadAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
					return
				}
				for i, b := range p[:n] {
					if b != content(off+int64(i)) {
						t.Errorf("wrong byte at %d", off+int64(i))
						return
					}
				}
			}
		})
	}
	if closed {
		f.ReadAt(p[:1], 0)
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

func TestRingStress(t *testing.T) {
	r := testRing(t)
	f := create(t)
	f.crowd = always(r)
	many(t, f, 20, false)
	if r.taken.Load() == 0 {
		t.Error("no read went to the ring")
	}
}

func TestRingCloseWhileInUse(t *testing.T) {
	r := testRing(t)
	for range 2 {
		f := create(t)
		f.crowd = always(r)
		many(t, f, 100, true)
		if !f.d.freed.Load() || f.d.refs.Load() != closedBit {
			t.Error("descriptor was not given back")
		}
	}
}

// Every way in which a ring dies under its readers: they all get their bytes.
func TestRingDies(t *testing.T) {
	for name, kill := range map[string]func(r *ring){
		"poller gives up": func(r *ring) { r.poll.SetReadDeadline(time.Unix(1, 0)) },
		"enter fails":     func(r *ring) { r.q.FD.Store(-1) },
	} {
		t.Run(name, func(t *testing.T) {
			r := testRing(t)
			f := create(t)
			f.crowd = always(r)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for r.taken.Load() < 100 {
					runtime.Gosched()
				}
				kill(r)
			}()
			many(t, f, 50, false)
			<-done
			f.ReadAt(make([]byte, 1), 0)
			if !r.dead.Load() && name == "enter fails" {
				t.Error("the ring is not dead")
			}
			if n, err := f.ReadAt(make([]byte, 100), 0); n != 100 || err != nil {
				t.Errorf("after the ring's death: %d, %v", n, err)
			}
		})
	}
}

// A kernel short of memory refuses a batch: its reads are preads, the ring lives.
func TestRingGiveBack(t *testing.T) {
	r := testRing(t)
	p := bytes.Repeat([]byte{1}, 10)
	const n = 5
	for i := range n {
		slot := <-r.free
		r.q.Push(readInto(0, unsafe.Pointer(&p[0]), len(p), int64(i), slot))
		r.pushed.Add(1)
	}
	r.giveBack()
	for i := range n {
		if got := <-r.slots[i].done; got != 0 {
			t.Errorf("slot %d: %d", i, got)
		}
		r.free <- uint32(i)
	}
	f := create(t)
	f.crowd = always(r)
	if _, err := f.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(p))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, p) || r.taken.Load() != 1 {
		t.Errorf("%v, %v, %d taken", got, err, r.taken.Load())
	}
}
