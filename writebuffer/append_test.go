package writebuffer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/disk/osdisk"
	"openvstorage/sco"
	"openvstorage/tlog"

	"github.com/google/uuid"
)

func TestAppendReadCommit(t *testing.T) {
	r := newRig(t)
	r.write(10, 4, 1)
	r.write(12, 1, 2)
	r.check(10, 2, 1)
	r.check(12, 1, 2)
	if r.log.Written() != 2 || r.log.Durable() != 0 {
		t.Errorf("written %d, durable %d", r.log.Written(), r.log.Durable())
	}
	r.commit()
	loc, _ := r.vol.at(10)
	p := make([]byte, 2*clusterSize)
	if found, err := r.log.Read(loc, p, false); !found || err != nil || !bytes.Equal(p, data(10, 2, 1)) {
		t.Errorf("two clusters at once: %v, %v", found, err)
	}
	if found, err := r.log.Read(sco.At(0, 77, 1), p, true); found || err != nil {
		t.Errorf("an SCO that is not there: %v, %v", found, err)
	}
	if !r.log.Has(loc.Number()) || r.log.Has(77) {
		t.Error("Has")
	}
	var c *CorruptError
	if _, err := r.log.Read(sco.At(0, loc.Number(), 500), p, true); !errors.As(err, &c) || c.Offset != 500*clusterSize || !errors.Is(err, sco.ErrCorrupt) {
		t.Errorf("a block that was never written: %v", err)
	}
	r = r.cut(crashdisk.LoseAll)
	r.check(10, 2, 1)
	r.check(12, 1, 2)
	r.check(13, 1, 1)
}

func TestEntries(t *testing.T) {
	r := newRig(t)
	snap := tlog.Snapshot{ID: uuid.New(), Created: 5, Name: "monday"}
	r.write(1, 1, 1)
	for i, e := range []tlog.Entry{
		{Kind: tlog.KindTrim, Addr: 1, Run: 8}, {Kind: tlog.KindZero, Addr: 3, Run: 1},
		{Kind: tlog.KindSnapshot, Payload: snap.Payload()}, {Kind: tlog.KindResize, Addr: 1 << 30},
	} {
		seq, err := r.log.AppendEntry(r.ctx, e)
		if err != nil || seq != uint64(i+2) {
			t.Fatalf("%v: seq %d, %v", e.Kind, seq, err)
		}
	}
	r.commit()
	want := r.vol.other
	if next, _ := r.log.Numbers(); want[2].Addr == 0 || sco.Number(want[2].Addr) > next {
		t.Errorf("the snapshot sees SCOs below %d", want[2].Addr)
	}
	r = r.cut(crashdisk.LoseAll)
	if fmt.Sprint(r.vol.other) != fmt.Sprint(want) {
		t.Errorf("after a power cut: %v, not %v", r.vol.other, want)
	}
}

// A damaged byte on disk is found by whoever reads it (P2).
func TestReadVerifies(t *testing.T) {
	r := newRig(t)
	r.write(5, 2, 1)
	loc, _ := r.vol.at(6)
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Read, Path: "sco-*", Corrupt: func(p []byte) { p[len(p)-1] ^= 1 }})
	var c *CorruptError
	_, err := r.log.Read(loc, make([]byte, clusterSize), true)
	if !errors.As(err, &c) || path.Base(c.File) != loc.Number().Name() || c.Offset != int64(loc.Index())*clusterSize {
		t.Errorf("got %v", err)
	}
}

func TestReadErrors(t *testing.T) {
	r := newRig(t)
	r.write(5, 1, 1)
	loc, _ := r.vol.at(5)
	broken := errors.New("broken")
	for _, c := range []struct {
		op   faultdisk.Op
		err  error
		wait bool
	}{{faultdisk.Read, broken, true}, {faultdisk.TryRead, broken, false}, {faultdisk.TryRead, disk.ErrWouldBlock, false}} {
		i := r.disk.Inject(faultdisk.Rule{Ops: c.op, Path: "sco-*", Err: c.err})
		found, err := r.log.Read(loc, make([]byte, clusterSize), c.wait)
		if !found || !errors.Is(err, c.err) {
			t.Errorf("%v of %v: %v, %v", c.err, c.op, found, err)
		}
		i.Remove()
	}
	r.check(5, 1, 1)
}

