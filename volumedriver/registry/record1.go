package registry

import (
	"encoding/binary"

	"github.com/google/uuid"
)

// Version 1 of the values in the store. It is read, but not written any more.
//
// A record:
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
	valueFixed1 = 39
	metaSize1   = 14
)

func (r *Record) decode1(b []byte) error {
	if len(b) < valueFixed1 || len(b) < valueFixed1+int(b[38]) {
		return corrupt("it has %d bytes", len(b))
	}
	if err := checkFlags(b[1]); err != nil {
		return err
	}
	r.Deleting = b[1]&flagDeleting != 0
	r.Epoch = binary.LittleEndian.Uint64(b[2:])
	r.Parent = uuid.UUID(b[22:38])
	owner := valueFixed1 + int(b[38])
	r.Owner, r.Name = string(b[valueFixed1:owner]), string(b[owner:])
	return r.decodeCreated(b[10:])
}

func (m *meta) decode1(b []byte) error {
	if len(b) != metaSize1 {
		return corrupt("meta value of %d bytes", len(b))
	}
	*m = meta{state: b[1], records: binary.LittleEndian.Uint32(b[2:]), generation: binary.LittleEndian.Uint64(b[6:])}
	return nil
}
