package writebuffer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/tlog"

	"golang.org/x/sys/unix"
)

// restarts is what a test looks at after trouble: the log as it goes on, after
// kill -9, and after power cuts.
func (r *rig) restarts(check func(name string, r *rig)) {
	r.t.Helper()
	check("running", r)
	check("killed", r.kill())
	check("cut, unsynced lost", r.cut(crashdisk.LoseAll))
	check("cut, unsynced kept", r.cut(crashdisk.KeepAll))
}

// A write that fails is refused, nothing more is appended to its file, later
// writes go on in another, and no restart brings the refused one back (P6).
func TestFailedAppend(t *testing.T) {
	for _, pattern := range []string{"sco-*", "tlog-*"} {
		for i, short := range []int64{0, 1, 40, 100, 4096, 8192} {
			err := []error{unix.EIO, unix.EROFS}[i%2]
			t.Run(fmt.Sprintf("%s %d %v", pattern, short, err), func(t *testing.T) {
				failedAppend(t, pattern, short, err)
			})
		}
	}
}

func failedAppend(t *testing.T, pattern string, short int64, fault error) {
	r := newRig(t)
	r.write(1, 2, 1)
	r.commit()
	r.write(3, 2, 1) // not covered by a commit yet
	r.untilReady()
	before, _ := r.vol.at(1)
	broken := r.log.folder.scoPath(before.Number())
	if pattern == "tlog-*" {
		broken = r.log.section.inside.tl.name
	}
	rule := r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: pattern, Err: fault, Short: short, Times: 1})
	b := &Batch{Spans: []Span{{50, data(50, 1, 66)}, {2, data(2, 2, 66)}}}
	mustBe(t, r.log.Append(r.ctx, b), fault)
	if rule.Fired() != 1 || r.log.Written() != 2 || r.log.Err() != nil {
		t.Fatalf("fired %d times, written to %d, %v", rule.Fired(), r.log.Written(), r.log.Err())
	}
	r.disk.ResetCounts()
	r.restarts(func(name string, r *rig) {
		if name == "cut, unsynced lost" {
			r.check(1, 2, 1)
			return // the second write may be gone
		}
		r.check(1, 4, 1)
		r.absent(50)
	})
	for i := range uint64(20) {
		r.write(100+i, 3, i)
	}
	r.check(1, 4, 1)
	r.commit()
	if n := r.disk.Count(faultdisk.Write, broken); n != 0 {
		t.Errorf("%d more writes to %s", n, broken)
	}
	if loc, _ := r.vol.at(100); pattern == "sco-*" && loc.Number() == before.Number() {
		t.Error("later writes go to the same SCO")
	}
	r.restarts(func(name string, r *rig) {
		r.check(1, 4, 1)
		r.absent(50)
		for i := range uint64(20) {
			r.check(100+i, 1, i)
		}
	})
	// It can be stored all the same.
	r.log.CloseTLog()
	last := uint64(0)
	for _, tl := range r.log.Work().TLogs {
		if _, err := tl.Object(r.log); err != nil {
			t.Errorf("%s: %v", tl.ID.Name(), err)
		}
		if tl.FirstSeq != last+1 {
			t.Errorf("%s begins with seq %d, the one before ended with %d", tl.ID.Name(), tl.FirstSeq, last)
		}
		last = tl.LastSeq
	}
	if last != r.log.Written() {
		t.Errorf("TLogs reach seq %d of %d", last, r.log.Written())
	}
	for _, s := range r.log.Work().SCOs {
		if s.Empty() {
			continue
		}
		if _, err := s.Object(nil, nil); err != nil {
			t.Errorf("%s: %v", s.Number.Name(), err)
		}
	}
}

