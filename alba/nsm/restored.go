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

// NamespaceIn returns the namespace that a key of a namespace manager holds, nil if it holds
// none.
func NamespaceIn(k, value []byte) (*NamespaceInfo, error) {
	base := key(tableNamespace)
	if !bytes.HasPrefix(k, base) {
		return nil, nil
	}
	var n NamespaceInfo
	err := record.Decode(value, record.Newest(&n.Namespace), &n.Namespace)
	if err == nil {
		n.Number, err = suffix(k, len(base))
	}
	if err != nil {
		return nil, fmt.Errorf("key %q of a namespace: %w", k, err)
	}
	return &n, nil
}

// Rejoined are the keys of a namespace manager in which it keeps what the backend manager has
// told it, as they are to be in one that was made anew alone: from an older backup or with
// nothing. applied is the number of the last message that the backend manager counts as
// delivered: it tells the following ones, and none again. osds are all its OSDs, of which the
// number, the state and the node count: those messages said what is in them.
func Rejoined(applied uint64, osds []OSD) (map[string][]byte, error) {
	set := make(map[string][]byte, 1+len(osds))
	put := func(k []byte, v record.Record) error {
		b, err := record.Encode(record.Needs(v), v)
		set[string(k)] = b
		return err
	}
	if err := put(hostKey(), &number{applied}); err != nil {
		return nil, err
	}
	for _, o := range osds {
		if o.Number == 0 || o.Node == "" || o.State < OSDLinked || o.State > OSDLost {
			return nil, userfn.Errorf(userfn.CodeInvalid, "OSD %d on node %q in state %d: it takes a number, a node and a state", o.Number, o.Node, o.State)
		}
		if err := put(osdKey(o.Number), &osdRecord{state: o.State, node: o.Node}); err != nil {
			return nil, err
		}
	}
	return set, nil
}
