package nsm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// tries is how often a read of several keys begins again because what it read first was
// replaced before it read the rest.
const tries = 16

var errUnsettled = errors.New("objects are replaced faster than they can be read")

func decode(key, value []byte, v record.Record) error {
	if err := record.Decode(value, record.Newest(v), v); err != nil {
		return userfn.FromRecord(userfn.CodeCorrupt, fmt.Sprintf("key %q", key), err)
	}
	return nil
}

// get reads keys of a namespace, which must be active, in one read.
func (c *Client) get(ctx context.Context, ns uint64, how userfn.Consistency, keys ...[]byte) ([][]byte, error) {
	values, err := c.reader.MultiGet(ctx, append([][]byte{namespaceKey(ns)}, keys...), how)
	if err != nil {
		return nil, err
	}
	if len(values) != len(keys)+1 {
		return nil, fmt.Errorf("namespace %d: %d values for %d keys", ns, len(values), len(keys)+1)
	}
	if _, err := activeNamespace(ns, values[0]); err != nil {
		return nil, err
	}
	return values[1:], nil
}

func activeNamespace(ns uint64, value []byte) (*Namespace, error) {
	if value == nil {
		return nil, userfn.Errorf(userfn.CodeNamespaceNotFound, "namespace %d: not found on this NSM host", ns)
	}
	var rec Namespace
	if err := decode(namespaceKey(ns), value, &rec); err != nil {
		return nil, err
	}
	return &rec, mayRead(ns, &rec)
}

func noObject(ns uint64, name string) error {
	return userfn.Errorf(userfn.CodeNotFound, "object %q of namespace %d: not found", name, ns)
}

// Stat returns an object without its manifest, or ErrNotFound.
func (c *Client) Stat(ctx context.Context, ns uint64, name string, how userfn.Consistency) (*Object, error) {
	o, err := c.Get(ctx, ns, name, how)
	if err != nil {
		return nil, err
	}
	o.Manifest = nil
	return o, nil
}

// Get returns an object with its manifest, or ErrNotFound.
func (c *Client) Get(ctx context.Context, ns uint64, name string, how userfn.Consistency) (*Object, error) {
	list, err := c.MultiGet(ctx, ns, []string{name}, how)
	if err != nil {
		return nil, err
	}
	if list[0] == nil {
		return nil, noObject(ns, name)
	}
	return list[0], nil
}

