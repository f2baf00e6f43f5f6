package arakoon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"openvstorage/arakoon/state"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/disk/osdisk"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

var testCluster = uuid.MustParse("6ba7b810-9dad-41d1-80b4-00c04fd430c8")

// counter adds its argument to a key and returns the sum.
var counter = Function{Name: "add", Version: 1, Run: func(tx Tx, arg []byte) ([]byte, error) {
	if len(arg) != 8 {
		return nil, &Error{Code: state.CodeUser, Message: "eight bytes are needed"}
	}
	sum := binary.BigEndian.Uint64(arg)
	if old, ok := tx.Get([]byte("sum")); ok {
		sum += binary.BigEndian.Uint64(old)
	}
	out := binary.BigEndian.AppendUint64(nil, sum)
	tx.Set([]byte("sum"), out)
	return out, nil
}}

func testOptions(fsys disk.FS) Options {
	return Options{
		FS: fsys, Dir: "/node", Cluster: testCluster, Member: 3, Functions: []Function{counter},
		SegmentBytes: 64 << 10, CompactBytes: 256 << 10, MemTableBytes: 256 << 10, StateCacheBytes: 1 << 20,
	}
}

func open(t testing.TB, o Options) *Node {
	t.Helper()
	n, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func set(t testing.TB, n *Node, key, value string) {
	t.Helper()
	if _, err := n.Do(t.Context(), new(Sequence).Set([]byte(key), []byte(value))); err != nil {
		t.Fatal(err)
	}
}

func has(t testing.TB, n *Node, key, want string) {
	t.Helper()
	got, err := n.Get(t.Context(), Consistent, []byte(key))
	if err != nil || string(got) != want {
		t.Fatalf("%s is %q, not %q: %v", key, got, want, err)
	}
}

func TestNode(t *testing.T) {
	d := crashdisk.New()
	n := open(t, testOptions(d))
	ctx := t.Context()
	set(t, n, "a", "1")
	has(t, n, "a", "1")
	index, results, err := n.Write(ctx, new(Sequence).
		Assert([]byte("a"), []byte("1")).Assert([]byte("b"), nil).Set([]byte("b"), []byte("2")).
		TestAndSet([]byte("a"), []byte("1"), []byte("3")).Replace([]byte("b"), []byte("4")))
	if err != nil || len(results) != 5 || string(results[3].Value) != "1" || string(results[4].Value) != "2" {
		t.Fatalf("%+v, %v", results, err)
	}
	if v, err := n.Get(ctx, AtLeast(index), []byte("b")); err != nil || string(v) != "4" {
		t.Fatalf("%q, %v", v, err)
	}
	var failed *ErrAssert
	if _, err := n.Do(ctx, new(Sequence).Set([]byte("c"), nil).AssertExists([]byte("d"))); !errors.As(err, &failed) || string(failed.Key) != "d" || failed.Step != 1 {
		t.Fatal(err)
	}
	var absent *ErrNotFound
	if _, err := n.Get(ctx, Local, []byte("c")); !errors.As(err, &absent) {
		t.Fatalf("a failed sequence had an effect: %v", err)
	}
	if _, err := n.Do(ctx, new(Sequence).Delete([]byte("d"))); !errors.As(err, &absent) || string(absent.Key) != "d" {
		t.Fatal(err)
	}
	if out, err := n.Call(ctx, "add", 1, binary.BigEndian.AppendUint64(nil, 5)); err != nil || binary.BigEndian.Uint64(out) != 5 {
		t.Fatal(out, err)
	}
	var code *Error
	if _, err := n.Call(ctx, "add", 1, nil); !errors.As(err, &code) || code.Code != state.CodeUser {
		t.Fatal(err)
	}
	if _, err := n.Call(ctx, "add", 2, nil); !errors.Is(err, state.ErrUnknownFunction) {
		t.Fatal(err)
	}
	values, err := n.MultiGet(ctx, Consistent, []byte("a"), []byte("zz"), []byte("b"))
	if err != nil || string(values[0]) != "3" || values[1] != nil || string(values[2]) != "4" {
		t.Fatal(values, err)
	}
	var keys []string
	collect := func(k, _ []byte) bool { keys = append(keys, string(k)); return true }
	if err := errors.Join(n.Range(ctx, Consistent, []byte("a"), []byte("b"), 0, collect), n.Reverse(ctx, Local, nil, nil, 2, collect), n.Prefix(ctx, Local, []byte("s"), 0, collect)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(keys, " "); got != "a sum b sum" {
		t.Fatal(got)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := n.Do(gone, new(Sequence)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := n.Checkpoint("/copy"); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Do(ctx, new(Sequence)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	n = open(t, testOptions(d))
	has(t, n, "a", "3")
	if _, err := Open(testOptions(d)); !errors.Is(err, disk.ErrLocked) {
		t.Fatalf("opened twice: %v", err)
	}
	_ = n.Close()
	o := testOptions(d)
	o.Member = 4
	if _, err := Open(o); err == nil {
		t.Fatal("opened as another member")
	}
}

func TestSessionAcrossRestart(t *testing.T) {
	d := crashdisk.New()
	n := open(t, testOptions(d))
	s, err := n.NewSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	add := new(Sequence).Call("add", 1, binary.BigEndian.AppendUint64(nil, 7))
	index, first, err := s.Do(t.Context(), add)
	if err != nil {
		t.Fatal(err)
	}
	n = open(t, testOptions(d.Kill()))
	s = n.ResumeSession(s.ID())
	again, second, err := s.Retry(t.Context(), add)
	if err != nil || again != index || string(first[0].Value) != string(second[0].Value) {
		t.Fatalf("index %d and %d, %v, %v, %v", index, again, first, second, err)
	}
	_, third, err := s.Do(t.Context(), add)
	if err != nil || binary.BigEndian.Uint64(third[0].Value) != 14 {
		t.Fatal(third, err)
	}
}

// Whatever the moment of a kill or a power cut: what was acknowledged is
// there, and a counter counts each call once.
func TestCrashes(t *testing.T) {
	modes := []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 9))
			d := crashdisk.New()
			if err := errors.Join(d.MkdirAll("/node", 0o700), d.SyncDir("/")); err != nil {
				t.Fatal(err)
			}
			acked := map[string]string{}
			calls := uint64(0)
			for range 6 {
				n := open(t, testOptions(d))
				for k, v := range acked {
					has(t, n, k, v)
				}
				if calls > 0 {
					has(t, n, "sum", string(binary.BigEndian.AppendUint64(nil, calls)))
				}
				var mu sync.Mutex
				var clients sync.WaitGroup
				for c := range 8 {
					clients.Go(func() {
						for i := range 25 {
							key, value := fmt.Sprintf("%d/%d", c, i%10), strings.Repeat(fmt.Sprint(i), 300)
							_, err := n.Do(context.Background(), new(Sequence).Set([]byte(key), []byte(value)).Call("add", 1, binary.BigEndian.AppendUint64(nil, 1)))
							if err != nil {
								t.Error(err)
								return
							}
							mu.Lock()
							acked[key] = value
							calls++
							mu.Unlock()
						}
					})
				}
				clients.Wait()
				next := d.Kill()
				if rng.IntN(4) > 0 {
					next = d.Crash(rng, modes[seed])
				}
				if rng.IntN(3) == 0 {
					if err := n.Close(); err != nil {
						t.Fatal(err)
					}
				}
				d = next
			}
		})
	}
}

