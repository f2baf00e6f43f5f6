package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"openvstorage/internal/control"
)

// Destination is where an export goes: a File or a Stream.
type Destination interface {
	// put takes bytes at an offset, in order of offset. Bytes that are left out are
	// zero.
	put(off int64, p []byte) error
	// end says how large the image is. When it returns the image is there, durably.
	end(size int64) error
}

// Export copies a vDisk, or a snapshot of it if snap is not "", to an image, and returns
// the image's size in bytes. draw, if set, is called to show progress.
func Export(ctx context.Context, client *control.Client, name, snap string, to Destination, draw func(done, total int64)) (int64, error) {
	v, err := client.Info(ctx, name)
	if err != nil {
		return 0, err
	}
	what := name
	if snap != "" {
		what += "@" + snap
	}
	disk, err := dialNBD(ctx, v, what)
	if err != nil && snap != "" {
		err = orNoSnapshot(ctx, client, name, snap, err)
		if errors.Is(err, control.ErrNotFound) {
			return 0, err
		}
	}
	if err != nil {
		return 0, fmt.Errorf("export %s: %w", what, err)
	}
	defer disk.Close()
	err = readSpans(disk, allocated(disk), func(off int64, p []byte) error {
		if draw != nil {
			draw(off+int64(len(p)), disk.Size())
		}
		return to.put(off, p)
	})
	if err == nil {
		err = to.end(disk.Size())
	}
	if err != nil && ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("export %s: %w", what, err)
	}
	return disk.Size(), nil
}

// orNoSnapshot is why a snapshot could not be opened. If the snapshot is not there, it
// says so as every other command does; otherwise it is what the server said.
func orNoSnapshot(ctx context.Context, client *control.Client, name, snap string, err error) error {
	list, failed := client.SnapshotList(ctx, name)
	if failed != nil || slices.ContainsFunc(list, func(s control.SnapshotInfo) bool { return s.Name == snap }) {
		return err
	}
	return fmt.Errorf("snapshot %q of vDisk %q: %w", snap, name, control.ErrNotFound)
}

// Stream is an image on an output that has no offsets, such as a pipe.
type Stream struct {
	out io.Writer
	at  int64
}

// NewStream returns the image that is written to out. Every byte of it is written.
func NewStream(out io.Writer) *Stream { return &Stream{out: out} }

func (s *Stream) put(off int64, p []byte) error {
	if err := s.zero(off); err != nil {
		return err
	}
	n, err := s.out.Write(p)
	s.at += int64(n)
	return err
}

// zero writes zeros up to an offset.
func (s *Stream) zero(to int64) error {
	block := make([]byte, min(pieceSize, max(0, to-s.at)))
	for s.at < to {
		n, err := s.out.Write(block[:min(int64(len(block)), to-s.at)])
		if s.at += int64(n); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stream) end(size int64) error { return s.zero(size) }
