package writebuffer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/tlog"

	"golang.org/x/sys/unix"
)

// An errno is not damage. Every call on every kind of file is answered once with
// every errno, while a log runs and while it is recovered. In all cases nothing that
// was accepted or acknowledged is lost, and what cannot go on says which file and
// which error. What only lacked something is seen by nobody.

var errnos = []unix.Errno{unix.EIO, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EACCES, unix.ENOSPC, unix.EINTR}

// errnoCalls are the calls, by kind and file.
var errnoCalls = []faultdisk.Rule{
	{Ops: faultdisk.Open, Path: "sco-*"}, {Ops: faultdisk.Open, Path: "tlog-*"}, {Ops: faultdisk.Open, Path: "/buffer/pool/*"},
	{Ops: faultdisk.Read, Path: "sco-*"}, {Ops: faultdisk.Read, Path: "tlog-*"}, {Ops: faultdisk.TryRead, Path: "sco-*"},
	{Ops: faultdisk.Write, Path: "sco-*"}, {Ops: faultdisk.Write, Path: "tlog-*"},
	{Ops: faultdisk.Datasync, Path: "sco-*"}, {Ops: faultdisk.Datasync, Path: "tlog-*"},
	{Ops: faultdisk.Prewrite}, {Ops: faultdisk.Truncate}, {Ops: faultdisk.Size}, {Ops: faultdisk.Close},
	{Ops: faultdisk.Rename}, {Ops: faultdisk.Remove}, {Ops: faultdisk.Mkdir},
	{Ops: faultdisk.ReadDir, Path: "/buffer"}, {Ops: faultdisk.ReadDir, Path: "pool"}, {Ops: faultdisk.ReadDir, Path: testVolume.String()},
	{Ops: faultdisk.Stat}, {Ops: faultdisk.Stat, Path: testVolume.String()},
	{Ops: faultdisk.SyncDir, Path: "/buffer"}, {Ops: faultdisk.SyncDir, Path: testVolume.String()},
}

func eachErrno(t *testing.T, run func(t *testing.T, rule faultdisk.Rule, errno unix.Errno)) {
	skips := []int{0, 1, 5}
	if testing.Short() {
		skips = skips[:1]
	}
	for _, rule := range errnoCalls {
		for _, errno := range errnos {
			for _, skip := range skips {
				rule.Err, rule.Skip, rule.Times = errno, skip, 1
				t.Run(fmt.Sprintf("%v %s %d %v", rule.Ops, strings.ReplaceAll(rule.Path, "/", "."), skip, errno), func(t *testing.T) { run(t, rule, errno) })
			}
		}
	}
}

// told demands of an error that it names a file and the errno, and of errnos that
// say nothing about the disk that there is none.
func told(t testing.TB, err error, errno unix.Errno) {
	t.Helper()
	if !errors.Is(err, errno) || !strings.Contains(err.Error(), "/buffer") || !strings.Contains(err.Error(), errno.Error()) {
		t.Errorf("%v does not name file and errno: %v", err, errno)
	}
	if lacked(errno) {
		t.Errorf("refused for want of something that may be there at once: %v", err)
	}
}

// errnoLog is a log and what was written to it.
type errnoLog struct {
	*rig
	errno   unix.Errno
	version uint64
	last    map[uint64]uint64          // address -> version accepted last
	doubt   map[uint64]map[uint64]bool // versions refused since, of which some may be there
	flushed map[uint64]uint64
	seqs    map[uint64]uint64 // version -> seq of the end of its write
}

func newErrnoLog(r *rig, errno unix.Errno) *errnoLog {
	return &errnoLog{r, errno, 0, map[uint64]uint64{}, map[uint64]map[uint64]bool{}, map[uint64]uint64{}, map[uint64]uint64{}}
}

// try makes a request until it is accepted, or the log has failed. One errno
// refuses it once.
func (l *errnoLog) try(what string, do func() error) bool {
	l.t.Helper()
	for refused := 0; ; refused++ {
		err := do()
		if err == nil {
			return true
		}
		told(l.t, err, l.errno)
		if l.log.Err() != nil {
			return false
		}
		if refused > 0 {
			l.t.Fatalf("%s is refused for the second time: %v", what, err)
		}
	}
}

