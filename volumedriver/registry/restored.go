package registry

import (
	"bytes"
	"math"

	"github.com/google/uuid"
)

// epochGap is how many epochs a restored registry passes over: so many claims may have been
// made since its backup, by owners whose files and objects are there still.
const epochGap = 1 << 32

// Restored makes one key of a registry what it is to be in one that is restored from a
// backup, and returns its value. Only records of vDisks change: what their owners have made
// since the backup carries epochs that the backup does not know, and none of these is given
// out again (P4). Of such a key it returns the record too, as it is from now on; else nil.
// Whose the other keys are does not matter.
func Restored(key, value []byte) ([]byte, *Record, error) {
	name, ok := bytes.CutPrefix(key, []byte(idPrefix))
	if !ok {
		return value, nil, nil
	}
	id, err := uuid.FromBytes(name)
	if err != nil {
		return nil, nil, corrupt("key %q: %v", key, err)
	}
	r, err := decodeValue(id, value)
	if err != nil {
		return nil, nil, err
	}
	if r.Epoch > math.MaxUint64-2*epochGap {
		return nil, nil, corrupt("record of vDisk %s: epoch %d", id, r.Epoch)
	}
	r.Epoch += epochGap
	return encodeValue(&r), &r, nil
}
