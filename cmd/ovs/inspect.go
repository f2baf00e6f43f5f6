package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"openvstorage/internal/format"
)

func (a *app) inspect() *cobra.Command {
	return group("inspect", "dump and verify files and objects; files without a running ovs up",
		a.inspectSCO(), a.inspectTLog(), a.inspectCatalog(), a.inspectManifest(), a.inspectSegment(), a.inspectRaftLog())
}

// inspectMax is the largest file that is inspected, in bytes. It is read into
// memory.
const inspectMax = 1 << 30

// readObject reads a file of the write buffer or of the local backend. stored
// tells which: the backend puts checksums behind the object (package
// backend/local), which are left off here, every format having its own.
func readObject(name string) (b []byte, stored bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	// A file that is too long is not read first; what tells no length is read up
	// to the limit.
	info, err := f.Stat()
	if err == nil && info.Size() <= inspectMax {
		b = slices.Grow(b, int(info.Size())+bytes.MinRead)
		b, err = readUpTo(f, b, inspectMax+1)
	}
	if err != nil {
		return nil, false, err
	}
	if len(b) > inspectMax || info.Size() > inspectMax {
		return nil, false, fmt.Errorf("%s: larger than the %s that are inspected; is it the right file?", name, human(inspectMax))
	}
	b, stored, err = object(b)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", name, err)
	}
	return b, stored, nil
}

// readUpTo appends what r has to b, up to n bytes.
func readUpTo(r io.Reader, b []byte, n int64) ([]byte, error) {
	buf := bytes.NewBuffer(b)
	_, err := buf.ReadFrom(io.LimitReader(r, n))
	return buf.Bytes(), err
}

// object takes off what the local backend has put behind an object: a table
// of checksums and 80 bytes that begin with a header and end with the
// object's size (8), two CRCs (4 each).
func object(b []byte) (inner []byte, stored bool, err error) {
	const trailer, version = format.HeaderSize + 16, 1
	if len(b) < trailer {
		return b, false, nil
	}
	at := len(b) - trailer
	if h, err := format.Peek(b[at:]); err != nil || h.Kind != format.KindObject {
		return b, false, nil
	}
	if _, err := format.DecodeHeader(b[at:], format.KindObject, version, 0); err != nil {
		return nil, false, err
	}
	size := binary.LittleEndian.Uint64(b[at+format.HeaderSize:])
	if size > uint64(at) {
		return nil, false, fmt.Errorf("%w: an object of %d bytes in a file of %d", format.ErrCorrupt, size, len(b))
	}
	return b[:size], true, nil
}