// One write to the SCO and one to the TLog, however many spans; a flush syncs
// one file once (O2).
func TestSystemCalls(t *testing.T) {
	r := newFastRig(t)
	r.write(0, 1, 1)
	r.untilReady()
	r.disk.ResetCounts()
	b := &Batch{}
	for i := range uint64(32) {
		b.Spans = append(b.Spans, Span{i * 10, data(i*10, 1, 2)})
	}
	if err := r.log.TryAppend(b); err != nil {
		t.Fatal(err)
	}
	expect := func(what string, want int64, ops faultdisk.Op, pattern string) {
		t.Helper()
		if got := r.disk.Count(ops, pattern); got != want {
			t.Errorf("%s: %d of %v on %s, not %d", what, got, ops, pattern, want)
		}
	}
	expect("append", 1, faultdisk.Write, "sco-*")
	expect("append", 1, faultdisk.Write, "tlog-*")
	expect("append", 0, faultdisk.Datasync|faultdisk.Sync|faultdisk.SyncDir, "")
	r.commit()
	expect("commit", 2, faultdisk.Write, "sco-*")
	expect("commit", 2, faultdisk.Write, "tlog-*")
	expect("commit", 1, faultdisk.Datasync, "")
	expect("commit", 0, faultdisk.Sync|faultdisk.SyncDir, "")
	r.commit()
	if err := r.log.Commit(r.ctx, 0); err != nil {
		t.Fatal(err)
	}
	expect("commit of nothing", 1, faultdisk.Datasync, "")
	expect("commit of nothing", 2, faultdisk.Write, "sco-*")
}

// An SCO that is not pre-written is left at a flush, once, as soon as there is
// one that is. That flush syncs one file too, the one that it leaves.
func TestFlushMovesToPrewritten(t *testing.T) {
	gate := faultdisk.NewGate() // nothing is pre-written
	defer gate.Open()
	r := prepareRig(t, crashdisk.New(), newVolume(testVolume), faultdisk.Rule{Ops: faultdisk.Prewrite, Before: gate.Wait})
	r.openLog()
	r.write(0, 1, 1)
	r.untilReady()
	gate.Open()
	r.untilPrewritten()
	first := r.log.section.inside.open
	r.commit() // asks for a pre-written one
	if !first.sparse || r.log.section.inside.open != first {
		t.Fatalf("the first flush moves from %s to %s", first.name, r.log.section.inside.open.name)
	}
	r.untilSwapped()
	r.write(1, 1, 1)
	r.disk.ResetCounts()
	r.commit()
	if all, left := r.disk.Count(faultdisk.Datasync, ""), r.disk.Count(faultdisk.Datasync, first.name); all != 1 || left != 1 || !first.sealed {
		t.Errorf("the flush that moves on: %d syncs, %d of them of %s", all, left, first.name)
	}
	for i := range uint64(3) {
		r.write(2+i, 1, 1)
		r.disk.ResetCounts()
		r.commit()
		if n := r.disk.Count(faultdisk.Datasync, ""); n != 1 || r.log.section.inside.open == first || r.log.section.inside.open.sparse {
			t.Errorf("a flush after it: %d syncs, in %s", n, r.log.section.inside.open.name)
		}
	}
	r.check(0, 5, 1)
}

// Flushes that arrive while one runs share the next.
func TestGroupCommit(t *testing.T) {
	r := newFastRig(t)
	r.write(0, 1, 1)
	gate := faultdisk.NewGate()
	defer gate.Open()
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "sco-*", Times: 1, Before: gate.Wait})
	r.disk.ResetCounts()
	results := make(chan error, 101)
	go func() { results <- r.log.Commit(r.ctx, 1) }()
	<-gate.Arrived()
	var started sync.WaitGroup
	for i := range uint64(100) {
		r.write(i+1, 1, 1) // a running flush is in nobody's way
		seq := r.log.Written()
		started.Add(1)
		go func() {
			started.Done()
			results <- r.log.Commit(r.ctx, seq)
		}()
	}
	started.Wait()
	if r.log.Durable() != 0 {
		t.Error("durable before the sync has returned")
	}
	gate.Open()
	for range 101 {
		if err := r.wait(results); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.disk.Count(faultdisk.Datasync, ""); n != 2 {
		t.Errorf("%d syncs for 101 flushes, not 2", n)
	}
	if r.log.Durable() != 101 {
		t.Errorf("durable to %d", r.log.Durable())
	}
}

