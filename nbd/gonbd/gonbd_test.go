package gonbd_test

import (
	"errors"
	"io"
	"sync"
	"syscall"
	"testing"

	"openvstorage/device"
	"openvstorage/device/devicetest"
	"openvstorage/nbd/gonbd"
)

// backend is the smallest of its kind.
type backend struct {
	mu    sync.Mutex
	data  []byte
	syncs int
	err   error
}

func (b *backend) ReadAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := copy(p, b.data[off:])
	if off+int64(n) == int64(len(b.data)) {
		return n, io.EOF
	}
	return n, b.err
}

func (b *backend) WriteAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return copy(b.data[off:], p), b.err
}

func (b *backend) Size() (int64, error) { return int64(len(b.data)), b.err }

func (b *backend) Sync() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.syncs++
	return b.err
}

func TestDevice(t *testing.T) {
	devicetest.Run(t, devicetest.Odd, func(t testing.TB, size int64) device.Device {
		d, err := gonbd.New(&backend{data: make([]byte, size)})
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}

func TestErrorsAndSync(t *testing.T) {
	b := &backend{data: make([]byte, 100)}
	d, err := gonbd.New(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(t.Context()); err != nil || b.syncs != 1 {
		t.Fatalf("flush: %v, %d syncs", err, b.syncs)
	}
	b.data = b.data[:50] // shrunk behind our back
	if err := d.Read(t.Context(), make([]byte, 10), 45); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short read: %v", err)
	}
	if err := d.Write(t.Context(), []device.Span{{Off: 45, Data: make([]byte, 10)}}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("short write: %v", err)
	}
	b.err = syscall.ENOSPC
	if err := d.Zero(t.Context(), 0, 10, false); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("zero: %v", err)
	}
	if err := d.Flush(t.Context()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("flush: %v", err)
	}
	if _, err := gonbd.New(b); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("new: %v", err)
	}
}
