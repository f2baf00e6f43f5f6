package abm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// one reads one record. It returns false if the record is absent.
func (c *Client) one(ctx context.Context, k []byte, how userfn.Consistency, v record.Record) (bool, error) {
	values, err := c.reader.MultiGet(ctx, [][]byte{k}, how)
	if err != nil || values[0] == nil {
		return false, err
	}
	return true, decode(k, values[0], v)
}

func decode(k, value []byte, v record.Record) error {
	if err := record.Decode(value, record.Newest(v), v); err != nil {
		return userfn.FromRecord(userfn.CodeCorrupt, fmt.Sprintf("key %q", k), err)
	}
	return nil
}

// list reads a page of a table, which begins behind the table's key after; nil: with the
// first.
func (c *Client) list(ctx context.Context, base, after []byte, limit int, how userfn.Consistency) ([]userfn.Pair, error) {
	first := base
	if len(after) > 0 {
		first = userfn.After(append(bytes.Clone(base), after...))
	}
	return c.reader.Range(ctx, first, userfn.PrefixEnd(base), min(max(limit, 1), MaxPage), how)
}

// Backend returns the backend's record; ErrNotFound before Init.
func (c *Client) Backend(ctx context.Context, how userfn.Consistency) (Backend, error) {
	var b Backend
	ok, err := c.one(ctx, backendKey(), how, &b)
	if err == nil && !ok {
		err = userfn.Errorf(userfn.CodeNotFound, "backend: it has no id yet; initialise it first")
	}
	return b, err
}

