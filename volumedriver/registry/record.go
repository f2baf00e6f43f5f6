package registry

import (
	"encoding/binary"
	"fmt"
	"time"

	"openvstorage/internal/format"

	"github.com/google/uuid"
)

// Values in the store, little-endian. Whoever reads one may rewrite it, and would drop
// what it does not know: so a reader refuses that, as the work of a newer release. These
// bytes are on disk. They never change.
//
// A record, under the vDisk's id:
//
//	offset size field
//	  0      1  version, 2
//	  1      1  flags: bit 0 Deleting, bit 1 Released
//	  2      2  length of Name
//	  4      1  length of Owner
//	  5      3  zero
//	  8      8  Epoch
//	 16     12  Created: seconds since 1970 (8, signed), nanoseconds (4)
//	 28      4  incompatible features: none are known
//	 32     16  Parent
//	 48     16  Host; zero in what an older release wrote: the founder has the vDisk
//	 64     16  DTL host, zero
//	 80      8  DTL incarnation, zero
//	 88      1  DTL state, zero: there is no DTL
//	 89     39  zero: room for later releases
//	128      .  Owner, Name, and nothing behind them
//
// The DTL has its places already, which are zero in this release. A vDisk with one that
// is not zero is neither claimed nor changed by a release that does not know what it
// means. Releases before owners were known refuse a host in the same way.
//
// The meta value changes with the number of vDisks:
//
//	 0      1  version, 2
//	 1      1  state: 0, 1 while files are being imported, 2 when they were
//	 2      2  zero
//	 4      4  number of records, 0 while they are being imported
//	 8      8  generation of those files
//	16     16  zero: room for later releases
//
// The features value says what a release must know to change anything here. It has a
// key of its own: each change of the registry compares it, and changes that have nothing
// else in common must not collide. An absent value means no features.
//
//	0      1  version, 1
//	1      3  zero
//	4      4  incompatible features: bit 0, owners: records name hosts, and intents are kept
//	8      8  zero: room for later releases
//
// Entries of hosts are in hosts.go, intents in intent.go. What version 1 wrote is in
// record1.go.
const (
	valueVersion = 2
	valueFixed   = 128
	metaSize     = 32

	featuresVersion = 1
	featuresSize    = 16

	importing = 1
	imported  = 2

	flagReleased  = 1 << 1 // of a record, since hosts are known
	featureOwners = 1 << 0
)

func encodeValue(r *Record) []byte {
	b := make([]byte, valueFixed, valueFixed+len(r.Owner)+len(r.Name))
	le := binary.LittleEndian
	b[0] = valueVersion
	if r.Deleting {
		b[1] |= flagDeleting
	}
	if r.Released {
		b[1] |= flagReleased
	}
	le.PutUint16(b[2:], uint16(len(r.Name)))
	b[4] = byte(len(r.Owner))
	le.PutUint64(b[8:], r.Epoch)
	le.PutUint64(b[16:], uint64(r.Created.Unix()))
	le.PutUint32(b[24:], uint32(r.Created.Nanosecond()))
	copy(b[32:], r.Parent[:])
	copy(b[48:], r.Host[:])
	b = append(b, r.Owner...)
	return append(b, r.Name...)
}

// decodeValue reads the record of a vDisk, of any version.
func decodeValue(id uuid.UUID, b []byte) (Record, error) {
	r := Record{ID: id}
	err := checkVersion(b, valueVersion)
	if err == nil {
		err = r.decode(b)
	}
	if err != nil {
		return Record{}, fmt.Errorf("record of vDisk %s: %w", id, err)
	}
	if err := r.validate(); err != nil {
		return Record{}, corrupt("record of vDisk %s: %v", id, err)
	}
	return r, nil
}

func (r *Record) decode(b []byte) error {
	if b[0] == 1 {
		return r.decode1(b)
	}
	if len(b) < valueFixed {
		return corrupt("it has %d bytes", len(b))
	}
	le := binary.LittleEndian
	name, owner := int(le.Uint16(b[2:])), int(b[4])
	if len(b) < valueFixed+owner+name {
		return corrupt("it has %d bytes, and a name of %d", len(b), name)
	}
	if err := checkFields(b, valueFields); err != nil {
		return err
	}
	if err := checkFlags(b[1] &^ flagReleased); err != nil {
		return err
	}
	if rest := len(b) - valueFixed - owner - name; rest > 0 {
		return newer("%d bytes behind the name", rest)
	}
	r.Deleting, r.Released = b[1]&flagDeleting != 0, b[1]&flagReleased != 0
	r.Epoch = le.Uint64(b[8:])
	copy(r.Parent[:], b[32:])
	copy(r.Host[:], b[48:])
	r.Owner, r.Name = string(b[valueFixed:valueFixed+owner]), string(b[valueFixed+owner:])
	return r.decodeCreated(b[16:])
}

