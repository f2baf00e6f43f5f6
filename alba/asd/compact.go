package asd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"time"

	"openvstorage/alba/osd"
)

// moveBytes is how much compaction writes at a time, unless a value has more.
const moveBytes = 4 << 20

// maintain compacts segments and writes checkpoints.
func (a *ASD) maintain() {
	var rest <-chan time.Time
	if a.opt.Rest > 0 {
		t := time.NewTicker(a.opt.Rest)
		defer t.Stop()
		rest = t.C
	}
	var seen, rested uint64 // seqs
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-rest:
			a.mu.RLock()
			seq := a.seq
			a.mu.RUnlock()
			quiet := seq == seen
			if seen = seq; !quiet || seq == rested {
				continue
			}
			if err := a.rest(); err != nil && a.ctx.Err() == nil {
				a.opt.Logger.Warn("asd: maintenance", "asd", a.identity.ID, "dir", a.opt.Dir, "err", err)
			}
			a.mu.RLock()
			seen, rested = a.seq, a.seq
			a.mu.RUnlock()
			continue
		case <-a.compact.Rung():
		}
		if err := a.keep(); err != nil && a.ctx.Err() == nil {
			a.opt.Logger.Warn("asd: maintenance", "asd", a.identity.ID, "dir", a.opt.Dir, "err", err)
		}
	}
}

// rest gives room back while nothing is written.
func (a *ASD) rest() error {
	if a.writable() != nil {
		return nil
	}
	a.dropSpares() // or one of them becomes the new segment
	if a.newestIsDead() {
		// The segment can be compacted once another one is the newest.
		r := &request{roll: true, done: make(chan error, 1)}
		if err := a.submit(a.ctx, r, 0); err != nil {
			return err
		}
	}
	a.mu.RLock()
	stale := a.appended > 0
	a.mu.RUnlock()
	if stale { // deletes in a segment count until a checkpoint holds them
		if err := a.checkpoint(); err != nil {
			return err
		}
	}
	err := a.keep()
	a.dropSpares()
	return err
}

// newestIsDead reports whether most of the segment that was written last holds
// nothing any more.
func (a *ASD) newestIsDead() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var newest *segment
	for _, s := range a.segments {
		if newest == nil || s.number > newest.number {
			newest = s
		}
	}
	return newest != nil && newest.size > 16*blockSize && a.deadLocked(newest, a.oldestLocked()) > newest.size/2
}

// keep does what there is to do.
func (a *ASD) keep() error {
	for a.ctx.Err() == nil && a.writable() == nil {
		if a.wantsCheckpoint() {
			if err := a.checkpoint(); err != nil {
				return err
			}
		}
		s, hurry, err := a.victim()
		if err != nil {
			return err
		}
		if s == nil {
			break
		}
		if err := a.compactSegment(s, hurry); err != nil {
			return fmt.Errorf("compact %s: %w", s.path, err)
		}
	}
	a.keepReserve()
	return nil
}

// wantsCheckpoint: one is worth while when a segment was written since the last
// one, and ten times as much as the checkpoint itself takes.
func (a *ASD) wantsCheckpoint() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.appended >= max(a.opt.SegmentBytes, 10*a.savedSize)
}

func (a *ASD) keepReserve() {
	a.mu.RLock()
	have := a.reserve
	a.mu.RUnlock()
	if have > 0 || a.writable() != nil {
		return
	}
	if u, err := a.opt.FS.Statfs(a.opt.Dir); err == nil && u.Free > uint64(4*a.opt.reserveSize()) {
		a.makeReserve()
	}
}

// oldestLocked is the lowest number of a segment. mu is held.
func (a *ASD) oldestLocked() uint32 {
	oldest := uint32(math.MaxUint32)
	for n := range a.segments {
		oldest = min(oldest, n)
	}
	return oldest
}

// deletesCountLocked reports whether deletes in a segment may still be needed:
// an older segment may hold what they deleted, or the checkpoint does. mu is
// held.
func (a *ASD) deletesCountLocked(s *segment) bool {
	if s.tomb == 0 {
		return false
	}
	if s.lastDelete > a.saved {
		return true
	}
	for n := range a.segments {
		if n != s.number && uint64(n) <= s.since {
			return true
		}
	}
	return false
}

