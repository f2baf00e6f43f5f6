package writebuffer

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

// Linux tells an error of writing back once for each open file. A flush's sync is
// told of it, late; meanwhile the SCO is sealed, and somebody else wants it
// synced. Whoever that is must not take the silence for success (P6, O10).
func TestSyncErrorIsToldOnce(t *testing.T) {
	for _, who := range []string{"storer", "background", "close"} {
		t.Run(who, func(t *testing.T) {
			r := newFastRig(t)
			r.write(1, 2, 1)
			gate := faultdisk.NewGate()
			defer gate.Open()
			r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "sco-*", Err: unix.EIO, Times: 1, Before: gate.Wait})
			flush, other := make(chan error, 1), make(chan error, 1)
			go func() { flush <- r.log.Commit(r.ctx, 1) }()
			<-gate.Arrived()
			r.log.CloseTLog()
			s := r.log.Work().SCOs[0]
			switch who {
			case "storer":
				go func() { _, err := s.Object(nil, nil); other <- err }()
			case "background":
				r.log.syncer.bell.Ring()
				go func() { other <- r.log.Commit(r.ctx, 1) }()
			case "close":
				go func() { other <- s.Sync() }()
			}
			for range 10000 { // time to be told nothing
				runtime.Gosched()
			}
			if r.log.Durable() != 0 {
				t.Errorf("durable to %d while the sync that was told the error has not returned", r.log.Durable())
			}
			gate.Open()
			mustBe(t, r.wait(flush), unix.EIO)
			mustBe(t, r.wait(other), unix.EIO)
			mustBe(t, r.log.Commit(r.ctx, 1), unix.EIO)
			_, err := s.Object(nil, nil)
			mustBe(t, err, unix.EIO)
			if n := r.disk.Count(faultdisk.Datasync, s.name); n != 1 || r.log.Durable() != 0 || r.fails.Load() != 1 {
				t.Errorf("%d syncs, durable to %d, Failed called %d times", n, r.log.Durable(), r.fails.Load())
			}
		})
	}
}

// What was durable before the failure stays durable, and a flush says so; one
// entry more, and it does not.
func TestDurableOutlivesFailure(t *testing.T) {
	r := newFastRig(t)
	r.write(1, 1, 1)
	r.commit()
	r.write(2, 1, 1)
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "sco-*", Err: unix.EIO, Times: 1})
	mustBe(t, r.log.Commit(r.ctx, 2), unix.EIO)
	if err := r.log.Commit(r.ctx, 1); err != nil {
		t.Error(err)
	}
	mustBe(t, r.log.Commit(r.ctx, 2), unix.EIO)
	r.cut(crashdisk.LoseAll).check(1, 1, 1)
}

// A sync that only lacked something is no bad disk. What it leaves unsynced is
// written again before a sync is believed: the log goes on, and a power cut
// loses nothing that was acknowledged.
func TestSyncThatLackedSomething(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EINTR, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.ENOSPC} {
		for _, times := range []int{1, 2, 5} {
			r := newFastRig(t)
			r.write(1, 3, 1)
			r.commit()
			r.write(10, 3, 1)
			r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "sco-*", Err: errno, Times: times})
			err := r.log.Commit(r.ctx, 2)
			if times < syncTries && err != nil || err != nil && !errors.Is(err, errno) {
				t.Errorf("%v, %d times: %v", errno, times, err)
			}
			r.write(20, 3, 1)
			r.commit()
			r.restarts(func(name string, r *rig) {
				r.check(1, 3, 1)
				r.check(10, 3, 1)
				r.check(20, 3, 1)
			})
			// The same for what the storer syncs, the TLog's own sync too.
			r.write(30, 3, 1)
			for _, pattern := range []string{"sco-*", "tlog-*"} {
				r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: pattern, Err: errno, Times: 1})
			}
			r.storeAll()
			if r.log.Err() != nil || r.fails.Load() != 0 {
				t.Errorf("%v: halted: %v", errno, r.log.Err())
			}
			r.restarts(func(name string, r *rig) {})
		}
	}
}