// The same for an entry without data.
func TestFailedEntry(t *testing.T) {
	for _, short := range []int64{0, 1, 35, 36} {
		r := newRig(t)
		r.write(1, 1, 1)
		r.untilReady()
		r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: "tlog-*", Err: unix.EIO, Short: short, Times: 1})
		_, err := r.log.AppendEntry(r.ctx, tlog.Entry{Kind: tlog.KindTrim, Addr: 1, Run: 1})
		mustBe(t, err, unix.EIO)
		if _, err := r.log.AppendEntry(r.ctx, tlog.Entry{Kind: tlog.KindZero, Addr: 2, Run: 1}); err != nil {
			t.Fatal(err)
		}
		r.commit()
		r.restarts(func(name string, r *rig) {
			r.check(1, 1, 1)
			if len(r.vol.other) != 1 || r.vol.other[0].Kind != tlog.KindZero {
				t.Errorf("%s: entries %v", name, r.vol.other)
			}
		})
	}
}

// A commit block that cannot be written leaves the flush to another SCO, or
// fails it; what was acknowledged before stays.
func TestFailedCommitBlock(t *testing.T) {
	for _, short := range []int64{0, 1, 512, 4095} {
		r := newRig(t)
		r.write(1, 2, 1)
		r.commit()
		r.write(3, 2, 1)
		r.untilReady()
		r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: "sco-*", Err: unix.ENOSPC, Short: short, Times: 1})
		if err := r.log.Commit(r.ctx, r.log.Written()); err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		r.commit()
		r.restarts(func(name string, r *rig) { r.check(1, 4, 1) })
		r.write(5, 1, 1)
		r.commit()
		r.restarts(func(name string, r *rig) { r.check(1, 5, 1) })
	}
}

// The commit block or footer fails when an SCO is full, in the middle of a batch.
func TestFailedSeal(t *testing.T) {
	for skip := range 4 {
		r := newRig(t)
		n := r.log.BatchMax()
		for i := range 3 {
			r.write(uint64(i*n), n, 1)
		}
		left := r.log.section.inside.space(r.log.section.inside.open, 200)
		r.write(5000, left-10, 1)
		r.untilReady()
		rule := r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: "sco-*", Err: unix.EIO, Short: 100, Skip: skip, Times: 1})
		err := r.log.Append(r.ctx, &Batch{Spans: []Span{{8000, data(8000, 20, 1)}, {8010, data(8010, 20, 2)}}})
		if rule.Fired() != 1 {
			t.Fatalf("skip %d: did not fire", skip)
		}
		if err != nil { // refused as a whole or in part: the user writes again
			mustBe(t, err, unix.EIO)
			if err := r.log.Append(r.ctx, &Batch{Spans: []Span{{8000, data(8000, 20, 1)}, {8010, data(8010, 20, 2)}}}); err != nil {
				t.Fatal(err)
			}
		}
		r.commit()
		r.restarts(func(name string, r *rig) {
			r.check(0, 3*n, 1)
			r.check(5000, left-10, 1)
			r.check(8000, 10, 1)
			r.check(8010, 20, 2)
		})
	}
}

// A sync that fails is never tried again: the log halts (P6).
func TestFailedSync(t *testing.T) {
	r := newRig(t)
	r.write(1, 2, 1)
	r.commit()
	r.write(3, 2, 1)
	r.disk.ResetCounts()
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "sco-*", Err: unix.EIO, Times: 1})
	mustBe(t, r.log.Commit(r.ctx, 2), unix.EIO)
	for range 3 {
		mustBe(t, r.log.Commit(r.ctx, 2), unix.EIO)
	}
	mustBe(t, r.log.Append(r.ctx, batch(9, 1, 1)), unix.EIO)
	mustBe(t, r.log.TryAppend(batch(9, 1, 1)), unix.EIO)
	_, err := r.log.AppendEntry(r.ctx, tlog.Entry{Kind: tlog.KindTrim, Addr: 1, Run: 1})
	mustBe(t, err, unix.EIO)
	mustBe(t, r.log.Err(), unix.EIO)
	if r.log.CloseTLog() {
		t.Error("a halted log closes TLogs")
	}
	if r.log.Durable() != 1 || r.fails.Load() != 1 {
		t.Errorf("durable to %d, Failed called %d times", r.log.Durable(), r.fails.Load())
	}
	if err := r.log.Commit(r.ctx, 1); err != nil {
		t.Errorf("what was durable is no more: %v", err)
	}
	r.check(1, 4, 1) // verified reads go on (P3)
	if err := r.log.Close(func() error { t.Error("a halted log commits"); return nil }); err != nil {
		t.Error(err)
	}
	if n := r.disk.Count(faultdisk.Datasync|faultdisk.Sync, ""); n != 1 {
		t.Errorf("%d syncs, not 1", n)
	}
	r.cut(crashdisk.LoseAll).check(1, 2, 1)
}