// MultiGet returns up to MaxPage objects with their manifests, nil for those
// that are absent.
func (c *Client) MultiGet(ctx context.Context, ns uint64, names []string, how userfn.Consistency) ([]*Object, error) {
	if len(names) > MaxPage {
		return nil, userfn.Errorf(userfn.CodeInvalid, "%d names exceed %d", len(names), MaxPage)
	}
	keys := make([][]byte, len(names))
	for i, name := range names {
		keys[i] = objectKey(ns, name)
	}
	values, err := c.get(ctx, ns, how, keys...)
	if err != nil {
		return nil, err
	}
	list := make([]*Object, len(names))
	for i, name := range names {
		if values[i] == nil {
			continue
		}
		list[i] = &Object{Name: name}
		if err := decode(keys[i], values[i], &stored{list[i]}); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// GetByID returns the object with an id, or ErrNotFound: no object of the
// namespace has it now.
func (c *Client) GetByID(ctx context.Context, ns uint64, id [16]byte, how userfn.Consistency) (*Object, error) {
	for range tries {
		values, err := c.get(ctx, ns, how, idKey(ns, id))
		if err != nil {
			return nil, err
		}
		var rec idRecord
		if values[0] != nil {
			if err := decode(idKey(ns, id), values[0], &rec); err != nil {
				return nil, err
			}
		}
		if rec.name == "" {
			return nil, userfn.Errorf(userfn.CodeNotFound, "object %x of namespace %d: not found", id, ns)
		}
		o, err := c.Get(ctx, ns, rec.name, how)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return nil, err
		case o.ID == id:
			return o, nil
		}
	}
	return nil, fmt.Errorf("namespace %d: %w", ns, errUnsettled)
}

// List returns up to limit objects (at most MaxPage) whose names begin with
// prefix, from the one behind after ("": the first), in order of name,
// without their manifests. A page shorter than its limit is the last.
func (c *Client) List(ctx context.Context, ns uint64, prefix, after string, limit int, how userfn.Consistency) ([]Object, error) {
	base := key(tableObject, ns)
	first := objectKey(ns, prefix)
	if after >= prefix && after != "" {
		first = userfn.After(objectKey(ns, after))
	}
	last := userfn.PrefixEnd(objectKey(ns, prefix))
	var pairs []userfn.Pair
	if bytes.Compare(first, last) < 0 {
		var err error
		if pairs, err = c.reader.Range(ctx, first, last, page(limit), how); err != nil {
			return nil, err
		}
	}
	// Only now: what is left of a namespace that has moved is no answer.
	if _, err := c.get(ctx, ns, how); err != nil {
		return nil, err
	}
	list := make([]Object, len(pairs))
	for i, p := range pairs {
		list[i].Name = string(p.Key[len(base):])
		if err := decode(p.Key, p.Value, &stored{&list[i]}); err != nil {
			return nil, err
		}
		list[i].Manifest = nil
	}
	return list, nil
}

func page(limit int) int { return min(max(limit, 1), MaxPage) }

// maxScan bounds the objects that one call looks at, scanPage those that it
// reads at once.
const (
	maxScan  = 2000
	scanPage = 100
)

// ListByOSD returns up to limit objects (at most MaxPage) that have fragments on an OSD,
// from the one behind after, in order of name, with their manifests. next is what to pass
// as after to go on; "" after the last. One call looks at up to 2000 objects of the
// namespace: its list may be short or empty though more is to come. If the OSD has nothing
// of the namespace, no object is looked at.
func (c *Client) ListByOSD(ctx context.Context, ns, osd uint64, after string, limit int, how userfn.Consistency) (list []*Object, next string, err error) {
	return c.scan(ctx, ns, usageKey(ns, osd), after, limit, how, func(o *Object) bool { return o.On(osd) })
}

// ListByBucket is ListByOSD for the objects of a bucket. A bucket below full width has an
// index, so that only its own objects are looked at.
func (c *Client) ListByBucket(ctx context.Context, ns uint64, b Bucket, after string, limit int, how userfn.Consistency) (list []*Object, next string, err error) {
	if b.Full() {
		return c.scan(ctx, ns, countKey(ns, b), after, limit, how, func(o *Object) bool { return o.Bucket() == b })
	}
	return c.listIndex(ctx, ns, bucketKey(ns, b, ""), after, limit, how)
}

// scan looks for objects that are wanted. If the key counter is absent, there are none.
func (c *Client) scan(ctx context.Context, ns uint64, counter []byte, after string, limit int, how userfn.Consistency, want func(o *Object) bool) (list []*Object, next string, err error) {
	values, err := c.get(ctx, ns, how, counter)
	if err != nil || values[0] == nil {
		return nil, "", err
	}
	base := key(tableObject, ns)
	first := base
	if after != "" {
		first = userfn.After(objectKey(ns, after))
	}
	for range maxScan / scanPage {
		pairs, err := c.reader.Range(ctx, first, userfn.PrefixEnd(base), scanPage, how)
		if err != nil {
			return nil, "", err
		}
		for _, p := range pairs {
			o := &Object{Name: string(p.Key[len(base):])}
			if err := decode(p.Key, p.Value, &stored{o}); err != nil {
				return nil, "", err
			}
			next = o.Name
			if want(o) {
				list = append(list, o)
			}
			if len(list) == page(limit) {
				return list, next, nil
			}
		}
		if len(pairs) < scanPage {
			// An end is one only if the namespace has not moved away meanwhile.
			_, err := c.get(ctx, ns, how)
			return list, "", err
		}
		first = userfn.After(pairs[len(pairs)-1].Key)
	}
	return list, next, nil
}

func (c *Client) listIndex(ctx context.Context, ns uint64, base []byte, after string, limit int, how userfn.Consistency) (list []*Object, next string, err error) {
	first := base
	if after != "" {
		first = userfn.After(append(append([]byte(nil), base...), after...))
	}
	pairs, err := c.reader.Range(ctx, first, userfn.PrefixEnd(base), page(limit), how)
	if err != nil {
		return nil, "", err
	}
	names := make([]string, len(pairs))
	for i, p := range pairs {
		names[i] = string(p.Key[len(base):])
	}
	found, err := c.MultiGet(ctx, ns, names, how)
	if err != nil {
		return nil, "", err
	}
	for _, o := range found {
		if o != nil { // not deleted since
			list = append(list, o)
		}
	}
	if len(names) == page(limit) {
		next = names[len(names)-1]
	}
	return list, next, nil
}

// ListObsolete returns up to limit fragments (at most MaxKeys) to be deleted on
// an OSD, from the one behind after (nil: the first), in order of key.
func (c *Client) ListObsolete(ctx context.Context, osd uint64, after *FragmentKey, limit int, how userfn.Consistency) ([]FragmentKey, error) {
	base := key(tableObsolete, osd)
	first := base
	if after != nil {
		first = userfn.After(obsoleteKey(osd, *after))
	}
	pairs, err := c.reader.Range(ctx, first, userfn.PrefixEnd(base), min(max(limit, 1), MaxKeys), how)
	if err != nil {
		return nil, err
	}
	list := make([]FragmentKey, len(pairs))
	for i, p := range pairs {
		if _, list[i], err = parseObsoleteKey(p.Key); err != nil {
			return nil, userfn.Errorf(userfn.CodeCorrupt, "%v", err)
		}
	}
	return list, nil
}

// Applied returns the number of the last message of the ABM that was applied.
func (c *Client) Applied(ctx context.Context, how userfn.Consistency) (uint64, error) {
	values, err := c.reader.MultiGet(ctx, [][]byte{hostKey()}, how)
	if err != nil || values[0] == nil {
		return 0, err
	}
	var n number
	return n.v, decode(hostKey(), values[0], &n)
}

// suffix returns the number behind a prefix of a key.
func suffix(k []byte, at int) (uint64, error) {
	if len(k) != at+8 {
		return 0, userfn.Errorf(userfn.CodeCorrupt, "key %q has %d bytes, not %d", k, len(k), at+8)
	}
	return binary.BigEndian.Uint64(k[at:]), nil
}
