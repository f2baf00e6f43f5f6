package asd

import (
	"errors"
	"fmt"
	"slices"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"
)

// damageMax bounds what Damage remembers.
const damageMax = 1000

// recovery brings the index up to date when the ASD is opened. Nobody else is there yet.
type recovery struct {
	dir         *directory
	health      *health
	contents    *contents
	checkpoints *checkpoints
	log         *appender
	accepting   bool // an operator says to go on without what cannot be read

	damage  []Damage
	last    uint64 // seq of the newest batch seen
	durable uint64 // highest mark seen
	// tail holds the batches above durable: it is not known whether they were synced.
	tail []pending

	// What the medium does not give, and damage that may hide batches: see
	// unreadable.go.
	bad   int         // blocks that could not be read
	hole  *unreadable // the first that batches may be in
	floor uint64      // highest seq that may have been used in what could not be read last; 0: none
	blind uint32      // highest segment of which nothing could be read
}

// pending is a batch in the tail.
type pending struct {
	segment *segment
	*Record
}

func (r *recovery) damaged(d Damage) {
	r.dir.log.Error("asd: damage", "asd", r.dir.id, "file", d.File, "offset", d.Offset, "length", d.Length, "what", d.What)
	if len(r.damage) < damageMax {
		r.damage = append(r.damage, d)
	}
}

// recover reads the checkpoint and the segments behind it. It returns the damage that it
// met.
func (a *ASD) recover() ([]Damage, error) {
	numbers, accepting, err := a.dir.list()
	if err != nil {
		return nil, err
	}
	begin := func() *recovery {
		return &recovery{
			dir: &a.dir, health: &a.health, contents: &a.contents, checkpoints: &a.checkpoints, log: &a.appender, accepting: accepting,
		}
	}
	r := begin()
	c, err := r.loadCheckpoint()
	if err != nil {
		return nil, err
	}
	if c != nil {
		if err := r.openSegments(numbers, c); err != nil {
			return nil, err
		}
		if !r.matches(c) {
			r.dir.log.Warn("asd: the checkpoint of the index is of other segments; reading all of them", "asd", r.dir.id, "dir", r.dir.path)
			for _, s := range r.contents.reset() {
				r.dir.giveUp(s)
			}
			c = nil
			r = begin()
		}
	}
	if c == nil {
		if err := r.openSegments(numbers, nil); err != nil {
			return nil, err
		}
	} else {
		r.begin(c)
	}
	if err := r.scan(c); err != nil {
		return nil, err
	}
	err = r.finish()
	return r.damage, err
}

// loadCheckpoint reads the checkpoint into the index. It returns nil if there is none, or
// none that can be used: the segments have all that it has.
func (r *recovery) loadCheckpoint() (*checkpointed, error) {
	c, err := r.checkpoints.load()
	if isUnreadable(err) || isDamage(err) || medium(err) {
		r.dir.log.Warn("asd: reading all segments", "asd", r.dir.id, "dir", r.dir.path, "err", err)
		return nil, nil
	}
	return c, err
}

// openSegments opens the segments. A file whose header is wrong is reported and left
// alone; reportLost reports the values in it.
func (r *recovery) openSegments(numbers []uint32, c *checkpointed) error {
	for _, n := range numbers {
		r.log.used(n)
		s, err := r.openSegment(n, c)
		switch {
		case err == nil:
			r.contents.open(s)
		case errors.Is(err, format.ErrNewer):
			return fmt.Errorf("%s: %w", segmentName(n), err)
		case isUnreadable(err):
			r.blind = n
			r.noteUnreadable(err, 0)
		case isDamage(err):
			r.blind = n
			r.damaged(Damage{File: r.dir.join(segmentName(n)), What: "the segment is none: " + err.Error()})
		default:
			return err
		}
	}
	return nil
}

func (r *recovery) openSegment(n uint32, c *checkpointed) (*segment, error) {
	s := &segment{number: n, path: r.dir.join(segmentName(n)), end: blockSize, done: blockSize}
	h, err := r.dir.acquire(s)
	if medium(err) { // not even its inode; once more
		if h, err = r.dir.acquire(s); medium(err) {
			return nil, &unreadable{file: s.path, cause: err}
		}
	}
	if err != nil {
		return nil, err
	}
	defer h.release(r.dir.files)
	if s.size, err = h.file.Size(); err != nil {
		r.dir.giveUp(s)
		return nil, err
	}
	err = r.identify(s, h.file)
	if k := c.find(n); k != nil && (isDamage(err) || isUnreadable(err)) {
		// The checkpoint knows all that the header said.
		r.damaged(Damage{File: s.path, Length: blockSize, What: "header: " + err.Error()})
		s.incarnation, err = k.incarnation, nil
	}
	if err != nil {
		r.contents.unopened(s.size)
		r.dir.giveUp(s)
		return nil, err
	}
	return s, nil
}

