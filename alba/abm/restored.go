package abm

import (
	"bytes"
	"math"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Restored makes one key of a backend manager what it is to be in one that is restored from a
// backup, and returns its value. The backend's own record changes, which has the next
// numbers of OSDs and namespaces: disks may hold fragments of namespaces that were made since.
// So does that of the work queue: holders of before may still be at work, under fences that
// are not given out again.
// by is how many numbers of namespaces are passed over, and by/4096 those of OSDs. Of that key it returns the record too, as it is from now on; else nil.
func Restored(k, value []byte, by uint64) ([]byte, *Backend, error) {
	if bytes.Equal(k, workTotalsKey()) {
		var t WorkTotals
		if err := decode(k, value, &t); err != nil {
			return nil, nil, err
		}
		if t.Last > math.MaxUint64/2-by || t.Fence > math.MaxUint64/2-by {
			return nil, nil, userfn.Errorf(userfn.CodeCorrupt, "work queue: last item %d, fence %d", t.Last, t.Fence)
		}
		t.Last += by
		t.Fence += by
		value, err := record.Encode(record.Needs(&t), &t)
		return value, nil, err
	}
	if !bytes.Equal(k, backendKey()) {
		return value, nil, nil
	}
	b := new(Backend)
	if err := decode(k, value, b); err != nil {
		return nil, nil, err
	}
	if b.NextOSD > math.MaxUint64/2-by || b.NextNamespace > math.MaxUint64/2-by {
		return nil, nil, userfn.Errorf(userfn.CodeCorrupt, "backend: next OSD %d, next namespace %d", b.NextOSD, b.NextNamespace)
	}
	b.NextOSD += by / 4096
	b.NextNamespace += by
	value, err := record.Encode(record.Needs(b), b)
	return value, b, err
}

// OSDIn returns the OSD that a key of a backend manager holds, nil if it holds none.
func OSDIn(k, value []byte) (*OSD, error) {
	if !bytes.HasPrefix(k, key(tableOSD)) {
		return nil, nil
	}
	o := new(OSD)
	return o, decode(k, value, o)
}
