package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"openvstorage/internal/size"
)

// Options say what is expected of an image.
type Options struct {
	Size   size.Bytes // that it has; 0: nobody said
	Format string     // FormatAuto or FormatRaw
}

// Formats that --format takes.
const (
	FormatAuto = "auto"
	FormatRaw  = "raw"
)

// sectorLen divides the length of any disk, in bytes.
const sectorLen = 512

// Source is an image to be read: a file, a disk, or a pipe.
type Source struct {
	*os.File
	name  string // as it was given
	size  int64  // 0 if nobody knows it
	seek  bool   // it is a file or a disk
	raw   bool   // whatever it looks like
	was   fs.FileInfo
	head  []byte // of a pipe, read already
	taken int64  // bytes of a pipe that were read
}

// String is what the source is called in messages.
func (s *Source) String() string { return sourceName(s.name) }

func sourceName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// Taken is how many bytes of a pipe were read.
func (s *Source) Taken() int64 { return s.taken }

// Known reports whether the length of the image is known.
func (s *Source) Known() bool { return s.size > 0 }

// Open opens an image; "-" is standard input. It refuses an image that is not raw, or
// does not have the size that is expected. It waits for the first bytes of a pipe, until
// ctx ends.
func Open(ctx context.Context, name string, opt Options) (*Source, error) {
	f := os.Stdin
	if name == "" {
		return nil, refusef("the name of the image is empty")
	}
	if name != "-" {
		// The open of a pipe waits for whoever writes to it.
		var err error
		if err = await(ctx, func() (err error) {
			f, err = os.Open(name)
			return err
		}); err != nil {
			if i, again := os.Stat(name); again == nil && i.Mode()&fs.ModeSocket != 0 {
				err = refusef("%s is a socket, not an image; if a server gives one there, copy that to standard input", name)
			}
			return nil, err
		}
	}
	s := &Source{File: f, name: name, raw: opt.Format == FormatRaw}
	if err := s.open(ctx, int64(opt.Size)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// await returns what fn does, or the cause of ctx's end if that comes first. fn may go
// on then: the caller must not use what it fills any more.
func await(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Source) open(ctx context.Context, expected int64) (err error) {
	if s.was, err = s.Stat(); err != nil {
		return err
	}
	switch kind := s.was.Mode(); {
	case kind.IsDir():
		return refusef("%v is a directory, not an image", s)
	case kind&fs.ModeCharDevice != 0 && s.name != "-":
		return refusef("%v is a character device, not an image; if it is what you want, pipe as much of it as the vDisk is to hold", s)
	case kind.IsRegular(), kind&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice:
		// Somebody may have read a part of standard input.
		at, err := s.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		s.seek = at == 0
	}
	if !s.seek {
		s.size = expected
		return s.openPipe(ctx)
	}
	s.size, err = s.Seek(0, io.SeekEnd) // of a disk too
	if errors.Is(err, unix.EINVAL) {    // a file of the kernel, such as those of /proc: it is read as a pipe is
		s.seek, s.size = false, expected
		return s.openPipe(ctx)
	}
	if err != nil {
		return err
	}
	if s.size == 0 {
		return refusef("%v is empty; for an empty vDisk: ovs vdisk create NAME --size SIZE", s)
	}
	if expected > 0 && s.size != expected {
		return refusef("%v has %d bytes, and not the %d of --size; ovs vdisk resize makes a vDisk larger", s, s.size, expected)
	}
	head, tail := make([]byte, min(lengthLen, s.size)), make([]byte, min(tailLen, s.size))
	if _, err := s.ReadAt(head, 0); err != nil {
		return fmt.Errorf("%v: %w", s, err)
	}
	if _, err := s.ReadAt(tail, s.size-int64(len(tail))); err != nil {
		return fmt.Errorf("%v: %w", s, err)
	}
	if err := errors.Join(s.check(heads, head[:min(headLen, len(head))]), s.check(tails, tail)); err != nil {
		return err
	}
	if least, says := promised(head); expected == 0 && s.size < least {
		return fmt.Errorf("%v has %d bytes, and its %s goes on to %d: it was cut short, or not copied whole; if it is to be so, say so with --size %d", s, s.size, says, least, s.size)
	}
	return nil
}

// openPipe reads the first bytes of a pipe, which tell the format.
func (s *Source) openPipe(ctx context.Context) error {
	head := make([]byte, headLen)
	n := 0
	err := await(ctx, func() (err error) {
		n, err = io.ReadFull(s.File, head)
		return err
	})
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%v is empty: what was to fill it has failed, or ended early", s)
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	s.head = head[:n]
	return s.check(heads, s.head)
}

// check refuses an image that is not raw.
func (s *Source) check(magics []magic, p []byte) error {
	if s.raw {
		return nil
	}
	if f := notRaw(magics, p); f != nil {
		return f.refuse(s.name)
	}
	return nil
}

// growStep is how many bytes are read of an image of unknown length before the vDisk
// grows by as many.
const growStep = 32 << 20

// each calls fn with the image's bytes, in order, without the holes that the file system
// tells of. It fails if the image has changed since it was opened, or is not as long as
// is expected.
func (s *Source) each(ctx context.Context, fn func(off int64, p []byte) error) error {
	if !s.seek {
		return s.eachOfPipe(ctx, fn)
	}
	buf := make([]byte, pieceSize)
	for off := int64(0); off < s.size; {
		data, end := s.data(off)
		for off = data; off < end; {
			p := buf[:min(pieceSize, end-off)]
			if _, err := io.ReadFull(io.NewSectionReader(s.File, off, int64(len(p))), p); err != nil {
				if changed := s.unchanged(); changed != nil {
					return changed
				}
				return fmt.Errorf("%v: read at offset %d: %w", s, off, err)
			}
			if err := fn(off, p); err != nil {
				return err
			}
			off += int64(len(p))
		}
	}
	return s.unchanged()
}

// unchanged fails if the image was written since it was opened: then what was read is no
// image of any one moment.
func (s *Source) unchanged() error {
	now, err := s.Stat()
	if err != nil {
		return fmt.Errorf("%v: %w", s, err)
	}
	end, err := s.Seek(0, io.SeekEnd)
	switch {
	case err != nil:
		return fmt.Errorf("%v: %w", s, err)
	case end != s.size:
		return fmt.Errorf("%v changed while it was read: it had %d bytes, and has %d; import it when nobody writes it", s, s.size, end)
	case s.was.Mode().IsRegular() && !now.ModTime().Equal(s.was.ModTime()):
		return fmt.Errorf("%v was written while it was read; import it when nobody writes it", s)
	}
	return nil
}

func (s *Source) eachOfPipe(ctx context.Context, fn func(off int64, p []byte) error) error {
	in := io.MultiReader(bytes.NewReader(s.head), s.File)
	buf, tail := make([]byte, growStep), []byte(nil)
	least, says := int64(0), ""
	for ended := false; !ended; {
		n := 0
		err := await(ctx, func() (err error) {
			n, err = io.ReadFull(in, buf)
			return err
		})
		ended = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return fmt.Errorf("%v: read at offset %d: %w", s, s.taken, err)
		}
		p := buf[:n]
		if s.Known() && s.taken+int64(n) > s.size {
			return fmt.Errorf("%v has more than the %d bytes of --size", s, s.size)
		}
		if s.taken == 0 {
			least, says = promised(p)
		}
		if n > 0 {
			if err := fn(s.taken, p); err != nil {
				return err
			}
		}
		s.taken += int64(n)
		tail = append(tail, p[max(0, n-tailLen):]...)
		tail = tail[max(0, len(tail)-tailLen):]
	}
	switch {
	case s.Known() && s.taken < s.size:
		return fmt.Errorf("%v ended after %d bytes, and --size says %d: what fills it was cut short, or --size is wrong", s, s.taken, s.size)
	case !s.Known() && s.taken < least:
		return fmt.Errorf("%v ended after %d bytes, and its %s goes on to %d: what fills it was cut short; if it was not, say so with --size %d", s, s.taken, says, least, s.taken)
	case !s.Known() && s.taken%sectorLen != 0:
		return fmt.Errorf("%v ended after %d bytes, within a sector: what fills it was cut short; if it was not, say so with --size %d", s, s.taken, s.taken)
	}
	return s.check(tails, tail)
}

// data returns where data begins at or behind an offset, and where it ends. If the
// source cannot tell, everything is data.
func (s *Source) data(off int64) (begin, end int64) {
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