// A process that was told of a failed sync is gone, and the next one finds the
// data in memory: a sync of that would say yes and mean nothing. It writes again
// what no mark calls durable.
func TestRestartWritesAgain(t *testing.T) {
	r := newFastRig(t)
	r.write(1, 2, 1)
	r.commit()
	r.write(3, 2, 1)
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "sco-*", Err: unix.EIO, Times: 1})
	mustBe(t, r.log.Commit(r.ctx, 2), unix.EIO)
	next := r.kill()
	if next.log.Durable() != 2 {
		t.Fatalf("durable to %d", next.log.Durable())
	}
	for _, opt := range []crashdisk.Options{crashdisk.LoseAll, crashdisk.KeepAll, crashdisk.Mixed} {
		after := next.cut(opt)
		after.check(1, 4, 1)
	}
}

// Two vDisks are made at once: the sync of the directory that counts for one is
// begun after its name is there, and no other's is told its error.
func TestDirectoryIsSyncedForOne(t *testing.T) {
	r := newRig(t)
	gate := faultdisk.NewGate()
	defer gate.Open()
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.SyncDir, Path: "/buffer", Err: unix.EIO, Times: 1, Before: gate.Wait})
	a, b := [16]byte{1}, [16]byte{2}
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- r.buf.Prepare(a) }()
	<-gate.Arrived()
	go func() { second <- r.buf.Prepare(b) }()
	for range 10000 {
		runtime.Gosched()
	}
	if _, err := r.under.Stat(r.buf.volumeDir(b)); err == nil {
		t.Error("a name is made while the sync that may be told its error runs")
	}
	gate.Open()
	mustBe(t, r.wait(first), unix.EIO)
	if err := r.wait(second); err != nil {
		t.Error(err)
	}
	if _, err := r.under.Stat(r.buf.volumeDir(a)); err == nil {
		t.Error("a name that is not durable stays: the next sync would count for it")
	}
	if err := r.buf.Prepare(a); err != nil {
		t.Error(err)
	}
}

// A clean stop leaves the mark of its last flush durable, wherever the TLog was,
// so that a power cut behind it hides no damage (O2).
func TestCleanStopLeavesMark(t *testing.T) {
	for _, where := range []string{"open", "closed", "closed and none ready", "broken"} {
		r := newFastRig(t)
		r.write(1, 1, 1)
		r.commit()
		r.write(2, 1, 1)
		if where != "closed and none ready" {
			r.untilReady()
		}
		if where == "closed" || where == "closed and none ready" {
			r.log.CloseTLog()
		}
		if where == "broken" {
			r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: "tlog-*", Err: unix.EIO, Times: 1})
		}
		r.close()
		after := prepareRig(t, r.under.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll), r.vol.copy())
		found, err := after.buf.Recover(after.vol.recoverOptions())
		if err != nil || found.Damage != nil || found.Reached != 2 || found.Durable != 2 {
			t.Errorf("%s: %v, %+v", where, err, found)
		}
		if err := found.Release(); err != nil {
			t.Error(err)
		}
	}
}

// A restart is cut at any of its steps, by kill -9 and by power cuts, once and
// again: what was flushed is there, and damage of it is called so.
func TestCutRestartKeepsMark(t *testing.T) {
	for step := range int32(60) {
		for _, opt := range []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed} {
			r := newFastRig(t)
			r.write(1, 2, 1)
			r.commit()
			r.write(3, 2, 1)
			r.untilReady()
			v := r.vol.copy()
			image := r.under.Kill()
			var n atomic.Int32 // the prewriter counts, too
			var cut *crashdisk.FS
			next := prepareRig(t, image, v)
			next.disk.Inject(faultdisk.Rule{Before: func(faultdisk.Op, string) {
				if n.Add(1) == step+1 {
					cut = image.Crash(rand.New(rand.NewPCG(uint64(step), 3)), opt)
				}
			}, Ops: faultdisk.Write | faultdisk.Datasync | faultdisk.SyncDir | faultdisk.Remove | faultdisk.Rename | faultdisk.Open})
			found, err := next.buf.Recover(next.vol.recoverOptions())
			if err != nil {
				t.Fatal(err)
			}
			next.resume(found)
			next.close()
			if cut == nil {
				if step < 8 {
					t.Errorf("a restart has %d steps", n.Load())
				}
				return
			}
			// The epoch may or may not be in the catalog: say it is.
			c := next.vol.copy()
			again := prepareRig(t, cut, c)
			found, err = again.buf.Recover(c.recoverOptions())
			if err != nil || found.Damage != nil || found.Reached < 1 || found.Durable < min(found.Reached, 1) && opt == crashdisk.KeepAll {
				t.Fatalf("step %d: %v, %+v", step, err, found)
			}
			if opt != crashdisk.KeepAll {
				continue // an unsynced mark may be gone
			}
			s := &scriptRun{rig: again, line: "damage"}
			s.must(found.Release())
			s.run("damage", []string{"sco-1", "@1"}, "")
			if found, err = again.buf.Recover(c.recoverOptions()); err != nil || found.Damage == nil {
				t.Fatalf("step %d: damage of what was flushed passes for the end of the log: %v, %+v", step, err, found)
			}
			s.must(found.Release())
		}
	}
}

