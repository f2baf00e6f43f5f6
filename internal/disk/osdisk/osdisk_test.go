package osdisk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
)

func create(t testing.TB) *File {
	t.Helper()
	f, err := open(filepath.Join(t.TempDir(), "f"), disk.Write|disk.Create, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	f := create(t)
	page := bytes.Repeat([]byte{7}, 4096)
	bufs := make([][]byte, 1500) // more than one system call takes
	for i := range bufs {
		bufs[i] = page
	}
	if _, err := f.WriteAt(page, 0); err != nil {
		t.Fatal(err)
	}
	calls := map[string]func() error{
		"WriteAt":   func() error { _, err := f.WriteAt(page, 0); return err },
		"WritevAt":  func() error { _, err := f.WritevAt(bufs[:3], 0); return err },
		"WritevAt+": func() error { _, err := f.WritevAt(bufs, 0); return err },
		"Datasync":  f.Datasync,
		"Writeback": func() error { return f.Writeback(0, 4096) },
		"ReadAt":    func() error { _, err := f.ReadAt(page, 0); return err },
		"TryReadAt": func() error {
			if _, err := f.TryReadAt(page, 0); err != disk.ErrWouldBlock {
				return err
			}
			return nil
		},
	}
	for name, call := range calls {
		got := testing.AllocsPerRun(50, func() {
			if err := call(); err != nil {
				t.Fatal(err)
			}
		})
		if got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}

func TestWritevAtManyBuffers(t *testing.T) {
	f := create(t)
	var bufs [][]byte
	var want []byte
	for i := range 2*maxVectors + 5 {
		b := bytes.Repeat([]byte{byte(i)}, i%7) // empty ones among them
		bufs = append(bufs, b)
		want = append(want, b...)
	}
	if n, err := f.WritevAt(bufs, 3); err != nil || n != len(want) {
		t.Fatal(n, err)
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 3); err != nil || !bytes.Equal(got, want) {
		t.Fatal("not what was written", err)
	}
}

func TestSkip(t *testing.T) {
	b := []byte("0123456789")
	for n := range len(b) + 1 {
		vs := make([]unix.Iovec, 3)
		for i, part := range [][]byte{b[:2], b[2:7], b[7:]} {
			vs[i].Base = &part[0]
			vs[i].SetLen(len(part))
		}
		rest := skip(vs, n)
		left := 0
		for _, v := range rest {
			left += int(v.Len)
		}
		if left != len(b)-n || left > 0 && *rest[0].Base != b[n] {
			t.Errorf("skip %d: %d bytes left", n, left)
		}
	}
}

func TestShortWriteCounts(t *testing.T) {
	f, err := open("/dev/full", disk.Write, 0)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("WriteAt on a full device: %v", err)
	}
	_, err = f.WritevAt([][]byte{{1}, {2}}, 0)
	var pe *fs.PathError
	if !errors.Is(err, unix.ENOSPC) || !errors.As(err, &pe) || pe.Path != "/dev/full" {
		t.Errorf("WritevAt on a full device: %v", err)
	}
}

// Close against running calls: every call either works or says ErrClosed, and
// the descriptor is given back once. Run with -race.
func TestCloseWhileInUse(t *testing.T) {
	for range 50 {
		f := create(t)
		if _, err := f.WriteAt(make([]byte, 512), 0); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				buf := make([]byte, 512)
				for {
					if _, err := f.ReadAt(buf, 0); err != nil {
						if !errors.Is(err, fs.ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if !f.d.freed.Load() || f.d.refs.Load() != closedBit {
			t.Error("descriptor was not given back")
		}
		if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("second Close: %v", err)
		}
	}
}

func TestTryReadAtEnd(t *testing.T) {
	f := create(t)
	if _, err := f.WriteAt([]byte("hello"), 0); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	n, err := f.TryReadAt(buf, 0)
	if err == disk.ErrWouldBlock {
		t.Skip("this file system does not know RWF_NOWAIT")
	}
	if n != 5 || err != io.EOF || string(buf[:n]) != "hello" {
		t.Errorf("TryReadAt = %d, %v", n, err)
	}
}

func TestLockNamesHolder(t *testing.T) {
	name := filepath.Join(t.TempDir(), "LOCK")
	l, err := New().Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = New().Lock(name)
	if !errors.Is(err, disk.ErrLocked) {
		t.Fatalf("second Lock: %v", err)
	}
	t.Log(err)
}

func BenchmarkReadAt4K(b *testing.B) {
	f := create(b)
	buf := make([]byte, 4096)
	if _, err := f.WriteAt(buf, 0); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		f.ReadAt(buf, 0)
	}
}

func BenchmarkDescriptor(b *testing.B) {
	f := create(b)
	for b.Loop() {
		if f.d.acquire() {
			f.d.release()
		}
	}
}

// A call that was interrupted is made again, as often as it takes; any other
// errno is told, after one call.
func TestInterrupted(t *testing.T) {
	for _, c := range []struct {
		answers []error
		want    error
	}{
		{[]error{nil}, nil},
		{[]error{unix.EINTR, unix.EINTR, nil}, nil},
		{[]error{unix.EINTR, unix.EIO, nil}, unix.EIO},
		{[]error{unix.EAGAIN, nil}, unix.EAGAIN},
	} {
		calls := 0
		err := retry(func() error {
			calls++
			return c.answers[calls-1]
		})
		if err != c.want {
			t.Errorf("%v: %v after %d calls", c.answers, err, calls)
		}
	}
}