func TestCommitGivesUpWithItsContext(t *testing.T) {
	r := newRig(t)
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Open, Path: "sco-*", Err: errors.New("no file")})
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- r.log.Append(ctx, batch(1, 1, 1)) }()
	cancel()
	mustBe(t, r.wait(result), context.Canceled)
}

func TestCheck(t *testing.T) {
	r := newRig(t)
	r.write(1, 1, 1)
	b := batch(1, 1, 2)
	b.Check = func() bool { return false }
	r.disk.ResetCounts()
	mustBe(t, r.log.TryAppend(b), ErrChanged)
	mustBe(t, r.log.Append(r.ctx, b), ErrChanged)
	if n := r.disk.Count(faultdisk.Write, "sco-*"); n != 0 || r.log.Written() != 1 {
		t.Errorf("%d writes, written %d", n, r.log.Written())
	}
	b.Reset()
	if len(b.Spans) != 0 || b.Check != nil {
		t.Error("Reset leaves something")
	}
}

func TestBatchLimits(t *testing.T) {
	r := newRig(t)
	r.write(0, r.log.BatchMax(), 1)
	mustBe(t, r.log.TryAppend(batch(0, r.log.BatchMax()+1, 1)), disk.ErrWouldBlock)
	if err := r.log.Append(r.ctx, batch(0, r.log.BatchMax()+1, 1)); err == nil || errors.Is(err, disk.ErrWouldBlock) {
		t.Errorf("a batch that is too large: %v", err)
	}
	if err := r.log.Append(r.ctx, &Batch{}); err != nil || r.log.Written() != 1 {
		t.Errorf("an empty batch: written %d, %v", r.log.Written(), err)
	}
}

// A batch that does not fit the open SCO goes on in the next, in order of seq.
func TestBatchSplit(t *testing.T) {
	for _, left := range []int{1, 2, 79, 80, 81, 161, 239} {
		r := newRig(t)
		r.write(0, 1, 1)
		for r.log.section.inside.space(r.log.section.inside.open, 40) > left {
			n := min(r.log.BatchMax(), r.log.section.inside.space(r.log.section.inside.open, 40)-left)
			r.write(0, n, 1)
		}
		r.untilReady()
		b := &Batch{Spans: []Span{{1000, data(1000, 80, 2)}, {2000, data(2000, 80, 2)}, {1040, data(1040, 80, 3)}}}
		before, _ := r.vol.at(0)
		if err := r.log.Append(r.ctx, b); err != nil {
			t.Fatalf("%d left: %v", left, err)
		}
		r.check(1000, 40, 2)
		r.check(1040, 80, 3)
		r.check(2000, 80, 2)
		last, _ := r.vol.at(1119)
		if last.Number() == before.Number() {
			t.Fatalf("%d left: all in one SCO", left)
		}
		r.commit()
		r = r.cut(crashdisk.LoseAll)
		r.check(1000, 40, 2)
		r.check(1040, 80, 3)
		r.check(2000, 80, 2)
	}
}

// The open TLog closes when the SCOs that it covers are its share.
func TestTLogCloses(t *testing.T) {
	r := newRig(t)
	addr := uint64(0)
	for i := 0; len(r.log.Work().TLogs) < 2; i++ {
		if i > 40 {
			t.Fatal("no TLog closes")
		}
		r.write(addr, r.log.BatchMax(), 1)
		addr += uint64(r.log.BatchMax())
	}
	w := r.log.Work()
	next := uint64(1)
	for i, tl := range w.TLogs {
		var bytes int64
		for _, s := range tl.scos {
			bytes += int64(s.used.Load()) * clusterSize
		}
		if tl.FirstSeq != next || bytes < r.buf.TLogBytes()*9/10 || bytes > 2*r.buf.TLogBytes() || r.vol.ends[i] != tl.LastSeq {
			t.Errorf("TLog %d: seq %d to %d, %d bytes of SCOs, not about %d", tl.ID, tl.FirstSeq, tl.LastSeq, bytes, r.buf.TLogBytes())
		}
		next = tl.LastSeq + 1
	}
	if r.buf.Fill() < 0.24 || r.buf.Fill() > 0.5 {
		t.Errorf("fill is %v", r.buf.Fill())
	}
}

