package registry

import (
	"bytes"
	"math"

	"github.com/google/uuid"
)

// Restored makes one key of a registry what it is to be in one that is restored from a
// backup, and returns its value. Only records of vDisks change: what their owners have made
// since the backup carries epochs that the backup does not know, and none of these is given
// out again (P4). Of such a key it returns the record too, as it is from now on; else nil.
// Whose the other keys are does not matter.
func Restored(key, value []byte, by uint64) ([]byte, *Record, error) {
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
	if r.Epoch > math.MaxUint64/2-by {
		return nil, nil, corrupt("record of vDisk %s: epoch %d", id, r.Epoch)
	}
	r.Epoch += by
	return encodeValue(&r), &r, nil
}

// IntentIn returns the intent that a key of a registry holds, nil if it holds none.
func IntentIn(key, value []byte) (*Intent, error) {
	name, ok := bytes.CutPrefix(key, []byte(intentPrefix))
	if !ok {
		return nil, nil
	}
	id, err := uuid.FromBytes(name)
	if err != nil {
		return nil, corrupt("key %q: %v", key, err)
	}
	in, err := decodeIntent(id, value)
	return &in, err
}
