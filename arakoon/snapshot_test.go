package arakoon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

// carrier is a Fetcher between the members of a cluster in one process. It goes on where
// an earlier call has ended.
type carrier struct {
	c  *cluster
	fs disk.FS

	mu     sync.Mutex
	read   int64                             // bytes, in all
	calls  int                               // of Fetch
	passes func(name string, p []byte) error // may change what was read, or break the fetch
}

func (f *carrier) Fetch(ctx context.Context, from uint64, id SnapshotID, dir string) error {
	f.mu.Lock()
	f.calls++
	f.mu.Unlock()
	n := f.c.node(from)
	if n == nil {
		return errors.New("nobody is there")
	}
	s, err := n.OpenSnapshot(id)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, file := range s.Files() {
		if err := f.file(ctx, s, file, path.Join(dir, file.Name)); err != nil {
			return err
		}
	}
	return nil
}

func (f *carrier) Hold(_ context.Context, from uint64, id SnapshotID) error {
	n := f.c.node(from)
	if n == nil {
		return errors.New("nobody is there")
	}
	s, err := n.OpenSnapshot(id)
	if err == nil {
		s.Close()
	}
	return err
}

func (f *carrier) file(ctx context.Context, s *Snapshot, file SnapshotFile, to string) error {
	w, err := f.fs.OpenFile(to, disk.Write|disk.Create, 0o600)
	if err != nil {
		return err
	}
	defer w.Close()
	off, err := w.Size()
	p := make([]byte, 4096)
	for ; err == nil && off < file.Size; off += int64(len(p)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := s.ReadAt(file.Name, p, off)
		if err != nil && err != io.EOF {
			return err
		}
		p = p[:n]
		f.mu.Lock()
		f.read += int64(n)
		if f.passes != nil {
			err = f.passes(file.Name, p)
		} else {
			err = nil
		}
		f.mu.Unlock()
		if err != nil {
			return err
		}
		if _, err := w.WriteAt(p, off); err != nil {
			return err
		}
	}
	return err
}

// absent is a group of three whose member 3 was away while the others dropped their logs.
type absent struct {
	*cluster
	lead    *Node
	carrier *carrier // of member 3, from when it is back
	disk    *faultdisk.FS
}

// away makes such a group. Member 3 is back with start(3).
func away(t *testing.T) *absent {
	t.Helper()
	a := &absent{cluster: newCluster(t)}
	a.change = func(id uint64, o *Options) {
		o.SegmentBytes, o.MemTableBytes, o.CompactBytes = 64<<10, 256<<10, 128<<10
		if id != 3 {
			o.Fetcher = &carrier{c: a.cluster, fs: o.FS}
			return
		}
		a.disk = faultdisk.New(o.FS)
		o.FS = a.disk
		calls := a.carrier
		a.carrier = &carrier{c: a.cluster, fs: a.disk}
		if calls != nil {
			a.carrier.passes = calls.passes
		}
		o.Fetcher = a.carrier
	}
	a.grow(3)
	n := a.leader()
	set(t, n, "old", "1")
	a.same("old", "1")
	a.kill(3, killed)
	a.lead = a.leader(1, 2)
	a.fill(0, 60)
	a.until("a log that was cut", func() bool { return a.lead.log.Marker().Index > 40 })
	return a
}

func (a *absent) fill(from, to int) {
	a.t.Helper()
	value := make([]byte, 16<<10)
	for i := range value {
		value[i] = byte(rand.Uint32())
	}
	for i := from; i < to; i++ {
		set(a.t, a.leader(), fmt.Sprint("k", i), string(value))
	}
	set(a.t, a.leader(), "last", fmt.Sprint(to))
}

// whole checks that member 3 holds all that the leader does.
func (a *absent) whole(to int) {
	a.t.Helper()
	a.same("last", fmt.Sprint(to))
	n := a.node(3)
	count := 0
	if err := n.Prefix(a.t.Context(), Local, []byte("k"), 0, func(_, _ []byte) bool { count++; return true }); err != nil || count != to {
		a.t.Fatalf("member 3 holds %d of %d keys: %v", count, to, err)
	}
}

// A member that was away while the log was truncated comes back by a snapshot, goes on by
// the log, and has it still when it is opened again. Nothing is left of how it came.
func TestAwayForTooLong(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := away(t)
		n := a.start(3)
		a.whole(60)
		if a.carrier.read == 0 {
			t.Fatal("no snapshot was fetched")
		}
		a.fill(60, 70)
		a.whole(70)
		a.until("members in step", func() bool {
			at, held := a.lead.source.hold()
			return !held || at.Index > 0 && n.Applied() == a.leader().Applied()
		})
		for range 2 {
			a.kill(3, killed)
			n = a.start(3)
			a.whole(70)
		}
		if names, err := a.disk.ReadDir("/node"); err != nil || strings.Join(names, " ") != "lock log state" {
			t.Errorf("%v, %v", names, err)
		}
		a.until("no snapshot is kept", func() bool {
			_, held := a.lead.source.hold()
			names, _ := a.disks[a.lead.opt.Member].ReadDir("/node")
			return !held && strings.Join(names, " ") == "lock log state"
		})
	})
}