// What is uploaded: synced, verified, self-describing.
func TestObjects(t *testing.T) {
	r := newRig(t)
	r.write(100, 3, 1)
	r.commit()
	r.write(101, 1, 2)
	if _, err := r.log.AppendEntry(r.ctx, tlog.Entry{Kind: tlog.KindTrim, Addr: 102, Run: 1}); err != nil {
		t.Fatal(err)
	}
	if !r.log.CloseTLog() || r.log.CloseTLog() {
		t.Error("CloseTLog closes once")
	}
	w := r.log.Work()
	if len(w.SCOs) != 1 || len(w.TLogs) != 1 || len(w.TLogs[0].SCOs()) != 1 || w.SCOs[0].Empty() {
		t.Fatalf("%+v", w)
	}
	b, err := w.SCOs[0].Object(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := clusterSize + w.SCOs[0].Size() + clusterSize; int64(len(b)) != want {
		t.Errorf("%d bytes, not header, %d bytes of blocks and footer", len(b), w.SCOs[0].Size())
	}
	if !w.SCOs[0].SameFile(b) || w.SCOs[0].SameFile(b[:100]) || w.SCOs[0].FirstSeq() != 1 {
		t.Error("the object is not known by its first block")
	}
	h, err := sco.DecodeHeader(b)
	if err != nil || h.Volume != testVolume || h.Epoch != 1 || h.FirstSeq != 1 {
		t.Errorf("%+v, %v", h, err)
	}
	tr, err := sco.DecodeTrailer(b[len(b)-sco.TrailerSize:], int64(len(b)))
	if err != nil || tr.Data != 4 || tr.LowSeq != 1 || tr.HighSeq != 2 {
		t.Fatalf("%+v, %v", tr, err)
	}
	f, err := tr.DecodeFooter(b[tr.FooterOffset():])
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range f.Addrs {
		c := b[(i+1)*clusterSize:][:clusterSize]
		switch {
		case a == sco.NoAddress && !bytes.Equal(c, make([]byte, clusterSize)):
			t.Errorf("block %d is a commit and not zeros", i+1)
		case a != sco.NoAddress && (sco.Sum(c) != f.Sums[i] || !bytes.Equal(c, data(a, 1, f.Seqs[i]))):
			t.Errorf("block %d is not cluster %d of seq %d", i+1, a, f.Seqs[i])
		}
	}
	b, err = w.TLogs[0].Object(r.log)
	if err != nil {
		t.Fatal(err)
	}
	var seqs []uint64
	_, _, sealed, err := tlog.Scan(b, func(_ int64, e tlog.Entry) error {
		if e.Kind.Ordered() {
			seqs = append(seqs, e.Seq)
		}
		return nil
	})
	if err != nil || !sealed || fmt.Sprint(seqs) != "[1 2 3]" {
		t.Errorf("seqs %v, sealed %v, %v", seqs, sealed, err)
	}
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Read, Corrupt: func(p []byte) { p[len(p)-100] ^= 1 }})
	var c *CorruptError
	if _, err := w.TLogs[0].Object(r.log); !errors.As(err, &c) {
		t.Errorf("damaged TLog: %v", err)
	}
	if _, err := w.SCOs[0].Object(nil, nil); !errors.As(err, &c) {
		t.Errorf("damaged SCO: %v", err)
	}
}

