package arakoon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/arakoon/state"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"github.com/google/uuid"
)

func TestQueries(t *testing.T) {
	n := open(t, testOptions(crashdisk.New()))
	ctx := t.Context()
	for _, k := range []string{"a", "ab", "b", "c", "d"} {
		set(t, n, k, k+k)
	}
	b := func(s string) []byte { return []byte(s) }
	for _, c := range []struct {
		bounds Bounds
		want   string
	}{
		{Bounds{}, "a ab b c d"}, {Bounds{First: b("ab")}, "ab b c d"}, {Bounds{First: b("ab"), FirstExcluded: true}, "b c d"},
		{Bounds{Last: b("c")}, "a ab b"}, {Bounds{Last: b("c"), LastIncluded: true}, "a ab b c"}, {PrefixBounds(b("a")), "a ab"},
		{Bounds{First: b("b"), Last: b("b")}, ""}, {Bounds{First: b("b"), Last: b("b"), LastIncluded: true}, "b"}, {Bounds{LastIncluded: true}, "a ab b c d"},
		{Bounds{First: b("c"), Last: b("b")}, ""},
	} {
		want := strings.Fields(c.want)
		for limit := range len(want) + 2 {
			keys, more, err := n.Keys(ctx, Consistent, c.bounds, limit)
			entries, moreEntries, err2 := n.RangeEntries(ctx, Local, c.bounds, limit)
			up := want
			if limit > 0 {
				up = want[:min(limit, len(want))]
			}
			if got := string(bytes.Join(keys, b(" "))); got != strings.Join(up, " ") || more != (len(up) < len(want)) || err != nil {
				t.Errorf("%+v, limit %d: %q, more %v, %v", c.bounds, limit, got, more, err)
			}
			if len(entries) != len(up) || moreEntries != more || err2 != nil || len(up) > 0 && string(entries[0].Value) != up[0]+up[0] {
				t.Errorf("%+v, limit %d: %q, more %v, %v", c.bounds, limit, entries, moreEntries, err2)
			}
			down := slices.Clone(want)
			slices.Reverse(down)
			if limit > 0 {
				down = down[:min(limit, len(down))]
			}
			back, more, err := n.ReverseKeys(ctx, Local, c.bounds, limit)
			pairs, _, err2 := n.ReverseEntries(ctx, Local, c.bounds, limit)
			if got := string(bytes.Join(back, b(" "))); got != strings.Join(down, " ") || more != (len(down) < len(want)) || errors.Join(err, err2) != nil || len(pairs) != len(down) {
				t.Errorf("%+v, limit %d, reverse: %q, more %v, %v", c.bounds, limit, got, more, err)
			}
		}
		if got, err := n.Count(ctx, Local, c.bounds); err != nil || got != uint64(len(want)) {
			t.Errorf("%+v: %d, %v", c.bounds, got, err)
		}
	}
	for k, want := range map[string]bool{"ab": true, "abc": false, "": false} {
		if got, err := n.Exists(ctx, Consistent, b(k)); err != nil || got != want {
			t.Errorf("%q: %v, %v", k, got, err)
		}
	}
}

// Bad requests get a clear error and change nothing.
func TestBadRequests(t *testing.T) {
	n := open(t, testOptions(crashdisk.New()))
	set(t, n, "before", "")
	at := n.Applied()
	for code, seq := range map[uint32][]*Sequence{
		state.CodeTooLarge: {
			new(Sequence).Set([]byte("a"), nil).Set([]byte("k"), make([]byte, state.ValueMax+1)), new(Sequence).Delete(make([]byte, state.KeyMax+1)),
			new(Sequence).Set([]byte("k"), make([]byte, state.ValueMax)).Set([]byte("l"), make([]byte, state.ValueMax)).Set([]byte("m"), make([]byte, state.ValueMax)).Set([]byte("n"), make([]byte, state.ValueMax)),
		},
		state.CodeBadCommand: {new(Sequence).Set(nil, nil), new(Sequence).Confirm([]byte{}, nil)},
	} {
		for _, s := range seq {
			if _, err := n.Do(t.Context(), s); !errors.Is(err, &Error{Code: code}) {
				t.Error(err)
			}
		}
	}
	if n.Applied() != at || n.Level() != 1 {
		t.Errorf("something was proposed: %d, not %d; level %d", n.Applied(), at, n.Level())
	}
}

