package arakoon

import (
	"bytes"
	"context"

	"openvstorage/arakoon/state"
)

// Bounds say which keys a range has: those from First on and before Last. The zero value
// has all keys.
type Bounds struct {
	First, Last   []byte // Last nil: to the end
	FirstExcluded bool   // the range begins behind First
	LastIncluded  bool   // the range ends with Last
}

// PrefixBounds has all keys with a prefix.
func PrefixBounds(prefix []byte) Bounds { return Bounds{First: prefix, Last: state.PrefixEnd(prefix)} }

// span returns the bounds as State.Range has them.
func (b Bounds) span() (first, last []byte) {
	next := func(k []byte) []byte { return append(bytes.Clone(k), 0) }
	if first = b.First; b.FirstExcluded {
		first = next(first)
	}
	if last = b.Last; b.LastIncluded && last != nil {
		last = next(last)
	}
	return first, last
}

// Entry is a key and its value.
type Entry struct {
	Key, Value []byte
}

// AnswerMax is how many bytes of keys and values an answer may have that is a list.
const AnswerMax = 32 << 20

// QueryCalls are the calls of a Node that read keys. As all its calls they are safe for
// concurrent use, and what each of them reads is of one moment.
type QueryCalls struct{ node *Node }

// Visible is a revision that holds all that a read which has ended at this member has seen, for
// a read AtLeast it to see no less at another member. Applied may lag behind it for a moment.
func (q QueryCalls) Visible() (revision uint64, err error) {
	end, err := q.node.end.hold()
	if err != nil {
		return 0, err
	}
	defer end()
	return q.node.state.Visible()
}

// Exists says whether a key is there.
func (q QueryCalls) Exists(ctx context.Context, c Consistency, key []byte) (found bool, err error) {
	end, err := q.node.readers.begin(ctx, c)
	if err != nil {
		return false, err
	}
	defer end()
	return q.node.state.Has(key)
}

// Count returns the number of keys in the bounds. It reads them all, and ends with ctx.
func (q QueryCalls) Count(ctx context.Context, c Consistency, b Bounds) (n uint64, err error) {
	_, err = q.scan(ctx, c, b, false, func(_, _ []byte) bool { n++; return true })
	return n, err
}

// RangeEntries returns the keys in the bounds and their values, ascending: limit of them if
// limit is above 0, and no more than have AnswerMax bytes together, but one. more says that
// there are others behind the last.
func (q QueryCalls) RangeEntries(ctx context.Context, c Consistency, b Bounds, limit int) (list []Entry, more bool, err error) {
	return q.entries(ctx, c, b, limit, false)
}

// ReverseEntries is RangeEntries from the high end. more says that there are others before
// the last that is returned.
func (q QueryCalls) ReverseEntries(ctx context.Context, c Consistency, b Bounds, limit int) (list []Entry, more bool, err error) {
	return q.entries(ctx, c, b, limit, true)
}

// Keys is RangeEntries without the values.
func (q QueryCalls) Keys(ctx context.Context, c Consistency, b Bounds, limit int) (list [][]byte, more bool, err error) {
	return q.keys(ctx, c, b, limit, false)
}

// ReverseKeys is ReverseEntries without the values.
func (q QueryCalls) ReverseKeys(ctx context.Context, c Consistency, b Bounds, limit int) (list [][]byte, more bool, err error) {
	return q.keys(ctx, c, b, limit, true)
}

func (q QueryCalls) entries(ctx context.Context, c Consistency, b Bounds, limit int, reverse bool) (list []Entry, more bool, err error) {
	size := 0
	more, err = q.scan(ctx, c, b, reverse, func(k, v []byte) bool {
		size += len(k) + len(v)
		if limit > 0 && len(list) == limit || len(list) > 0 && size > AnswerMax {
			return false
		}
		list = append(list, Entry{bytes.Clone(k), append(make([]byte, 0, len(v)), v...)})
		return true
	})
	return list, more, err
}

func (q QueryCalls) keys(ctx context.Context, c Consistency, b Bounds, limit int, reverse bool) (list [][]byte, more bool, err error) {
	size := 0
	more, err = q.scan(ctx, c, b, reverse, func(k, _ []byte) bool {
		size += len(k)
		if limit > 0 && len(list) == limit || len(list) > 0 && size > AnswerMax {
			return false
		}
		list = append(list, bytes.Clone(k))
		return true
	})
	return list, more, err
}

// askAfter is after how many keys a scan looks whether its context has ended.
const askAfter = 1024

// scan calls fn with what is in the bounds, until fn returns false, and then ended is true.
// The slices are valid during the call.
func (q QueryCalls) scan(ctx context.Context, c Consistency, b Bounds, reverse bool, fn func(k, v []byte) bool) (ended bool, err error) {
	end, err := q.node.readers.begin(ctx, c)
	if err != nil {
		return false, err
	}
	defer end()
	first, last := b.span()
	n := 0
	var stop error
	err = q.node.state.Scan(first, last, reverse, func(k, v []byte) bool {
		if n++; n%askAfter == 0 {
			if stop = ctx.Err(); stop == nil {
				stop = q.node.Err()
			}
			if stop != nil {
				return false
			}
		}
		ended = !fn(k, v)
		return !ended
	})
	if err == nil {
		err = stop
	}
	return ended, err
}