// A failed write or sync of the log fails the node; opened again it has all
// that was acknowledged.
func TestLogFailure(t *testing.T) {
	for _, op := range []faultdisk.Op{faultdisk.Datasync, faultdisk.Write} {
		under := crashdisk.New()
		d := faultdisk.New(under)
		told := make(chan error, 1)
		o := testOptions(d)
		o.OnFailure = func(err error) { told <- err }
		n := open(t, o)
		set(t, n, "a", "1")
		bad := errors.New("bad disk")
		d.Inject(faultdisk.Rule{Ops: op, Path: "*.raft", Err: bad})
		d.Inject(faultdisk.Rule{Ops: op, Path: "spare", Err: bad})
		var err error
		for err == nil { // a mark that cannot be written shows at the next write
			_, err = n.Do(t.Context(), new(Sequence).Set([]byte("b"), []byte("2")))
		}
		if !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, bad) {
			t.Fatal(err)
		}
		<-told
		if _, err := n.Do(t.Context(), new(Sequence)); !errors.Is(err, ErrFailed) {
			t.Fatal(err)
		}
		if _, err := n.Get(t.Context(), Consistent, []byte("a")); !errors.Is(err, ErrFailed) {
			t.Fatal(err)
		}
		if err := n.Close(); !errors.Is(err, bad) {
			t.Fatal(err)
		}
		n = open(t, testOptions(under.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)))
		has(t, n, "a", "1")
	}
}

