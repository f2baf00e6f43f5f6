package writebuffer

import (
	"context"
	"errors"
	"testing"
	"time"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/tlog"

	"golang.org/x/sys/unix"
)

// A restart that finds no room at whatever step goes on from there, as often as it
// takes. Until its end it is read, appends and flushes wait, and a kill or a power cut
// leaves all that was there before; after it, all that is acknowledged then.
func TestResumeGoesOn(t *testing.T) {
	for _, ops := range []faultdisk.Op{faultdisk.Allocate, faultdisk.Write, faultdisk.Datasync, faultdisk.SyncDir, faultdisk.Open} {
		t.Run(ops.String(), func(t *testing.T) {
			t.Parallel()
			first := newRig(t)
			const writes = 300
			for i := range uint64(writes) {
				first.write(4*i, 3, i)
				if i%100 == 50 {
					first.commit()
				}
			}
			first.commit() // a power cut takes nothing of it
			r := prepareRig(t, first.under.Kill(), first.vol.copy())
			rule := faultdisk.Rule{Ops: ops, Path: "/buffer/" + r.vol.id.String() + "/...", Err: unix.ENOSPC}
			if ops == faultdisk.Open || ops == faultdisk.Write {
				rule.Path = "tlog-*"
			}
			found, err := r.buf.Recover(r.vol.recoverOptions())
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range found.scos { // as if no mark was left: they are written and synced again
				if s.live && ops == faultdisk.Datasync {
					found.Durable = 0
				}
			}
			inject := r.disk.Inject(rule)
			r.begin(found)
			if err := r.log.Resume(found); !errors.Is(err, unix.ENOSPC) || r.log.Resuming() == nil {
				t.Fatalf("it lacked no room: %v", err)
			}
			inject.Remove()
			r.log.section.inside.resuming.part = 2 << 10 // many TLogs, if SCOs let it
			holds := func(_ string, r *rig) {
				t.Helper()
				for i := range uint64(writes) {
					r.check(4*i, 3, i)
				}
			}
			waiting := func() {
				t.Helper()
				holds("", r)
				ended, cancel := context.WithCancel(context.Background())
				cancel()
				var b Batch
				b.Spans = append(b.Spans, Span{Addr: 1, Data: make([]byte, clusterSize)})
				if err := r.log.TryAppend(&b); err == nil {
					t.Fatal("a write went through")
				}
				if err := r.log.Append(ended, &b); !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				if _, err := r.log.AppendEntry(ended, tlog.Entry{Kind: tlog.KindTrim, Run: 1}); !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				if r.log.Durable() < r.log.Written() {
					if err := r.log.Commit(ended, r.log.Written()); !errors.Is(err, context.Canceled) {
						t.Fatal(err)
					}
				}
			}
			waiting()
			r.restarts(holds)
			tries := 0
			for skip := 0; ; skip++ { // each step fails in turn, for longer than room is made
				rule.Skip = skip
				inject = r.disk.Inject(rule)
				err := r.log.GoOn(r.ctx)
				inject.Remove()
				if err == nil {
					break
				}
				if !errors.Is(err, unix.ENOSPC) {
					t.Fatal(err)
				}
				waiting()
				if tries++; tries < 20 {
					r.restarts(holds)
				}
			}
			if tries == 0 {
				t.Error("no step failed")
			}
			if err := r.log.Resuming(); err != nil || r.log.Durable() != r.log.Written() {
				t.Fatal(err, r.log.Durable(), r.log.Written())
			}
			r.restarts(holds)
			r.write(4*writes, 2, 7)
			r.commit()
			r.restarts(func(what string, r *rig) {
				holds(what, r)
				r.check(4*writes, 2, 7)
			})
			r.close()
			holds("stopped", r.kill())
			holds("stopped and cut", r.cut(crashdisk.LoseAll))
		})
	}
}

// A mark says nothing of what no sync has covered: the TLog of a Resume that was
// killed before its sync calls all of it durable. So no flush returns before the next
// Resume has come to its end, whatever marks say (O2, P1).
func TestNoFlushWhileResumeWaits(t *testing.T) {
	first := newRig(t)
	first.write(0, 3, 1)
	first.commit()
	first.write(10, 3, 2) // never flushed
	// restart 1: killed between the append of its TLog and the sync of it.
	p1 := prepareRig(t, first.under.Kill(), first.vol.copy())
	found, err := p1.buf.Recover(p1.vol.recoverOptions())
	if err != nil {
		t.Fatal(err)
	}
	var image *crashdisk.FS
	p1.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "tlog-*", Times: 1, Before: func(faultdisk.Op, string) { image = p1.under.Kill() }})
	p1.begin(found)
	vol := p1.vol.copy()
	if err := p1.log.Resume(found); err != nil {
		t.Fatal(err)
	}
	if image == nil {
		t.Fatal("no image")
	}
	// restart 2: no room.
	p2 := prepareRig(t, image, vol)
	found, err = p2.buf.Recover(p2.vol.recoverOptions())
	if err != nil {
		t.Fatal(err)
	}
	if found.Durable != found.Reached {
		t.Fatalf("the mark says %d of %d", found.Durable, found.Reached)
	}
	p2.disk.Inject(faultdisk.Rule{Ops: faultdisk.Allocate, Path: "/buffer/...", Err: unix.ENOSPC})
	p2.begin(found)
	if err := p2.log.Resume(found); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p2.ctx, 100*time.Millisecond)
	defer cancel()
	if err := p2.log.Commit(ctx, p2.log.Written()); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a flush before what was recovered is durable: %v", err)
	}
	p3 := p2.cut(crashdisk.LoseAll)
	p3.check(0, 3, 1)
}