// Reads see the old state or the new one, also one that began before and ends after; what
// is read of the old one stays.
func TestReadsOverAnInstall(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := away(t)
		gate := make(chan struct{})
		a.carrier.passes = func(string, []byte) error { <-gate; return nil }
		n := a.start(3)
		a.until("the old state", func() bool { _, err := n.Get(t.Context(), Local, []byte("old")); return err == nil })
		began, end := make(chan struct{}), make(chan struct{})
		done := make(chan error)
		go func() {
			var keys []string
			err := n.Range(t.Context(), Local, nil, nil, 0, func(k, _ []byte) bool {
				if keys = append(keys, string(k)); len(keys) == 1 {
					close(began)
					<-end
				}
				return true
			})
			if err == nil && strings.Join(keys, " ") != "old" {
				err = fmt.Errorf("it saw %v", keys)
			}
			done <- err
		}()
		<-began
		close(gate)
		a.whole(60)
		if v := n.state.now.users; v != 0 {
			t.Fatalf("%d use the new state", v)
		}
		close(end)
		if err := <-done; err != nil {
			t.Error(err)
		}
		has(t, a.lead, "old", "1")
	})
}

// A fetch that breaks goes on where it was.
func TestFetchGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := away(t)
		bytes, total := int64(0), int64(0)
		a.carrier.passes = func(_ string, p []byte) error {
			if bytes += int64(len(p)); bytes > 100<<10 {
				bytes = 0
				return errors.New("the line is cut")
			}
			total += int64(len(p))
			return nil
		}
		a.start(3)
		a.whole(60)
		if a.carrier.calls < 5 || a.carrier.read > total+int64(a.carrier.calls)*4096 {
			t.Errorf("%d calls read %d bytes for %d", a.carrier.calls, a.carrier.read, total)
		}
	})
}

// A file that came damaged is named, removed, and fetched anew.
func TestDamagedFile(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := away(t)
		damaged := ""
		a.carrier.passes = func(name string, p []byte) error {
			if strings.HasSuffix(name, ".sst") && damaged == "" {
				damaged = name
				p[len(p)/2]++
			}
			return nil
		}
		var said lines
		change := a.change
		a.change = func(id uint64, o *Options) { change(id, o); o.Logger = said.logger() }
		a.start(3)
		a.whole(60)
		if damaged == "" || !strings.Contains(said.text(), damaged+" of the snapshot is damaged") || a.carrier.calls != 2 {
			t.Errorf("%s, %d calls, %s", damaged, a.carrier.calls, said.text())
		}
	})
}

// On a full disk the fetch waits and says so, and the member serves what it has. With room
// it goes on.
func TestFetchOnAFullDisk(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := away(t)
		told := make(chan error, 1000)
		change := a.change
		a.change = func(id uint64, o *Options) {
			change(id, o)
			if id == 3 {
				o.OnFull = func(err error) { told <- err }
				a.disk.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: "*.sst", Err: unix.ENOSPC})
			}
		}
		n := a.start(3)
		a.until("a full disk", func() bool { return n.Stats().Full && len(told) > 3 })
		if v, err := n.Get(t.Context(), Local, []byte("old")); err != nil || string(v) != "1" || n.Err() != nil {
			t.Fatalf("%q, %v, %v", v, err, n.Err())
		}
		a.disk.Clear()
		a.whole(60)
		if n.Stats().Full {
			t.Error("it waits still")
		}
	})
}

// A power cut at any change of the disk, from the first byte of a snapshot until it is in
// place, leaves a member that opens, is the old one or the new one, and catches up.
func TestInstallIsAtomic(t *testing.T) {
	if testing.Short() {
		t.Skip()
	}
	inBubble(t, func(t *testing.T) {
		a := away(t)
		was := a.disks[3]
		var images []*crashdisk.FS
		rng := rand.New(rand.NewPCG(1, 2))
		change := a.change
		opened := false
		a.change = func(id uint64, o *Options) {
			change(id, o)
			if id != 3 || opened {
				return
			}
			opened = true
			under := was
			a.disk.Inject(faultdisk.Rule{
				Ops: faultdisk.Datasync | faultdisk.Sync | faultdisk.SyncDir | faultdisk.Rename | faultdisk.Remove | faultdisk.RemoveAll | faultdisk.Link,
				Before: func(faultdisk.Op, string) { // the log's writer and the fetch, at once
					a.net.mu.Lock()
					defer a.net.mu.Unlock()
					mode := []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed}[rng.IntN(3)]
					images = append(images, under.Crash(rng, mode))
				},
			})
		}
		a.start(3)
		a.whole(60)
		a.kill(3, killed)
		a.net.mu.Lock()
		all := images
		a.net.mu.Unlock()
		if len(all) < 30 {
			t.Fatalf("only %d power cuts", len(all))
		}
		old, renewed := 0, 0
		for i, image := range all {
			// A new leader has no word of how far the member was in the power cut before.
			lead := a.leader(1, 2).opt.Member
			a.kill(lead, killed)
			a.start(lead)
			a.leader(1, 2)
			a.disks[3] = image
			n, err := a.open(3)
			if err != nil {
				t.Fatalf("after power cut %d of %d: %v", i, len(all), err)
			}
			if v, err := n.Get(t.Context(), Local, []byte("last")); err == nil && string(v) == "60" {
				renewed++
			} else {
				old++
			}
			a.whole(60)
			a.kill(3, killed)
		}
		if old < 5 || renewed < 2 {
			t.Errorf("%d times the old member, %d times the new one", old, renewed)
		}
		t.Logf("%d power cuts: %d times the old member, %d times the new one", len(all), old, renewed)
	})
}

