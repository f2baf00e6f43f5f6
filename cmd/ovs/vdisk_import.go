package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"openvstorage/internal/control"
	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/volumedriver"
)

func (a *app) vdiskImport() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE NAME",
		Short: "make a vDisk of a raw image file",
		Long: `ovs vdisk import makes a vDisk of a raw image and reads it back to compare.
Zeros are not stored. FILE may be "-", standard input, of any length. A size that
is no multiple of 4096 bytes is filled up with zeros.

Until it is whole the vDisk is called NAME.importing. An import that fails or is
stopped removes it; one that is killed leaves it, to be deleted by hand.`,
		Example:           "  ovs vdisk import disk1.raw disk1\n  qemu-img convert -O raw disk.qcow2 disk.raw",
		Args:              wants("FILE", "NAME"),
		ValidArgsFunction: a.completeImportFile(),
		RunE: func(c *cobra.Command, args []string) error {
			source, err := openSource(args[0])
			if err != nil {
				return err
			}
			defer source.Close()
			client, err := a.client()
			if err != nil {
				return err
			}
			v, err := a.importImage(c.Context(), client, source, args[1])
			if err != nil {
				return err
			}
			return a.printMade("imported", v)
		},
	}
}

// importing is what the name of a vDisk ends with that is not whole yet.
const importing = ".importing"

// importImage makes a vDisk under another name, fills it, compares it, and gives
// it its name.
func (a *app) importImage(ctx context.Context, client *control.Client, source *source, name string) (control.VDisk, error) {
	if _, err := client.Info(ctx, name); !errors.Is(err, volumedriver.ErrNotFound) {
		if err == nil {
			err = fmt.Errorf("vDisk %q %w; choose another name", name, volumedriver.ErrExists)
		}
		return control.VDisk{}, err
	}
	v, err := client.Create(ctx, name+importing, max(clusterLen, roundUp(source.size)))
	if err != nil {
		return v, err
	}
	draw, end := a.progress("import " + name)
	err = fill(ctx, client, v, source, draw)
	end()
	if err == nil {
		err = client.Rename(ctx, v.Name, name)
		if errors.Is(err, volumedriver.ErrUnknownOutcome) {
			err = named(ctx, client, v, name)
		}
	}
	if errors.Is(err, volumedriver.ErrUnknownOutcome) {
		return control.VDisk{}, fmt.Errorf("import %s: all of it is on vDisk %s, which may be named %q still: %w", name, v.ID, v.Name, err)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		err = fmt.Errorf("import %s: %w", name, err)
		if again := undo(ctx, client, v.Name); again != nil {
			// Not %w: a cancellation is told by its cause alone.
			err = fmt.Errorf("%v; vDisk %q could not be deleted, delete it: %w", err, v.Name, again)
		}
		return control.VDisk{}, err
	}
	return client.Info(ctx, name)
}

// named finds out whether an import got its name, and gives it the name if not.
func named(ctx context.Context, client *control.Client, v control.VDisk, name string) error {
	err := client.Rename(ctx, v.Name, name)
	if !errors.Is(err, volumedriver.ErrNotFound) {
		if err != nil {
			err = fmt.Errorf("%w: %w", volumedriver.ErrUnknownOutcome, err)
		}
		return err
	}
	now, err := client.Info(ctx, name)
	if err == nil && now.ID != v.ID {
		err = fmt.Errorf("vDisk %q is another", name)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", volumedriver.ErrUnknownOutcome, err)
	}
	return err
}