// Each write returns its revision, and confirm writes only what differs. A group of one
// comes to the level that a write needs by itself, and a group of several only when it is
// told that all its members know it.
func TestConfirmAndLevel(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c := newCluster(t)
		n := c.start(1)
		confirm := func(n *Node, value string) (uint64, bool) {
			t.Helper()
			index, r, err := n.Write(t.Context(), new(Sequence).Confirm([]byte("k"), []byte(value)))
			if err != nil {
				t.Fatal(err)
			}
			return index, r[0].Found
		}
		first, found := confirm(n, "v")
		second, again := confirm(n, "v")
		if found || !again || second != first+1 || n.Level() != 2 {
			t.Fatal(found, again, first, second, n.Level())
		}
		if _, other := confirm(n, "w"); other {
			t.Fatal("not written")
		}
		has(t, n, "k", "w")

		c = newCluster(t)
		c.grow(3)
		n = c.leader()
		var low *LevelError
		if _, err := n.Do(t.Context(), new(Sequence).Confirm([]byte("k"), nil)); !errors.As(err, &low) || low.Need != 2 || low.Has != 1 {
			t.Fatal(err)
		}
		if err := n.RaiseLevel(t.Context(), 2, false); !errors.Is(err, &Error{Code: state.CodeLevel}) {
			t.Fatal(err)
		}
		if err := n.RaiseLevel(t.Context(), state.LevelNewest+1, true); err == nil {
			t.Fatal("an unknown level was proposed")
		}
		if err := n.RaiseLevel(t.Context(), 2, true); err != nil {
			t.Fatal(err)
		}
		confirm(n, "x")
		c.same("k", "x")
	})
}

// raised makes a group of three of level 2.
func raised(t *testing.T) (*cluster, *Node) {
	c := newCluster(t)
	c.grow(3)
	n := c.leader()
	if err := n.RaiseLevel(t.Context(), 2, true); err != nil {
		t.Fatal(err)
	}
	return c, n
}

// A lease lives for its time to live after its last renewal, and ends soon after that; a
// change of the leader makes it longer, never shorter.
func TestLeaseExpires(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c, n := raised(t)
		const ttl = 10 * time.Second
		held := func() bool { _, ok := n.state.Lease("n"); return ok }
		ends := func(since time.Time) {
			t.Helper()
			c.until("expiry", func() bool { return !held() })
			if took := time.Since(since); took < ttl || took > ttl+3*time.Second {
				t.Fatalf("it lived for %v", took)
			}
		}
		ctx := t.Context()
		l, err := n.Acquire(ctx, "n", uuid.Max, ttl)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			time.Sleep(ttl * 9 / 10)
			if l, err = n.Renew(ctx, l); err != nil {
				t.Fatal(err)
			}
		}
		ends(time.Now())
		if _, err := n.Renew(ctx, l); !errors.Is(err, ErrLeaseLost) {
			t.Fatal(err)
		}
		if l, err = n.Acquire(ctx, "n", uuid.Max, ttl); err != nil {
			t.Fatal(err)
		}
		time.Sleep(ttl * 9 / 10)
		c.kill(n.opt.Member, killed)
		began := time.Now()
		n = c.leader()
		ends(began)
		if _, err := n.Do(ctx, new(Sequence).Set([]byte("k"), nil).AssertLease("n", l.Fence)); !errors.Is(err, ErrLeaseLost) {
			t.Fatal(err)
		}
	})
}

// Whoever leads without hearing from a majority ends no lease.
func TestCutOffLeaderEndsNoLease(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c, n := raised(t)
		l, err := n.Acquire(t.Context(), "n", uuid.Max, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		old := n
		c.cutOff(old.opt.Member)
		var others []uint64
		for id := uint64(1); id <= 3; id++ {
			if id != old.opt.Member {
				others = append(others, id)
			}
		}
		n = c.leader(others...)
		for range 20 {
			time.Sleep(500 * time.Millisecond)
			if l, err = n.Renew(t.Context(), l); err != nil {
				t.Fatal(err)
			}
		}
		c.cutOff()
		time.Sleep(700 * time.Millisecond)
		if now, ok, err := n.Lease(t.Context(), Consistent, "n"); err != nil || !ok || now.Fence != l.Fence {
			t.Fatal(now, ok, err)
		}
	})
}

