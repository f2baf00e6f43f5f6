package nsm

import (
	"cmp"
	"context"
	"slices"

	"openvstorage/alba/nsm/userfn"
)

// BucketCount is how many objects are in a bucket.
type BucketCount struct {
	Bucket
	Objects uint64
}

// OSDUsage is what a namespace has on an OSD.
type OSDUsage struct {
	OSD uint64
	Usage
}

// Statistics is the totals of a namespace. No object is read for them.
type Statistics struct {
	Namespace
	Buckets []BucketCount // in order of K, M, Present
	OSDs    []OSDUsage    // in order of OSD
}

// Namespace returns the record of an active namespace: totals and gc epochs.
func (c *Client) Namespace(ctx context.Context, ns uint64, how userfn.Consistency) (Namespace, error) {
	values, err := c.reader.MultiGet(ctx, [][]byte{namespaceKey(ns)}, how)
	if err != nil {
		return Namespace{}, err
	}
	rec, err := activeNamespace(ns, values[0])
	if err != nil {
		return Namespace{}, err
	}
	return *rec, nil
}

// Epochs returns the open gc epochs. An upload uses Next-1.
func (c *Client) Epochs(ctx context.Context, ns uint64, how userfn.Consistency) (Epochs, error) {
	rec, err := c.Namespace(ctx, ns, how)
	return rec.Epochs, err
}

// maxBuckets bounds the buckets that Statistics reads, and maxOSDs the OSDs.
const (
	maxBuckets = 4096
	maxOSDs    = 65536
)

// Statistics returns the totals of an active namespace. They are read one after the other,
// so under load they may differ by a few objects.
func (c *Client) Statistics(ctx context.Context, ns uint64, how userfn.Consistency) (Statistics, error) {
	var s Statistics
	var err error
	if s.Namespace, err = c.Namespace(ctx, ns, how); err != nil {
		return s, err
	}
	if s.Buckets, err = c.Buckets(ctx, ns, how); err != nil {
		return s, err
	}
	base := key(tableUsage, ns)
	pairs, err := c.reader.Range(ctx, base, userfn.PrefixEnd(base), maxOSDs, how)
	if err != nil {
		return s, err
	}
	s.OSDs = make([]OSDUsage, len(pairs))
	for i, p := range pairs {
		if s.OSDs[i].OSD, err = suffix(p.Key, len(base)); err != nil {
			return s, err
		}
		if err := decode(p.Key, p.Value, &s.OSDs[i].Usage); err != nil {
			return s, err
		}
	}
	return s, nil
}

// Buckets returns the buckets that have objects, in order of K, M, Present.
func (c *Client) Buckets(ctx context.Context, ns uint64, how userfn.Consistency) ([]BucketCount, error) {
	base := key(tableCount, ns)
	pairs, err := c.reader.Range(ctx, base, userfn.PrefixEnd(base), maxBuckets, how)
	if err != nil {
		return nil, err
	}
	list := make([]BucketCount, len(pairs))
	for i, p := range pairs {
		if len(p.Key) != len(base)+3 {
			return nil, userfn.Errorf(userfn.CodeCorrupt, "key %q has %d bytes, not %d", p.Key, len(p.Key), len(base)+3)
		}
		var n number
		if err := decode(p.Key, p.Value, &n); err != nil {
			return nil, err
		}
		b := p.Key[len(base):]
		list[i] = BucketCount{Bucket{K: b[0], M: b[1], Present: b[2]}, n.v}
	}
	return list, nil
}

// Degraded returns up to limit objects below full width with their manifests, beginning
// with those that survive the loss of the fewest further fragments.
func (c *Client) Degraded(ctx context.Context, ns uint64, limit int, how userfn.Consistency) ([]*Object, error) {
	buckets, err := c.Buckets(ctx, ns, how)
	if err != nil {
		return nil, err
	}
	buckets = slices.DeleteFunc(buckets, func(b BucketCount) bool { return b.Full() })
	slices.SortStableFunc(buckets, func(a, b BucketCount) int {
		return cmp.Compare(int(a.Present)-int(a.K), int(b.Present)-int(b.K))
	})
	var list []*Object
	for _, b := range buckets {
		for after := ""; len(list) < page(limit); {
			objects, next, err := c.ListByBucket(ctx, ns, b.Bucket, after, page(limit)-len(list), how)
			if err != nil {
				return nil, err
			}
			list = append(list, objects...)
			if after = next; next == "" {
				break
			}
		}
	}
	return list, nil
}

// OSD is what the host knows of an OSD.
type OSD struct {
	Number uint64
	State  OSDState
	Node   string
	Totals
}

// OSDs returns up to limit OSDs (at most MaxKeys) with what they hold, from the
// one behind after, in order of number.
func (c *Client) OSDs(ctx context.Context, after uint64, limit int, how userfn.Consistency) ([]OSD, error) {
	base := key(tableOSD)
	pairs, err := c.reader.Range(ctx, userfn.After(osdKey(after)), userfn.PrefixEnd(base), min(max(limit, 1), MaxKeys), how)
	if err != nil {
		return nil, err
	}
	list := make([]OSD, len(pairs))
	keys := make([][]byte, len(pairs))
	for i, p := range pairs {
		o := &list[i]
		if o.Number, err = suffix(p.Key, len(base)); err != nil {
			return nil, err
		}
		var rec osdRecord
		if err := decode(p.Key, p.Value, &rec); err != nil {
			return nil, err
		}
		o.State, o.Node = rec.state, rec.node
		keys[i] = totalsKey(o.Number)
	}
	totals, err := c.reader.MultiGet(ctx, keys, how)
	if err != nil {
		return nil, err
	}
	for i, v := range totals {
		if v == nil {
			continue
		}
		if err := decode(keys[i], v, &list[i].Totals); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// NamespaceInfo is a namespace of the host, active or being removed.
type NamespaceInfo struct {
	Number uint64
	Namespace
}

// Namespaces returns up to limit namespaces of the host (at most MaxKeys), from
// the one behind after, in order of number.
func (c *Client) Namespaces(ctx context.Context, after uint64, limit int, how userfn.Consistency) ([]NamespaceInfo, error) {
	base := key(tableNamespace)
	pairs, err := c.reader.Range(ctx, userfn.After(namespaceKey(after)), userfn.PrefixEnd(base), min(max(limit, 1), MaxKeys), how)
	if err != nil {
		return nil, err
	}
	list := make([]NamespaceInfo, len(pairs))
	for i, p := range pairs {
		if list[i].Number, err = suffix(p.Key, len(base)); err != nil {
			return nil, err
		}
		if err := decode(p.Key, p.Value, &list[i].Namespace); err != nil {
			return nil, err
		}
	}
	return list, nil
}