// The same for the background's sync of a sealed SCO, and for a TLog's.
func TestFailedBackgroundSync(t *testing.T) {
	r := newRig(t)
	r.write(1, 2, 1)
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "sco-*", Err: unix.EIO, Times: 1})
	r.log.CloseTLog()
	s := r.log.Work().SCOs[0]
	_, err := s.Object(nil, nil) // O10
	mustBe(t, err, unix.EIO)
	mustBe(t, r.log.Err(), unix.EIO)
	mustBe(t, r.log.Commit(r.ctx, 1), unix.EIO)
	_, err = s.Object(nil, nil)
	mustBe(t, err, unix.EIO)
	if n := r.disk.Count(faultdisk.Datasync, s.name); n != 1 {
		t.Errorf("%d syncs, not 1", n)
	}
}

func TestFailedTLogSync(t *testing.T) {
	r := newRig(t)
	r.write(1, 2, 1)
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "tlog-*", Err: unix.EIO, Times: 1})
	r.log.CloseTLog()
	tl := r.log.Work().TLogs[0]
	for range 2 {
		_, err := tl.Object(r.log)
		mustBe(t, err, unix.EIO)
	}
	mustBe(t, r.log.Err(), unix.EIO)
	if n := r.disk.Count(faultdisk.Datasync, tl.name); n != 1 || r.fails.Load() != 1 {
		t.Errorf("%d syncs, Failed called %d times", n, r.fails.Load())
	}
}

// An error of the volume above halts the log: map and log must not part.
func TestFailedApply(t *testing.T) {
	for _, entry := range []bool{false, true} {
		r := newRig(t)
		r.write(1, 1, 1)
		r.vol.err = errors.New("no map")
		var err error
		if entry {
			_, err = r.log.AppendEntry(r.ctx, tlog.Entry{Kind: tlog.KindTrim, Addr: 1, Run: 1})
		} else {
			err = r.log.Append(r.ctx, batch(1, 1, 2))
		}
		mustBe(t, err, r.vol.err)
		mustBe(t, r.log.Err(), r.vol.err)
		if r.log.Written() != 1 || r.fails.Load() != 1 {
			t.Errorf("written to %d, Failed called %d times", r.log.Written(), r.fails.Load())
		}
	}
}

