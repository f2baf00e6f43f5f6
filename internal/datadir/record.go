package datadir

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"openvstorage/internal/format"
	"openvstorage/internal/generation"
)

// The record, DIR/ovs.format: two equal copies of one block of 4096 bytes, so
// that no damaged sector loses it. Little-endian:
//
//	offset size field
//	  0     64  common header: kind 6 (data directory record), owner = the
//	            directory's UUID, number 0
//	 64      8  created, nanoseconds since 1970 UTC
//	 72      8  generation: the newest that was claimed (package generation)
//	 80      8  settled: the newest that every group has
//	 88      8  since when deletion is suspended, nanoseconds since 1970 UTC; 0:
//	            it is not
//	 96      2  groups that were made, g, at most 32
//	 98      2  starts in the history, h, at most 180
//	100      4  zero
//	104    32g  groups, in order of name: length of the name u8, name, zeros;
//	            GROUP.N is member N, and GROUP.away one whose member was dropped
//	1128   16h  history: the first mark of each start, ascending
//	4008     8  life: the newest that the directory has seen
//	4016    16  cluster: the one that the host has joined, or has begun to join; zero
//	            for a machine of its own, and for the first host of a cluster
//	4032    60  zero: room for later releases
//	4092     4  CRC-32C of bytes 0..4091, seeded with the incarnation
//
// Versions 1 and 2 have zeros from 72 on, version 3 from 4008. Releases that do not know
// the cluster have zeros there. To these the directory of a host that has joined is of a
// newer release, and they make no machine of its own in it. The record is
// rewritten whole: features in the header, compatible ones too, and bytes that are
// not zero where zeros belong are refused as of a newer release.
//
// What is versioned here is the layout of the directory as a whole: which
// directories and files there are. Each file in it has a version of its own.
// These bytes are on disk. They never change.
const (
	// Version is the layout that this release makes and the newest it opens.
	//
	// 1: buffer/ (local SCOs and TLogs), map/ (local map pages), backend/ (the
	// local backend), registry/ (names, owners, epochs), lock, nbd.sock, ovs.sock.
	//
	// 2: the registry is in arakoon/registry, and what registry/ has is imported
	// from there once; arakoon/, asd/ and cache/ for the ALBA backend.
	//
	// 3: the record says which groups were made, and counts generations.
	//
	// 4: the record has the life. Registry values and catalogs are of version 2,
	// which no release before reads: this number keeps it off the whole directory.
	Version = 4

	blockSize = 4096
	copies    = 2
	// FileSize is the length of the record's file in bytes.
	FileSize = copies * blockSize

	createdAt    = format.HeaderSize
	generationAt = 72
	settledAt    = 80
	suspendedAt  = 88
	countsAt     = 96
	groupsAt     = 104
	historyAt    = groupsAt + GroupsMax*groupSize
	lifeAt       = historyAt + generation.HistoryMax*generation.Size
	clusterAt    = lifeAt + 8
	roomAt       = clusterAt + 16
	crcAt        = blockSize - 4

	groupSize = 32
)

// Bounds of a Record.
const (
	GroupsMax    = 32            // groups
	GroupNameMax = groupSize - 1 // bytes of the name of one
)

// Record is the content of ovs.format.
type Record struct {
	ID          uuid.UUID
	Created     time.Time
	Incarnation uint64

	// Generation is the newest that this directory has claimed, Settled the newest that
	// all its groups have. While they differ, a claim is under way or was interrupted.
	Generation uint64
	Settled    uint64
	History    generation.History
	// Life is the newest life of the groups that this directory has seen. Each recovery
	// of a group raises it, and data of an older life is refused. 0: no group was ever
	// recovered.
	Life uint64
	// Cluster is the cluster that this host has joined, or has begun to join: it belongs to
	// no other from then on. Zero: a machine of its own, or the first host of a cluster,
	// whose own ID is the cluster's.
	Cluster uuid.UUID
	// Groups are the names of the groups that were made, in order: none of them
	// is ever made again (P8).
	Groups []string
	// Suspended is the time since when nothing is deleted on the disks of the backend:
	// an older copy was accepted, and nobody has confirmed yet that all is well. Zero:
	// deletion is not suspended.
	Suspended time.Time
}

// Made reports whether a group was made in this directory.
func (r *Record) Made(group string) bool { return slices.Contains(r.Groups, group) }

// validate refuses what does not fit the file.
func (r *Record) validate() error {
	if len(r.Groups) > GroupsMax || len(r.History) > generation.HistoryMax || r.Settled > r.Generation || !slices.IsSorted(r.Groups) {
		return fmt.Errorf("record of %d groups, %d starts, generation %d, %d settled", len(r.Groups), len(r.History), r.Generation, r.Settled)
	}
	for _, name := range r.Groups {
		if name == "" || len(name) > GroupNameMax {
			return fmt.Errorf("group name %q of %d bytes", name, len(name))
		}
	}
	return nil
}

// Append appends the whole file to dst. The record must be within its bounds.
func Append(dst []byte, r Record) []byte {
	at := len(dst)
	dst = format.AppendHeader(dst, format.Header{
		Kind: format.KindDirectory, Version: Version, MinReader: Version, Owner: r.ID, Incarnation: r.Incarnation,
	})
	le := binary.LittleEndian
	dst = append(dst, make([]byte, at+crcAt-len(dst))...)
	b := dst[at:]
	le.PutUint64(b[createdAt:], uint64(r.Created.UnixNano()))
	le.PutUint64(b[generationAt:], r.Generation)
	le.PutUint64(b[settledAt:], r.Settled)
	if !r.Suspended.IsZero() {
		le.PutUint64(b[suspendedAt:], uint64(r.Suspended.UnixNano()))
	}
	le.PutUint64(b[lifeAt:], r.Life)
	copy(b[clusterAt:], r.Cluster[:])
	le.PutUint16(b[countsAt:], uint16(len(r.Groups)))
	le.PutUint16(b[countsAt+2:], uint16(len(r.History)))
	for i, name := range r.Groups {
		field := b[groupsAt+i*groupSize:]
		field[0] = byte(len(name))
		copy(field[1:], name)
	}
	for i, m := range r.History {
		copy(b[historyAt+i*generation.Size:], m.Append(nil))
	}
	dst = binary.LittleEndian.AppendUint32(dst, format.SeededCRC(r.Incarnation, dst[at:]))
	return append(dst, dst[at:]...)
}

