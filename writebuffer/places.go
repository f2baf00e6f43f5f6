package writebuffer

import (
	"context"
	"time"
)

// pressEvery is how often a preparer that waits for places has more stored, so that
// files can be closed. tellEvery is how often the wait is logged at most.
const (
	pressEvery = time.Second
	tellEvery  = time.Minute
)

// places waits until the files that l has to prepare may be open. It returns how many
// places it took: the caller gives them back when the files are open.
//
// To get places, the buffer closes files that hold nothing unsynced; then vDisks that
// rest give up their prepared files; then vDisks that are written store theirs, which
// can be closed after that.
//
// A first write needs two files. No log waits while it has one of them: two logs might
// each hold the place that the other lacks. So both places are taken at once, and a
// log that has to wait gives up the file that it has.
func (b *Buffer) places(ctx context.Context, l *Log) (int, error) {
	for waits := false; ; waits = true {
		freed := b.files.wait()
		n := l.lackedFiles(waits)
		if n == 0 || b.files.reserve(n) {
			return n, nil
		}
		if b.logs.stealOpen() {
			continue
		}
		b.tellFiles()
		if err := b.pressForPlaces(ctx, freed); err != nil {
			return 0, err
		}
	}
}

// pressForPlaces asks for places and waits for one, or for a while.
func (b *Buffer) pressForPlaces(ctx context.Context, freed <-chan struct{}) error {
	b.pool.addWaiting(1)
	defer b.pool.addWaiting(-1)
	b.logs.press()
	again := time.NewTimer(pressEvery)
	defer again.Stop()
	select {
	case <-freed:
	case <-again.C:
	case <-ctx.Done():
	}
	return ctx.Err()
}

func (b *Buffer) tellFiles() {
	now, last := time.Now().UnixNano(), b.toldFiles.Load()
	if now-last > int64(tellEvery) && b.toldFiles.CompareAndSwap(last, now) {
		b.opt.Logger.Warn("write buffer: a vDisk waits until files of others can be closed",
			"open", b.files.count(), "of", b.files.max, "cure", "a higher limit of open files (LimitNOFILE in a unit, ulimit -n in a shell)")
	}
}

// lackedFiles returns how many files l has to prepare. One that waits and has nothing
// open gives up the file that it has.
func (l *Log) lackedFiles(waits bool) int {
	if waits {
		l.giveBack((*section).half)
	}
	a := l.section.enter()
	defer a.leave()
	return a.missing()
}

// giveBack closes what l has prepared, if it may, and reports whether there was
// anything.
func (l *Log) giveBack(may func(*section) bool) bool {
	a := l.section.enter()
	if !may(a) {
		a.leave()
		return false
	}
	s, t := a.takePrepared()
	a.leave()
	if s != nil {
		s.release()
	}
	if t != nil {
		if err := l.folder.removeTLog(t); err != nil {
			l.buf.opt.Logger.Warn("write buffer: prepared TLog not removed", "file", t.name, "err", err)
		}
	}
	return s != nil || t != nil
}

// giveNext hands over a prepared SCO that an idle log does not need, nil if there is
// none.
func (l *Log) giveNext() *SCO {
	a := l.section.enter()
	defer a.leave()
	if !a.rests() {
		return nil
	}
	return a.takeNext()
}