// OSDs returns up to limit OSDs (at most MaxPage), in order of long id, from
// the one behind after (nil: the first).
func (c *Client) OSDs(ctx context.Context, after *[16]byte, limit int, how userfn.Consistency) ([]OSD, error) {
	var from []byte
	if after != nil {
		from = after[:]
	}
	pairs, err := c.list(ctx, key(tableOSD), from, limit, how)
	if err != nil {
		return nil, err
	}
	list := make([]OSD, len(pairs))
	for i, p := range pairs {
		if err := decode(p.Key, p.Value, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// OSD returns the OSD with a long id, or ErrNotFound.
func (c *Client) OSD(ctx context.Context, long [16]byte, how userfn.Consistency) (OSD, error) {
	var o OSD
	ok, err := c.one(ctx, osdKey(long), how, &o)
	if err == nil && !ok {
		err = userfn.Errorf(userfn.CodeNotFound, "OSD %x: not found", long)
	}
	return o, err
}

// Preset returns a preset ("": the default), or ErrNotFound.
func (c *Client) Preset(ctx context.Context, name string, how userfn.Consistency) (Preset, error) {
	if name == "" {
		b, err := c.Backend(ctx, how)
		if err != nil {
			return Preset{}, err
		}
		name = b.Default
	}
	p := Preset{Name: name}
	ok, err := c.one(ctx, presetKey(name), how, &p)
	if err == nil && !ok {
		err = userfn.Errorf(userfn.CodeNotFound, "preset %q: not found", name)
	}
	return p, err
}

// Presets returns all presets, in order of name.
func (c *Client) Presets(ctx context.Context, how userfn.Consistency) ([]Preset, error) {
	base := key(tablePreset)
	pairs, err := c.list(ctx, base, nil, MaxPresets, how)
	if err != nil {
		return nil, err
	}
	list := make([]Preset, len(pairs))
	for i, p := range pairs {
		list[i].Name = string(p.Key[len(base):])
		if err := decode(p.Key, p.Value, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Namespace returns the namespace that has a name, or ErrNamespaceNotFound.
func (c *Client) Namespace(ctx context.Context, name string, how userfn.Consistency) (Namespace, error) {
	var at number
	ok, err := c.one(ctx, nameKey(name), how, &at)
	if err != nil {
		return Namespace{}, err
	}
	var n Namespace
	if ok {
		ok, err = c.one(ctx, namespaceKey(at.v), how, &n)
	}
	if err == nil && (!ok || n.State == NamespaceRemoving) {
		err = userfn.Errorf(userfn.CodeNamespaceNotFound, "namespace %q: not found", name)
	}
	return n, err
}

// NamespaceNames returns up to limit names of namespaces (at most MaxPage) from
// the one behind after, in order. A page shorter than its limit is the last.
func (c *Client) NamespaceNames(ctx context.Context, after string, limit int, how userfn.Consistency) ([]string, error) {
	base := key(tableNamespaceName)
	pairs, err := c.list(ctx, base, []byte(after), limit, how)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(pairs))
	for i, p := range pairs {
		names[i] = string(p.Key[len(base):])
	}
	return names, nil
}

// Namespaces returns up to limit namespaces (at most MaxPage), those that are
// being removed among them, from the one behind after, in order of number.
func (c *Client) Namespaces(ctx context.Context, after uint64, limit int, how userfn.Consistency) ([]Namespace, error) {
	pairs, err := c.list(ctx, key(tableNamespace), binary.BigEndian.AppendUint64(nil, after), limit, how)
	if err != nil {
		return nil, err
	}
	list := make([]Namespace, len(pairs))
	for i, p := range pairs {
		if err := decode(p.Key, p.Value, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Hosts returns all NSM hosts, in order of number.
func (c *Client) Hosts(ctx context.Context, how userfn.Consistency) ([]Host, error) {
	pairs, err := c.list(ctx, key(tableHost), nil, MaxHosts, how)
	if err != nil {
		return nil, err
	}
	list := make([]Host, len(pairs))
	for i, p := range pairs {
		if err := decode(p.Key, p.Value, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Messages returns the oldest messages of a host's queue, at most MaxMessages,
// and the number of the first; the others follow it without a gap.
func (c *Client) Messages(ctx context.Context, host uint64, how userfn.Consistency) (first uint64, messages []nsm.Message, err error) {
	base := key(tableMessage, host)
	pairs, err := c.list(ctx, base, nil, MaxMessages, how)
	if err != nil {
		return 0, nil, err
	}
	messages = make([]nsm.Message, len(pairs))
	for i, p := range pairs {
		if len(p.Key) != len(base)+8 {
			return 0, nil, userfn.Errorf(userfn.CodeCorrupt, "key %q has %d bytes, not %d", p.Key, len(p.Key), len(base)+8)
		}
		n := binary.BigEndian.Uint64(p.Key[len(base):])
		if i == 0 {
			first = n
		}
		if n != first+uint64(i) {
			return 0, nil, userfn.Errorf(userfn.CodeCorrupt, "NSM host %d: message %d follows %d", host, n, first+uint64(i)-1)
		}
		if err := decode(p.Key, p.Value, &messages[i]); err != nil {
			return 0, nil, err
		}
	}
	return first, messages, nil
}

// Lease returns a lease. The lease is zero if it was never taken.
func (c *Client) Lease(ctx context.Context, name string, how userfn.Consistency) (Lease, error) {
	var l Lease
	_, err := c.one(ctx, named(tableLease, name), how, &l)
	return l, err
}

// Carrier is an NSM host's end of the queue: nsm.Client.
type Carrier interface {
	Deliver(ctx context.Context, first uint64, messages []nsm.Message) (applied uint64, err error)
}

// Carry delivers all messages of a host's queue. Several callers may do so at once: each
// message is applied once.
func (c *Client) Carry(ctx context.Context, host uint64, to Carrier) error {
	for {
		first, messages, err := c.Messages(ctx, host, userfn.Consistent)
		if err != nil || len(messages) == 0 {
			return err
		}
		applied, err := to.Deliver(ctx, first, messages)
		if err != nil {
			return fmt.Errorf("NSM host %d: messages from %d on: %w", host, first, err)
		}
		if last := first + uint64(len(messages)) - 1; applied < last {
			return fmt.Errorf("NSM host %d: it applied messages up to %d of %d", host, applied, last)
		}
		if _, err := c.MarkDelivered(ctx, host, first+uint64(len(messages))-1); err != nil {
			return err
		}
	}
}
