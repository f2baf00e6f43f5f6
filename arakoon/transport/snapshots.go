package transport

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"

	"openvstorage/arakoon"
	"openvstorage/internal/wire"
)

// Types of package arakoon that snapshots are served with.
type (
	SnapshotID   = arakoon.SnapshotID
	SnapshotFile = arakoon.SnapshotFile
)

// Snapshots are those of a member; SnapshotsOf makes them of a node. OpenSnapshot is called
// for each read: the transport keeps none open in between, so that a fetch that has ended
// holds nothing.
type Snapshots interface {
	OpenSnapshot(id SnapshotID) (Snapshot, error)
}

// Snapshot is open for reading until Close; *arakoon.Snapshot is one.
type Snapshot interface {
	Files() []SnapshotFile
	ReadAt(name string, p []byte, off int64) (int, error) // as io.ReaderAt
	Close()
}

// SnapshotsOf are the snapshots of a node.
func SnapshotsOf(n *arakoon.Node) Snapshots { return nodeSnapshots{n} }

type nodeSnapshots struct{ node *arakoon.Node }

func (n nodeSnapshots) OpenSnapshot(id SnapshotID) (Snapshot, error) {
	s, err := n.node.OpenSnapshot(id)
	if err != nil {
		return nil, err // not a Snapshot that is a nil pointer
	}
	return s, nil
}

// Bounds of snapshots.
const (
	readMax      = 1 << 20
	filesMax     = 1 << 16
	nameMax      = 255
	snapshotHead = 48
	fileHead     = 14 // of a file in a list, before its name
)

// asking is the header of a request for something of a snapshot.
type asking struct {
	bytes    uint32
	offset   uint64
	from, to uint64
	id       SnapshotID
	name     string
}

func (a *asking) append(dst []byte) []byte {
	le := binary.LittleEndian
	dst = append(dst, version, 0)
	dst = le.AppendUint16(dst, uint16(len(a.name)))
	dst = le.AppendUint32(dst, a.bytes)
	dst = le.AppendUint64(dst, a.offset)
	dst = le.AppendUint64(dst, a.from)
	dst = le.AppendUint64(dst, a.to)
	dst = append(dst, a.id[:]...)
	return append(dst, a.name...)
}

// decodeAsking reads the header of a request of operation op.
func decodeAsking(op uint16, b []byte) (a asking, err error) {
	if len(b) > 0 && b[0] > version {
		return a, fmt.Errorf("version %d is %w; upgrade this host", b[0], ErrNewer)
	}
	le := binary.LittleEndian
	if len(b) < snapshotHead || b[0] != version || b[1] != 0 || int(le.Uint16(b[2:])) != len(b)-snapshotHead {
		return a, fmt.Errorf("%w: a header of %d bytes", ErrCorrupt, len(b))
	}
	a = asking{le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:]), SnapshotID(b[32:48]), string(b[48:])}
	ok := a.bytes == 0 && a.offset == 0
	if op == opSnapshotRead {
		ok = a.bytes >= 1 && a.bytes <= readMax && a.offset <= math.MaxInt64
	}
	if !ok || (op == opSnapshotList) != (a.name == "") || op != opSnapshotList && !goodName(a.name) {
		return a, fmt.Errorf("%w: %d bytes from %d of %q asked for by operation %d", ErrCorrupt, a.bytes, a.offset, a.name, op)
	}
	return a, nil
}

// goodName says whether a file of a snapshot may be called so: the one who fetches makes it
// in a directory of its own.
func goodName(name string) bool {
	return name != "" && len(name) <= nameMax && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00") && !strings.HasSuffix(name, partSuffix)
}

// encodeFiles makes the answer of a list.
func encodeFiles(files []SnapshotFile) (header, body []byte, err error) {
	if len(files) > filesMax {
		return nil, nil, fmt.Errorf("%w: it has %d files, at most %d may be", ErrRead, len(files), filesMax)
	}
	le := binary.LittleEndian
	for _, f := range files {
		if !goodName(f.Name) || f.Size < 0 {
			return nil, nil, fmt.Errorf("%w: it has a file %q of %d bytes", ErrRead, f.Name, f.Size)
		}
		body = le.AppendUint16(body, uint16(len(f.Name)))
		body = le.AppendUint64(body, uint64(f.Size))
		body = le.AppendUint32(body, f.CRC)
		body = append(body, f.Name...)
	}
	return le.AppendUint32([]byte{version, 0, 0, 0}, uint32(len(files))), body, nil
}