// A restart takes over what it found while the log's background, its users and
// other vDisks' writers, who may evict what is stored, are at work.
func TestResumeBesideTheBackground(t *testing.T) {
	r := newRig(t)
	r.fill(0, 3, 1)
	r.commit()
	r.storeAll()
	end := r.fill(5000, 2, 2)
	r.commit()
	next := prepareRig(t, r.under.Kill(), r.vol.copy())
	found, err := next.buf.Recover(next.vol.recoverOptions())
	if err != nil || found.Damage != nil {
		t.Fatal(err, found.Damage)
	}
	v := next.vol
	v.epoch++
	v.epochs = append(v.epochs, found.Reached)
	v.reset(v.stored + 1)
	for _, e := range found.Entries {
		if err := replay(v, e); err != nil {
			t.Fatal(err)
		}
	}
	if next.log, err = next.buf.OpenLog(next.logOptions(found.Reached+1, found.NextSCO, found.NextTLog)); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var others sync.WaitGroup
	for _, do := range []func(){
		func() { next.log.syncer.bell.Ring() },
		func() { next.log.Work(); next.log.Backlog(); next.log.TLogBytes() },
		func() {
			next.buf.pool.evict(true)
		},
	} {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					do()
					runtime.Gosched()
				}
			}
		})
	}
	err = next.log.Resume(found)
	close(stop)
	others.Wait()
	if err != nil {
		t.Fatal(err)
	}
	next.check(5000, int(end-5000), 2)
	if next.log.Durable() != found.Reached {
		t.Errorf("durable to %d of %d", next.log.Durable(), found.Reached)
	}
	next.close()
}

// The newest mark is in a TLog that has no entry, and that breaks; the one behind it
// cannot be begun either. Kill -9 then finds the mark all the same.
func TestMarkInAnEmptyTLogStays(t *testing.T) {
	r := newRig(t)
	r.fill(0, 1, 1)
	r.untilReady()
	r.log.CloseTLog()
	scos := r.log.Work().SCOs // nobody flushes: the background takes its time
	if len(scos) != 2 {
		t.Fatalf("%d SCOs", len(scos))
	}
	r.untilReady()
	mark := func(s *SCO) {
		t.Helper()
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		r.log.advance(s.covers)
	}
	mark(scos[0]) // it begins the next TLog
	first := r.log.Durable()
	r.untilReady()
	gate := faultdisk.NewGate() // nobody prepares a third
	defer gate.Open()
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Open, Path: "tlog-*", Before: gate.Wait})
	rule := r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: "tlog-*", Err: unix.ENOSPC, Times: 2})
	mark(scos[1])
	mustBe(t, r.log.TryAppend(batch(3, 1, 1)), disk.ErrWouldBlock)
	if rule.Fired() != 2 || first == 0 || r.log.Durable() == first {
		t.Fatalf("fired %d times, durable to %d, then %d", rule.Fired(), first, r.log.Durable())
	}
	after := prepareRig(t, r.under.Kill(), r.vol.copy())
	found, err := after.buf.Recover(after.vol.recoverOptions())
	if err != nil || found.Damage != nil || found.Reached != r.log.Written() || found.Durable < first {
		t.Errorf("%v, durable to %d of %d", err, found.Durable, first)
	}
	if err := found.Release(); err != nil {
		t.Error(err)
	}
}
