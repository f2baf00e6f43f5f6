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
		if err := l.syncMark(); err != nil {
			// All that was flushed is there. Only damage below it would not be told
			// from the end of the log.
			l.buf.opt.Logger.Warn("write buffer: the mark of the last flush is not durable", "vdisk", l.opt.Volume, "err", err)
		}
	}
	l.fate.fail(ErrClosed)
	l.buf.mu.Lock()
	delete(l.buf.mu.logs, l.opt.Volume)
	l.buf.mu.Unlock()
	return errors.Join(append(errs, l.closeSCOs(), l.closeTLogs())...)
}

// syncMark makes the newest mark durable: a clean stop may be followed by a power
// cut. Nothing else of the log runs any more.
func (l *Log) syncMark() error {
	a := l.section.enter()
	defer a.leave()
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
func (l *Log) closeSCOs() error {
	a := l.section.enter()
	defer a.leave()
	var errs []error
	for s := range l.present.all() {
		if !l.buf.takeOut(s) { // being evicted: that closes it
			continue
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

// takeOut takes an SCO of a log that is being closed out of the buffer's books. It
// returns false if the SCO is being evicted.
func (b *Buffer) takeOut(s *SCO) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.stored && s.element == nil {
		return false
	}
	if !b.unlistLocked(s) {
		b.dirty.Add(-1)
	}
	return true
}

// closeTLogs closes the TLogs, and removes the prepared one, which holds nothing.
func (l *Log) closeTLogs() error {
	a := l.section.enter()
	defer a.leave()
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
