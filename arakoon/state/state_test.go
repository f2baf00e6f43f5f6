package state

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
)

var testCluster = uuid.MustParse("6ba7b810-9dad-41d1-80b4-00c04fd430c8")

// testFunctions exercise a transaction: "fold" writes, deletes and reads its
// own writes in both directions; the others end in the ways a function can.
func testFunctions(t testing.TB) *Registry {
	t.Helper()
	r, err := NewRegistry(
		Function{Name: "fold", Version: 1, Run: func(tx Tx, arg []byte) ([]byte, error) {
			tx.Set(append([]byte("f"), arg...), arg)
			tx.Delete([]byte("b"))
			var out []byte
			collect := func(k, v []byte) bool { out = append(append(append(out, k...), '='), v...); return true }
			tx.Range([]byte("a"), []byte("g"), 5, collect)
			tx.Reverse(nil, nil, 3, collect)
			return out, nil
		}},
		Function{Name: "code", Version: 1, Run: func(tx Tx, arg []byte) ([]byte, error) {
			tx.Set([]byte("never"), nil)
			return nil, &Error{Code: CodeUser + 1, Message: string(arg)}
		}},
		Function{Name: "error", Version: 1, Run: func(Tx, []byte) ([]byte, error) { return nil, errors.New("plain") }},
		Function{Name: "panic", Version: 1, Run: func(Tx, []byte) ([]byte, error) { panic("bug") }},
		Function{Name: "time", Version: 1, Run: func(tx Tx, _ []byte) ([]byte, error) { return []byte(tx.Time().Format(time.RFC3339)), nil }},
		Function{Name: "big", Version: 1, Run: func(Tx, []byte) ([]byte, error) { return make([]byte, ResultMax), nil }},
	)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func open(t testing.TB, fsys disk.FS) *State {
	t.Helper()
	s := openOnly(t, fsys)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// openOnly is open for those who close it themselves.
func openOnly(t testing.TB, fsys disk.FS) *State {
	t.Helper()
	s, err := Open(Options{
		FS: fsys, Dir: "/state", Cluster: testCluster, Member: 3, Functions: testFunctions(t), MemTableBytes: 256 << 10, CacheBytes: 1 << 20,
		Begin: Position{Index: 1, Term: 1, Conf: &pb.ConfState{Voters: []uint64{3}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func entryOf(index uint64, commands ...Command) *pb.Entry {
	return &pb.Entry{Index: new(index), Term: new(uint64(1)), Type: pb.EntryNormal.Enum(), Data: AppendBatch(nil, Batch{Origin: 1, Number: index, Commands: commands})}
}

func body(t testing.TB, s *Sequence) []byte {
	t.Helper()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// apply applies one command and returns its outcome.
func apply(t testing.TB, s *State, c Command) Outcome {
	t.Helper()
	a, err := s.Apply([]*pb.Entry{entryOf(s.Applied().Index+1, c)}, nil)
	if err != nil || len(a) != 1 || len(a[0].Outcomes) != 1 {
		t.Fatalf("%+v, %v", a, err)
	}
	return a[0].Outcomes[0]
}

func dump(t testing.TB, s *State) map[string]string {
	t.Helper()
	m := map[string]string{}
	if err := s.Range(nil, nil, false, func(k, v []byte) bool { m[string(k)] = string(v); return true }); err != nil {
		t.Fatal(err)
	}
	return m
}

// model is the state as a map.
type model map[string]string

func (m model) keys(prefix string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(m)), func(k string) bool { return !strings.HasPrefix(k, prefix) })
}

// randomStep appends a step to a sequence and returns what it does to a model.
func randomStep(rng *rand.Rand, seq *Sequence, now model) func(m model) (Result, string) {
	letters := "abcdefg\xff"
	word := func() string {
		b := make([]byte, 1+rng.IntN(2))
		for i := range b {
			b[i] = letters[rng.IntN(len(letters))]
		}
		return string(b)
	}
	value := func() []byte {
		if rng.IntN(4) == 0 {
			return nil
		}
		return []byte(word())
	}
	k := word()
	put := func(m model, v []byte) {
		if v == nil {
			delete(m, k)
		} else {
			m[k] = string(v)
		}
	}
	likely := func() []byte {
		if v, ok := now[k]; rng.IntN(3) > 0 {
			if !ok {
				return nil
			}
			return []byte(v)
		}
		return value()
	}
	is := func(m model, v []byte) bool { old, ok := m[k]; return ok == (v != nil) && old == string(v) }
	old := func(m model) Result { v, ok := m[k]; return Result{Value: []byte(v), Found: ok} }
	switch rng.IntN(10) {
	default:
		v := []byte(word())
		seq.Set([]byte(k), v)
		return func(m model) (Result, string) { put(m, v); return Result{}, "" }
	case 0:
		seq.Delete([]byte(k))
		return func(m model) (Result, string) {
			if _, ok := m[k]; !ok {
				return Result{}, k
			}
			delete(m, k)
			return Result{}, ""
		}
	case 1:
		p := k[:1]
		seq.DeletePrefix([]byte(p))
		return func(m model) (Result, string) {
			keys := m.keys(p)
			for _, k := range keys {
				delete(m, k)
			}
			return Result{Count: uint64(len(keys))}, ""
		}
	case 2:
		v := likely()
		seq.Assert([]byte(k), v)
		return func(m model) (Result, string) {
			if !is(m, v) {
				return Result{}, k
			}
			return Result{}, ""
		}
	case 3:
		v, w := likely(), value()
		seq.TestAndSet([]byte(k), v, w)
		return func(m model) (Result, string) {
			r := old(m)
			if is(m, v) {
				put(m, w)
			}
			return r, ""
		}
	case 4:
		w := value()
		seq.Replace([]byte(k), w)
		return func(m model) (Result, string) { r := old(m); put(m, w); return r, "" }
	case 5:
		seq.Call("fold", 1, []byte(k))
		return func(m model) (Result, string) {
			m["f"+k] = k
			delete(m, "b")
			var out strings.Builder
			all := m.keys("")
			n := 0
			for _, key := range all {
				if key >= "a" && key < "g" && n < 5 {
					out.WriteString(key + "=" + m[key])
					n++
				}
			}
			slices.Reverse(all)
			for _, key := range all[:min(3, len(all))] {
				out.WriteString(key + "=" + m[key])
			}
			return Result{Value: []byte(out.String())}, ""
		}
	case 6:
		keys := now.keys(k[:1])
		var list [][]byte
		for _, k := range keys {
			list = append(list, []byte(k))
		}
		seq.AssertRange([]byte(k[:1]), list...)
		return func(m model) (Result, string) {
			if got := m.keys(k[:1]); !slices.Equal(got, keys) {
				return Result{}, "?"
			}
			return Result{}, ""
		}
	}
}

// Random sequences against a map, many in an entry and many entries in a
// batch, with restarts from what a power cut leaves and the log's tail.
func TestModel(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 1))
		d := crashdisk.New()
		s := open(t, d)
		now := model{}
		history := map[uint64]model{1: {}}
		var log []*pb.Entry // from index 2
		for range 150 {
			var entries []*pb.Entry
			var want []Outcome
			for range 1 + rng.IntN(4) {
				index := uint64(len(log)+len(entries)) + 2
				var commands []Command
				for range 1 + rng.IntN(3) {
					seq := new(Sequence)
					after := maps.Clone(now)
					out := Outcome{Index: index}
					for i := range rng.IntN(5) {
						do := randomStep(rng, seq, after)
						if out.Err != nil {
							continue
						}
						r, bad := do(after)
						if bad != "" {
							out.Err = &Error{Step: i, Key: []byte(bad)}
						}
						out.Results = append(out.Results, r)
					}
					if out.Err == nil {
						now = after
					}
					commands = append(commands, Command{Body: body(t, seq)})
					want = append(want, out)
				}
				entries = append(entries, entryOf(index, commands...))
				history[index] = maps.Clone(now)
			}
			applied, err := s.Apply(entries, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []Outcome
			for _, a := range applied {
				got = append(got, a.Outcomes...)
			}
			compare(t, got, want)
			log = append(log, entries...)
			if !maps.Equal(dump(t, s), now) {
				t.Fatal("the state is another than the model")
			}
			switch rng.IntN(12) {
			case 0:
				if at, err := s.Flush(); err != nil || at.Index != s.Applied().Index {
					t.Fatal(at, err)
				}
			case 1:
				durable := s.Durable().Index
				d = d.Crash(rng, crashdisk.Mixed)
				s = open(t, d)
				at := s.Applied().Index
				if at < durable || !maps.Equal(dump(t, s), history[at]) {
					t.Fatalf("after a power cut the state is not that at %d; %d was durable", at, durable)
				}
				if rest := log[at-1:]; len(rest) > 0 {
					if _, err := s.Apply(rest, nil); err != nil {
						t.Fatal(err)
					}
				}
				if !maps.Equal(dump(t, s), now) {
					t.Fatal("the log's tail does not lead to the same state")
				}
			}
		}
	}
}

func compare(t *testing.T, got, want []Outcome) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d outcomes, not %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if (g.Err != nil) != (w.Err != nil) || g.Index != w.Index {
			t.Fatalf("%+v, not %+v", g, w)
		}
		if w.Err != nil {
			if g.Err.Step != w.Err.Step || string(w.Err.Key) != "?" && !bytes.Equal(g.Err.Key, w.Err.Key) {
				t.Fatalf("%v, not %v", g.Err, w.Err)
			}
			continue
		}
		for k, r := range w.Results {
			if x := g.Results[k]; !bytes.Equal(x.Value, r.Value) || x.Found != r.Found || x.Count != r.Count {
				t.Fatalf("step %d: %+v, not %+v", k, x, r)
			}
		}
	}
}

func TestSessions(t *testing.T) {
	d := crashdisk.New()
	s := open(t, d)
	id := uuid.MustParse("f47ac10b-58cc-4372-a567-0e02b2c3d479")
	set := body(t, new(Sequence).Replace([]byte("k"), []byte("v")))
	code := func(c Command, want uint32) {
		t.Helper()
		if o := apply(t, s, c); o.Err == nil || o.Err.Code != want {
			t.Fatalf("%+v, not code %d", o, want)
		}
	}
	code(Command{Session: id, Request: 1, Body: set}, CodeSessionExpired)
	for range 2 { // opening may be retried
		if o := apply(t, s, Command{Open: true, Session: id}); o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	first := apply(t, s, Command{Session: id, Request: 1, Body: set})
	if first.Err != nil || first.Results[0].Found {
		t.Fatal(first)
	}
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	s = open(t, d.Kill())
	if again := apply(t, s, Command{Session: id, Request: 1, Body: set}); again.Err != nil || again.Results[0].Found || again.Index != first.Index {
		t.Fatal(again)
	}
	fail := body(t, new(Sequence).Delete([]byte("none")))
	code(Command{Session: id, Request: 2, Body: fail}, CodeNotFound)
	apply(t, s, Command{Body: body(t, new(Sequence).Set([]byte("none"), nil))})
	code(Command{Session: id, Request: 2, Body: fail}, CodeNotFound)
	code(Command{Session: id, Request: 1, Body: set}, CodeStale)
	if o := apply(t, s, Command{Session: id, Request: 3, Body: body(t, new(Sequence).Call("big", 1, nil))}); o.Err != nil {
		t.Fatal(o.Err)
	}
	code(Command{Session: id, Request: 3, Body: set}, CodeResultLost)
	// Newer sessions put it out; it cannot come back and repeat itself.
	var opens []Command
	for i := range SessionsMax {
		opens = append(opens, Command{Open: true, Session: uuid.NewSHA1(id, fmt.Append(nil, i))})
	}
	if _, err := s.Apply([]*pb.Entry{entryOf(s.Applied().Index+1, opens...)}, nil); err != nil {
		t.Fatal(err)
	}
	code(Command{Session: id, Request: 3, Body: set}, CodeSessionExpired)
	if s.sessions.order.Len() != SessionsMax {
		t.Errorf("%d sessions", s.sessions.order.Len())
	}
}

func TestFunctions(t *testing.T) {
	d := crashdisk.New()
	s := open(t, d)
	call := func(name string) Command {
		return Command{Time: int64(1e18), Body: body(t, new(Sequence).Set([]byte("x"), nil).Call(name, 1, []byte("arg")))}
	}
	if o := apply(t, s, call("code")); o.Err == nil || o.Err.Code != CodeUser+1 || o.Err.Message != "arg" || o.Err.Step != 1 {
		t.Fatal(o)
	}
	if o := apply(t, s, call("error")); o.Err == nil || o.Err.Code != CodeFunction {
		t.Fatal(o)
	}
	if o := apply(t, s, call("time")); o.Err != nil || string(o.Results[1].Value) != "2001-09-09T01:46:40Z" {
		t.Fatal(o)
	}
	back := Command{Time: 5, Body: body(t, new(Sequence).Call("time", 1, nil))}
	if o := apply(t, s, back); o.Err != nil || string(o.Results[0].Value) != "2001-09-09T01:46:40Z" {
		t.Fatalf("time went back: %+v", o)
	}
	if m := dump(t, s); len(m) != 1 {
		t.Fatal(m)
	}
	for name, want := range map[string]error{"none": ErrUnknownFunction, "panic": ErrStopped} {
		if _, err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		image := open(t, d.Kill())
		_, err := image.Apply([]*pb.Entry{entryOf(image.Applied().Index+1, call(name))}, nil)
		if !errors.Is(err, want) || !errors.Is(err, ErrStopped) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := image.Apply([]*pb.Entry{entryOf(image.Applied().Index+1, back)}, nil); !errors.Is(err, ErrStopped) {
			t.Errorf("%s: it went on: %v", name, err)
		}
	}
}

func TestLimits(t *testing.T) {
	for _, seq := range []*Sequence{
		new(Sequence).Set(make([]byte, KeyMax+1), nil), new(Sequence).Set([]byte("k"), make([]byte, ValueMax+1)),
		new(Sequence).Confirm([]byte("k"), make([]byte, ValueMax+1)), new(Sequence).Acquire("", uuid.Nil, time.Second),
		new(Sequence).Acquire(strings.Repeat("n", LeaseNameMax+1), uuid.Nil, time.Second),
		new(Sequence).Set([]byte("k"), make([]byte, ValueMax)).Set([]byte("k"), make([]byte, ValueMax)),
	} {
		if _, err := seq.Encode(); !errors.Is(err, &Error{Code: CodeTooLarge}) {
			t.Error(err)
		}
	}
	for _, seq := range []*Sequence{
		new(Sequence).Set(nil, nil), new(Sequence).Delete([]byte{}), new(Sequence).Confirm(nil, nil), new(Sequence).Assert(nil, nil),
		new(Sequence).Acquire("n", uuid.Nil, LeaseTTLMax+1), new(Sequence).Renew("n", 1, time.Nanosecond),
	} {
		if _, err := seq.Encode(); !errors.Is(err, &Error{Code: CodeBadCommand}) {
			t.Error(err)
		}
	}
}

func TestCheckpoint(t *testing.T) {
	d := crashdisk.New()
	s := open(t, d)
	apply(t, s, Command{Body: body(t, new(Sequence).Set([]byte("k"), []byte("v")))})
	if err := s.Checkpoint("/copy"); err != nil {
		t.Fatal(err)
	}
	c, err := Open(Options{FS: d, Dir: "/copy", Cluster: testCluster, Member: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Applied().Index != 2 || !maps.Equal(dump(t, c), map[string]string{"k": "v"}) {
		t.Fatal(c.Applied(), dump(t, c))
	}
	if _, err := Open(Options{FS: d.Kill(), Dir: "/copy", Cluster: testCluster, Member: 4}); !errors.Is(err, ErrIdentity) {
		t.Fatal(err)
	}
}

// Leave keeps on disk what was there: nothing that was applied since the last flush.
// Close flushes it.
func TestLeave(t *testing.T) {
	for _, leave := range []bool{false, true} {
		d := crashdisk.New()
		s := openOnly(t, d)
		set := func(key string) {
			t.Helper()
			if out := apply(t, s, Command{Body: body(t, new(Sequence).Set([]byte(key), []byte("v")))}); out.Err != nil {
				t.Fatal(out.Err)
			}
		}
		set("flushed")
		durable, err := s.Flush()
		if err != nil {
			t.Fatal(err)
		}
		set("later")
		applied := s.Applied().Index
		if leave {
			err = s.Leave()
		} else {
			err = s.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		for what, image := range map[string]*crashdisk.FS{"as it is": d, "killed": d.Kill()} {
			s := openOnly(t, image)
			got, want := dump(t, s), map[string]string{"flushed": "v"}
			at := durable.Index
			if !leave {
				want["later"], at = "v", applied
			}
			if !maps.Equal(got, want) || s.Applied().Index != at || applied == durable.Index {
				t.Errorf("%s, left %v: %v at %d, not %v at %d", what, leave, got, s.Applied().Index, want, at)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