// decodeFiles reads the answer of a list.
func decodeFiles(header, body []byte) ([]SnapshotFile, error) {
	if len(header) > 0 && header[0] > version {
		return nil, fmt.Errorf("a list of files of version %d is %w; upgrade this host", header[0], ErrNewer)
	}
	le := binary.LittleEndian
	if len(header) != 8 || header[0] != version || le.Uint32(header)>>8 != 0 || le.Uint32(header[4:]) > filesMax {
		return nil, fmt.Errorf("%w: a list of files with the header %x", ErrCorrupt, header[:min(len(header), 64)])
	}
	count := int(le.Uint32(header[4:]))
	files := make([]SnapshotFile, 0, min(count, len(body)/(fileHead+1)))
	names := make(map[string]struct{}, cap(files))
	for len(body) > 0 {
		if len(body) < fileHead || int(le.Uint16(body)) > len(body)-fileHead || len(files) == count {
			return nil, fmt.Errorf("%w: a list of %d files ends within file %d", ErrCorrupt, count, len(files))
		}
		n := int(le.Uint16(body))
		f := SnapshotFile{Name: string(body[fileHead : fileHead+n]), Size: int64(le.Uint64(body[2:])), CRC: le.Uint32(body[10:])}
		_, twice := names[f.Name]
		if !goodName(f.Name) || f.Size < 0 || twice {
			return nil, fmt.Errorf("%w: a list with a file %q of %d bytes", ErrCorrupt, f.Name, f.Size)
		}
		names[f.Name] = struct{}{}
		files = append(files, f)
		body = body[fileHead+n:]
	}
	if len(files) != count {
		return nil, fmt.Errorf("%w: a list of %d files has %d", ErrCorrupt, count, len(files))
	}
	return files, nil
}

// snapshot answers what another member asks about a snapshot.
func (t *Transport) snapshot(g *group, r *wire.Incoming) (wire.Answer, error) {
	a, err := decodeAsking(r.Op, r.Header)
	if err != nil {
		return wire.Answer{}, err
	}
	once := receiving{group: g}
	if err := once.sender(a.from, a.to, r.Peer); err != nil {
		return wire.Answer{}, err
	}
	select {
	case t.reads <- struct{}{}:
		defer func() { <-t.reads }()
	default:
		return wire.Answer{}, fmt.Errorf("%w: %d reads of snapshots are under way", wire.ErrBusy, cap(t.reads))
	}
	if g.snapshots == nil {
		return wire.Answer{}, fmt.Errorf("%w: this member has none", ErrSnapshot)
	}
	s, err := g.snapshots.OpenSnapshot(a.id)
	if err != nil {
		return wire.Answer{}, fmt.Errorf("%w: %v: %w", ErrSnapshot, a.id, err)
	}
	defer s.Close()
	if r.Op == opSnapshotList {
		header, body, err := encodeFiles(s.Files())
		return wire.Answer{Header: header, Body: wire.Wrap(nil, body), Sum: true}, err
	}
	files := s.Files()
	i := slices.IndexFunc(files, func(f SnapshotFile) bool { return f.Name == a.name })
	if i < 0 {
		return wire.Answer{}, fmt.Errorf("%w: %v has no file %q", ErrSnapshot, a.id, a.name)
	}
	return t.read(s, files[i], &a)
}

// read answers with bytes of a file.
func (t *Transport) read(s Snapshot, f SnapshotFile, a *asking) (wire.Answer, error) {
	n := min(int64(a.bytes), f.Size-int64(a.offset))
	if n <= 0 {
		return wire.Answer{}, fmt.Errorf("%w: %q has %d bytes, none at %d", ErrRead, f.Name, f.Size, a.offset)
	}
	buf := t.pool.Get(int(n))
	if buf == nil {
		return wire.Answer{}, fmt.Errorf("%w: no memory to read %d bytes of a snapshot", wire.ErrBusy, n)
	}
	if m, err := s.ReadAt(f.Name, buf.Bytes(), int64(a.offset)); int64(m) < n {
		buf.Release()
		return wire.Answer{}, fmt.Errorf("%w: %q at %d: %d of %d bytes: %w", ErrRead, f.Name, a.offset, m, n, err)
	}
	t.stats.reads.Add(1)
	return wire.Answer{Body: buf, Sum: true}, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumFile is the CRC-32C of size bytes, which are read until ctx ends.
func sumFile(ctx context.Context, size int64, readAt func(p []byte, off int64) (int, error)) (sum uint32, err error) {
	p := make([]byte, min(size, 256<<10))
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return 0, context.Cause(ctx)
		}
		n, err := readAt(p[:min(int64(len(p)), size-off)], off)
		if n == 0 {
			return 0, fmt.Errorf("at %d of %d bytes: %w", off, size, err)
		}
		sum = crc32.Update(sum, castagnoli, p[:n])
		off += int64(n)
	}
	return sum, nil
}