func TestAtRest(t *testing.T) {
	r := newRig(t)
	at := func() (seq uint64, ok bool) {
		r.log.AtRest(func(s uint64) { seq, ok = s, true })
		return seq, ok
	}
	if seq, ok := at(); !ok || seq != 0 {
		t.Errorf("new: %d, %v", seq, ok)
	}
	before := r.log.Activity()
	r.write(1, 1, 1)
	if _, ok := at(); ok || r.log.Activity() == before {
		t.Error("at rest with an open entry")
	}
	if backlog, local := r.log.Backlog(); backlog < clusterSize || local < clusterSize {
		t.Errorf("backlog %d, local %d", backlog, local)
	}
	r.log.CloseTLog()
	if seq, ok := at(); !ok || seq != 1 {
		t.Errorf("closed: %d, %v", seq, ok)
	}
	r.storeAll()
	if backlog, local := r.log.Backlog(); backlog != 0 || local == 0 {
		t.Errorf("backlog %d, local %d", backlog, local)
	}
	r.log.Fail(errors.New("halted"))
	if _, ok := at(); ok {
		t.Error("a failed log is at rest")
	}
}

func TestCloseAndReopen(t *testing.T) {
	r := newRig(t)
	end := r.fill(0, 3, 1)
	r.close()
	mustBe(t, r.log.Append(r.ctx, batch(1, 1, 1)), ErrClosed)
	mustBe(t, r.log.Commit(r.ctx, r.log.Written()+1), ErrClosed)
	next := openRig(t, r.under, r.vol)
	next.check(0, int(end), 1)
	next.write(0, 5, 2)
	next.check(0, 5, 2)
	next.close()
	again := openRig(t, next.under, next.vol)
	again.check(0, 5, 2)
	again.check(5, int(end)-5, 1)
}

// Forgotten, freed and stored files leave the disk as they should.
func TestForgetAndFree(t *testing.T) {
	r := newRig(t)
	r.write(1, 1, 1)
	loc, _ := r.vol.at(1)
	r.log.Forget(loc.Number())
	r.check(1, 1, 1) // not stored: stays
	r.storeAll()
	id := r.vol.closed[0]
	r.log.Forget(loc.Number())
	r.log.Forget(loc.Number())
	if r.log.Has(loc.Number()) {
		t.Error("a forgotten SCO is there")
	}
	if err := r.log.Free(id - 1); err != nil {
		t.Fatal(err)
	}
	name := r.log.folder.tlogPath(id)
	if _, err := r.under.Stat(name); err != nil {
		t.Errorf("a TLog that is not covered is gone: %v", err)
	}
	if err := r.log.Free(id); err != nil {
		t.Fatal(err)
	}
	if _, err := r.under.Stat(name); err == nil {
		t.Error("a freed TLog is there")
	}
}

// osLog is a log on the host's file system.
func osLog(t testing.TB) (*rig, *Log) {
	opt := bufferOptions(osdisk.New())
	opt.Dir = t.TempDir()
	buf, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, buf: buf, vol: newVolume(testVolume), ctx: context.Background(), changed: make(chan struct{}, 1)}
	r.vol.reset(1)
	r.log, err = buf.OpenLog(r.logOptions(1, 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(r.log.Close(nil), buf.Close()); err != nil {
			t.Error(err)
		}
	})
	return r, r.log
}

func TestAppendAllocatesNothing(t *testing.T) {
	r, l := osLog(t)
	b := &Batch{Spans: []Span{{1, data(1, 1, 1)}, {100, data(100, 3, 1)}}}
	for range 64 { // the log's own buffers grow
		if err := l.Append(r.ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	r.commit()
	r.untilReady()
	n := testing.AllocsPerRun(50, func() {
		if err := l.TryAppend(b); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for an append", n)
	}
	p := make([]byte, clusterSize)
	loc, _ := r.vol.at(1)
	n = testing.AllocsPerRun(50, func() {
		if _, err := l.Read(loc, p, true); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a read", n)
	}
}

// BenchmarkAppend writes 4 KiB at a time, one batch each.
func BenchmarkAppend(b *testing.B) {
	r, l := osLog(b)
	w := batch(1, 1, 1)
	b.SetBytes(clusterSize)
	b.ReportAllocs()
	for b.Loop() {
		if err := l.TryAppend(w); err == disk.ErrWouldBlock {
			if work := l.Work(); len(work.TLogs) > 0 {
				id := work.TLogs[len(work.TLogs)-1].ID
				l.Stored(id, nil)
				if err := l.Free(id); err != nil {
					b.Fatal(err)
				}
			}
			if err := l.Append(r.ctx, w); err != nil {
				b.Fatal(err)
			}
		} else if err != nil {
			b.Fatal(err)
		}
	}
}
