package kvclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kv"
	"openvstorage/arakoon/state"
	"openvstorage/internal/wire"
)

// Seen says how new a read's answer is: the revision that the member had applied at least,
// and its age, if it is known.
type Seen = kv.Answer

// read has a request that reads answered. The reply is the caller's to release.
func (c *Client) read(ctx context.Context, how arakoon.Consistency, q *request) (*wire.Reply, Seen, []byte, error) {
	q.again, q.near = true, how != arakoon.Consistent && !q.lead
	reply, err := c.do(ctx, q, new(turn))
	if err != nil {
		return nil, Seen{}, nil, err
	}
	seen, rest, err := kv.ReadAnswer(reply.Header)
	if err != nil {
		reply.Release()
		return nil, Seen{}, nil, c.unreadable(q, err)
	}
	return reply, seen, rest, nil
}

func (c *Client) unreadable(q *request, err error) error {
	return fmt.Errorf("%w: group %q: the answer to %s: %v", kv.ErrOther, c.o.Group, kv.OpName(q.op), err)
}

// local is the number of an operation for a consistency.
func local(op uint16, how arakoon.Consistency) uint16 {
	if how == arakoon.Local {
		return op + 1
	}
	return op
}

// Get returns a key's value, or *arakoon.ErrNotFound.
func (c *Client) Get(ctx context.Context, how arakoon.Consistency, key []byte) ([]byte, error) {
	value, _, err := c.GetSeen(ctx, how, key)
	return value, err
}

// GetSeen is Get, and says how new the answer is.
func (c *Client) GetSeen(ctx context.Context, how arakoon.Consistency, key []byte) ([]byte, Seen, error) {
	if err := checkKey(key); err != nil {
		return nil, Seen{}, err
	}
	q := &request{op: local(kv.OpGet, how), header: append(kv.AppendRead(make([]byte, 0, 64), how), key...)}
	reply, seen, _, err := c.read(ctx, how, q)
	if err != nil {
		return nil, seen, err
	}
	value := append(make([]byte, 0, len(reply.Body)), reply.Body...)
	reply.Release()
	return value, seen, nil
}

// checkKey says so of a key that cannot be: it would not fit a header.
func checkKey(keys ...[]byte) error {
	for _, key := range keys {
		if len(key) > state.KeyMax+1 { // one more is the first key behind the longest
			return &arakoon.Error{Code: state.CodeTooLarge, Message: fmt.Sprintf("key of %d bytes; the limit is %d", len(key), state.KeyMax)}
		}
	}
	return nil
}

// Exists says whether a key is there.
func (c *Client) Exists(ctx context.Context, how arakoon.Consistency, key []byte) (bool, error) {
	if err := checkKey(key); err != nil {
		return false, err
	}
	q := &request{op: local(kv.OpExists, how), header: append(kv.AppendRead(nil, how), key...)}
	_, seen, _, err := c.read(ctx, how, q)
	return seen.Exists, err
}

// MultiGet returns the values of keys at one moment, nil for those absent. There may be
// kv.KeysMax keys, with values of state.MultiGetMax bytes together.
func (c *Client) MultiGet(ctx context.Context, how arakoon.Consistency, keys ...[]byte) ([][]byte, error) {
	body := kv.AppendKeys(nil, keys)
	if len(keys) > kv.KeysMax || len(body) > wire.BodyMax {
		return nil, &arakoon.Error{Code: state.CodeTooLarge, Message: fmt.Sprintf("%d keys of %d bytes; the limits are %d and %d", len(keys), len(body), kv.KeysMax, wire.BodyMax)}
	}
	header := kv.AppendRead(nil, how)
	header = append(header, byte(len(keys)), byte(len(keys)>>8), byte(len(keys)>>16), byte(len(keys)>>24))
	q := &request{op: local(kv.OpMultiGet, how), header: header, body: body}
	reply, _, _, err := c.read(ctx, how, q)
	if err != nil {
		return nil, err
	}
	values, err := kv.ReadValues(len(keys), bytes.Clone(reply.Body))
	reply.Release()
	if err != nil {
		return nil, c.unreadable(q, err)
	}
	return values, nil
}

