package nsm

import (
	"encoding/binary"
	"fmt"
)

// Tables: the byte behind "nsm/".
const (
	tableHost      = 'H'
	tableNamespace = 'N'
	tableObject    = 'E'
	tableID        = 'I'
	tableBucket    = 'B'
	tableCount     = 'C'
	tableUsage     = 'U'
	tableUsedID    = 'T'
	tableOSD       = 'O'
	tableTotals    = 'S'
	tableObsolete  = 'X'
	tableChange    = 'J'
)

const prefix = "nsm/"

// prefixSize is the length of the prefix with the table's byte.
const prefixSize = len(prefix) + 1

// key returns the key of a table that begins with the numbers, with room for
// an id or a short name behind them.
func key(table byte, numbers ...uint64) []byte {
	return appendKey(make([]byte, 0, prefixSize+8*len(numbers)+40), table, numbers...)
}

func appendKey(b []byte, table byte, numbers ...uint64) []byte {
	b = append(append(b, prefix...), table)
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func hostKey() []byte                         { return key(tableHost) }
func namespaceKey(ns uint64) []byte           { return key(tableNamespace, ns) }
func objectKey(ns uint64, name string) []byte { return append(key(tableObject, ns), name...) }
func idKey(ns uint64, id [16]byte) []byte     { return append(key(tableID, ns), id[:]...) }
func countKey(ns uint64, b Bucket) []byte {
	return append(key(tableCount, ns), b.K, b.M, b.Present)
}
func bucketKey(ns uint64, b Bucket, name string) []byte {
	return append(append(key(tableBucket, ns), b.K, b.M, b.Present), name...)
}
func usageKey(ns, osd uint64) []byte { return key(tableUsage, ns, osd) }
func usedIDKey(ns, epoch uint64, id [16]byte) []byte {
	return append(key(tableUsedID, ns, epoch), id[:]...)
}

func parseUsedIDKey(b []byte) (epoch uint64, id [16]byte, err error) {
	if len(b) != prefixSize+8+8+16 {
		return 0, id, fmt.Errorf("key %q of a used id has %d bytes", b, len(b))
	}
	return binary.BigEndian.Uint64(b[prefixSize+8:]), [16]byte(b[prefixSize+16:]), nil
}

func changeKey(ns, n uint64) []byte { return key(tableChange, ns, n) }
func osdKey(osd uint64) []byte      { return key(tableOSD, osd) }
func totalsKey(osd uint64) []byte   { return key(tableTotals, osd) }

// FragmentKey names a fragment of a namespace on an OSD. It is used once.
type FragmentKey struct {
	Namespace uint64
	ID        [16]byte
	Chunk     uint32
	Fragment  uint16
	Version   uint32
}

// fragmentKeySize is the length of a fragment's key behind the OSD's number.
const fragmentKeySize = 8 + 16 + 4 + 2 + 4

func obsoleteKey(osd uint64, f FragmentKey) []byte {
	b := binary.BigEndian.AppendUint64(key(tableObsolete, osd), f.Namespace)
	b = append(b, f.ID[:]...)
	b = binary.BigEndian.AppendUint32(b, f.Chunk)
	b = binary.BigEndian.AppendUint16(b, f.Fragment)
	return binary.BigEndian.AppendUint32(b, f.Version)
}

func parseObsoleteKey(b []byte) (osd uint64, f FragmentKey, err error) {
	if len(b) != prefixSize+8+fragmentKeySize {
		return 0, f, fmt.Errorf("key %q of a fragment to delete has %d bytes", b, len(b))
	}
	b = b[prefixSize:]
	osd = binary.BigEndian.Uint64(b)
	f.Namespace = binary.BigEndian.Uint64(b[8:])
	copy(f.ID[:], b[16:])
	f.Chunk = binary.BigEndian.Uint32(b[32:])
	f.Fragment = binary.BigEndian.Uint16(b[36:])
	f.Version = binary.BigEndian.Uint32(b[38:])
	return osd, f, nil
}
