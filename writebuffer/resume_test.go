package writebuffer

import (
	"context"
	"errors"
	"testing"

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
			r.log.resuming.part = 2 << 10 // many TLogs, if SCOs let it
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