// Where the log finds no room or no descriptor for a new segment, the node waits
// and says why; then it goes on, and what waited is answered.
func TestLogWaits(t *testing.T) {
	for _, errno := range []error{unix.EMFILE, unix.ENOSPC, unix.EACCES} {
		d := faultdisk.New(crashdisk.New())
		o := testOptions(d)
		o.SegmentBytes = 16 << 10
		n := open(t, o)
		d.Inject(faultdisk.Rule{Ops: faultdisk.Open, Path: "spare", Err: errno})
		acked, failed := 0, error(nil)
		for i := 0; failed == nil; i++ {
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				for n.appender.stalled.Load() == nil && ctx.Err() == nil {
					runtime.Gosched()
				}
				cancel()
			}()
			_, failed = n.Do(ctx, new(Sequence).Set(fmt.Appendf(nil, "%d", i), make([]byte, 4000)))
			if acked = i; failed != nil {
				break
			}
			cancel()
		}
		if !errors.Is(failed, ErrUnknownOutcome) || !errors.Is(failed, errno) || !strings.Contains(failed.Error(), "log/spare") {
			t.Fatalf("%v: %v", errno, failed)
		}
		if !n.Stats().Full || n.Err() != nil {
			t.Fatalf("%v: %+v, %v", errno, n.Stats(), n.Err())
		}
		d.Clear()
		if _, err := n.Do(t.Context(), new(Sequence).Set([]byte("last"), nil)); err != nil {
			t.Fatal(err)
		}
		for i := range acked + 1 {
			has(t, n, fmt.Sprint(i), string(make([]byte, 4000)))
		}
		if n.Stats().Full {
			t.Error("it waits still")
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A sync of Pebble's that fails stops the node too; the log has everything.
func TestStateFailure(t *testing.T) {
	under := crashdisk.New()
	d := faultdisk.New(under)
	n := open(t, testOptions(d))
	bad := errors.New("bad disk")
	d.Inject(faultdisk.Rule{Ops: faultdisk.Datasync | faultdisk.Sync, Path: "/node/state/...", Err: bad})
	acked := 0
	for i := 0; ; i++ {
		_, err := n.Do(t.Context(), new(Sequence).Set(fmt.Appendf(nil, "%d", i), make([]byte, 4000)))
		if err != nil {
			if !errors.Is(err, bad) {
				t.Fatal(err)
			}
			break
		}
		acked++
	}
	_ = n.Close()
	n = open(t, testOptions(under.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)))
	for i := range acked {
		has(t, n, fmt.Sprint(i), string(make([]byte, 4000)))
	}
}

// The log does not grow without end, and a restart after that is whole.
func TestCompaction(t *testing.T) {
	d := crashdisk.New()
	n := open(t, testOptions(d))
	for i := range 1200 {
		set(t, n, fmt.Sprint("key", i%50), strings.Repeat(fmt.Sprint(i%10), 2000))
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := d.ReadDir("/node/log")
	if err != nil || len(names) > 30 {
		t.Errorf("%d segments, %v", len(names), err)
	}
	n = open(t, testOptions(d))
	for i := range 50 {
		has(t, n, fmt.Sprint("key", i), strings.Repeat(fmt.Sprint((1150+i)%10), 2000))
	}
}

func TestBusy(t *testing.T) {
	d := faultdisk.New(crashdisk.New())
	o := testOptions(d)
	o.Proposals = 2
	n := open(t, o)
	gate := faultdisk.NewGate()
	d.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "*.raft", Times: 1, Before: gate.Wait})
	d.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "spare", Times: 1, Before: gate.Wait})
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() { _, _ = n.Do(context.Background(), new(Sequence).Set([]byte("a"), nil)) })
	}
	<-gate.Arrived()
	for n.Stats().Proposals < 2 {
		runtime.Gosched()
	}
	if _, err := n.Do(t.Context(), new(Sequence)); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	gate.Open()
	clients.Wait()
	set(t, n, "a", "1")
}

