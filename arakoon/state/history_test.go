package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"

	pb "go.etcd.io/raft/v3/raftpb"
)

func openWith(t testing.TB, fsys disk.FS, h *History) *State {
	t.Helper()
	s, err := Open(Options{
		FS: fsys, Dir: "/state", Cluster: testCluster, Member: 3, Functions: testFunctions(t), History: h, MemTableBytes: 256 << 10, CacheBytes: 1 << 20,
		Begin: Position{Index: 1, Term: 1, Conf: &pb.ConfState{Voters: []uint64{3}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func watch(t testing.TB, h *History, prefix string, from uint64) *Watcher {
	t.Helper()
	w, err := h.Watch(t.Context(), []byte(prefix), from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func next(t testing.TB, w *Watcher) []Events {
	t.Helper()
	told, err := w.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return told
}

func put(t testing.TB, s *State, key, value string) uint64 {
	t.Helper()
	return does(t, s, new(Sequence).Set([]byte(key), []byte(value)), 0).Index
}

// Watchers rebuild the state from events alone: it is equal to the state at every revision
// that they are told of, each revision is told whole and once, in order, for prefixes of
// any kind, with failing sequences, functions, deletions by prefix and many commands an
// entry, whether a watcher reads along or from behind.
func TestWatchersRebuildTheState(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 2))
		h := NewHistory(HistoryOptions{})
		s := openWith(t, crashdisk.New(), h)
		var watchers []*rebuild
		for _, prefix := range []string{"", "a", "ab", "\xff", "f", "none"} {
			watchers = append(watchers, &rebuild{w: watch(t, h, prefix, 0), prefix: prefix, now: model{}})
		}
		now := model{}
		history := map[uint64]model{1: {}}
		for range 120 {
			var entries []*pb.Entry
			for range 1 + rng.IntN(4) {
				index := s.Applied().Index + uint64(len(entries)) + 1
				var commands []Command
				for range 1 + rng.IntN(3) {
					seq, after, bad := new(Sequence), maps.Clone(now), false
					for range rng.IntN(5) {
						if do := randomStep(rng, seq, after); !bad {
							_, failed := do(after)
							bad = failed != ""
						}
					}
					if !bad {
						now = after
					}
					commands = append(commands, Command{Body: body(t, seq)})
				}
				entries = append(entries, entryOf(index, commands...))
				history[index] = maps.Clone(now)
			}
			if _, err := s.Apply(entries, nil); err != nil {
				t.Fatal(err)
			}
			for _, w := range watchers {
				if rng.IntN(3) == 0 {
					w.come(t, s.Applied().Index, history)
				}
			}
		}
		for _, w := range watchers {
			w.come(t, s.Applied().Index, history)
		}
		late := &rebuild{w: watch(t, h, "", 2), now: model{}}
		late.come(t, s.Applied().Index, history)
		if !maps.Equal(late.now, now) {
			t.Fatal("a watcher that reads all from behind has another state")
		}
	}
}

// rebuild is a watcher that makes the state of the events.
type rebuild struct {
	w      *Watcher
	prefix string
	now    model
	at     uint64
}

// come reads what is there up to a revision. It must not wait, so it reads while there is
// something that concerns the watcher.
func (r *rebuild) come(t *testing.T, upTo uint64, history map[uint64]model) {
	t.Helper()
	for {
		told, err := r.w.look()
		if err != nil {
			t.Fatal(err)
		}
		if told == nil {
			// The dispatcher may not have come to what is there.
			d := &r.w.h.dispatch
			d.mu.Lock()
			done := d.done
			d.mu.Unlock()
			if done < upTo {
				if more, _ := r.w.h.step(); !more {
					continue
				}
			}
			if told, err = r.w.look(); err != nil {
				t.Fatal(err)
			} else if told == nil {
				break
			}
		}
		for _, e := range told {
			if len(e.List) == 0 {
				continue
			}
			if e.Revision <= r.at {
				t.Fatalf("revision %d behind %d", e.Revision, r.at)
			}
			r.at = e.Revision
			last := ""
			for i, one := range e.List {
				k := string(one.Key)
				if i > 0 && k <= last {
					t.Fatalf("key %q behind %q", k, last)
				}
				if last = k; one.Deleted {
					delete(r.now, k)
				} else {
					r.now[k] = string(one.Value)
				}
			}
			r.same(t, history[e.Revision])
		}
	}
	r.same(t, history[upTo])
}

func (r *rebuild) same(t *testing.T, want model) {
	t.Helper()
	n := 0
	for _, k := range want.keys(r.prefix) {
		n++
		if v, ok := r.now[k]; !ok || v != want[k] {
			t.Fatalf("prefix %q at %d: %q is %q, not %q", r.prefix, r.at, k, v, want[k])
		}
	}
	if len(r.now) != n {
		t.Fatalf("prefix %q at %d: %d keys, not %d", r.prefix, r.at, len(r.now), n)
	}
}

// A watcher that is too slow, or comes too late, is told so by name, never given a gap.
func TestCompacted(t *testing.T) {
	h := NewHistory(HistoryOptions{Revisions: 10})
	d := crashdisk.New()
	s := openWith(t, d, h)
	slow := watch(t, h, "", 0)
	if got := next(t, slow); len(got) != 1 || got[0].Revision != 1 || len(got[0].List) != 0 {
		t.Fatal(got)
	}
	quiet := watch(t, h, "quiet", 0)
	next(t, quiet)
	first := put(t, s, "k", "0")
	for i := range 20 {
		put(t, s, "k", fmt.Sprint(i))
	}
	var gone *ErrCompacted
	if told, err := slow.Next(t.Context()); !errors.As(err, &gone) || gone.First != s.Applied().Index-9 {
		t.Fatal(told, err)
	}
	if _, err := h.Watch(t.Context(), nil, first); !errors.As(err, &gone) {
		t.Fatal(err)
	}
	from := watch(t, h, "", gone.First)
	if got := next(t, from); len(got) != 10 || got[0].Revision != gone.First || string(got[9].List[0].Value) != "19" {
		t.Fatal(got)
	}
	// Another state was installed, or the same was opened behind entries that nobody has
	// recorded.
	index := s.Applied().Index
	h.Reset(index)
	next(t, watch(t, h, "", index))
	h.Reset(index + 5)
	if told, err := from.Next(t.Context()); !errors.As(err, &gone) || gone.First != index+6 {
		t.Fatal(told, err)
	}
	if _, err := h.Watch(t.Context(), nil, index); !errors.As(err, &gone) {
		t.Fatal(err)
	}
}

// A watcher whom nothing concerns does not lose its place, however much is written, and is
// told from time to time how far it has come.
func TestProgress(t *testing.T) {
	h := NewHistory(HistoryOptions{Revisions: 40})
	s := openWith(t, crashdisk.New(), h)
	w := watch(t, h, "quiet", 0)
	at := next(t, w)[0].Revision
	for i := range 30 {
		for range 10 {
			put(t, s, "loud", fmt.Sprint(i))
		}
		got := next(t, w)
		if len(got) != 1 || len(got[0].List) != 0 || got[0].Revision <= at || got[0].Revision > s.Applied().Index {
			t.Fatalf("%+v behind %d", got, at)
		}
		at = got[0].Revision
	}
	index := put(t, s, "quiet", "v")
	for {
		got := next(t, w)
		if len(got[0].List) == 0 {
			continue
		}
		if len(got) != 1 || got[0].Revision != index || string(got[0].List[0].Value) != "v" {
			t.Fatal(got)
		}
		return
	}
}

// While nobody watches a group of one nothing is recorded; the first watcher begins with
// what comes after; and after the last one has gone the record is given up in the end. A
// group of several records always.
func TestRecordsWhenWanted(t *testing.T) {
	h := NewHistory(HistoryOptions{Bytes: 2000})
	s := openWith(t, crashdisk.New(), h)
	index := put(t, s, "k", "v")
	var gone *ErrCompacted
	if _, err := h.Watch(t.Context(), nil, index); !errors.As(err, &gone) || len(h.kept) != 0 {
		t.Fatal(err, h.kept)
	}
	w := watch(t, h, "", 0)
	index = put(t, s, "k", "v")
	w.Close()
	put(t, s, "k", "v")
	if got := next(t, watch(t, h, "", index)); len(got) != 2 {
		t.Fatal("a watcher that comes back finds a gap", got)
	}
	for w := range h.dispatch.watchers {
		w.Close()
	}
	for range 50 {
		put(t, s, "k", "v")
	}
	if len(h.kept) != 0 || h.wanted {
		t.Fatal("it still records")
	}
	several := NewHistory(HistoryOptions{})
	if several.begin(&pb.ConfState{Voters: []uint64{1, 2, 3}}) == nil || several.begin(&pb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}) == nil {
		t.Fatal("a group of several does not record")
	}
}

// A watch that begins while a batch is applied that is not recorded waits for its end.
func TestWatchWaitsForABlindBatch(t *testing.T) {
	h := NewHistory(HistoryOptions{})
	alone := &pb.ConfState{Voters: []uint64{3}}
	if h.begin(alone) != nil {
		t.Fatal("recorded")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if w, err := h.Watch(ctx, nil, 0); !errors.Is(err, context.Canceled) {
		t.Fatal(w, err)
	}
	h.publish(nil, 7)
	if got := next(t, watch(t, h, "", 0)); got[0].Revision != 7 {
		t.Fatal(got)
	}
	if h.begin(alone) == nil {
		t.Fatal("not recorded")
	}
}

// A revision that is larger than all that may be kept is not kept, and is told by name.
func TestHugeRevision(t *testing.T) {
	h := NewHistory(HistoryOptions{Bytes: 10_000})
	s := openWith(t, crashdisk.New(), h)
	w := watch(t, h, "", 0)
	next(t, w)
	put(t, s, "k", string(make([]byte, 20_000)))
	var gone *ErrCompacted
	if told, err := w.Next(t.Context()); !errors.As(err, &gone) || gone.First != s.Applied().Index+1 {
		t.Fatal(told, err)
	}
	if h.bytes != 0 {
		t.Fatal(h.bytes)
	}
}

// A watch begun at a revision to come is told from there on.
func TestWatchTheFuture(t *testing.T) {
	h := NewHistory(HistoryOptions{})
	s := openWith(t, crashdisk.New(), h)
	w := watch(t, h, "", 4)
	if got := next(t, w); got[0].Revision != 1 || len(got[0].List) != 0 {
		t.Fatal(got)
	}
	for range 4 {
		put(t, s, "k", "v")
	}
	for want := uint64(4); want < 6; {
		for _, e := range next(t, w) {
			if e.Revision != want || len(e.List) != 1 {
				t.Fatalf("%+v, not %d", e, want)
			}
			want++
		}
	}
}

func TestWatchersAreBounded(t *testing.T) {
	h := NewHistory(HistoryOptions{Watchers: 2})
	a := watch(t, h, "", 0)
	watch(t, h, "", 0)
	if _, err := h.Watch(t.Context(), nil, 0); !errors.Is(err, ErrTooManyWatchers) {
		t.Fatal(err)
	}
	a.Close()
	a.Close()
	watch(t, h, "", 0)
	end := make(chan struct{})
	w := watch(t, NewHistory(HistoryOptions{}), "", 0)
	next(t, w)
	close(end)
	if _, err := w.Next(t.Context(), end); !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
}

// Events of leases are not users', and come to those who wait for a lease.
func TestWatchLease(t *testing.T) {
	h := NewHistory(HistoryOptions{})
	s := openWith(t, crashdisk.New(), h)
	does(t, s, Raise(2, true), 0)
	users := watch(t, h, "", 0)
	w, err := h.WatchLease(t.Context(), "n", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	next(t, users)
	next(t, w)
	fence := does(t, s, new(Sequence).Acquire("n", alice, time.Second), 0).Index
	does(t, s, new(Sequence).Release("n", fence), 0)
	var events []Event
	for len(events) < 2 {
		for _, e := range next(t, w) {
			events = append(events, e.List...)
		}
	}
	if string(events[0].Key) != "n" || events[0].Deleted || !events[1].Deleted {
		t.Fatal(events)
	}
	index := put(t, s, "n", "v")
	if got := next(t, users); len(got) != 1 || got[0].Revision != index {
		t.Fatal(got)
	}
}

// BenchmarkApply applies entries of one command, without a history, with one that nobody
// watches, and with 1 and 1,000 watchers, whom nothing or everything concerns.
func BenchmarkApply(b *testing.B) {
	for _, c := range []struct {
		name     string
		history  bool
		watchers int
		prefix   string
	}{
		{"none", false, 0, ""}, {"unwatched", true, 0, ""}, {"1", true, 1, "k"}, {"1000 others", true, 1000, "z%d"}, {"1000", true, 1000, "k"},
	} {
		b.Run(c.name, func(b *testing.B) {
			var h *History
			if c.history {
				h = NewHistory(HistoryOptions{})
			}
			s := openWith(b, crashdisk.New(), h)
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			for i := range c.watchers {
				prefix := c.prefix
				if prefix != "k" {
					prefix = fmt.Sprintf(prefix, i)
				}
				w := watch(b, h, prefix, 0)
				go func() {
					for {
						if _, err := w.Next(ctx); err != nil {
							return
						}
					}
				}()
			}
			value := make([]byte, 256)
			var entries []*pb.Entry
			for i := range 4096 {
				entries = append(entries, entryOf(uint64(i)+2, Command{Body: body(b, new(Sequence).Set(fmt.Appendf(nil, "k%d", i%100), value))}))
			}
			b.ReportAllocs()
			b.ResetTimer()
			at := s.Applied().Index
			for i := 0; b.Loop(); i++ {
				e := entries[i%len(entries)]
				at++
				e.Index = &at
				if _, err := s.Apply([]*pb.Entry{e}, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
