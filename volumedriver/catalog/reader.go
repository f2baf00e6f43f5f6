package catalog

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"openvstorage/internal/format"
	"openvstorage/sco"

	"github.com/google/uuid"
)

// decodeEntry reads one entry and appends it to its list.
func (c *Catalog) decodeEntry(r *reader, p place) {
	switch p.list {
	case listEpochs:
		c.Epochs = append(c.Epochs, EpochStart{Epoch: r.u64(), Base: r.u64()})
	case listOrigins:
		o := Origin{Volume: r.uuid(), Snapshot: r.uuid()}
		if p.version > 1 {
			r.originPlace(len(c.Origins))
		}
		c.Origins = append(c.Origins, o)
	case listChildren:
		k := Child{Volume: r.uuid(), Snapshot: r.uuid()}
		if p.version > 1 {
			k.Unstored = r.childFlags(k.Volume)
		}
		c.Children = append(c.Children, k)
	case listTLogs:
		c.TLogs = append(c.TLogs, TLog{Number: r.u64(), FirstSeq: r.u64(), LastSeq: r.u64(), Size: int64(r.u64())})
	case listSnapshots:
		if p.version == 1 {
			c.Snapshots = append(c.Snapshots, r.snapshot())
			return
		}
		c.Snapshots = append(c.Snapshots, r.longSnapshot())
	case listPages:
		c.Pages = append(c.Pages, PageObject{Number: r.u64(), First: r.u64(), End: r.u64(), Pages: r.u32(), Size: int64(r.u64())})
	default:
		c.Checkpoint.Drops = append(c.Checkpoint.Drops, Drop{Page: r.u64(), Level: r.u8()})
	}
}

// reader takes values off the front of b. Once b is too short, err says so and every
// further value is zero: the caller checks err once, at the end.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(text string, args ...any) { r.stop(format.ErrCorrupt, text, args) }

// newer is fail for what is undamaged but unknown to this release.
func (r *reader) newer(text string, args ...any) { r.stop(format.ErrNewer, text, args) }

func (r *reader) stop(kind error, text string, args []any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+text, append([]any{kind}, args...)...)
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if r.err != nil || len(r.b) < n {
		r.fail("it ends in the middle of a value")
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

// zero reads n bytes of room for later releases. behind says what they follow.
func (r *reader) zero(n int, behind string) {
	if v := r.take(n); format.NotZero(v) >= 0 {
		r.newer("a field behind %s, %x", behind, v)
	}
}

func (r *reader) u8() uint8 {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if v := r.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if v := r.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if v := r.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (r *reader) uuid() (id uuid.UUID) {
	copy(id[:], r.take(16))
	return id
}

func (r *reader) time() time.Time {
	sec, nsec := int64(r.u64()), r.u32()
	if nsec >= 1e9 {
		r.fail("a time with %d nanoseconds", nsec)
	}
	return time.Unix(sec, int64(nsec)).UTC()
}

func (r *reader) root() Root {
	return Root{Page: r.u64(), Clusters: r.u64(), Levels: r.u8()}
}

// originPlace reads what only version 2 has of an origin: here that of the i-th.
func (r *reader) originPlace(i int) {
	number, flags := r.u16(), r.u8()
	switch {
	case r.err != nil:
	case flags != 0:
		r.newer("origin %d with flags %#x (bit 0: nothing refers to it any more)", i, flags)
	case int(number) != i:
		r.newer("origin %d has number %d: the table was compacted", i, number)
	}
	r.zero(1, "the flags of an origin")
}

func (r *reader) childFlags(id uuid.UUID) (unstored bool) {
	flags := r.u32()
	if unknown := flags &^ childUnstored; unknown != 0 {
		r.newer("child %s with flags %#x", id, unknown)
	}
	return flags&childUnstored != 0
}

// snapshot reads the part of a snapshot that both versions have.
func (r *reader) snapshot() Snapshot {
	s := Snapshot{
		ID: r.uuid(), Parent: r.uuid(), Seq: r.u64(), Created: r.time(), Size: r.u64(),
		NextSCO: sco.Number(r.u64()),
	}
	flags := r.u8()
	if unknown := flags &^ (snapAuto | snapHasRoot); unknown != 0 {
		r.newer("snapshot %s with flags %#x", s.ID, unknown)
	}
	s.Auto, s.HasRoot = flags&snapAuto != 0, flags&snapHasRoot != 0
	s.Root = r.root()
	s.Name = string(r.take(int(r.u16())))
	return s
}

// longSnapshot reads a snapshot of version 2, which begins with its length.
func (r *reader) longSnapshot() Snapshot {
	length := int(r.u16())
	if length < snapFixed {
		r.fail("a snapshot of %d bytes", length)
	}
	part := &reader{b: r.take(max(length-2, 0))}
	s := part.snapshot()
	s.Meta = string(part.take(int(part.u16())))
	if part.err == nil && len(part.b) > 0 {
		part.newer("snapshot %s with a field of %d bytes behind its metadata", s.ID, len(part.b))
	}
	if part.err != nil && r.err == nil {
		r.err, r.b = part.err, nil
	}
	return s
}

// ref is a decoded reference to a segment.
type ref struct {
	name   string
	length uint32
	crc    uint32
	count  uint32
}

func (r *reader) ref() ref {
	v := ref{name: SegmentPrefix + hex.EncodeToString(r.take(16)), length: r.u32(), crc: r.u32(), count: r.u32()}
	r.zero(4, "a reference to a segment")
	if v.length > SegmentMax {
		r.fail("a reference to a segment of %d bytes", v.length)
	}
	return v
}
