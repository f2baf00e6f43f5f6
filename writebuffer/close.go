package writebuffer

import (
	"errors"
	"io/fs"
	"slices"
)

// Close commits what is written, unless the log has failed, and lets go of
// all files. Nobody may use the log any more.
func (l *Log) Close(commit func() error) error {
	var errs []error
	if commit != nil && l.fate.err() == nil {
		errs = append(errs, commit())
	}
	l.stop()
	l.done.Wait()
	if commit != nil && l.fate.err() == nil && l.Resuming() == nil {
		a := l.section.enter()
		err := a.syncMark()
		a.leave()
		if err != nil {
			// All that was flushed is there. Only damage below it would not be told
			// from the end of the log.
			l.buf.opt.Logger.Warn("write buffer: the mark of the last flush is not durable", "vdisk", l.opt.Volume, "err", err)
		}
	}
	l.fate.fail(ErrClosed)
	l.buf.logs.remove(l)
	a := l.section.enter()
	defer a.leave()
	return errors.Join(append(errs, a.closeSCOs(), a.closeTLogs())...)
}

// syncMark makes the newest mark durable: a clean stop may be followed by a power
// cut. Nothing else of the log runs any more.
func (a *section) syncMark() error {
	l := a.log
	if err := a.markNext(); err != nil {
		return err
	}
	if a.unmarked && a.nextTL == nil {
		if id, ok := l.numbers.takeTLog(); ok {
			next, err := l.folder.newTLog(id)
			if err != nil {
				return err
			}
			if err := a.offerTLog(next); err != nil {
				return err
			}
		}
	}
	if a.tl != nil {
		return a.tl.sync(&l.fate)
	}
	if t := a.backlog.newest(); t != nil {
		return t.sync(&l.fate)
	}
	return nil
}

// closeSCOs closes the SCOs. They stay as files, and in the buffer's count, for the
// next start to find, or Discard.
func (a *section) closeSCOs() error {
	l := a.log
	var errs []error
	for s := range l.present.all() {
		listed := l.buf.evictable.remove(s)
		if !listed && s.stored { // being evicted: that closes it
			continue
		}
		if !listed {
			l.buf.dirty.Add(-1)
		}
		if s.refs.CompareAndSwap(1, 0) {
			errs = append(errs, s.file.Close())
			continue
		}
		s.left.Store(true) // its last reader closes it
		s.release()
	}
	l.present.clear()
	if s := a.takeNext(); s != nil {
		s.release()
	}
	return errors.Join(errs...)
}

// closeTLogs closes the TLogs, and removes the prepared one, which holds nothing.
func (a *section) closeTLogs() error {
	l := a.log
	var errs []error
	closed := a.backlog.closed
	if a.resuming != nil {
		closed = slices.Concat(closed, a.resuming.tlogs)
	}
	for _, t := range closed {
		errs = append(errs, t.close())
	}
	if a.tl != nil {
		errs = append(errs, a.tl.file.Close())
	}
	if a.nextTL != nil {
		errs = append(errs, a.nextTL.file.Close())
		if err := l.buf.opt.FS.Remove(a.nextTL.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
