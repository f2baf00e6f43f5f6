package registry

import (
	"encoding/binary"
	"fmt"
	"time"

	"openvstorage/internal/format"

	"github.com/google/uuid"
)

// The registry file of older releases, which Import reads. Values are
// little-endian.
//
//	offset size field
//	  0     64  common header: kind registry, number = generation
//	 64      4  length of the whole file
//	 68      4  number of records
//	 72      .  records, sorted by name
//	end-4    4  CRC-32C of all that comes before
//
// A record:
//
//	 0     16  ID
//	16     16  Parent
//	32      8  Epoch
//	40     12  Created: seconds since 1970 (8, signed), nanoseconds (4)
//	52      1  flags: bit 0 Deleting
//	53      2  length of Name
//	55      1  length of Owner
//	56      .  Name, Owner
//
// A reader refuses what it does not know. These bytes are on disk. They never change.
const (
	version      = 1
	fileFixed    = 72
	recordFixed  = 56
	crcSize      = 4
	fileMax      = fileFixed + RecordsMax*(recordFixed+NameMax+OwnerMax) + crcSize
	flagDeleting = 1 << 0
)

func corrupt(text string, args ...any) error {
	return fmt.Errorf("%w: "+text, append([]any{format.ErrCorrupt}, args...)...)
}

// decode reads a registry file.
func decode(b []byte) (generation uint64, records []Record, err error) {
	h, err := format.DecodeRewritten(b, format.KindRegistry, version, 0)
	if err != nil {
		return 0, nil, err
	}
	if len(b) < fileFixed+crcSize || uint64(binary.LittleEndian.Uint32(b[64:])) != uint64(len(b)) {
		return 0, nil, corrupt("it has %d bytes and says another number", len(b))
	}
	body := b[:len(b)-crcSize]
	if got, want := format.CRC(body), binary.LittleEndian.Uint32(b[len(body):]); got != want {
		return 0, nil, corrupt("CRC is %08x, not %08x", got, want)
	}
	count := binary.LittleEndian.Uint32(b[68:])
	rest := body[fileFixed:]
	if count > RecordsMax || uint64(count)*recordFixed > uint64(len(rest)) {
		return 0, nil, corrupt("%d records in %d bytes", count, len(rest))
	}
	records = make([]Record, count)
	ids := make(map[uuid.UUID]bool, count)
	for i := range records {
		r := &records[i]
		if rest, err = decodeRecord(r, rest); err != nil {
			return 0, nil, err
		}
		if err := r.validate(); err != nil {
			return 0, nil, corrupt("record %d: %v", i, err)
		}
		if ids[r.ID] || i > 0 && records[i-1].Name >= r.Name {
			return 0, nil, corrupt("record %d, %q: its id is used twice or its name is out of order", i, r.Name)
		}
		ids[r.ID] = true
	}
	if len(rest) != 0 {
		return 0, nil, corrupt("%d bytes behind the last record", len(rest))
	}
	return h.Number, records, nil
}

func decodeRecord(r *Record, b []byte) (rest []byte, err error) {
	if len(b) < recordFixed {
		return nil, corrupt("it ends in the middle of a record")
	}
	copy(r.ID[:], b)
	copy(r.Parent[:], b[16:])
	r.Epoch = binary.LittleEndian.Uint64(b[32:])
	nanoseconds := binary.LittleEndian.Uint32(b[48:])
	r.Created = time.Unix(int64(binary.LittleEndian.Uint64(b[40:])), int64(nanoseconds)).UTC()
	r.Deleting = b[52]&flagDeleting != 0
	name, owner := int(binary.LittleEndian.Uint16(b[53:])), int(b[55])
	if err := checkFlags(b[52]); err != nil {
		return nil, fmt.Errorf("record of vDisk %s: %w", r.ID, err)
	}
	if nanoseconds >= 1e9 || len(b) < recordFixed+name+owner {
		return nil, corrupt("record of vDisk %s: %d nanoseconds, %d bytes of name", r.ID, nanoseconds, name)
	}
	b = b[recordFixed:]
	r.Name, r.Owner = string(b[:name]), string(b[name:name+owner])
	return b[name+owner:], nil
}