// identify reads a segment's header.
func (r *recovery) identify(s *segment, f disk.File) error {
	h, err := readHeader(f, s.path, &r.bad)
	switch {
	case err != nil:
		return err
	case h.ASD != r.dir.id:
		return fmt.Errorf("%w: it belongs to ASD %v", format.ErrCorrupt, h.ASD)
	case h.Number != uint64(s.number):
		return fmt.Errorf("%w: its header says segment %d", format.ErrCorrupt, h.Number)
	}
	s.incarnation = h.Incarnation
	return nil
}

func (c *checkpointed) find(number uint32) *savedSegment {
	if c == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(c.segments, number, func(s savedSegment, n uint32) int { return int(int64(s.number) - int64(n)) })
	if !ok {
		return nil
	}
	return &c.segments[i]
}

// matches reports whether the checkpoint speaks of the segments that are there.
func (r *recovery) matches(c *checkpointed) bool {
	for i := range c.segments {
		k := &c.segments[i]
		if s := r.contents.segment(k.number); s != nil && (s.incarnation != k.incarnation || int64(k.done) > s.size) {
			return false
		}
	}
	return true
}

// begin takes over what the checkpoint says.
func (r *recovery) begin(c *checkpointed) {
	r.contents.restore(c)
	r.checkpoints.found(c)
	r.last, r.durable = c.seq, c.seq
}

// scan reads what the checkpoint does not have.
func (r *recovery) scan(c *checkpointed) error {
	covered := uint32(0)
	if c != nil && len(c.segments) > 0 {
		covered = c.segments[len(c.segments)-1].number
	}
	order := r.contents.inOrder(covered)
	for i, s := range order {
		limit := uint64(0)
		adjacent := false
		for _, next := range order[i+1:] {
			var err error
			if limit, err = r.firstSeq(next); err != nil {
				return err
			}
			if limit != 0 {
				adjacent = next.number == s.number+1
				break
			}
		}
		if err := r.scanSegment(s, limit, adjacent); err != nil {
			return err
		}
	}
	if r.blind > 0 && (len(order) == 0 || r.blind > order[len(order)-1].number) {
		r.floor = r.last + segmentMax/blockSize
	}
	return nil
}

// firstSeq returns the seq of a segment's first batch, zero if that is damaged or the
// medium does not give it. A segment gets its name after that batch was synced, so
// there was one.
func (r *recovery) firstSeq(s *segment) (uint64, error) {
	rec, err := r.dir.scanner(s, s.size, new(int)).record(blockSize)
	if err != nil && !isDamage(err) && !isUnreadable(err) {
		return 0, err
	}
	if rec == nil || rec.Mark {
		return 0, nil
	}
	return rec.Seq, nil
}

// scanSegment reads a segment's batches with seqs below limit, all of them if that is
// zero. adjacent: limit is the first seq of the very next segment, so all seqs below it
// were in this one or before.
func (r *recovery) scanSegment(s *segment, limit uint64, adjacent bool) error {
	end, err := r.dir.scanner(s, s.size, &r.bad).scan(s.done, r.last, limit, func(rec *Record) error {
		switch {
		case isUnreadable(rec.Err) && limit != 0 && r.last+1 >= limit:
			return nil // all that counts of this segment has been read
		case rec.Gap && isUnreadable(rec.Err):
			r.noteUnreadable(rec.Err, uint64(rec.Length/blockSize))
			return nil
		case rec.Gap:
			r.damaged(Damage{File: s.path, Offset: rec.Offset, Length: rec.Length, What: fmt.Sprintf("batches behind %d are lost: %v", r.last, rec.Err)})
			return nil
		case !rec.Mark:
			r.last, r.floor = rec.Seq, 0
			r.tail = append(r.tail, pending{s, rec})
			if isUnreadable(rec.Err) {
				r.noteUnreadable(rec.Err, 0)
			}
		}
		r.settle(rec.Durable)
		return nil
	})
	if err != nil {
		return err
	}
	s.end = end
	if adjacent && r.last+1 < limit {
		r.damaged(Damage{File: s.path, Offset: end, Length: s.size - end, What: fmt.Sprintf("batches %d to %d are lost", r.last+1, limit-1)})
	}
	if limit != 0 {
		// The next segment began after the last sync of this one.
		r.settle(limit - 1)
	}
	return nil
}

// settle enters the batches up to durable into the index: they were synced.
func (r *recovery) settle(durable uint64) {
	r.durable = max(r.durable, durable)
	for len(r.tail) > 0 && r.tail[0].Seq <= r.durable {
		p := r.tail[0]
		r.tail = r.tail[1:]
		if p.Err != nil && !isUnreadable(p.Err) {
			r.damaged(Damage{File: p.segment.path, Offset: p.Offset, Length: p.Length, What: fmt.Sprintf("batch %d: %v", p.Seq, p.Err)})
		}
		r.contents.enter(p.segment, p.Record)
	}
}
