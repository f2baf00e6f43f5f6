package writebuffer

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"github.com/google/uuid"
)

// system is a file system that says what a test wants.
type system struct {
	disk.FS
	usage disk.Usage
	err   error
}

func (s *system) Statfs(string) (disk.Usage, error) { return s.usage, s.err }

// How many files there may be, by what the file system has left.
func TestMeasure(t *testing.T) {
	const (
		mib     = int64(1) << 20
		total   = 8 << 30
		most    = 100
		reserve = 192 * mib // of so much
	)
	if got := Reserve(total); got != reserve {
		t.Fatalf("the reserve is %d MiB", got/mib)
	}
	for _, row := range []struct {
		what   string
		files  int // there are
		logs   int
		free   int64
		names  uint64 // 0: nothing but room bounds them
		err    error
		limit  int
		scarce bool
	}{
		{what: "plenty", files: 10, logs: 3, free: 4 << 30, limit: most},
		{what: "five more", files: 10, logs: 3, free: reserve + 5*mib, limit: 15},
		{what: "not quite five more", files: 10, logs: 3, free: reserve + 5*mib - 1, limit: 14},
		{what: "none more", files: 10, logs: 3, free: reserve, limit: 10},
		{what: "too many by three", files: 10, free: reserve - 3*mib, limit: 7},
		{what: "by three and a half", files: 10, free: reserve - 3*mib - mib/2, limit: 6},
		{what: "every vDisk goes on", files: 10, logs: 3, free: reserve - 4*mib, limit: 8},
		{what: "out of the reserve", files: 2, logs: 6, free: reserve - 4*mib, limit: 14},
		{what: "but not all of it", files: 10, logs: 30, free: reserve/4 - 3*mib, limit: 7, scarce: true},
		{what: "nor more than there may be", files: 10, logs: 300, free: reserve - 4*mib, limit: most},
		{what: "half of the reserve", files: 10, logs: 3, free: reserve / 2, limit: 8},
		{what: "not even half of it", files: 10, logs: 3, free: reserve/2 - 1, limit: 8, scarce: true},
		{what: "three names", files: 10, logs: 3, free: 4 << 30, names: namesReserve - 3, limit: 7},
		{what: "names enough", files: 10, logs: 3, free: 4 << 30, names: namesReserve, limit: most},
		{what: "few names", files: 70, logs: 3, free: 4 << 30, names: namesReserve/2 - 1, limit: 37, scarce: true},
		{what: "no names", files: 10, logs: 3, free: 4 << 30, names: 1, limit: 0, scarce: true},
		{what: "it does not say", files: 10, logs: 3, err: errors.New("EIO"), limit: most},
	} {
		fs := &system{usage: disk.Usage{Total: total, Free: uint64(row.free)}, err: row.err}
		if row.names > 0 {
			fs.usage.Names, fs.usage.FreeNames = 1<<20, row.names
		}
		b := &pool{fs: fs, dir: "/data/pool", logs: &logs{open: make(map[uuid.UUID]*Log)}, files: row.files}
		b.room.begin("/data", mib, most*mib, slog.New(slog.DiscardHandler))
		for range row.logs {
			b.logs.open[uuid.New()] = nil
		}
		b.measure()
		if got := int(b.room.limit.Load()); got != row.limit || b.room.scarce != row.scarce {
			t.Errorf("%s: %d files, scarce %v; want %d, %v", row.what, got, b.room.scarce, row.limit, row.scarce)
		}
		if row.err != nil || row.limit < 5 {
			continue
		}
		// Something had no room all the same: a user's quota, say.
		b.room.lacked, b.room.lackedAt, b.room.hold, b.room.cap = errors.New("EDQUOT"), time.Now(), time.Hour, 4
		if b.measure(); b.room.limit.Load() != 4 || b.room.lacked == nil {
			t.Errorf("%s: something lacked room, and there may be %d files", row.what, b.room.limit.Load())
		}
		b.room.lackedAt = time.Now().Add(-2 * time.Hour)
		if b.measure(); int(b.room.limit.Load()) != row.limit || (b.room.lacked == nil) == row.scarce {
			t.Errorf("%s: that is over, and there may be %d files: %v", row.what, b.room.limit.Load(), b.room.lacked)
		}
	}
}

// bubbleRig is a rig for a bubble of synctest.
func bubbleRig(t *testing.T) *rig {
	under := crashdisk.New()
	r := &rig{t: t, under: under, disk: faultdisk.New(under), changed: make(chan struct{}, 1), pressed: make(chan struct{}, 1), vol: newVolume(testVolume), ctx: t.Context()}
	r.openBuffer(bufferOptions(r.disk))
	return r
}

// A log that waits for files that it lacks does not keep the one that it has, unless it is
// written to; and it waits until there are places, for both at once.
func TestWhoWaitsKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := bubbleRig(t)
		l := otherLog(t, r)
		if err := l.Append(t.Context(), batch(1, 1, 1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		half := func() {
			t.Helper()
			a := l.section.enter()
			defer a.leave()
			if a.nextTL == nil || a.next == nil {
				t.Fatal("nothing is prepared")
			}
			if err := errors.Join(a.nextTL.file.Close(), r.buf.opt.FS.Remove(a.nextTL.name)); err != nil {
				t.Fatal(err)
			}
			a.nextTL = nil
		}
		half()
		if n := l.lackedFiles(false); n != 1 || l.section.inside.next == nil {
			t.Errorf("%d are missing before it waits", n)
		}
		if n := l.lackedFiles(true); n != 1 || l.section.inside.next == nil {
			t.Errorf("it is written to, waits, and lacks %d", n)
		}
		if l.section.inside.rests() {
			t.Error("it rests, though it is written to")
		}
		if err := l.Commit(t.Context(), l.Written()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the flush may have had something prepared
		if l.lackedFiles(false) == 0 {
			half()
		}
		a := l.section.enter()
		open, pending := a.open, a.pending
		a.open, a.pending = nil, nil
		a.leave()
		l.section.inside.lacking++
		if l.section.inside.rests() {
			t.Error("it rests, though a write waits")
		}
		l.section.inside.lacking--
		if !l.section.inside.rests() {
			t.Error("it does not rest")
		}
		count := r.buf.files.count()
		if n := l.lackedFiles(true); n != 2 || l.section.inside.next != nil || r.buf.files.count() != count-1 {
			t.Errorf("it waits, lacks %d, and %d of %d files are open", n, r.buf.files.count(), count)
		}
		a = l.section.enter()
		a.open, a.pending = open, pending
		a.leave()

		free := 0
		for r.buf.files.reserve(1) { // which closes what can be closed
			free++
		}
		if free < 2 {
			t.Fatalf("%d places", free)
		}
		r.buf.files.unreserve(1)
		type result struct {
			n   int
			err error
		}
		done := make(chan result, 1)
		go func() {
			n, err := r.buf.places(t.Context(), l)
			done <- result{n, err}
		}()
		time.Sleep(10 * pressEvery)
		synctest.Wait()
		select {
		case got := <-done:
			t.Fatalf("with one place for two it got %d, %v", got.n, got.err)
		default:
		}
		r.buf.files.unreserve(1)
		if got := <-done; got.n != 2 || got.err != nil {
			t.Errorf("with both places it got %d, %v", got.n, got.err)
		}
		r.buf.files.unreserve(2) // as whoever called places does
		for r.buf.files.reserve(1) {
			free++
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if n, err := r.buf.places(ended, l); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %d, %v", n, err)
		}
		r.buf.files.unreserve(free - 2)
	})
}
