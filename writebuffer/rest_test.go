package writebuffer

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// A flush whose sync found no room is not acknowledged by the next round, which has
// nothing of its own to sync, before that sync was made (O2, P6).
func TestFailedSyncIsNotPassedOver(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EINTR, unix.ENOMEM} {
		r := newFastRig(t)
		r.write(1, 2, 1)
		r.commit()
		r.untilReady()
		r.write(100, 3, 7)
		r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "sco-*", Err: errno, Times: syncTries})
		for {
			err := r.log.Commit(r.ctx, r.log.Written())
			if err == nil {
				break
			}
			if !errors.Is(err, errno) {
				t.Fatal(err)
			}
		}
		r2 := r.cut(crashdisk.Options{})
		r2.check(1, 2, 1)
		r2.check(100, 3, 7)
	}
}

// otherLog opens the log of another vDisk of the buffer.
func otherLog(t *testing.T, r *rig) *Log {
	t.Helper()
	v := newVolume(uuid.New())
	v.epoch = 1
	v.reset(1)
	o := r.logOptions(1, 1, 1)
	o.Volume, o.Owner, o.Epoch = v.id, logOwner{volume: v, r: r}, 1
	l, err := r.buf.OpenLog(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(nil) })
	return l
}

// A vDisk that was flushed between the end of its TLog and its storing has nothing
// open when it rests: the mark that the flush left needs no file that stays open.
func TestRestingVolumesHaveNothingOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		under := crashdisk.New()
		r := &rig{t: t, under: under, disk: faultdisk.New(under), changed: make(chan struct{}, 1), pressed: make(chan struct{}, 1), vol: newVolume(testVolume), ctx: t.Context()}
		opt := bufferOptions(r.disk)
		opt.Files, opt.Bytes = FilesMin, 1<<30
		r.openBuffer(opt)
		for range 2 * FilesMin {
			l := otherLog(t, r)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := l.Append(ctx, batch(1, 1, 1)); err != nil {
				t.Fatalf("with %d of %d files open: %v", r.buf.files.count(), r.buf.files.max, err)
			}
			cancel()
			synctest.Wait() // the next TLog is prepared
			l.CloseTLog()
			if err := l.Commit(t.Context(), l.Written()); err != nil {
				t.Fatal(err)
			}
			l.Stored(math.MaxUint32, nil)
			if l.section.inside.tl != nil {
				t.Error("a TLog is open")
			}
		}
	})
}

// An append that gave up waiting for a file leaves a log that rests: others may have what it has
// prepared.
func TestWhoGaveUpLacksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		under := crashdisk.New()
		r := &rig{t: t, under: under, disk: faultdisk.New(under), changed: make(chan struct{}, 1), pressed: make(chan struct{}, 1), vol: newVolume(testVolume), ctx: t.Context()}
		r.openBuffer(bufferOptions(r.disk))
		l := otherLog(t, r)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Append(ctx, batch(1, 1, 1)); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		synctest.Wait()
		if !r.buf.logs.stealOpen() {
			t.Error("what it has prepared is nobody's")
		}
	})
}