// Range calls fn with the keys in [first, last), ascending. It ends when fn returns false,
// and after limit keys if limit is above 0. A last of nil means to the end. fn may keep the
// slices. What is at one moment is said at the package.
func (c *Client) Range(ctx context.Context, how arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error {
	return c.scan(ctx, how, kv.Scan{First: first, Last: last}, limit, fn)
}

// Reverse is Range from the high end.
func (c *Client) Reverse(ctx context.Context, how arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error {
	return c.scan(ctx, how, kv.Scan{First: first, Last: last, Descending: true}, limit, fn)
}

// Prefix is Range over all keys with a prefix.
func (c *Client) Prefix(ctx context.Context, how arakoon.Consistency, prefix []byte, limit int, fn func(key, value []byte) bool) error {
	return c.scan(ctx, how, kv.Scan{First: prefix, Last: state.PrefixEnd(prefix)}, limit, fn)
}

// Keys is Range without the values, which are not sent.
func (c *Client) Keys(ctx context.Context, how arakoon.Consistency, first, last []byte, limit int, fn func(key []byte) bool) error {
	return c.scan(ctx, how, kv.Scan{First: first, Last: last, KeysOnly: true}, limit, func(key, _ []byte) bool { return fn(key) })
}

// scan reads page by page. A page goes on behind the last key of the one before, and sees
// at least what that one saw.
func (c *Client) scan(ctx context.Context, how arakoon.Consistency, s kv.Scan, limit int, fn func(key, value []byte) bool) error {
	if err := checkKey(s.First, s.Last); err != nil {
		return err
	}
	s.Bytes = uint32(c.o.PageSize)
	// Later pages of a consistent range are asked of the leader too, which has no need to
	// ask others for them: they see what the first one saw.
	for q := (&request{lead: how == arakoon.Consistent}); ; q.begun = true {
		s.Limit = uint32(min(max(limit, 0), 1<<31-1))
		q.op, q.header = local(kv.OpRange, how), kv.AppendScan(kv.AppendRead(nil, how), &s)
		reply, seen, _, err := c.read(ctx, how, q)
		if err != nil {
			return err
		}
		on, keys := true, 0
		var last []byte
		err = kv.ReadPage(reply.Body, s.KeysOnly, func(k, v []byte) bool {
			last = append(last[:0], k...)
			keys++
			k, v = kept(k, v)
			if s.KeysOnly {
				v = nil
			}
			on = fn(k, v)
			return on
		})
		reply.Release()
		switch {
		case err != nil:
			return c.unreadable(q, err)
		case !on || !seen.More:
			return nil
		case keys == 0:
			return c.unreadable(q, errors.New("there is more, and nothing was sent"))
		case limit > 0:
			if limit -= keys; limit <= 0 {
				return nil
			}
		}
		if s.Descending {
			s.Last = last
		} else {
			s.First = append(last, 0)
		}
		how = arakoon.AtLeast(max(seen.Revision, 1))
	}
}

// kept are copies that the caller may keep, in one piece of memory.
func kept(k, v []byte) (key, value []byte) {
	b := append(append(make([]byte, 0, len(k)+len(v)), k...), v...)
	return b[:len(k):len(k)], b[len(k):]
}

// Count counts the keys in [first, last). Up to kv.CountMax of them are counted at one
// moment, the next ones at no earlier one.
func (c *Client) Count(ctx context.Context, how arakoon.Consistency, first, last []byte) (count uint64, err error) {
	if err := checkKey(first, last); err != nil {
		return 0, err
	}
	for {
		q := &request{op: local(kv.OpCount, how), header: kv.AppendBounds(kv.AppendRead(nil, how), first, last)}
		_, seen, rest, err := c.read(ctx, how, q)
		if err != nil {
			return 0, err
		}
		n, next, err := kv.ReadCount(rest)
		if err != nil || seen.More && len(next) == 0 {
			return 0, c.unreadable(q, fmt.Errorf("%d keys, more %v: %w", n, seen.More, err))
		}
		count += n
		if !seen.More {
			return count, nil
		}
		first, how = bytes.Clone(next), arakoon.AtLeast(max(seen.Revision, 1))
	}
}
