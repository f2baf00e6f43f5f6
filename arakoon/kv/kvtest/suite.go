// Package kvtest is the suite of what users of a group's keys may rely on, whether they have
// a member in their process or a client of one.
package kvtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"openvstorage/arakoon"
	"openvstorage/arakoon/state"
)

// Store is what *arakoon.Node and *kvclient.Client have in common.
type Store interface {
	Get(ctx context.Context, c arakoon.Consistency, key []byte) ([]byte, error)
	MultiGet(ctx context.Context, c arakoon.Consistency, keys ...[]byte) ([][]byte, error)
	Range(ctx context.Context, c arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error
	Reverse(ctx context.Context, c arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error
	Prefix(ctx context.Context, c arakoon.Consistency, prefix []byte, limit int, fn func(key, value []byte) bool) error
	Write(ctx context.Context, seq *arakoon.Sequence) (index uint64, results []arakoon.Result, err error)
	Do(ctx context.Context, seq *arakoon.Sequence) ([]arakoon.Result, error)
	Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error)
}

// CodeNo is what the function "no" fails with.
const CodeNo = state.CodeUser + 7

// Functions must be registered with the member.
var Functions = []arakoon.Function{
	{Name: "add", Version: 1, Run: func(tx arakoon.Tx, arg []byte) ([]byte, error) {
		sum := binary.BigEndian.Uint64(arg)
		if old, ok := tx.Get([]byte("sum")); ok {
			sum += binary.BigEndian.Uint64(old)
		}
		out := binary.BigEndian.AppendUint64(nil, sum)
		tx.Set([]byte("sum"), out)
		return out, nil
	}, Check: func(arg []byte) error {
		if len(arg) != 8 {
			return errors.New("eight bytes are needed")
		}
		return nil
	}},
	{Name: "no", Version: 2, Run: func(tx arakoon.Tx, arg []byte) ([]byte, error) {
		tx.Set([]byte("trace"), arg)
		if len(arg) == 0 {
			return nil, errors.New("no, without a code")
		}
		return nil, &arakoon.Error{Code: CodeNo, Key: []byte("k"), Message: "no: " + string(arg)}
	}},
}

// Run runs the suite; open makes an empty store with Functions.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for name, test := range map[string]func(*testing.T, Store){
		"Steps": steps, "AllOrNothing": allOrNothing, "Reads": reads, "Ranges": ranges, "LongRanges": longRanges,
		"Functions": functions, "BadInput": badInput, "Revisions": revisions, "Cancelled": cancelled, "AtOnce": atOnce,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func seq() *arakoon.Sequence { return new(arakoon.Sequence) }

func do(t *testing.T, s Store, q *arakoon.Sequence) []arakoon.Result {
	t.Helper()
	results, err := s.Do(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func want(t *testing.T, s Store, key, value string) {
	t.Helper()
	for _, how := range []arakoon.Consistency{arakoon.Consistent, arakoon.Local} {
		got, err := s.Get(t.Context(), how, []byte(key))
		if err != nil || string(got) != value {
			t.Errorf("%s is %q, %v; not %q", key, got, err, value)
		}
	}
}

func wantAbsent(t *testing.T, s Store, key string) {
	t.Helper()
	_, err := s.Get(t.Context(), arakoon.Consistent, []byte(key))
	var absent *arakoon.ErrNotFound
	if !errors.As(err, &absent) || string(absent.Key) != key {
		t.Errorf("%s is not absent: %v", key, err)
	}
}

func b(s string) []byte { return []byte(s) }

// steps: each kind does what it should, and its result says so.
func steps(t *testing.T, s Store) {
	do(t, s, seq().Set(b("a"), b("1")).Set(b("b"), nil).Set(b("p1"), b("x")).Set(b("p2"), b("y")))
	want(t, s, "a", "1")
	want(t, s, "b", "")
	r := do(t, s, seq().
		Assert(b("a"), b("1")).Assert(b("absent"), nil).AssertExists(b("b")).AssertRange(b("p"), b("p1"), b("p2")).
		TestAndSet(b("a"), b("2"), b("3")).TestAndSet(b("a"), b("1"), b("4")).TestAndSet(b("new"), nil, b("5")).
		Replace(b("b"), nil).Replace(b("never"), b("6")).DeletePrefix(b("p")).Delete(b("new")))
	if len(r) != 11 {
		t.Fatalf("%d results", len(r))
	}
	for i, w := range map[int]arakoon.Result{
		4: {Value: b("1"), Found: true}, 5: {Value: b("1"), Found: true}, 6: {}, 7: {Found: true}, 8: {}, 9: {Count: 2}, 10: {},
	} {
		if r[i].Found != w.Found || r[i].Count != w.Count || !bytes.Equal(r[i].Value, w.Value) {
			t.Errorf("result %d is %+v, not %+v", i, r[i], w)
		}
	}
	want(t, s, "a", "4")
	want(t, s, "never", "6")
	for _, key := range []string{"b", "new", "p1", "p2"} {
		wantAbsent(t, s, key)
	}
}

// allOrNothing: what one step refuses, none has done; the error names the key.
func allOrNothing(t *testing.T, s Store) {
	do(t, s, seq().Set(b("a"), b("1")))
	var assert *arakoon.ErrAssert
	var absent *arakoon.ErrNotFound
	_, err := s.Do(t.Context(), seq().Set(b("a"), b("2")).Assert(b("a"), b("1")))
	if !errors.As(err, &assert) || string(assert.Key) != "a" || assert.Step != 1 {
		t.Errorf("an assertion: %v", err)
	}
	_, err = s.Do(t.Context(), seq().Set(b("a"), b("2")).AssertRange(b("a"), b("a"), b("a2")))
	if !errors.As(err, &assert) || string(assert.Key) != "a2" {
		t.Errorf("an assertion of a range: %v", err)
	}
	_, err = s.Do(t.Context(), seq().Set(b("a"), b("2")).Delete(b("gone")))
	if !errors.As(err, &absent) || string(absent.Key) != "gone" {
		t.Errorf("a key that is absent: %v", err)
	}
	if errors.Is(err, arakoon.ErrUnknownOutcome) {
		t.Errorf("nothing is unknown of %v", err)
	}
	want(t, s, "a", "1")
}

// reads: an empty value is none that is absent.
func reads(t *testing.T, s Store) {
	do(t, s, seq().Set(b("empty"), []byte{}).Set(b("one"), b("1")))
	got, err := s.MultiGet(t.Context(), arakoon.Consistent, b("one"), b("none"), b("empty"), b("one"))
	if err != nil || len(got) != 4 || string(got[0]) != "1" || got[1] != nil || got[2] == nil || len(got[2]) != 0 || string(got[3]) != "1" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := s.MultiGet(t.Context(), arakoon.Local); err != nil || len(got) != 0 {
		t.Errorf("no keys: %q, %v", got, err)
	}
	big := bytes.Repeat([]byte{7}, state.ValueMax)
	do(t, s, seq().Set(b("big"), big))
	if got, err := s.Get(t.Context(), arakoon.Consistent, b("big")); err != nil || !bytes.Equal(got, big) {
		t.Errorf("the longest value: %d bytes, %v", len(got), err)
	}
	var e *arakoon.Error
	if _, err := s.MultiGet(t.Context(), arakoon.Consistent, b("big"), b("big"), b("big"), b("big")); !errors.As(err, &e) || e.Code != state.CodeTooLarge {
		t.Errorf("more values than fit: %v", err)
	}
}

// list is what a range returns, and what was kept of it.
func list(t *testing.T, read func(fn func(k, v []byte) bool) error) (out []string) {
	t.Helper()
	var keys, values [][]byte
	if err := read(func(k, v []byte) bool {
		keys, values = append(keys, k), append(values, v)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		out = append(out, fmt.Sprintf("%s=%s", keys[i], values[i]))
	}
	return out
}

func ranges(t *testing.T, s Store) {
	q := seq()
	for _, k := range []string{"a", "b", "ba", "bb", "c", "\xff", "\xffz"} {
		q.Set(b(k), b(k+k))
	}
	do(t, s, q)
	type scan = func(context.Context, arakoon.Consistency, []byte, []byte, int, func(k, v []byte) bool) error
	for _, tc := range []struct {
		read        scan
		first, last []byte
		limit       int
		want        string
	}{
		{s.Range, nil, nil, 0, "[a=aa b=bb ba=baba bb=bbbb c=cc \xff=\xff\xff \xffz=\xffz\xffz]"},
		{s.Range, b("b"), b("c"), 0, "[b=bb ba=baba bb=bbbb]"},
		{s.Range, b("b"), nil, 2, "[b=bb ba=baba]"},
		{s.Range, b("b\x00"), b("c\x00"), 0, "[ba=baba bb=bbbb c=cc]"},
		{s.Range, b("c"), b("b"), 0, "[]"},
		{s.Reverse, nil, nil, 2, "[\xffz=\xffz\xffz \xff=\xff\xff]"},
		{s.Reverse, b("b"), b("c"), 0, "[bb=bbbb ba=baba b=bb]"},
		{prefix(s), b("b"), nil, 0, "[b=bb ba=baba bb=bbbb]"},
		{prefix(s), b("\xff"), nil, 0, "[\xff=\xff\xff \xffz=\xffz\xffz]"},
		{prefix(s), b("zz"), nil, 0, "[]"},
	} {
		got := list(t, func(fn func(k, v []byte) bool) error {
			return tc.read(t.Context(), arakoon.Consistent, tc.first, tc.last, tc.limit, fn)
		})
		if fmt.Sprint(got) != tc.want {
			t.Errorf("[%q, %q) limit %d: %q, not %q", tc.first, tc.last, tc.limit, got, tc.want)
		}
	}
	calls := 0
	if err := s.Range(t.Context(), arakoon.Local, nil, nil, 0, func(_, _ []byte) bool { calls++; return calls < 3 }); err != nil || calls != 3 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func prefix(s Store) func(context.Context, arakoon.Consistency, []byte, []byte, int, func(k, v []byte) bool) error {
	return func(ctx context.Context, c arakoon.Consistency, first, _ []byte, limit int, fn func(k, v []byte) bool) error {
		return s.Prefix(ctx, c, first, limit, fn)
	}
}

// longRanges are longer than what is sent at once.
func longRanges(t *testing.T, s Store) {
	const count, size = 22, 200 << 10
	for i := range count {
		do(t, s, seq().Set(fmt.Appendf(nil, "k%03d", i), bytes.Repeat([]byte{byte(i)}, size)))
	}
	for _, how := range []arakoon.Consistency{arakoon.Consistent, arakoon.Local, arakoon.AtLeast(1)} {
		for _, limit := range []int{0, 21} {
			most := count
			if limit > 0 {
				most = min(limit, count)
			}
			next, step := 0, 1
			check := func(k, v []byte) bool {
				if string(k) != fmt.Sprintf("k%03d", next) || len(v) != size || v[0] != byte(next) || v[size-1] != byte(next) {
					t.Errorf("key %q instead of %d", k, next)
					return false
				}
				next += step
				return true
			}
			if err := s.Prefix(t.Context(), how, b("k"), limit, check); err != nil || next != most {
				t.Errorf("limit %d: %d keys, %v", limit, next, err)
			}
			next, step = count-1, -1
			if err := s.Reverse(t.Context(), how, b("k"), b("l"), limit, check); err != nil || next != count-1-most {
				t.Errorf("limit %d, from the high end: down to %d, %v", limit, next, err)
			}
		}
	}
}

func functions(t *testing.T, s Store) {
	for i := uint64(1); i <= 3; i++ {
		sum, err := s.Call(t.Context(), "add", 1, binary.BigEndian.AppendUint64(nil, i))
		if err != nil || binary.BigEndian.Uint64(sum) != i*(i+1)/2 {
			t.Fatalf("%x, %v", sum, err)
		}
	}
	var e *arakoon.Error
	_, err := s.Call(t.Context(), "no", 2, b("reason"))
	if !errors.As(err, &e) || e.Code != CodeNo || e.Message != "no: reason" || string(e.Key) != "k" || e.Step != 0 {
		t.Errorf("a function's own error: %#v", err)
	}
	if _, err = s.Call(t.Context(), "no", 2, nil); !errors.As(err, &e) || e.Code != state.CodeFunction {
		t.Errorf("an error without a code: %v", err)
	}
	wantAbsent(t, s, "trace")
	var unknown *state.UnknownFunctionError
	if _, err = s.Call(t.Context(), "add", 9, nil); !errors.As(err, &unknown) || unknown.Name != "add" || unknown.Version != 9 {
		t.Errorf("a version that nobody has: %v", err)
	}
	if _, err = s.Call(t.Context(), "add", 1, b("short")); err == nil || errors.Is(err, arakoon.ErrUnknownOutcome) {
		t.Errorf("an argument that would stop the members: %v", err)
	}
	want(t, s, "sum", "\x00\x00\x00\x00\x00\x00\x00\x06")
}

func badInput(t *testing.T, s Store) {
	for name, q := range map[string]*arakoon.Sequence{
		"key":   seq().Set(make([]byte, state.KeyMax+1), nil),
		"value": seq().Set(b("k"), make([]byte, state.ValueMax+1)),
		"all":   seq().Set(b("k"), make([]byte, state.ValueMax)).Set(b("l"), make([]byte, state.ValueMax)).Set(b("m"), make([]byte, state.ValueMax)),
	} {
		var e *arakoon.Error
		if _, err := s.Do(t.Context(), q); !errors.As(err, &e) || e.Code != state.CodeTooLarge {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Do(t.Context(), seq().Set(make([]byte, state.KeyMax), b("v"))); err != nil {
		t.Errorf("the longest key: %v", err)
	}
}

// revisions: the revision of a write is what a read can ask to see at least.
func revisions(t *testing.T, s Store) {
	last := uint64(0)
	for i := range 5 {
		value := fmt.Sprint(i)
		revision, _, err := s.Write(t.Context(), seq().Set(b("k"), b(value)))
		if err != nil || revision <= last {
			t.Fatalf("revision %d after %d, %v", revision, last, err)
		}
		last = revision
		if got, err := s.Get(t.Context(), arakoon.AtLeast(revision), b("k")); err != nil || string(got) != value {
			t.Errorf("at least %d: %q, %v", revision, got, err)
		}
	}
	if revision, results, err := s.Write(t.Context(), seq()); err != nil || revision <= last || len(results) != 0 {
		t.Errorf("a write of no steps: revision %d, %d results, %v", revision, len(results), err)
	}
}

func cancelled(t *testing.T, s Store) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Do(ctx, seq().Set(b("k"), b("v"))); !errors.Is(err, context.Canceled) || errors.Is(err, arakoon.ErrUnknownOutcome) {
		t.Errorf("a write that never began: %v", err)
	}
	wantAbsent(t, s, "k")
}

// atOnce: writes of many at once are each done once.
func atOnce(t *testing.T, s Store) {
	const each, writers = 10, 32
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				if _, err := s.Call(t.Context(), "add", 1, binary.BigEndian.AppendUint64(nil, 1)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	got, err := s.Get(t.Context(), arakoon.Consistent, b("sum"))
	if err != nil || binary.BigEndian.Uint64(got) != each*writers {
		t.Errorf("%x, %v", got, err)
	}
}