// A snapshot that nobody reads is dropped, raft is told, and the member gets another one.
func TestUnreadSnapshotIsDropped(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := away(t)
		stuck := true
		a.carrier.passes = func(string, []byte) error {
			if stuck {
				return errors.New("nothing comes")
			}
			return nil
		}
		began := time.Now()
		a.start(3)
		var first *made
		a.until("a snapshot", func() bool {
			a.lead.source.mu.Lock()
			defer a.lead.source.mu.Unlock()
			if len(a.lead.source.made) > 0 {
				first = a.lead.source.made[0]
			}
			return first != nil
		})
		s, err := a.lead.OpenSnapshot(first.id)
		if err != nil {
			t.Fatal(err)
		}
		a.kill(3, killed)
		a.until("a dropped snapshot", func() bool { return a.lead.source.isGone(first) })
		if d := time.Since(began); d < unreadMost {
			t.Errorf("dropped after %v", d)
		}
		if _, err := s.ReadAt(s.Files()[0].Name, make([]byte, 1), 0); !errors.Is(err, ErrNoSnapshot) {
			t.Error(err)
		}
		s.Close()
		if _, err := a.lead.OpenSnapshot(first.id); !errors.Is(err, ErrNoSnapshot) {
			t.Error(err)
		}
		stuck = false
		a.start(3)
		a.whole(60)
	})
}

// A snapshot whose check takes longer than an unread one is kept is fetched once, while writes
// go on and the log is truncated, and its member has caught up behind it.
func TestVerificationTakesItsTime(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := away(t)
		change := a.change
		opened := 0
		var checks atomic.Int64
		var said lines
		a.kill(1, killed)
		a.kill(2, killed)
		a.change = func(id uint64, o *Options) {
			change(id, o)
			o.Logger = said.logger()
			if id != 3 {
				return
			}
			opened++
			a.disk.Inject(faultdisk.Rule{
				Ops: faultdisk.Read, Where: func(p string) bool { return strings.Contains(p, incomingPrefix) && strings.HasSuffix(p, ".sst") },
				Times: 8, Before: func(faultdisk.Op, string) { checks.Add(1); time.Sleep(unreadMost) },
			})
		}
		a.start(1)
		a.start(2)
		a.lead = a.leader(1, 2)
		began := time.Now()
		a.start(3)
		a.until("a fetched snapshot", func() bool { a.carrier.mu.Lock(); defer a.carrier.mu.Unlock(); return a.carrier.calls > 0 })
		for i := 60; time.Since(began) < 6*unreadMost; i++ {
			a.fill(i, i+1)
			time.Sleep(unreadMost / 10)
		}
		a.until("a whole member", func() bool { return a.node(3).Applied() == a.leader().Applied() })
		if made := strings.Count(said.text(), "made a snapshot"); a.carrier.calls != 1 || opened != 1 || checks.Load() < 3 || made != 1 {
			t.Errorf("%d snapshots made, %d fetches, %d openings, %d slow checks", made, a.carrier.calls, opened, checks.Load())
		}
	})
}

// isGone reports whether a snapshot is gone.
func (s *source) isGone(m *made) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.gone
}

// The log is not held for ever: beyond Options.HoldBytes it is cut, and that is said.
func TestHoldIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &absent{cluster: newCluster(t)}
		var said lines
		a.change = func(id uint64, o *Options) {
			o.SegmentBytes, o.MemTableBytes, o.CompactBytes, o.HoldBytes = 64<<10, 256<<10, 128<<10, 256<<10
			o.Logger = said.logger()
		}
		a.grow(1)
		n := a.leader()
		a.fill(0, 20)
		if _, err := n.source.snapshot(); err == nil {
			t.Fatal("a snapshot at once")
		}
		a.until("a snapshot", func() bool { _, err := n.source.snapshot(); return err == nil })
		at, held := n.source.hold()
		if !held {
			t.Fatal("the log is not held")
		}
		a.fill(20, 28)
		if n.log.Marker().Index > at.Index {
			t.Fatalf("cut at %d, and held from %d", n.log.Marker().Index, at.Index)
		}
		a.fill(28, 90)
		a.until("a log that was cut", func() bool { return n.log.Marker().Index > at.Index })
		if !strings.Contains(said.text(), "holds its log no more") {
			t.Error("it does not say so")
		}
	})
}
