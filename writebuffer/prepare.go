package writebuffer

import (
	"context"
	"time"

	"openvstorage/sco"
	"openvstorage/tlog"
)

// preparer has the next SCO and TLog files ready, names durable, before the
// append section needs them.
func (l *Log) preparer(ctx context.Context) {
	for {
		select {
		case <-l.prepare.Rung():
		case <-ctx.Done():
			return
		}
		for wait := time.Millisecond; ; wait = min(2*wait, time.Second) {
			err := l.prepareOnce(ctx)
			if err == nil || ctx.Err() != nil || l.Err() != nil {
				break
			}
			// A full or failing disk makes writers wait (P6).
			if !l.lacksRoom(err) { // who does says so
				l.buf.opt.Logger.Warn("write buffer: no file ready", "vdisk", l.opt.Volume, "err", err)
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
		}
	}
}

func (l *Log) prepareOnce(ctx context.Context) error {
	l.mu.Lock()
	early := l.resuming != nil
	l.mu.Unlock()
	if early {
		return nil // who waits asks again then: its TLogs have lower numbers than those to come
	}
	places, err := l.buf.places(ctx, l)
	if err != nil {
		return err
	}
	defer l.buf.files.unreserve(places)
	n, id, err := l.reserve(ctx)
	if err == nil && id != 0 {
		err = l.restTLog(ctx)
	}
	if err != nil {
		return err
	}
	if id != 0 {
		t, err := l.newTLog(id)
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.nextTL = t
		err = l.markNext()
		l.ready.Send()
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
	if n != 0 {
		name := l.scoPath(n)
		sparse, err := l.buf.acquire(ctx, name)
		if err != nil {
			return err
		}
		s, err := l.newSCO(n, name, sparse)
		if err != nil {
			l.buf.discardFile(name)
			return err
		}
		l.mu.Lock()
		l.next = s
		l.ready.Send()
		l.mu.Unlock()
	}
	return l.swapNext()
}

// restTLog waits before another TLog is made if the newest could not be begun.
func (l *Log) restTLog(ctx context.Context) error {
	l.mu.Lock()
	n := l.unbegun
	l.mu.Unlock()
	if n == 0 {
		return nil
	}
	select {
	case <-time.After(min(time.Millisecond<<min(n, 20), roomWait)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// swapNext replaces a prepared SCO file that is not pre-written by one that is.
// What is flushed often is worth it: syncing a pre-written file costs a half to
// a fifth.
func (l *Log) swapNext() error {
	l.mu.Lock()
	old := l.next
	if old == nil || !old.sparse || !l.wantFast || l.numbers.sco >= l.numbers.scoLimit {
		l.mu.Unlock()
		return nil
	}
	n := l.numbers.sco
	l.numbers.sco++
	l.mu.Unlock()
	name := l.scoPath(n)
	ok, err := l.buf.swap(name)
	if !ok || err != nil {
		return err
	}
	s, err := l.newSCO(n, name, false)
	if err != nil {
		l.buf.discardFile(name)
		return err
	}
	l.mu.Lock()
	if l.next == old {
		l.next = s
		s = old
	}
	l.mu.Unlock()
	s.early = true
	s.release()
	return nil
}

// reserve hands out the numbers of what is to be prepared, 0 for nothing.
func (l *Log) reserve(ctx context.Context) (sco.Number, tlog.ID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil && l.nextTL != nil {
		return 0, 0, nil
	}
	if l.numbers.sco >= l.numbers.scoLimit || l.numbers.tlog >= l.numbers.tlogLimit {
		s, t := l.numbers.sco, l.numbers.tlog
		l.mu.Unlock()
		sl, tl, err := l.opt.Reserve(ctx, s, t)
		l.mu.Lock()
		if err != nil {
			return 0, 0, err
		}
		l.numbers.scoLimit, l.numbers.tlogLimit = sl, tl
	}
	var n sco.Number
	var id tlog.ID
	if l.next == nil {
		n = l.numbers.sco
		l.numbers.sco++
	}
	if l.nextTL == nil {
		id = l.numbers.tlog
		l.numbers.tlog++
	}
	return n, id, nil
}

// giveNext hands over a prepared SCO that an idle log does not need.
func (l *Log) giveNext() *SCO {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.rests() {
		return nil
	}
	s := l.next
	l.next = nil
	return s
}
