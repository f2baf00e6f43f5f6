package writebuffer

import (
	"context"
	"sync/atomic"
	"time"

	"openvstorage/internal/bell"
)

// When the background syncs a sealed SCO: soon, if the vDisk is flushed now and then,
// so that the next flush finds little to do; otherwise late, because data that is
// overwritten before it is stored never has to reach the medium.
const (
	syncFlushed = 2 * time.Second // a flush so long ago counts
	syncAge     = 5 * time.Second // an SCO so old is synced anyway
)

// syncer syncs the sealed SCOs of a log in the background.
type syncer struct {
	log     *Log
	bell    bell.Bell    // an SCO was sealed
	flushed atomic.Int64 // when the last commit round began, Unix nanoseconds
}

// run syncs sealed SCOs in order (O10) until ctx ends.
func (y *syncer) run(ctx context.Context) {
	l := y.log
	tick := time.NewTicker(syncFlushed / 2)
	defer tick.Stop()
	for {
		select {
		case <-y.bell.Rung():
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for {
			s := y.next(time.Now())
			if s == nil {
				break
			}
			err := s.sync(true)
			s.release()
			if err != nil {
				if l.fate.err() == nil { // the owner is told of an error that fails the log
					l.buf.opt.Logger.Warn("write buffer: SCO not synced yet", "vdisk", l.opt.Volume, "err", err)
				}
				break
			}
			// In order: every SCO that was sealed before s is synced or stored, so all
			// entries that its commit blocks cover are durable.
			l.advance(s.covers)
			l.opt.Owner.Changed()
		}
	}
}

// next returns the SCO that the background is to sync, held; nil if there is none.
func (y *syncer) next(now time.Time) *SCO {
	age := syncAge
	if now.Sub(time.Unix(0, y.flushed.Load())) < syncFlushed {
		age = 0
	}
	a := y.log.section.enter()
	defer a.leave()
	return a.backlog.nextSync(now, age)
}