// undo deletes what an import has made. The server may take a moment to see that
// nobody is connected any more.
func undo(ctx context.Context, client *control.Client, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for {
		err := client.Delete(ctx, name)
		if !errors.Is(err, volumedriver.ErrBusy) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// roundUp returns the size of a vDisk that an image of n bytes fits on.
func roundUp(n int64) uint64 { return uint64(n+clusterLen-1) &^ (clusterLen - 1) }

// fill writes an image to an empty vDisk, and reads it back.
func fill(ctx context.Context, client *control.Client, v control.VDisk, from *source, draw func(done, total int64)) error {
	disk, err := dialNBD(ctx, v, v.Name)
	if err != nil {
		return err
	}
	defer disk.Close()
	w := newFiller(disk)
	err = from.each(func(off int64, p []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if end := roundUp(off + int64(len(p))); end > v.Size {
			// An image of unknown length: the disk grows before it.
			if err := client.Resize(ctx, v.Name, end); err != nil {
				return err
			}
			v.Size = end
		}
		if draw != nil {
			draw(off, 2*from.size)
		}
		for len(p) > 0 {
			n := min(len(p), pieceSize)
			if err := w.write(off, p[:n]); err != nil {
				return err
			}
			off, p = off+int64(n), p[n:]
		}
		return nil
	})
	if err = errors.Join(err, w.wait()); err != nil {
		return err
	}
	if err := disk.Flush(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return w.compare(func(at int64) {
		if draw != nil {
			draw(from.size+at, 2*from.size)
		}
	})
}

// filler writes to a vDisk, several writes at a time, and remembers what.
type filler struct {
	disk *nbdclient.Client
	free chan *piece
	err  error
	sums []sum
}

// sum is the CRC-32C of a piece of which something was written.
type sum struct {
	span
	crc uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newFiller(disk *nbdclient.Client) *filler {
	w := &filler{disk: disk, free: make(chan *piece, pieces)}
	for range pieces {
		w.free <- newPiece(nbd.CmdWrite)
	}
	return w
}

// write writes what is not zero of at most a piece. p is the caller's again when
// it returns.
func (w *filler) write(off int64, p []byte) error {
	zero := true
	for at, run := range dataRuns(p) {
		zero = false
		next := w.take()
		if w.err != nil {
			w.free <- next
			return w.err
		}
		next.Offset, next.Data = uint64(off)+uint64(at), next.memory[:copy(next.memory, run)]
		w.disk.Start(&next.Request)
		w.free <- next
	}
	if !zero {
		w.sums = append(w.sums, sum{span{off, int64(len(p))}, crc32.Checksum(p, castagnoli)})
	}
	return nil
}

// take returns the request that has been under way for the longest, when it is
// answered. One that was never sent has no Data.
func (w *filler) take() *piece {
	p := <-w.free
	if p.Data == nil {
		return p
	}
	<-p.ready
	if p.Err != nil && w.err == nil {
		w.err = fmt.Errorf("write at offset %d: %w", p.Offset, p.Err)
	}
	p.Data = nil
	return p
}

// wait waits for all that is under way.
func (w *filler) wait() error {
	for range pieces {
		w.take()
	}
	return w.err
}

// compare reads back what was written.
func (w *filler) compare(at func(off int64)) error {
	next := 0
	return readSpans(w.disk, w.written(), func(off int64, p []byte) error {
		want := w.sums[next]
		next++
		at(off)
		if got := crc32.Checksum(p, castagnoli); got != want.crc {
			return fmt.Errorf("%d bytes at offset %d: written with CRC %08x, read back with %08x", want.n, off, want.crc, got)
		}
		return nil
	})
}

func (w *filler) written() iter.Seq2[span, error] {
	return func(yield func(span, error) bool) {
		for _, s := range w.sums {
			if !yield(s.span, nil) {
				return
			}
		}
	}
}

// source is an image to be read.
type source struct {
	*os.File
	size int64 // 0 if nobody knows it
	seek bool  // it is a file or a disk
}

// openSource opens an image; "-" is standard input.
func openSource(name string) (*source, error) {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = os.Open(name); err != nil {
			return nil, err
		}
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if info.IsDir() {
		return nil, errors.Join(usagef("%s is a directory, not an image", name), f.Close())
	}
	s := &source{File: f}
	if name != "-" && (info.Mode().IsRegular() || info.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice) {
		s.seek = true
		s.size, err = f.Seek(0, io.SeekEnd) // of a disk too
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// growStep is how much is read of an image of unknown length before the vDisk
// grows by it.
const growStep = 32 << 20

// each calls fn with the image's bytes, in order, without the holes that the
// file system tells of.
func (s *source) each(fn func(off int64, p []byte) error) error {
	if !s.seek {
		buf := make([]byte, growStep)
		for off := int64(0); ; {
			n, err := io.ReadFull(s.File, buf)
			if n > 0 {
				if err := fn(off, buf[:n]); err != nil {
					return err
				}
			}
			off += int64(n)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read at offset %d: %w", off, err)
			}
		}
	}
	buf := make([]byte, pieceSize)
	for off := int64(0); off < s.size; {
		data, end := s.data(off)
		for off = data; off < end; {
			p := buf[:min(pieceSize, end-off)]
			if _, err := io.ReadFull(io.NewSectionReader(s.File, off, int64(len(p))), p); err != nil {
				return fmt.Errorf("%s: read at offset %d: %w", s.Name(), off, err)
			}
			if err := fn(off, p); err != nil {
				return err
			}
			off += int64(len(p))
		}
	}
	return nil
}

// data returns where data begins at or behind an offset, and where it ends. Of
// what cannot tell, all is data.
func (s *source) data(off int64) (begin, end int64) {
	begin, err := unix.Seek(int(s.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return s.size, s.size
	}
	if err != nil {
		return off, s.size
	}
	begin &^= clusterLen - 1
	begin = max(begin, off)
	if end, err = unix.Seek(int(s.Fd()), begin, unix.SEEK_HOLE); err != nil || end <= begin {
		end = s.size
	}
	return begin, min(end, s.size)
}