// Time begins with what is seen, anew with each renewal, each term, and after a while
// without the lead; a lease is never over before its time.
func TestLeaseClock(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var c leaseClock
		type seen struct {
			fence, renewed, term uint64
			at                   time.Duration
		}
		model := map[string]seen{}
		now, term, leading := time.Duration(0), uint64(1), true
		leases := map[string]Lease{}
		revision := uint64(1)
		for range 500 {
			now += time.Duration(rng.IntN(400)) * time.Millisecond
			revision++
			name := fmt.Sprint(rng.IntN(4))
			switch l, ok := leases[name]; rng.IntN(8) {
			case 0:
				delete(leases, name)
			case 1:
				term++
			case 2:
				leading = rng.IntN(3) > 0
			case 3, 4:
				if !ok {
					l = Lease{Name: name, Fence: revision, TTL: time.Duration(1+rng.IntN(2000)) * time.Millisecond}
				}
				l.Renewed = revision
				leases[name] = l
			}
			var list []Lease
			for _, l := range leases {
				list = append(list, l)
			}
			due, next := c.look(now, term, leading, list)
			if !leading {
				clear(model)
				if due != nil || next >= 0 {
					t.Fatal("it counts without the lead")
				}
				continue
			}
			earliest := time.Duration(-1)
			over := map[string]bool{}
			for _, l := range due {
				over[l.Name] = true
			}
			for name, l := range leases {
				m, ok := model[name]
				if !ok || m.fence != l.Fence || m.renewed != l.Renewed || m.term != term {
					m = seen{l.Fence, l.Renewed, term, now}
					model[name] = m
				}
				left := m.at + l.TTL - now
				if over[name] != (left <= 0) {
					t.Fatalf("%s is over: %v; it has %v", name, over[name], left)
				}
				if left > 0 && (earliest < 0 || left < earliest) {
					earliest = left
				}
			}
			if next != earliest {
				t.Fatalf("next in %v, not %v", next, earliest)
			}
			for name := range model {
				if _, ok := leases[name]; !ok {
					delete(model, name)
				}
			}
		}
	}
}

// Lock waits for the lease, and each holder has a higher fence; a wait ends with its
// context.
func TestLock(t *testing.T) {
	n := open(t, testOptions(crashdisk.New()))
	ctx := t.Context()
	first, err := n.Lock(ctx, "n", uuid.New(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { _, err := n.Lock(gone, "n", uuid.New(), time.Hour); ended <- err }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	locked := make(chan Lease)
	for range 8 {
		go func() {
			l, err := n.Lock(ctx, "n", uuid.New(), time.Hour)
			if err != nil {
				t.Error(err)
			}
			locked <- l
		}()
	}
	last := first
	for range 8 {
		if err := n.Release(ctx, last); err != nil {
			t.Fatal(err)
		}
		l := <-locked
		if l.Fence <= last.Fence {
			t.Fatal("fences do not rise", last, l)
		}
		last = l
	}
	if list, err := n.ListLeases(ctx, Local); err != nil || len(list) != 1 || list[0].Fence != last.Fence {
		t.Fatal(list, err)
	}
}

// A watch tells what happens from a revision on; a watcher goes on at another member where
// it was when the leader is killed; after a start of a member its older events are gone, by
// name; and the end of the node ends it.
func TestNodeWatch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c, n := raised(t)
		done := errors.New("seen")
		at := uint64(0)
		seen := func(n *Node, from uint64, want string) error {
			return n.Watch(t.Context(), []byte("w"), from, func(e Events) error {
				at = e.Revision
				if len(e.List) > 0 && string(e.List[0].Value) == want {
					return done
				}
				return nil
			})
		}
		first, _, err := n.Write(t.Context(), new(Sequence).Set([]byte("w"), []byte("1")))
		if err != nil {
			t.Fatal(err)
		}
		for id := uint64(1); id <= 3; id++ {
			if err := seen(c.node(id), first, "1"); err != done || at != first {
				t.Fatal(err, at)
			}
		}
		c.kill(n.opt.Member, killed)
		was := n.opt.Member
		if err := seen(n, 0, "x"); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		n = c.leader()
		set(t, n, "w", "2")
		if err := seen(n, first+1, "2"); err != done {
			t.Fatal(err)
		}
		again := c.start(was)
		c.same("w", "2")
		var gone *ErrCompacted
		if err := seen(again, 2, "1"); !errors.As(err, &gone) || gone.First <= 2 {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- seen(again, 0, "x") }()
		synctest.Wait()
		c.kill(was, killed)
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	})
}

