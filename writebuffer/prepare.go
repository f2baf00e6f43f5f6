package writebuffer

import (
	"context"
	"errors"
	"time"

	"openvstorage/internal/bell"
	"openvstorage/sco"
	"openvstorage/tlog"
)

// preparer has the next SCO and TLog files of a log ready, names durable, before the
// append section needs them.
type preparer struct {
	log  *Log
	bell bell.Bell // a file has been taken, or is lacking
}

// run prepares files when it is rung, until ctx ends.
func (p *preparer) run(ctx context.Context) {
	l := p.log
	for {
		select {
		case <-p.bell.Rung():
		case <-ctx.Done():
			return
		}
		for wait := time.Millisecond; ; wait = min(2*wait, time.Second) {
			err := p.once(ctx)
			if err == nil || ctx.Err() != nil || l.fate.err() != nil {
				break
			}
			// A full or failing disk makes writers wait (P6).
			if !l.lacksRoom(err) { // the buffer says that there is no room
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

// once prepares what is missing.
func (p *preparer) once(ctx context.Context) error {
	l := p.log
	a := l.section.enter()
	early := a.resuming != nil
	a.leave()
	if early {
		// TLogs of Resume get lower numbers than those to come. Writers that wait ring
		// again when it is done.
		return nil
	}
	places, err := l.buf.places(ctx, l)
	if err != nil {
		return err
	}
	defer l.buf.files.unreserve(places)
	n, id, err := p.reserve(ctx)
	if err == nil && id != 0 {
		err = p.pauseTLog(ctx)
	}
	if err == nil && id != 0 {
		err = p.makeTLog(id)
	}
	if err == nil && n != 0 {
		err = p.makeSCO(ctx, n)
	}
	if err != nil {
		return err
	}
	return p.swap()
}

// makeTLog makes the TLog file that comes next.
func (p *preparer) makeTLog(id tlog.ID) error {
	t, err := p.log.folder.newTLog(id)
	if err != nil {
		return err
	}
	a := p.log.section.enter()
	defer a.leave()
	return a.offerTLog(t)
}

// makeSCO gets a file for the SCO that comes next.
func (p *preparer) makeSCO(ctx context.Context, n sco.Number) error {
	l := p.log
	name := l.folder.scoPath(n)
	sparse, err := l.buf.pool.acquire(ctx, name)
	if err != nil {
		return err
	}
	s, err := l.folder.newSCO(n, name, sparse)
	if err != nil {
		l.buf.pool.discard(name)
		return err
	}
	a := l.section.enter()
	defer a.leave()
	a.offerSCO(s)
	return nil
}

// pauseTLog waits before another TLog is made if the newest could not be begun.
func (p *preparer) pauseTLog(ctx context.Context) error {
	a := p.log.section.enter()
	n := a.unbegun
	a.leave()
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

// swap replaces a prepared SCO file that is not pre-written by one that is. It does
// so for a vDisk that is flushed: syncing a pre-written file costs a half to a fifth.
func (p *preparer) swap() error {
	l := p.log
	a := l.section.enter()
	old := a.slowNext()
	a.leave()
	if old == nil {
		return nil
	}
	n, ok := l.numbers.takeSCO()
	if !ok {
		return nil // it is not worth a catalog put
	}
	name := l.folder.scoPath(n)
	ok, err := l.buf.pool.swap(name)
	if !ok || err != nil {
		return err
	}
	s, err := l.folder.newSCO(n, name, false)
	if err != nil {
		l.buf.pool.discard(name)
		return err
	}
	a = l.section.enter()
	s = a.replaceNext(old, s)
	a.leave()
	s.early = true
	s.release()
	return nil
}

// reserve takes the numbers of the files that are to be prepared. A number of 0 says
// that the file is there already.
func (p *preparer) reserve(ctx context.Context) (n sco.Number, id tlog.ID, err error) {
	l := p.log
	needSCO, needTLog := p.missing()
	if !needSCO && !needTLog {
		return 0, 0, nil
	}
	if l.numbers.spent() {
		scos, tlogs := l.numbers.next()
		scos, tlogs, err := l.opt.Owner.Reserve(ctx, scos, tlogs)
		if err != nil {
			return 0, 0, err
		}
		l.numbers.raise(scos, tlogs)
		needSCO, needTLog = p.missing() // others may have taken the other one meanwhile
	}
	ok := true
	if needSCO {
		n, ok = l.numbers.takeSCO()
	}
	if needTLog && ok {
		id, ok = l.numbers.takeTLog()
	}
	if !ok {
		return 0, 0, errors.New("writebuffer: no number was reserved")
	}
	return n, id, nil
}

// missing reports which of the two files is to be prepared.
func (p *preparer) missing() (needSCO, needTLog bool) {
	a := p.log.section.enter()
	defer a.leave()
	return a.next == nil, a.nextTL == nil
}