func (r *Record) decodeCreated(b []byte) error {
	nanoseconds := binary.LittleEndian.Uint32(b[8:])
	if nanoseconds >= 1e9 {
		return corrupt("%d nanoseconds", nanoseconds)
	}
	r.Created = time.Unix(int64(binary.LittleEndian.Uint64(b)), int64(nanoseconds)).UTC()
	return nil
}

// field is a place in a value that is zero in this release.
type field struct {
	from, to int
	name     string
}

var valueFields = []field{
	{5, 8, "a field behind the lengths"}, {28, 32, "incompatible features"}, {64, 80, "a DTL host"},
	{80, 88, "a DTL incarnation"}, {88, 89, "a DTL state"}, {89, valueFixed, "a field behind the DTL state"},
}

var metaFields = []field{{2, 4, "a field behind the state"}, {16, metaSize, "a field behind the generation"}}

var featuresFields = []field{{1, 4, "a field behind the version"}, {8, featuresSize, "a field behind the features"}}

// checkFields refuses a value with a field that this release does not know.
func checkFields(b []byte, fields []field) error {
	for _, f := range fields {
		if format.NotZero(b[f.from:f.to]) >= 0 {
			return newer("it has %s, %x", f.name, b[f.from:f.to])
		}
	}
	return nil
}

func checkFlags(flags byte) error {
	if unknown := flags &^ flagDeleting; unknown != 0 {
		return newer("flags %#x", unknown)
	}
	return nil
}

func newer(text string, args ...any) error {
	return fmt.Errorf("%w: "+text, append([]any{format.ErrNewer}, args...)...)
}

func checkVersion(b []byte, most byte) error {
	switch {
	case len(b) == 0:
		return corrupt("it has no bytes")
	case b[0] > most:
		return newer("version %d, this release reads up to %d", b[0], most)
	case b[0] == 0:
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
	b := binary.LittleEndian.AppendUint32([]byte{valueVersion, m.state, 0, 0}, m.records)
	b = binary.LittleEndian.AppendUint64(b, m.generation)
	return append(b, make([]byte, metaSize-len(b))...)
}

// decodeMeta reads the meta value, of any version; nil is that of an empty registry.
func decodeMeta(b []byte) (m meta, err error) {
	if b == nil {
		return m, nil
	}
	if err = checkVersion(b, valueVersion); err == nil {
		err = m.decode(b)
	}
	if err != nil {
		return meta{}, fmt.Errorf("registry: %w", err)
	}
	return m, nil
}

func (m *meta) decode(b []byte) error {
	if b[0] == 1 {
		if err := m.decode1(b); err != nil {
			return err
		}
	} else {
		if len(b) < metaSize {
			return corrupt("meta value of %d bytes", len(b))
		}
		if len(b) > metaSize {
			return newer("meta value of %d bytes", len(b))
		}
		if err := checkFields(b, metaFields); err != nil {
			return err
		}
		*m = meta{state: b[1], records: binary.LittleEndian.Uint32(b[4:]), generation: binary.LittleEndian.Uint64(b[8:])}
	}
	switch {
	case m.state > imported:
		return newer("state %d", m.state)
	case m.records > RecordsMax:
		return newer("%d vDisks, this release knows up to %d", m.records, RecordsMax)
	case m.state == 0 && m.generation != 0:
		return corrupt("generation %d of files, and none were imported", m.generation)
	}
	return nil
}

// checkFeatures refuses features that this release does not know. b is the features
// value, nil if there is none.
func checkFeatures(b []byte) error {
	if b == nil {
		return nil
	}
	err := checkVersion(b, featuresVersion)
	switch {
	case err != nil:
	case len(b) < featuresSize:
		err = corrupt("it has %d bytes", len(b))
	case len(b) > featuresSize:
		err = newer("it has %d bytes", len(b))
	default:
		err = checkFields(b, featuresFields)
		if unknown := binary.LittleEndian.Uint32(b[4:]) &^ featureOwners; err == nil && unknown != 0 {
			err = newer("it has incompatible features, %#x", unknown)
		}
	}
	if err != nil {
		return fmt.Errorf("registry: features value: %w", err)
	}
	return nil
}

// hasOwners reports whether records name hosts. b is the features value, nil if there is
// none, and was checked.
func hasOwners(b []byte) bool { return b != nil && b[4]&featureOwners != 0 }

// withOwners is the features value that says so. Of the features of this release it is
// the only one.
func withOwners() []byte {
	b := make([]byte, featuresSize)
	b[0], b[4] = featuresVersion, featureOwners
	return b
}