func (l *errnoLog) put(addr uint64, n int) {
	l.t.Helper()
	l.version++
	v := l.version
	for i := range uint64(n) {
		if l.doubt[addr+i] == nil {
			l.doubt[addr+i] = map[uint64]bool{}
		}
		l.doubt[addr+i][v] = true
	}
	if !l.try("a write", func() error { return l.log.Append(l.ctx, batch(addr, n, v)) }) {
		return
	}
	l.seqs[v] = l.log.Written()
	for i := range uint64(n) {
		l.last[addr+i] = v
		delete(l.doubt, addr+i)
	}
}

func (l *errnoLog) flush() {
	l.t.Helper()
	if l.try("a flush", func() error { return l.log.Commit(l.ctx, l.log.Written()) }) {
		for a, v := range l.last {
			l.flushed[a] = v
		}
	}
}

// store plays the storer, which comes again if it fails.
func (l *errnoLog) store() {
	l.t.Helper()
	l.log.CloseTLog()
	w := l.log.Work()
	for _, s := range w.SCOs {
		if !s.Empty() && !l.try("the upload of an SCO", func() error { _, err := s.Object(nil, nil); return err }) {
			return
		}
	}
	for _, t := range w.TLogs {
		if !l.try("the upload of a TLog", func() error { _, err := t.Object(l.log); return err }) {
			return
		}
		l.vol.keep[t.ID] = true
		l.vol.stored = max(l.vol.stored, t.LastSeq)
		l.log.Stored(t.ID, nil)
	}
}

func (l *errnoLog) work() {
	l.t.Helper()
	l.put(1, 4)
	l.flush()
	l.put(3, 4)
	l.try("a trim", func() error {
		_, err := l.log.AppendEntry(l.ctx, tlog.Entry{Kind: tlog.KindTrim, Addr: 1 << 20, Run: 1})
		return err
	})
	for i := range uint64(6) { // more than an SCO
		l.put(100+i*200, 200)
	}
	l.flush()
	l.log.CloseTLog()
	l.put(1, 2)
	l.store()
	l.try("freeing TLogs", func() error { return l.log.Free(1) })
	l.put(2, 2)
	l.flush()
	l.put(8, 1)
	l.readAll(l.rig, l.last)
}

// readAll reads what r must have: of each cluster the version of least, or what
// came after it. What is stored need not be there.
func (l *errnoLog) readAll(r *rig, least map[uint64]uint64) {
	l.t.Helper()
	for addr, v := range least {
		loc, ok := r.vol.at(addr)
		stored := l.seqs[v] <= r.vol.stored
		if !ok && stored {
			continue
		}
		p := make([]byte, clusterSize)
		found, err := r.log.Read(loc, p, true)
		if err != nil {
			told(l.t, err, l.errno)
			found, err = r.log.Read(loc, p, true)
		}
		got := versionOf(p)
		if err != nil || !ok || !found && !stored {
			l.t.Fatalf("cluster %d of write %d: there %v, in the buffer %v, %v", addr, v, ok, found, err)
		}
		if found && got != v && !l.doubt[addr][got] && got != l.last[addr] {
			l.t.Fatalf("cluster %d is of write %d, not %d", addr, got, v)
		}
	}
}

func versionOf(p []byte) uint64 {
	v := uint64(0)
	for i := range 5 { // see data
		v |= uint64(p[8+i]) << (8 * i)
	}
	return v
}

// after looks at what is left after kill -9 and after power cuts.
func (l *errnoLog) after() {
	l.t.Helper()
	l.readAll(l.kill(), l.last)
	l.readAll(l.cut(crashdisk.LoseAll), l.flushed)
	l.readAll(l.cut(crashdisk.Mixed), l.flushed)
}

func TestErrnosWhileItRuns(t *testing.T) {
	eachErrno(t, func(t *testing.T, rule faultdisk.Rule, errno unix.Errno) {
		l := newErrnoLog(newRig(t), errno)
		l.put(1, 8)
		l.flush()
		l.disk.Inject(rule)
		l.work()
		bad := rule.Ops == faultdisk.Datasync && !passing(errno)
		if err := l.log.Err(); err != nil {
			if told(t, err, errno); !bad {
				t.Errorf("halted: %v", err)
			}
		}
		l.after()
	})
}

