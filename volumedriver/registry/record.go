package registry

import (
	"encoding/binary"
	"fmt"
	"time"

	"openvstorage/internal/format"

	"github.com/google/uuid"
)

// Values in the store, little-endian. They are rewritten by whoever reads them:
// what a reader does not know it refuses. These bytes are on disk. They never
// change.
//
// A record, under the vDisk's id:
//
//	offset size field
//	  0      1  version, 1
//	  1      1  flags: bit 0 Deleting
//	  2      8  Epoch
//	 10     12  Created: seconds since 1970 (8, signed), nanoseconds (4)
//	 22     16  Parent
//	 38      1  length of Owner
//	 39      .  Owner, then Name to the end
//
// The meta value:
//
//	0      1  version, 1
//	1      1  state: 0, 1 while files are being imported, 2 when they were
//	2      4  number of records, 0 while they are being imported
//	6      8  generation of those files
const (
	valueVersion = 1
	valueFixed   = 39
	metaSize     = 14

	importing = 1
	imported  = 2
)

func encodeValue(r *Record) []byte {
	b := make([]byte, 0, valueFixed+len(r.Owner)+len(r.Name))
	var flags byte
	if r.Deleting {
		flags |= flagDeleting
	}
	b = append(b, valueVersion, flags)
	b = binary.LittleEndian.AppendUint64(b, r.Epoch)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Created.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.Created.Nanosecond()))
	b = append(b, r.Parent[:]...)
	b = append(b, byte(len(r.Owner)))
	b = append(b, r.Owner...)
	return append(b, r.Name...)
}

// decodeValue reads the record of a vDisk.
func decodeValue(id uuid.UUID, b []byte) (Record, error) {
	if err := checkVersion(b); err != nil {
		return Record{}, fmt.Errorf("record of vDisk %s: %w", id, err)
	}
	r := Record{ID: id}
	if len(b) < valueFixed || len(b) < valueFixed+int(b[38]) {
		return Record{}, corrupt("record of vDisk %s has %d bytes", id, len(b))
	}
	nanoseconds := binary.LittleEndian.Uint32(b[18:])
	if b[1]&^flagDeleting != 0 || nanoseconds >= 1e9 {
		return Record{}, corrupt("record of vDisk %s: flags %#x, %d nanoseconds", id, b[1], nanoseconds)
	}
	r.Deleting = b[1]&flagDeleting != 0
	r.Epoch = binary.LittleEndian.Uint64(b[2:])
	r.Created = time.Unix(int64(binary.LittleEndian.Uint64(b[10:])), int64(nanoseconds)).UTC()
	copy(r.Parent[:], b[22:])
	owner := valueFixed + int(b[38])
	r.Owner, r.Name = string(b[valueFixed:owner]), string(b[owner:])
	if err := r.validate(); err != nil {
		return Record{}, corrupt("record of vDisk %s: %v", id, err)
	}
	return r, nil
}

func checkVersion(b []byte) error {
	switch {
	case len(b) == 0:
		return corrupt("it has no bytes")
	case b[0] > valueVersion:
		return fmt.Errorf("%w: version %d, this release reads up to %d", format.ErrNewer, b[0], valueVersion)
	case b[0] != valueVersion:
		return corrupt("version %d does not exist", b[0])
	}
	return nil
}

// meta is what is kept of a whole registry.
type meta struct {
	state      byte
	records    uint32
	generation uint64 // of what was imported
}

func (m meta) encode() []byte {
	b := binary.LittleEndian.AppendUint32([]byte{valueVersion, m.state}, m.records)
	return binary.LittleEndian.AppendUint64(b, m.generation)
}

// decodeMeta reads the meta value; nil is that of an empty registry.
func decodeMeta(b []byte) (m meta, err error) {
	if b == nil {
		return m, nil
	}
	if err := checkVersion(b); err != nil {
		return m, fmt.Errorf("registry: %w", err)
	}
	if len(b) != metaSize {
		return m, corrupt("registry: meta value of %d bytes", len(b))
	}
	m = meta{state: b[1], records: binary.LittleEndian.Uint32(b[2:]), generation: binary.LittleEndian.Uint64(b[6:])}
	if m.state > imported || m.records > RecordsMax || m.state == 0 && m.generation != 0 {
		return m, corrupt("registry: state %d, %d records, generation %d", m.state, m.records, m.generation)
	}
	return m, nil
}
