package asd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"openvstorage/alba/osd"
)

// moveBytes is how much compaction writes at a time, unless a value has more.
const moveBytes = 4 << 20

// compactor gives back the room of what was deleted and replaced. It keeps nothing of its
// own: each time it decides by what the segments hold then.
type compactor struct {
	opt      *Options
	dir      *directory
	health   *health
	contents *contents
	space    *space
	spares   *spares
	writer   *writer
	stats    *counters
}

// victim returns the segment that is best compacted now, nil if none is worth
// it. hurry: the disk is nearly full.
func (c *compactor) victim() (best *segment, hurry bool, err error) {
	used := c.space.used()
	limit, _, on, err := c.space.limits(used)
	if err != nil {
		return nil, false, err
	}
	hurry = used > limit/10*9 || on.Free < uint64(2*c.opt.SegmentBytes)
	number := c.contents.survey().victim(hurry, int64(used), c.opt.SegmentBytes)
	return c.contents.segment(number), hurry, nil
}

// compact writes what still counts of a segment again and gives its room
// back. What is corrupt, or what the medium does not give, stays and keeps the
// segment: values as long as they live, deletes as long as they may be needed.
func (c *compactor) compact(ctx context.Context, s *segment, hurry bool) error {
	m := mover{compactor: c, ctx: ctx, from: s, hurry: hurry}
	if !c.contents.isEmpty(s) {
		if err := m.run(); err != nil {
			return err
		}
	}
	if left, stuck := c.contents.compacted(s, m.missed); stuck {
		c.dir.log.Error("asd: a segment holds what cannot be read", "asd", c.dir.id, "file", s.path, "bytes", left)
		return nil
	}
	return c.retire(s)
}

// retire gives a segment's file up, in which nothing counts any more. It counts
// as a segment until that is durable: before, a power cut brings it back. If the
// name cannot be taken away it is tried another time; whether it has gone after
// all is seen then.
func (c *compactor) retire(s *segment) error {
	spare, reuse := c.wantsSpare(s)
	var err error
	if reuse {
		err = c.dir.fs.Rename(s.path, c.dir.join(spare.name))
	} else {
		err = c.dir.fs.Remove(s.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		reuse, err = false, nil
	}
	if err != nil {
		return err
	}
	if err := c.dir.sync(); err != nil {
		return c.health.fail(err) // nobody may sync again and believe it (rule P6)
	}
	c.contents.forget(s)
	if reuse {
		c.spares.add(spare)
	}
	c.dir.giveUp(s)
	return nil
}

// wantsSpare reports whether a segment's file is kept, and under which name:
// not if it is still read, nor if it is short or room is.
func (c *compactor) wantsSpare(s *segment) (spare, bool) {
	size := c.contents.fileSize(s)
	if n, _ := c.spares.count(); n >= c.opt.Spares || !s.idle() || size < c.opt.SegmentBytes/4*3 || size > c.opt.SegmentBytes {
		return spare{}, false
	}
	used := c.space.used()
	limit, _, on, err := c.space.limits(used)
	if err != nil || used > limit/5*4 || on.Free < uint64(4*c.opt.SegmentBytes) {
		return spare{}, false
	}
	return spare{c.spares.newName(), size}, true
}

// mover copies the entries of a segment that still count.
type mover struct {
	*compactor
	ctx    context.Context // of the compaction
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
	sc := m.dir.scanner(m.from, m.from.size, &bad)
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
	p, ok := m.contents.place(e.Key)
	if e.Delete {
		if !ok && m.contents.needsDelete(m.from, r.Seq, e.Since) {
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
		m.dir.log.Error("asd: a value cannot be moved", "asd", m.dir.id, "key", fmt.Sprintf("%x", e.Key), "file", m.from.path, "err", err)
		if errors.Is(err, osd.ErrCorrupt) && m.opt.OnCorrupt != nil {
			m.opt.OnCorrupt(append([]byte(nil), e.Key...), m.from.corrupt(e.Key, e.Offset, err.Error()))
		}
		return nil
	}
	m.bytes += roundUp(int64(e.Size))
	m.moves = append(m.moves, move{update: osd.Update{Key: e.Key, Value: v}, from: p})
	return nil
}

// flush has the writer append what was gathered, and waits a while so that
// others get on.
func (m *mover) flush() error {
	if len(m.moves) == 0 {
		return nil
	}
	r := &request{moves: m.moves, done: make(chan error, 1)}
	err := m.writer.submit(m.ctx, r, m.bytes)
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
