package abm

import (
	"bytes"
	"math"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// How far the numbers of a restored backend manager go on behind those of its backup: so
// many may have been given out since. Each is used once in a backend's life.
const (
	osdGap       = 1 << 20
	namespaceGap = 1 << 32
)

// Restored makes one key of a backend manager what it is to be in one that is restored from a
// backup, and returns its value. Only the backend's own record changes, which has the next
// numbers of OSDs and namespaces: disks may hold fragments of namespaces that were made since.
// Of that key it returns the record too, as it is from now on; else nil.
func Restored(k, value []byte) ([]byte, *Backend, error) {
	if !bytes.Equal(k, backendKey()) {
		return value, nil, nil
	}
	b := new(Backend)
	if err := decode(k, value, b); err != nil {
		return nil, nil, err
	}
	if b.NextOSD > math.MaxUint64-2*osdGap || b.NextNamespace > math.MaxUint64-2*namespaceGap {
		return nil, nil, userfn.Errorf(userfn.CodeCorrupt, "backend: next OSD %d, next namespace %d", b.NextOSD, b.NextNamespace)
	}
	b.NextOSD += osdGap
	b.NextNamespace += namespaceGap
	value, err := record.Encode(record.Needs(b), b)
	return value, b, err
}
