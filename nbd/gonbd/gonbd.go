// Package gonbd makes a device.Device of a backend with the four methods of
// github.com/pojntfx/go-nbd, which many small programs have.
//
// The module itself is not used. Its server knows no flush, so that a client's fsync would promise
// nothing; it serves one request at a time; and it breaks the stream at commands that it does not
// know. The module proxy that this project builds with also refuses it. Only the interface of its
// backend is declared here anew.
package gonbd

import (
	"context"
	"errors"
	"fmt"
	"io"

	"openvstorage/device"
)

// Backend is the shape of go-nbd's backend. It must be safe for concurrent
// use. Sync makes durable all writes that returned before.
type Backend interface {
	io.ReaderAt
	io.WriterAt
	Size() (int64, error)
	Sync() error
}

// Device serves a Backend. Every request may block, there are no holes, and
// trimming writes zeros.
type Device struct {
	backend Backend
	size    int64
}

var _ device.Device = (*Device)(nil)

// New returns a device on b of the size that b has now.
func New(b Backend) (*Device, error) {
	size, err := b.Size()
	if err != nil {
		return nil, fmt.Errorf("gonbd: size of backend: %w", err)
	}
	return &Device{b, size}, nil
}

func (d *Device) Size() int64 { return d.size }

func (d *Device) TryRead([]byte, int64) error  { return device.ErrWouldBlock }
func (d *Device) TryWrite([]device.Span) error { return device.ErrWouldBlock }

func (d *Device) Read(_ context.Context, p []byte, off int64) error {
	n, err := d.backend.ReadAt(p, off)
	if n == len(p) {
		return nil // io.EOF may come with the last byte
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("gonbd: read %d bytes at %d: got %d: %w", len(p), off, n, err)
}

func (d *Device) Write(_ context.Context, batch []device.Span) error {
	for _, s := range batch {
		if err := d.writeAt(s.Data, s.Off); err != nil {
			return err
		}
	}
	return nil
}

func (d *Device) writeAt(p []byte, off int64) error {
	n, err := d.backend.WriteAt(p, off)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("gonbd: write %d bytes at %d: %w", len(p), off, err)
	}
	return nil
}

func (d *Device) Flush(context.Context) error {
	if err := d.backend.Sync(); err != nil {
		return fmt.Errorf("gonbd: sync: %w", err)
	}
	return nil
}

func (d *Device) Trim(ctx context.Context, off, n int64) error {
	return d.Zero(ctx, off, n, true)
}

var zeros [64 << 10]byte

func (d *Device) Zero(ctx context.Context, off, n int64, _ bool) error {
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		m := min(n, int64(len(zeros)))
		if err := d.writeAt(zeros[:m], off); err != nil {
			return err
		}
		off, n = off+m, n-m
	}
	return nil
}

// Extents reports data everywhere: the backend cannot tell.
func (d *Device) Extents(_ context.Context, _, n int64, fn func(device.Extent) bool) error {
	if n > 0 {
		fn(device.Extent{Length: n})
	}
	return nil
}

func (d *Device) Prefetch(context.Context, int64, int64) error { return nil }
