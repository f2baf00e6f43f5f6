package writebuffer

import (
	"bytes"
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/sco"
	"openvstorage/tlog"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

func TestOptions(t *testing.T) {
	fs := crashdisk.New()
	opt := bufferOptions(fs)
	opt.Bytes = BytesMin - 1
	if _, err := Open(opt); err == nil || !strings.Contains(err.Error(), "at least") {
		t.Errorf("too small: %v", err)
	}
	for bytes, want := range map[int64]int64{BytesMin: 4 << 20, 100 << 20: 1600 * clusterSize, BytesDefault: 16 << 20, 1 << 40: 16 << 20} {
		fs := crashdisk.New()
		if err := fs.MkdirAll("/buffer", 0o755); err != nil {
			t.Fatal(err)
		}
		gate := faultdisk.NewGate() // nothing is pre-written
		d := faultdisk.New(fs)
		d.Inject(faultdisk.Rule{Ops: faultdisk.Prewrite, Err: unix.ENOSPC, Before: gate.Wait})
		opt := bufferOptions(d)
		opt.Bytes = bytes
		b, err := Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		if b.SCOSize() != want || int64(b.pool.room.max)*b.SCOSize() > bytes || b.pool.room.max < scoShare {
			t.Errorf("%d bytes: %d files of %d", bytes, b.pool.room.max, b.SCOSize())
		}
		gate.Open()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

// writer writes whole batches until its context ends or an append fails, and
// tells how many it has written.
type writer struct {
	r     *rig
	done  chan error
	limit int // batches
}

func (r *rig) startWriter(ctx context.Context, batches int) *writer {
	w := &writer{r: r, done: make(chan error, 1), limit: batches}
	n := r.log.BatchMax()
	go func() {
		for i := range batches {
			if err := r.log.Append(ctx, batch(uint64(i*n), n, 1)); err != nil {
				w.done <- err
				return
			}
		}
		w.done <- nil
	}()
	return w
}

// A full buffer makes writers wait; what is stored makes room, and nothing else
// does. The budget holds throughout (P5, P6).
func TestFullBufferWaits(t *testing.T) {
	r := newRig(t)
	w := r.startWriter(r.ctx, 40*4)
	for pressures := 0; ; {
		select {
		case err := <-w.done:
			if err != nil {
				t.Fatal(err)
			}
			if pressures < 2 {
				t.Errorf("%d times under pressure", pressures)
			}
			if r.files() > r.buf.pool.room.max {
				t.Errorf("%d files, at most %d", r.files(), r.buf.pool.room.max)
			}
			return
		case <-r.pressed:
			// The bell may have been rung twice before it was heard, and the second sound is
			// of what has been stored since. A writer that waits rings again.
			if r.buf.Usage().Evictable > 0 {
				continue
			}
			pressures++
			r.underPressure()
		case <-r.ctx.Done():
			t.Fatal("the writer waits for ever")
		}
	}
}

func (r *rig) underPressure() {
	r.t.Helper()
	// All files are dirty, so none may go, and all that was written is there.
	if n := r.files(); n > r.buf.pool.room.max {
		r.t.Fatalf("%d files, at most %d", n, r.buf.pool.room.max)
	}
	u := r.buf.Usage()
	if u.Bytes > u.Limit || u.Evictable != 0 {
		r.t.Fatalf("usage under pressure: %+v", u)
	}
	stored := r.vol.stored
	r.vol.mu.Lock()
	for addr, seq := range r.vol.when {
		if found, err := r.log.Read(r.vol.where[addr], make([]byte, clusterSize), true); !found && seq > stored || err != nil {
			r.t.Fatalf("cluster %d of seq %d, stored to %d: %v, %v", addr, seq, stored, found, err)
		}
	}
	r.vol.mu.Unlock()
	r.storeAll()
}

func TestWaitingEndsWithContextAndClose(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(r.ctx)
	w := r.startWriter(ctx, 1000)
	<-r.pressed
	r.untilBuffer("somebody waits", func() bool { return r.buf.pool.waiting > 0 })
	if !r.buf.Waiting() || r.buf.Fill() < 0.9 {
		t.Errorf("waiting %v, fill %v", r.buf.Waiting(), r.buf.Fill())
	}
	cancel()
	mustBe(t, r.wait(w.done), context.Canceled)
	if err := r.log.Close(func() error { return nil }); err != nil { // the preparer stops, too
		t.Error(err)
	}
}

// A failed log wakes those that wait for room (P3).
func TestFailWakesWaiters(t *testing.T) {
	r := newRig(t)
	for n, full := r.log.BatchMax(), false; !full; {
		err := r.log.TryAppend(batch(0, n, 1))
		if err == nil {
			continue
		}
		mustBe(t, err, disk.ErrWouldBlock)
		select {
		case <-r.pressed: // the preparer waits: no file will come
			full = true
		default:
			a := r.log.section.enter()
			ready := a.ready.Next()
			full = a.next != nil && a.nextTL != nil
			a.leave()
			if full { // of the open SCO too little is left for the whole batch
				full = false
				r.write(0, n, 1)
				continue
			}
			select {
			case <-ready:
			case <-r.pressed:
				full = true
			}
		}
	}
	select {
	case <-r.log.preparer.bell.Rung():
	default:
	}
	result := make(chan error, 1)
	go func() {
		for {
			if err := r.log.Append(r.ctx, batch(0, r.log.BatchMax(), 1)); err != nil {
				result <- err
				return
			}
		}
	}()
	<-r.log.preparer.bell.Rung() // asked for a file: the next thing it does is wait
	halted := errors.New("halted")
	r.log.Fail(halted)
	mustBe(t, r.wait(result), halted)
}

// An SCO that leaves the buffer while it is read is recycled when its reader
// is done, not before (O11).
func TestReaderKeepsItsFile(t *testing.T) {
	r := newRig(t)
	r.write(1, 2, 1)
	loc, _ := r.vol.at(1)
	name := r.log.folder.scoPath(loc.Number())
	r.storeAll()
	gate := faultdisk.NewGate()
	defer gate.Open()
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Read, Path: name, Times: 1, Before: gate.Wait})
	p := make([]byte, 2*clusterSize)
	result := make(chan error, 1)
	go func() {
		found, err := r.log.Read(loc, p, true)
		if !found && err == nil {
			err = errors.New("not found")
		}
		result <- err
	}()
	<-gate.Arrived()
	w := r.startWriter(r.ctx, 30*4) // goes round the buffer
	for done := false; !done; {
		select {
		case err := <-w.done:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		case <-r.pressed:
			r.storeAll()
		case <-r.ctx.Done():
			t.Fatal("the writer waits for ever")
		}
	}
	if r.log.Has(loc.Number()) {
		t.Fatal("the SCO was never evicted")
	}
	if _, err := r.under.Stat(name); err != nil {
		t.Fatalf("its file went under the reader: %v", err)
	}
	gate.Open()
	if err := r.wait(result); err != nil || !bytes.Equal(p, data(1, 2, 1)) {
		t.Errorf("the reader got other data, %v", err)
	}
	r.untilBuffer("the file is recycled", func() bool {
		_, err := r.under.Stat(name)
		return err != nil
	})
	if found, _ := r.log.Read(loc, p, true); found {
		t.Error("an evicted SCO is found")
	}
	if n := r.files(); n > r.buf.pool.room.max {
		t.Errorf("%d files, at most %d", n, r.buf.pool.room.max)
	}
}

// The oldest stored SCO goes first, and none that is not stored.
func TestEvictionOrder(t *testing.T) {
	r := newRig(t)
	var numbers []sco.Number
	for i := range uint64(3) {
		r.write(i, 1, 1)
		loc, _ := r.vol.at(i)
		numbers = append(numbers, loc.Number())
		r.log.CloseTLog()
	}
	evict := func() bool {
		return r.buf.pool.evict(true)
	}
	if evict() {
		t.Fatal("evicted what is not stored")
	}
	r.log.Stored(r.vol.closed[1], nil)
	for i, n := range numbers[:2] {
		if !evict() || r.log.Has(n) {
			t.Errorf("eviction %d did not take %s", i, n.Name())
		}
	}
	if evict() || !r.log.Has(numbers[2]) {
		t.Error("evicted what is not stored")
	}
	r.check(2, 1, 1)
}

// What is below full width in the backend goes after all else, and is counted;
// widened, it is like the others (O5).
func TestEvictionOfNarrow(t *testing.T) {
	r := newRig(t)
	var numbers []sco.Number
	for i := range uint64(4) {
		r.write(i, 1, 1)
		loc, _ := r.vol.at(i)
		numbers = append(numbers, loc.Number())
		r.log.CloseTLog()
	}
	evict := func(want sco.Number) {
		t.Helper()
		if !r.buf.pool.evict(true) || r.log.Has(want) {
			t.Errorf("%s was not evicted", want.Name())
		}
	}
	r.log.Stored(r.vol.closed[3], func(n sco.Number) bool { return n != numbers[2] })
	if got := r.log.Narrow(); !slices.Equal(got, []sco.Number{numbers[0], numbers[1], numbers[3]}) {
		t.Errorf("narrow: %v", got)
	}
	r.log.Widened([]sco.Number{numbers[1], 1 << 20})
	if u := r.buf.Usage(); u.Narrow != 2*r.buf.SCOSize() || u.Evictable != 2*r.buf.SCOSize() || u.EvictedNarrow != 0 {
		t.Errorf("usage %+v", u)
	}
	evict(numbers[2])
	evict(numbers[1])
	if r.buf.pool.evict(false) {
		t.Error("a narrow one was evicted, and nobody waits")
	}
	evict(numbers[0])
	if u := r.buf.Usage(); u.EvictedNarrow != r.buf.SCOSize() {
		t.Errorf("usage %+v", u)
	}
	r.log.Forget(numbers[3])
	if got := r.log.Narrow(); len(got) != 0 || r.log.Has(numbers[3]) {
		t.Errorf("forgotten, and there: %v", got)
	}
}

// A prepared file that its log does not use goes to a log that waits.
func TestSteal(t *testing.T) {
	r := newRig(t)
	idle, err := func() (*Log, error) {
		v := newVolume(uuid.New())
		v.reset(1)
		other := &rig{t: t, vol: v, changed: make(chan struct{}, 1)}
		return r.buf.OpenLog(other.logOptions(1, 1, 1))
	}()
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close(nil)
	(&rig{t: t, log: idle, ctx: r.ctx}).untilReady()
	w := r.startWriter(r.ctx, 1000)
	<-r.pressed
	a := idle.section.enter()
	stolen := a.next == nil
	a.leave()
	if !stolen {
		t.Error("a prepared file lies idle while a writer waits")
	}
	if u := r.buf.Usage(); u.Dirty != u.Limit {
		t.Errorf("%d of %d bytes in use under pressure", u.Dirty, u.Limit)
	}
	r.log.Fail(ErrClosed)
	r.storeFailed(w)
}

// storeFailed lets a writer of a failed log end.
func (r *rig) storeFailed(w *writer) {
	a := r.log.section.enter()
	a.ready.Send()
	a.leave()
	if err := r.wait(w.done); err == nil {
		r.t.Error("an append to a failed log succeeded")
	}
	r.log.stop()
}

func TestPrewriter(t *testing.T) {
	d := faultdisk.New(crashdisk.New())
	if err := d.MkdirAll("/buffer", 0o755); err != nil {
		t.Fatal(err)
	}
	opt := bufferOptions(d)
	opt.Ready = 3
	r := &rig{t: t, disk: d, ctx: t.Context(), pressed: make(chan struct{}, 1)}
	r.openBuffer(opt)
	r.untilBuffer("three files are ready", func() bool { return len(r.buf.pool.free) == 3 })
	if n := d.Count(faultdisk.Prewrite, "/buffer/pool/..."); n != 3 || d.BytesWritten("") != 3*r.buf.SCOSize() {
		t.Errorf("%d files, %d bytes pre-written", n, d.BytesWritten(""))
	}
	// One that is taken is replaced.
	if err := d.MkdirAll("/buffer/x", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := r.buf.pool.acquire(t.Context(), "/buffer/x/sco-000000001"); err != nil {
		t.Fatal(err)
	}
	r.untilBuffer("another file is ready", func() bool { return len(r.buf.pool.free) == 3 })
	if u := r.buf.Usage(); u.Bytes != 4*r.buf.SCOSize() || u.Free != 3*r.buf.SCOSize() {
		t.Errorf("%+v", u)
	}
}

// A full disk does not stop the prewriter for good, nor leave half a file.
func TestPrewriterDiskFull(t *testing.T) {
	d := faultdisk.New(crashdisk.New())
	if err := d.MkdirAll("/buffer", 0o755); err != nil {
		t.Fatal(err)
	}
	rule := d.Inject(faultdisk.Rule{Ops: faultdisk.Prewrite, Err: unix.ENOSPC, Short: 8192})
	r := &rig{t: t, disk: d, ctx: t.Context(), pressed: make(chan struct{}, 1)}
	opt := bufferOptions(d)
	removed := make(chan struct{}, 1)
	d.Inject(faultdisk.Rule{Ops: faultdisk.Remove, Path: "/buffer/pool/*", Before: func(faultdisk.Op, string) { signal(removed) }})
	r.openBuffer(opt)
	<-removed
	r.untilBuffer("the place is given up", func() bool { return r.buf.pool.files == 0 })
	rule.Remove()
	r.buf.pool.prewriter.fill.Ring()
	r.untilBuffer("a file is ready", func() bool { return len(r.buf.pool.free) == 1 })
	if names, err := d.ReadDir("/buffer/pool"); err != nil || len(names) != 1 {
		t.Errorf("pool holds %v, %v", names, err)
	}
}

// What the last run left counts; what fits no longer goes.
func TestAdopt(t *testing.T) {
	fs := crashdisk.New()
	r := openRig(t, fs, newVolume(testVolume))
	r.write(1, 1, 1)
	r.untilReady()
	r.untilBuffer("the pool is full", r.poolFull)
	r.close()
	files := r.files()
	for name, size := range map[string]int64{"/buffer/pool/junk": 4 << 20, "/buffer/pool/77": 4096, "/buffer/pool/78": 4 << 20} {
		f, err := fs.OpenFile(name, disk.Write|disk.Create, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	next := prepareRig(t, fs, r.vol)
	next.untilBuffer("the pool is full", next.poolFull)
	next.consistent()
	if n := next.files(); n < files+1 {
		t.Errorf("%d files of %d are left", n, files+1)
	}
	for _, name := range []string{"/buffer/pool/junk", "/buffer/pool/77"} {
		if _, err := fs.Stat(name); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	if ids, err := next.buf.Volumes(); err != nil || len(ids) != 1 || ids[0] != testVolume {
		t.Errorf("%v, %v", ids, err)
	}
	next.openLog()
	next.check(1, 1, 1)
}

// The option may change between two runs: SCOs of another size are read, and
// never recycled.
func TestAnotherSize(t *testing.T) {
	fs := crashdisk.New()
	r := openRig(t, fs, newVolume(testVolume))
	end := r.fill(0, 2, 1)
	r.close()
	next := &rig{t: t, under: fs, disk: faultdisk.New(fs), vol: r.vol, ctx: r.ctx, changed: make(chan struct{}, 1), pressed: make(chan struct{}, 1)}
	opt := bufferOptions(next.disk)
	opt.Bytes = 128 << 20
	next.openBuffer(opt)
	next.openLog()
	next.check(0, int(end), 1)
	next.storeAll()
	for next.buf.pool.evict(true) {
	}
	next.fill(0, 1, 2)
	next.check(0, 10, 2)
	names, err := fs.ReadDir("/buffer/pool")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if info, err := fs.Stat(path.Join("/buffer/pool", name)); err == nil && info.Size() != 8<<20 {
			t.Errorf("a file of %d bytes is in the pool", info.Size())
		}
	}
}

// consistent compares the buffer's count of files with the disk.
func (r *rig) consistent() {
	r.t.Helper()
	// The prewriter counts a file a moment before it is there.
	r.untilBuffer("the files on disk are those counted", func() bool { return r.files() == r.buf.pool.files })
}

// settle waits until nothing is being made any more.
func (r *rig) settle() {
	r.t.Helper()
	r.untilReady()
	r.untilBuffer("the pool is full", r.poolFull)
}

// poolFull reports whether the prewriter has come to rest.
func (r *rig) poolFull() bool {
	b := r.buf
	free := len(b.pool.free)
	return b.pool.files >= b.pool.room.max || free >= max(b.opt.Ready, b.pool.files-free)
}

// A log that is closed and opened again in one run counts its files.
func TestBudgetOverReopen(t *testing.T) {
	r := newRig(t)
	r.fill(0, 2, 1)
	r.settle()
	r.consistent()
	if err := r.log.Close(func() error { return r.log.Commit(r.ctx, r.log.Written()) }); err != nil {
		t.Fatal(err)
	}
	r.openLog()
	r.settle()
	r.consistent()
	r.check(0, 100, 1)
}

// A vDisk that is discarded gives its room back, opened before or not.
func TestBudgetOverDiscard(t *testing.T) {
	fs := crashdisk.New()
	r := openRig(t, fs, newVolume(testVolume))
	r.fill(0, 2, 1)
	r.close()
	next := prepareRig(t, fs, r.vol)
	if err := next.buf.Discard(testVolume); err != nil {
		t.Fatal(err)
	}
	next.untilBuffer("the pool is full", next.poolFull)
	next.consistent()
	if ids, err := next.buf.Volumes(); err != nil || len(ids) != 0 {
		t.Errorf("%v, %v", ids, err)
	}
}

func TestBudgetOverCloseAndDiscard(t *testing.T) {
	r := newRig(t)
	r.fill(0, 2, 1)
	r.settle()
	if err := r.log.Close(nil); err != nil {
		t.Fatal(err)
	}
	if err := r.buf.Discard(testVolume); err != nil {
		t.Fatal(err)
	}
	r.untilBuffer("the pool is full", r.poolFull)
	r.consistent()
}

// Reserve says below which number files may be opened, again and again.
func TestReserve(t *testing.T) {
	r := prepareRig(t, crashdisk.New(), newVolume(testVolume))
	r.vol.reset(1)
	opt := r.logOptions(1, 5, 7)
	type asked struct {
		s sco.Number
		t tlog.ID
	}
	var calls []asked
	refuse := 1
	opt.Owner = logOwner{volume: r.vol, r: r, reserve: func(_ context.Context, s sco.Number, id tlog.ID) (sco.Number, tlog.ID, error) {
		if refuse > 0 {
			refuse--
			return 0, 0, errors.New("the catalog is not there")
		}
		calls = append(calls, asked{s, id})
		return s + 2, id + 1, nil
	}}
	log, err := r.buf.OpenLog(opt)
	if err != nil {
		t.Fatal(err)
	}
	r.log = log
	for i := range uint64(5) {
		r.write(i, 1, 1)
		log.CloseTLog()
	}
	r.untilReady()
	if err := log.Close(nil); err != nil {
		t.Fatal(err)
	}
	limit := asked{5, 7}
	for i, c := range calls {
		if c.s < 5 || c.t < 7 || c.s > limit.s && i > 0 || c.t > limit.t && i > 0 {
			t.Errorf("call %d asks from %+v, the limit was %+v", i, c, limit)
		}
		limit = asked{c.s + 2, c.t + 1}
	}
	names, err := r.under.ReadDir(path.Join("/buffer", testVolume.String()))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if n, err := sco.ParseName(name); err == nil && (n < 5 || n >= limit.s) {
			t.Errorf("%s is not below %d", name, limit.s)
		}
		if id, err := tlog.ParseName(name); err == nil && (id < 7 || id >= limit.t) {
			t.Errorf("%s is not below %d", name, limit.t)
		}
	}
	if len(calls) < 3 {
		t.Errorf("asked %d times", len(calls))
	}
}

func TestSetLimits(t *testing.T) {
	r := prepareRig(t, crashdisk.New(), newVolume(testVolume))
	r.vol.reset(1)
	opt := r.logOptions(1, 5, 7)
	opt.SCOLimit, opt.TLogLimit = 8, 10
	opt.Owner = logOwner{volume: r.vol, r: r, reserve: func(context.Context, sco.Number, tlog.ID) (sco.Number, tlog.ID, error) {
		panic("asked although the limits are far")
	}}
	log, err := r.buf.OpenLog(opt)
	if err != nil {
		t.Fatal(err)
	}
	r.log = log
	log.SetLimits(100, 100)
	log.SetLimits(1, 1) // never down
	for i := range uint64(5) {
		r.write(i, 1, 1)
		log.CloseTLog()
	}
	if err := log.Close(nil); err != nil {
		t.Fatal(err)
	}
}

// No file can be had: writers wait, and go on when one can (P6). Nothing is
// lost from the budget on the way.
func TestPrepareFails(t *testing.T) {
	for _, c := range []struct {
		name string
		rule faultdisk.Rule
	}{
		{"open of the SCO", faultdisk.Rule{Ops: faultdisk.Open, Path: "sco-*", Err: unix.ENOSPC}},
		{"rename from the pool", faultdisk.Rule{Ops: faultdisk.Rename, Path: "sco-*", Err: unix.EIO}},
		{"open of the TLog", faultdisk.Rule{Ops: faultdisk.Open, Path: "tlog-*", Err: unix.ENOSPC}},
		{"sync of the directory with the TLog", faultdisk.Rule{Ops: faultdisk.SyncDir, Path: testVolume.String(), Err: unix.EIO}},
		{"sync of the directory with the SCO", faultdisk.Rule{Ops: faultdisk.SyncDir, Path: testVolume.String(), Skip: 1, Err: unix.EIO}},
		{"header of the TLog", faultdisk.Rule{Ops: faultdisk.Write, Path: "tlog-*", Err: unix.ENOSPC}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := prepareRig(t, crashdisk.New(), newVolume(testVolume))
			r.untilPrewritten()
			c.rule.Times = 4
			rule := r.disk.Inject(c.rule)
			r.openLog()
			r.write(1, 1, 1)
			r.write(2, 1, 1)
			want := 4
			if c.rule.Ops == faultdisk.Rename {
				want = 1 // a new file takes its place
			}
			if rule.Fired() < want {
				t.Errorf("the rule fired %d times", rule.Fired())
			}
			r.check(1, 2, 1)
			r.settle()
			r.consistent()
			names, err := r.under.ReadDir(r.log.folder.dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if n, err := sco.ParseName(name); err == nil && !r.log.Has(n) && n != r.log.section.inside.next.Number {
					t.Errorf("%s belongs to nobody", name)
				}
			}
			r.commit()
			r = r.cut(crashdisk.LoseAll)
			r.check(1, 2, 1)
		})
	}
}

// Two vDisks share the buffer and one pool; each reads its own.
func TestTwoLogs(t *testing.T) {
	r := newRig(t)
	v := newVolume(uuid.New())
	v.reset(1)
	other := &rig{t: t, under: r.under, disk: r.disk, buf: r.buf, vol: v, ctx: r.ctx, changed: make(chan struct{}, 1)}
	var err error
	if other.log, err = r.buf.OpenLog(other.logOptions(1, 1, 1)); err != nil {
		t.Fatal(err)
	}
	defer other.log.Close(nil)
	for i := range uint64(20) {
		r.write(i, 30, i)
		other.write(i, 30, 1000+i)
	}
	r.commit()
	for i := range uint64(20) {
		r.check(i, 1, i)
		other.check(i, 1, 1000+i)
	}
	if ids, err := r.buf.Volumes(); err != nil || len(ids) != 2 {
		t.Errorf("%v, %v", ids, err)
	}
	// One SCO each, or two where a flush moved on to a pre-written one.
	if n := r.buf.Usage().Dirty / r.buf.SCOSize(); n < 2 || n > 4 {
		t.Errorf("%+v", r.buf.Usage())
	}
}