// Decode reads the file. old reports that the file needs to be rewritten: one copy is
// damaged, or an older release made it. If a newer release wrote one copy, Decode fails
// even if the other copy can be read: such a directory must not be touched.
func Decode(b []byte) (r Record, old bool, err error) {
	var found []Record
	var firstErr error
	for i := range copies {
		c, version, err := decodeCopy(copyOf(b, i))
		switch {
		case errors.Is(err, format.ErrNewer):
			return Record{}, false, err
		case err == nil:
			found = append(found, c)
			old = old || version < Version
		case firstErr == nil:
			firstErr = err
		}
	}
	switch {
	case len(found) == 0:
		return Record{}, false, fmt.Errorf("both copies are damaged: %w", firstErr)
	case len(found) == copies && !bytes.Equal(copyOf(b, 0), copyOf(b, 1)):
		return Record{}, false, fmt.Errorf("%w: its two copies differ", format.ErrCorrupt)
	}
	return found[0], old || len(found) < copies || len(b) != FileSize, nil
}

func copyOf(b []byte, i int) []byte {
	return b[min(i*blockSize, len(b)):min((i+1)*blockSize, len(b))]
}

func decodeCopy(b []byte) (r Record, version uint16, err error) {
	h, err := format.DecodeRewritten(b, format.KindDirectory, Version, 0)
	if err != nil {
		return Record{}, 0, err
	}
	if len(b) < blockSize {
		return Record{}, 0, fmt.Errorf("%w: %d bytes of %d", format.ErrCorrupt, len(b), blockSize)
	}
	if got, want := format.SeededCRC(h.Incarnation, b[:crcAt]), binary.LittleEndian.Uint32(b[crcAt:]); got != want {
		return Record{}, 0, fmt.Errorf("%w: record CRC is %08x, not %08x", format.ErrCorrupt, got, want)
	}
	if err := checkRoom(b, h.Version); err != nil {
		return Record{}, 0, err
	}
	le := binary.LittleEndian
	r = Record{
		ID:          h.Owner,
		Created:     time.Unix(0, int64(le.Uint64(b[createdAt:]))).UTC(),
		Incarnation: h.Incarnation,
	}
	if h.Version < 3 {
		return r, h.Version, nil
	}
	r.Generation, r.Settled, r.Life = le.Uint64(b[generationAt:]), le.Uint64(b[settledAt:]), le.Uint64(b[lifeAt:])
	copy(r.Cluster[:], b[clusterAt:roomAt]) // zeros in version 3, see checkRoom
	if since := int64(le.Uint64(b[suspendedAt:])); since != 0 {
		r.Suspended = time.Unix(0, since).UTC()
	}
	if err := r.decodeLists(b); err != nil {
		return Record{}, 0, err
	}
	if err := r.validate(); err != nil {
		return Record{}, 0, fmt.Errorf("%w: %w", format.ErrCorrupt, err)
	}
	return r, h.Version, nil
}

// checkRoom refuses what is not zero behind the last field of a version.
func checkRoom(b []byte, version uint16) error {
	from := roomAt
	switch {
	case version < 3:
		from = generationAt
	case version == 3:
		from = lifeAt
	}
	if at := format.NotZero(b[from:crcAt]); at >= 0 {
		return unknownField(b, from+at)
	}
	return nil
}

func unknownField(b []byte, at int) error {
	return fmt.Errorf("%w: a field at offset %d (%#x), which this release does not know", format.ErrNewer, at, b[at])
}

// decodeLists reads the groups and the history, and refuses what is not zero
// between and behind their entries.
func (r *Record) decodeLists(b []byte) error {
	le := binary.LittleEndian
	groups, starts := int(le.Uint16(b[countsAt:])), int(le.Uint16(b[countsAt+2:]))
	if groups > GroupsMax || starts > generation.HistoryMax {
		return fmt.Errorf("%w: %d groups, %d starts", format.ErrCorrupt, groups, starts)
	}
	if at := format.NotZero(b[countsAt+4 : groupsAt]); at >= 0 {
		return unknownField(b, countsAt+4+at)
	}
	for i := range GroupsMax {
		start := groupsAt + i*groupSize
		length := 0
		if i < groups {
			if length = int(b[start]); length > GroupNameMax {
				return fmt.Errorf("%w: name of group %d has %d bytes", format.ErrCorrupt, i, length)
			}
			r.Groups = append(r.Groups, string(b[start+1:start+1+length]))
			length++
		}
		if at := format.NotZero(b[start+length : start+groupSize]); at >= 0 {
			return unknownField(b, start+length+at)
		}
	}
	for i := range starts {
		m, err := generation.Decode(b[historyAt+i*generation.Size:][:generation.Size])
		if err != nil {
			return err
		}
		r.History = append(r.History, m)
	}
	if end := historyAt + starts*generation.Size; format.NotZero(b[end:lifeAt]) >= 0 {
		return unknownField(b, end+format.NotZero(b[end:lifeAt]))
	}
	return nil
}