// deadLocked is how many bytes of a segment hold nothing any more. mu is held.
func (a *ASD) deadLocked(s *segment, oldest uint32) int64 {
	n := s.size - s.live - blockSize
	if s.tomb > 0 && (s.lastDelete > a.saved || uint64(oldest) <= s.since && oldest != s.number) {
		n -= s.tomb
	}
	return max(n, 0)
}

// victim returns the segment that is best compacted now, nil if none is worth
// it. hurry: the disk is nearly full.
func (a *ASD) victim() (best *segment, hurry bool, err error) {
	a.mu.RLock()
	used := a.usedLocked()
	a.mu.RUnlock()
	limit, _, on, err := a.limits(used)
	if err != nil {
		return nil, false, err
	}
	hurry = used > limit/10*9 || on.Free < uint64(2*a.opt.SegmentBytes)

	a.mu.RLock()
	defer a.mu.RUnlock()
	newest, oldest := uint32(0), a.oldestLocked()
	for n := range a.segments {
		newest = max(newest, n)
	}
	most := 0.0
	var tombs int64
	for n, s := range a.segments {
		if n == newest { // it may still be written to
			continue
		}
		dead := a.deadLocked(s, oldest)
		part := float64(dead) / float64(s.size)
		if s.live == 0 && !a.deletesCountLocked(s) {
			return s, hurry, nil // costs nothing
		}
		tombs += s.tomb
		least := 0.5
		if hurry {
			least = 0.1
		}
		if s.stuck || part < least || part <= most || dead < 2*blockSize {
			continue
		}
		best, most = s, part
	}
	// Deletes pile up as long as the oldest segment lives on.
	if best == nil && tombs > int64(used/50)+a.opt.SegmentBytes && oldest != newest && !a.segments[oldest].stuck {
		best = a.segments[oldest]
	}
	return best, hurry, nil
}

// compactSegment writes what still counts of a segment again and gives its room
// back. What is corrupt, or what the medium does not give, stays and keeps the
// segment: values as long as they live, deletes as long as they may be needed.
func (a *ASD) compactSegment(s *segment, hurry bool) error {
	a.mu.RLock()
	empty := s.live == 0 && !a.deletesCountLocked(s)
	a.mu.RUnlock()
	m := mover{ASD: a, from: s, hurry: hurry}
	if !empty {
		if err := m.run(); err != nil {
			return err
		}
	}
	a.mu.Lock()
	left := s.live
	s.stuck = left != 0 || m.missed && a.deletesCountLocked(s)
	stuck := s.stuck
	a.mu.Unlock()
	if stuck {
		a.opt.Logger.Error("asd: a segment holds what cannot be read", "asd", a.identity.ID, "file", s.path, "bytes", left)
		return nil
	}
	return a.retire(s)
}

// mover copies the entries of a segment that still count.
type mover struct {
	*ASD
	from   *segment
	hurry  bool
	moves  []move
	slab   []byte
	bytes  int64 // of the slab that are used
	missed bool  // there may be entries that were not seen
}

// run copies. An error that says nothing of the segment ends it: it is compacted
// another time.
func (m *mover) run() error {
	bad := 0
	sc := m.scanner(m.from, m.from.size, &bad)
	_, err := sc.scan(blockSize, 0, 0, m.record)
	if errors.Is(err, errDying) {
		m.missed = true
		err = nil
	}
	return errors.Join(err, m.flush())
}

func (m *mover) record(r *Record) error {
	m.missed = m.missed || r.Err != nil
	for i := range r.Entries {
		if err := m.entry(r, &r.Entries[i]); err != nil {
			return err
		}
	}
	return nil
}

