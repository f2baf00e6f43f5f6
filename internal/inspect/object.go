package inspect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"openvstorage/internal/format"
)

// object is a file of the write buffer or of the local backend; stored tells which. The
// backend puts checksums behind the object (package backend/local). They are left off
// here, because every format has its own.
type object struct {
	*os.File
	size   int64
	stored bool
}

// openObject opens a file to be read in pieces.
func openObject(name string) (*object, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	o := &object{File: f}
	if err := o.measure(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return o, nil
}

// readObject reads a file of at most limit bytes. A larger file cannot hold what is
// asked for.
func readObject(name string, limit int64) (b []byte, stored bool, err error) {
	o, err := openObject(name)
	if err != nil {
		return nil, false, err
	}
	defer o.Close()
	if o.size > limit {
		return nil, false, fmt.Errorf("%s: %w: it has %d bytes, more than the %d that are possible; is it the right file?", name, format.ErrCorrupt, o.size, limit)
	}
	b = make([]byte, o.size)
	if _, err := io.ReadFull(io.NewSectionReader(o, 0, o.size), b); err != nil {
		return nil, false, fmt.Errorf("%s: %w", name, err)
	}
	return b, o.stored, nil
}

// measure finds out what the local backend has put behind an object: a table of
// checksums, and 80 bytes that begin with a header and end with the object's size (8
// bytes) and two CRCs (4 bytes each).
func (o *object) measure() error {
	const trailer, version = format.HeaderSize + 16, 1
	info, err := o.Stat()
	if err != nil {
		return err
	}
	if o.size = info.Size(); o.size < trailer {
		return nil
	}
	tail := make([]byte, trailer)
	if _, err := o.ReadAt(tail, o.size-trailer); err != nil {
		return err
	}
	if h, err := format.Peek(tail); err != nil || h.Kind != format.KindObject {
		return nil
	}
	if _, err := format.DecodeHeader(tail, format.KindObject, version, 0); err != nil {
		return err
	}
	size := binary.LittleEndian.Uint64(tail[format.HeaderSize:])
	if size > uint64(o.size-trailer) {
		return fmt.Errorf("%w: an object of %d bytes in a file of %d", format.ErrCorrupt, size, o.size)
	}
	o.size, o.stored = int64(size), true
	return nil
}
