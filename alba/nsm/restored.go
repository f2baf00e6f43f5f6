package nsm

import (
	"bytes"
	"fmt"
	"math"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Restored makes one key of a namespace manager what it is to be in one that is restored from
// a backup, and returns its value. by is how many gc epochs and object versions each namespace
// passes over. Only records of namespaces change. Their open gc epochs
// are closed, and the one that is open from now on is above all that disks may have seen:
//
//   - A fragment of before, which no object names, is garbage when somebody has said that it
//     may be deleted; it is never taken for one of an upload that is under way.
//   - A repair may write a fragment again that was written since the backup under the same
//     key. The disk takes it, as its epoch is not older than what is there; and the
//     collection that has the older one on its list does not delete it.
func Restored(k, value []byte, by uint64) ([]byte, error) {
	base := key(tableNamespace)
	if !bytes.HasPrefix(k, base) {
		return value, nil
	}
	var n Namespace
	err := record.Decode(value, record.Newest(&n), &n)
	if err == nil && (len(k) != len(base)+8 || n.Epochs.Next > math.MaxUint64/2-by || n.NextVersion > math.MaxUint64/2-by) {
		err = userfn.Errorf(userfn.CodeCorrupt, "epoch %d, version %d", n.Epochs.Next, n.NextVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("key %q of a namespace: %w", k, err)
	}
	n.Epochs.Minimum = n.Epochs.Next + by
	n.Epochs.Next = n.Epochs.Minimum + 1
	n.NextVersion += by
	return record.Encode(record.Needs(&n), &n)
}