func (m *mover) entry(r *Record, e *Entry) error {
	if len(m.moves) == osd.UpdatesMax || m.bytes+roundUp(int64(e.Size)) > moveBytes {
		if err := m.flush(); err != nil {
			return err
		}
	}
	p, ok := m.place(e.Key)
	if e.Delete {
		if !ok && m.stillCounts(r, e) {
			m.moves = append(m.moves, move{update: osd.Update{Key: e.Key, Delete: true}, since: e.Since})
		}
		return nil
	}
	if !ok || p != m.from.place(e) {
		return nil
	}
	if m.slab == nil || int64(e.Size) > int64(len(m.slab)) {
		m.slab = aligned(nil, max(moveBytes, int(roundUp(int64(e.Size)))))
	}
	v, err := r.s.value(e, m.slab[m.bytes:m.bytes:len(m.slab)])
	m.stats.readBytes.Add(uint64(e.Size))
	if err != nil {
		if !isDamage(err) && !isUnreadable(err) || m.ctx.Err() != nil {
			return err
		}
		m.opt.Logger.Error("asd: a value cannot be moved", "asd", m.identity.ID, "key", fmt.Sprintf("%x", e.Key), "file", m.from.path, "err", err)
		if errors.Is(err, osd.ErrCorrupt) && m.opt.OnCorrupt != nil {
			m.opt.OnCorrupt(append([]byte(nil), e.Key...), m.from.corrupt(e.Key, e.Offset, err.Error()))
		}
		return nil
	}
	m.bytes += roundUp(int64(e.Size))
	m.moves = append(m.moves, move{update: osd.Update{Key: e.Key, Value: v}, from: p})
	return nil
}

// stillCounts reports whether a delete may still be needed.
func (m *mover) stillCounts(r *Record, e *Entry) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if r.Seq > m.saved {
		return true
	}
	for n := range m.segments {
		if n != m.from.number && uint64(n) <= e.Since {
			return true
		}
	}
	return false
}

// flush has the writer append what was gathered, and waits a while so that
// others get on.
func (m *mover) flush() error {
	if len(m.moves) == 0 {
		return nil
	}
	r := &request{moves: m.moves, done: make(chan error, 1)}
	err := m.submit(m.ctx, r, m.bytes)
	n := m.bytes
	m.moves, m.bytes = m.moves[:0], 0
	if err != nil || m.hurry || m.opt.CompactRate < 0 {
		return err
	}
	return pause(m.ctx, time.Duration(float64(n)/float64(m.opt.CompactRate)*float64(time.Second)))
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retire gives a segment's file up, in which nothing counts any more. It counts
// as a segment until that is durable: before, a power cut brings it back. If the
// name cannot be taken away it is tried another time; whether it has gone after
// all is seen then.
func (a *ASD) retire(s *segment) error {
	spare, keep := a.wantsSpare(s)
	var err error
	if keep {
		err = a.opt.FS.Rename(s.path, path.Join(a.opt.Dir, spare.name))
	} else {
		err = a.opt.FS.Remove(s.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		keep, err = false, nil
	}
	if err != nil {
		return err
	}
	if err := a.syncDir(); err != nil {
		return a.fail(err) // nobody may sync again and believe it (rule P6)
	}
	a.mu.Lock()
	delete(a.segments, s.number)
	if keep {
		a.spares = append(a.spares, spare)
	}
	a.mu.Unlock()
	a.leave(s)
	return nil
}

// wantsSpare reports whether a segment's file is kept, and under which name:
// not if it is still read, nor if it is short or room is.
func (a *ASD) wantsSpare(s *segment) (spare, bool) {
	a.mu.RLock()
	used, n := a.usedLocked(), len(a.spares)
	idle := s.idle()
	a.mu.RUnlock()
	if !idle || n >= a.opt.Spares || s.size < a.opt.SegmentBytes/4*3 || s.size > a.opt.SegmentBytes {
		return spare{}, false
	}
	limit, _, on, err := a.limits(used)
	if err != nil || used > limit/5*4 || on.Free < uint64(4*a.opt.SegmentBytes) {
		return spare{}, false
	}
	a.spared++
	return spare{sparePrefix + strconv.Itoa(a.spared), s.size}, true
}