func TestErrnosInRecovery(t *testing.T) {
	first := newErrnoLog(newFastRig(t), 0)
	first.work()
	first.flush()
	first.put(5, 3) // not flushed
	first.untilReady()
	image, v := first.under.Kill(), first.vol.copy()
	eachErrno(t, func(t *testing.T, rule faultdisk.Rule, errno unix.Errno) {
		l := *first
		l.errno = errno
		l.rig = &rig{t: t, under: image.Kill(), vol: v.copy(), ctx: t.Context(), changed: make(chan struct{}, 1), pressed: make(chan struct{}, 1)}
		l.disk = faultdisk.New(l.under)
		l.disk.Inject(rule)
		var err error
		if l.buf, err = Open(bufferOptions(l.disk)); err != nil {
			told(t, err, errno)
			if l.buf, err = Open(bufferOptions(l.disk)); err != nil {
				t.Fatalf("it does not open the second time: %v", err)
			}
		}
		t.Cleanup(func() { _ = l.buf.Close() })
		opt := l.vol.recoverOptions()
		opt.Opened = true
		found, err := l.buf.Recover(opt)
		if err != nil {
			told(t, err, errno)
			if found, err = l.buf.Recover(opt); err != nil {
				t.Fatalf("the vDisk is refused for the second time: %v", err)
			}
		}
		if found.Damage != nil || found.Cut != "" || found.Reached != first.log.Written() || len(found.Entries) != int(found.Reached-v.stored) {
			t.Fatalf("an errno is taken for damage, or for the end of the log: %+v", found)
		}
		l.vol.epoch++
		l.vol.epochs = append(l.vol.epochs, found.Reached)
		l.vol.reset(l.vol.stored + 1)
		for _, e := range found.Entries {
			if err := replay(l.vol, e); err != nil {
				t.Fatal(err)
			}
		}
		if l.log, err = l.buf.OpenLog(l.logOptions(found.Reached+1, found.NextSCO, found.NextTLog)); err != nil {
			told(t, err, errno)
			if l.log, err = l.buf.OpenLog(l.logOptions(found.Reached+1, found.NextSCO, found.NextTLog)); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { _ = l.log.Close(nil) })
		err = l.log.Resume(found)
		if err != nil {
			told(t, err, errno)
			if disk.CauseOf(err).Passes() && l.log.Err() == nil { // it is read meanwhile, and goes on
				l.readAll(l.rig, first.last)
				l.after()
				for range 3 {
					if err = l.log.GoOn(t.Context()); err == nil {
						break
					}
					told(t, err, errno)
				}
				if err != nil || l.log.Resuming() != nil {
					t.Errorf("it does not go on: %v", err)
				}
			}
		}
		if err == nil {
			l.readAll(l.rig, first.last)
			l.last = first.last
			l.flushed = first.last // a restart has made it durable
		}
		l.after()
	})
}

// A pool file that nobody can look at, and a vDisk whose directory nobody can
// read, are no reason not to serve the others.
func TestOneUnreadableFileIsOne(t *testing.T) {
	r := newRig(t)
	r.untilPrewritten()
	r.write(1, 1, 1)
	r.close()
	other := [16]byte{9}
	again := prepareRig(t, r.under, r.vol)
	if err := again.buf.Prepare(other); err != nil {
		t.Fatal(err)
	}
	if err := again.buf.Close(); err != nil {
		t.Fatal(err)
	}
	for _, errno := range []unix.Errno{unix.EIO, unix.EACCES} {
		next := prepareRig(t, again.under.Kill(), again.vol.copy(),
			faultdisk.Rule{Ops: faultdisk.Stat | faultdisk.Remove, Path: "/buffer/pool/*", Err: errno},
			faultdisk.Rule{Ops: faultdisk.ReadDir, Path: again.buf.volumeDir(other), Err: errno})
		next.openLog()
		next.check(1, 1, 1)
		next.write(2, 1, 1)
		next.commit()
		opt := next.vol.recoverOptions()
		opt.Volume = other
		if _, err := next.buf.Recover(opt); !errors.Is(err, errno) {
			t.Errorf("a vDisk whose directory cannot be read: %v", err)
		}
		if !next.buf.Holds(other) {
			t.Error("what cannot be read counts as empty")
		}
		if ids, err := next.buf.Volumes(); err != nil || !slices.Contains(ids, other) {
			t.Errorf("%v, %v", ids, err)
		}
	}
}

// A pool file that cannot be taken is in nobody's way.
func TestPoolFileThatCannotBeTaken(t *testing.T) {
	r := prepareRig(t, crashdisk.New(), newVolume(testVolume))
	r.untilPrewritten()
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Rename, Path: "/buffer/pool/0", Err: unix.EIO})
	r.openLog()
	for i := range uint64(3) {
		r.fill(i*5000, 1, 1)
	}
	r.commit()
	r.check(0, 100, 1)
}
