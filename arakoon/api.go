package arakoon

import (
	"bytes"
	"context"
	"fmt"

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

// QueryCalls are calls of a Node that read and return lists and counts. As all of them they
// are safe for concurrent use, and what they read is of one moment.
type QueryCalls struct{ node *Node }

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

// Level is the level of the group, as far as this member has applied.
func (n *Node) Level() uint32 { return n.state.Level() }

// RaiseLevel brings the group to a level, up to state.LevelNewest, for good: a release that
// does not know the level can be no member any more. known asserts that every member, the
// learners among them, has reported that its release knows the level, and that no other
// will be added meanwhile; without it only a group of one member is raised. A group of one
// member is also raised by the first write that needs it.
func (n *Node) RaiseLevel(ctx context.Context, level uint32, known bool) error {
	if level > state.LevelNewest {
		return fmt.Errorf("arakoon: %s: level %d is not known, this release knows up to %d", n.opt.Dir, level, state.LevelNewest)
	}
	if level <= n.state.Level() {
		return nil
	}
	_, _, err := n.write(ctx, state.Raise(level, !known), [16]byte{}, 0)
	return err
}

// comeTo is for a write that needs a higher level than the group has.
func (n *Node) comeTo(ctx context.Context, need uint32) error {
	if !n.leading.Load() {
		return ErrNotLeader
	}
	c := n.state.Applied().Conf
	if has := n.state.Level(); need > state.LevelNewest || len(c.GetVoters()) != 1 || len(c.GetVotersOutgoing())+len(c.GetLearners()) > 0 {
		return &LevelError{Need: need, Has: has}
	}
	return n.RaiseLevel(ctx, need, false)
}