// All members have one hash at one index, and none at another.
func TestHash(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		c, n := raised(t)
		for i := range 50 {
			set(t, n, fmt.Sprint("k", i), strings.Repeat("v", i))
		}
		if _, err := n.NewSession(t.Context()); err != nil {
			t.Fatal(err)
		}
		index, sum, err := n.Hash(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		set(t, n, "k", "later")
		for id := uint64(1); id <= 3; id++ {
			if got, err := c.node(id).HashAt(t.Context(), index); err != nil || got != sum {
				t.Fatalf("member %d: %x, %v, not %x", id, got, err, sum)
			}
		}
		if _, err := n.HashAt(t.Context(), index-1); !errors.Is(err, ErrNoHash) {
			t.Fatal(err)
		}
		if next, other, err := n.Hash(t.Context()); err != nil || next <= index || other == sum {
			t.Fatal(next, err)
		}
	})
}

// backedUp is a backup of a group of one, and what it holds.
func backedUp(t *testing.T) (b []byte, revision uint64) {
	t.Helper()
	o := testOptions(crashdisk.New())
	o.Life = 4
	n := open(t, o)
	set(t, n, "a", "1")
	if _, err := n.Acquire(t.Context(), "n", uuid.Max, time.Hour); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	revision, err := n.Backup(t.Context(), &out)
	if err != nil || revision != n.Applied() {
		t.Fatal(revision, err)
	}
	return out.Bytes(), revision
}

// A restored group is a new one: of a later life, with revisions that were never given out,
// and all that was in the backup.
func TestRestore(t *testing.T) {
	b, revision := backedUp(t)
	o := testOptions(crashdisk.New())
	o.Life = 4
	if _, err := Restore(o, bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "life 4") {
		t.Fatal(err)
	}
	o.Life, o.Member = 0, 8
	info, err := Restore(o, bytes.NewReader(b))
	if err != nil || info.Index != revision || info.Group != "node" {
		t.Fatal(info, err)
	}
	if _, err := Restore(o, bytes.NewReader(b)); !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	o.FS = o.FS.(*crashdisk.FS).Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
	o.Existing = true
	n := open(t, o)
	has(t, n, "a", "1")
	if l, ok, err := n.Lease(t.Context(), Local, "n"); err != nil || !ok || l.Owner != uuid.Max {
		t.Fatal(l, err)
	}
	index, _, err := n.Write(t.Context(), new(Sequence).Set([]byte("b"), []byte("2")))
	if err != nil || index <= revision+restoreGap {
		t.Fatal(index, err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = open(t, o)
	has(t, n, "b", "2")
	_ = n.Close()
	o.Life = 4
	if _, err := Open(o); err == nil {
		t.Fatal("opened as of the life before")
	}
}

// A power cut at any operation of a restore leaves no member, or the whole one; never one
// that Open would begin anew or take for another. Restore is then called again.
func TestRestoreIsCutAnywhere(t *testing.T) {
	b, _ := backedUp(t)
	rng := rand.New(rand.NewPCG(3, 3))
	under := crashdisk.New()
	faulty := faultdisk.New(under)
	var cuts []*crashdisk.FS
	faulty.Inject(faultdisk.Rule{
		Ops:    faultdisk.Write | faultdisk.Datasync | faultdisk.Sync | faultdisk.Rename | faultdisk.SyncDir,
		Before: func(faultdisk.Op, string) { cuts = append(cuts, under.Crash(rng, crashdisk.Mixed)) },
	})
	o := testOptions(faulty)
	if _, err := Restore(o, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	cuts = append(cuts, under.Crash(rng, crashdisk.LoseAll))
	again := 0
	for i, d := range cuts {
		o.FS, o.Existing = d, true
		if n, err := Open(o); err == nil {
			has(t, n, "a", "1")
			_ = n.Close()
			continue
		}
		if _, err := d.Stat(o.Dir + ".marks"); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("cut %d of %d: a member that cannot be opened: %v", i, len(cuts), err)
		}
		again++
		if _, err := Restore(o, bytes.NewReader(b)); err != nil {
			t.Fatalf("cut %d of %d: %v", i, len(cuts), err)
		}
		n := open(t, o)
		has(t, n, "a", "1")
		_ = n.Close()
	}
	if again == 0 || again == len(cuts) {
		t.Errorf("%d of %d had to be restored again", again, len(cuts))
	}
}

func TestNodeDump(t *testing.T) {
	d := crashdisk.New()
	n := open(t, testOptions(d))
	set(t, n, "key", "value")
	if _, err := n.state.Flush(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Dump(d.Kill(), "/node", &out, 3); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`key "key": 5 bytes "val"...`, `set "key" value 5 bytes "val"...;`, "of member 3 of cluster"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in it:\n%s", want, out.String())
		}
	}
}