// Random failed writes among random work: never a refused write without a
// later accepted one, never an accepted one lost (P1).
func TestRandomFaults(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 5))
		r := newRig(t)
		model := map[uint64]uint64{} // address -> version accepted
		doubt := map[uint64][]uint64{}
		durable := map[uint64]uint64{}
		for i := range uint64(60) {
			addr, n := rng.Uint64N(200), 1+rng.IntN(30)
			var rule *faultdisk.Injection
			if rng.IntN(10) == 0 { // each takes an SCO file out of use, and nothing is stored here
				rule = r.disk.Inject(faultdisk.Rule{
					Ops: faultdisk.Write, Path: []string{"sco-*", "tlog-*"}[rng.IntN(2)],
					Err: unix.ENOSPC, Short: rng.Int64N(10000), Skip: rng.IntN(3), Times: 1,
				})
			}
			if err := r.log.Append(r.ctx, batch(addr, n, i+1)); err == nil {
				for k := range uint64(n) {
					model[addr+k], doubt[addr+k] = i+1, nil
				}
			} else {
				mustBe(t, err, unix.ENOSPC)
				for k := range uint64(n) { // a batch over two SCOs may have failed in the second
					doubt[addr+k] = append(doubt[addr+k], i+1)
				}
			}
			if rng.IntN(5) == 0 {
				if err := r.log.Commit(r.ctx, r.log.Written()); err == nil {
					for a, v := range model {
						durable[a] = v
					}
				} else {
					mustBe(t, err, unix.ENOSPC)
				}
			}
			if rule != nil {
				rule.Remove()
			}
			if rng.IntN(15) == 0 {
				r.log.CloseTLog()
			}
		}
		sees := func(r *rig, addr uint64) uint64 {
			loc, ok := r.vol.at(addr)
			if !ok {
				return 0
			}
			p := make([]byte, clusterSize)
			if found, err := r.log.Read(loc, p, true); !found || err != nil {
				t.Fatalf("seed %d: cluster %d: %v, %v", seed, addr, found, err)
			}
			if v := binary.LittleEndian.Uint64(p[8:]); bytes.Equal(p, data(addr, 1, v)) {
				return v
			}
			t.Fatalf("seed %d: cluster %d holds what nobody wrote", seed, addr)
			return 0
		}
		for name, next := range map[string]*rig{"running": r, "killed": r.kill()} {
			for addr, want := range model {
				if got := sees(next, addr); got != want && !contains(doubt[addr], got) {
					t.Errorf("seed %d, %s: cluster %d is of write %d, not %d", seed, name, addr, got, want)
				}
			}
			for addr, d := range doubt {
				if _, ok := model[addr]; !ok && len(d) > 0 {
					if got := sees(next, addr); got != 0 && !contains(d, got) {
						t.Errorf("seed %d, %s: cluster %d is of write %d", seed, name, addr, got)
					}
				}
			}
		}
		cut := r.cut(crashdisk.Mixed)
		for addr, want := range durable {
			if got := sees(cut, addr); got < want {
				t.Errorf("seed %d: cluster %d is of write %d, %d was flushed", seed, addr, got, want)
			}
		}
		cut.log.Close(nil)
		r.log.Close(nil)
	}
}

func contains(all []uint64, one uint64) bool {
	for _, v := range all {
		if v == one {
			return true
		}
	}
	return false
}

// A TLog that is due and cannot be closed, since no SCO has its last entries yet,
// stays the open one: what is stored later has every seq, in order.
func TestRollKeepsTLogThatCannotClose(t *testing.T) {
	r := newRig(t)
	addr := uint64(0)
	for r.log.section.inside.tl == nil || r.log.section.inside.tl.bytes+int64(r.log.room)*clusterSize < r.buf.TLogBytes() {
		r.write(addr, r.log.BatchMax(), 1)
		addr += uint64(r.log.BatchMax())
	}
	for r.log.section.inside.space(r.log.section.inside.open, 200) > r.log.BatchMax() { // the next batch seals
		r.write(addr, r.log.BatchMax(), 1)
		addr += uint64(r.log.BatchMax())
	}
	r.untilReady()
	due := r.log.section.inside.tl
	rule := r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: "sco-*", Err: unix.EIO, Times: 2})
	if err := r.log.Append(r.ctx, batch(addr, r.log.BatchMax(), 1)); err != nil {
		mustBe(t, err, unix.EIO)
		r.write(addr, r.log.BatchMax(), 1)
	}
	if rule.Fired() != 2 {
		t.Fatalf("fired %d times", rule.Fired())
	}
	r.write(addr, r.log.BatchMax(), 2)
	r.log.CloseTLog()
	next, found := uint64(1), false
	for _, tl := range r.log.Work().TLogs {
		if tl.FirstSeq != next {
			t.Errorf("%s begins with seq %d, %d was to follow", tl.ID.Name(), tl.FirstSeq, next)
		}
		next, found = tl.LastSeq+1, found || tl.ID == due.ID
	}
	if next != r.log.Written()+1 || !found {
		t.Errorf("TLogs reach seq %d of %d; the one that was due is among them: %v", next-1, r.log.Written(), found)
	}
}