// A replica that lacks a function that its log calls stops, and does not skip.
func TestUnknownFunctionStops(t *testing.T) {
	d := crashdisk.New()
	n := open(t, testOptions(d))
	if _, err := n.Call(t.Context(), "add", 1, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	o := testOptions(d.Kill())
	o.Functions = nil
	if _, err := Open(o); !errors.Is(err, state.ErrUnknownFunction) {
		t.Fatal(err)
	}
}

func BenchmarkSet(b *testing.B) {
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			o := testOptions(osdisk.New())
			o.Dir, o.SegmentBytes, o.MemTableBytes, o.CompactBytes = b.TempDir(), 0, 0, 0
			n := open(b, o)
			before := n.Stats().Syncs
			var next sync.Mutex
			left := b.N
			var all sync.WaitGroup
			b.ResetTimer()
			for c := range clients {
				all.Go(func() {
					value := make([]byte, 256)
					for i := 0; ; i++ {
						next.Lock()
						left--
						done := left < 0
						next.Unlock()
						if done {
							return
						}
						if _, err := n.Do(context.Background(), new(Sequence).Set(fmt.Appendf(nil, "%d/%d", c, i), value)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sets/s")
			b.ReportMetric(float64(b.N)/float64(n.Stats().Syncs-before), "sets/sync")
		})
	}
}

// Of a node whose files may not be the newest the state stays on disk as it was, until
// somebody says that they are: when an older log was applied to it and the newest one is
// put back, that fits, and nothing of the older one is in the place of its own.
func TestStateOfAnOlderLogIsLeft(t *testing.T) {
	for _, newest := range []bool{false, true} {
		d := crashdisk.New()
		o := testOptions(d)
		n := open(t, o)
		set(t, n, "base", "1")
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		was := d.Kill()
		o.HoldCompaction = true
		n = open(t, o)
		set(t, n, "mine", "1")
		if newest {
			n.MayCompact()
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		at := func(fs disk.FS) (durable uint64) {
			t.Helper()
			s, err := state.Open(state.Options{FS: fs, Dir: "/node/state", Cluster: testCluster, Member: 3, Functions: n.functions})
			if err != nil {
				t.Fatal(err)
			}
			durable = s.Durable().Index
			if err := s.Leave(); err != nil {
				t.Fatal(err)
			}
			return durable
		}
		before, after := at(was), at(d.Kill())
		if moved := after > before; moved != newest {
			t.Errorf("newest %v: the state on disk went from %d to %d", newest, before, after)
		}
		o.HoldCompaction = false
		n = open(t, o) // the log has it all
		has(t, n, "base", "1")
		has(t, n, "mine", "1")
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
