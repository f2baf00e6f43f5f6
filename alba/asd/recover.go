package asd

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"openvstorage/alba/osd"
	"openvstorage/internal/format"
)

// damageMax bounds what Damage remembers.
const damageMax = 1000

// recovery brings the index up to date when the ASD is opened.
type recovery struct {
	*ASD
	last    uint64 // seq of the newest batch seen
	durable uint64 // highest mark seen
	// tail is the batches of which no mark says yet that they were synced.
	tail []pending
}

type pending struct {
	segment *segment
	*Record
}

func (a *ASD) damaged(d Damage) {
	a.opt.Logger.Error("asd: damage", "asd", a.identity.ID, "file", d.File, "offset", d.Offset, "length", d.Length, "what", d.What)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.damage) < damageMax {
		a.damage = append(a.damage, d)
	}
}

// replay reads the checkpoint and the segments behind it.
func (a *ASD) replay() error {
	numbers, err := a.list()
	if err != nil {
		return err
	}
	c, err := a.loadCheckpoint()
	if err != nil {
		if errors.Is(err, format.ErrNewer) {
			return err
		}
		a.opt.Logger.Warn("asd: reading all segments", "asd", a.identity.ID, "dir", a.opt.Dir, "err", err)
		c = nil
	}
	if c != nil {
		if err := a.openSegments(numbers, c); err != nil {
			return err
		}
		if !a.matches(c) {
			a.opt.Logger.Warn("asd: the checkpoint of the index is of other segments; reading all of them", "asd", a.identity.ID, "dir", a.opt.Dir)
			a.closeSegments()
			c = nil
		}
	}
	if c == nil {
		a.index = index{}
		if err := a.openSegments(numbers, nil); err != nil {
			return err
		}
	}
	r := &recovery{ASD: a}
	if c != nil {
		r.begin(c)
	}
	if err := r.scan(c); err != nil {
		return err
	}
	return r.finish()
}

func (a *ASD) closeSegments() {
	for _, s := range a.segments {
		s.release()
	}
	clear(a.segments)
	a.other = 0
	a.damage = nil
}

// list returns the numbers of the segments and removes files that never got
// their name.
func (a *ASD) list() (numbers []uint32, err error) {
	names, err := a.opt.FS.ReadDir(a.opt.Dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names { // sorted, and so are the numbers
		if n, ok := parseName(name); ok {
			numbers = append(numbers, n)
			continue
		}
		if name == newName || name == indexNew || name == identityNew || name == claimNew || strings.HasPrefix(name, sparePrefix) {
			if err := a.opt.FS.Remove(path.Join(a.opt.Dir, name)); err != nil {
				a.opt.Logger.Warn("asd: cannot remove a file", "dir", a.opt.Dir, "file", name, "err", err)
			}
		}
	}
	return numbers, nil
}

// openSegments opens the segments. One that cannot be read is left alone and
// reported, and so are the values in it.
func (a *ASD) openSegments(numbers []uint32, c *checkpointed) error {
	for _, n := range numbers {
		a.lastNumber = max(a.lastNumber, n)
		s, err := a.openSegment(n, c)
		if errors.Is(err, format.ErrNewer) {
			return fmt.Errorf("%s: %w", segmentName(n), err)
		}
		if err != nil {
			a.damaged(Damage{File: path.Join(a.opt.Dir, segmentName(n)), What: "the segment cannot be read: " + err.Error()})
			continue
		}
		a.segments[n] = s
	}
	return nil
}

func (a *ASD) openSegment(n uint32, c *checkpointed) (*segment, error) {
	s := &segment{number: n, path: path.Join(a.opt.Dir, segmentName(n)), end: blockSize, done: blockSize}
	f, err := a.opt.FS.OpenFile(s.path, 0, 0)
	if err != nil {
		return nil, err
	}
	s.file = f
	s.refs.Store(1)
	if s.size, err = f.Size(); err != nil {
		s.release()
		return nil, err
	}
	h, err := readHeader(f)
	switch {
	case err == nil && h.ASD != a.identity.ID:
		err = fmt.Errorf("it belongs to ASD %v", h.ASD)
	case err == nil && h.Number != uint64(n):
		err = fmt.Errorf("its header says segment %d", h.Number)
	case err == nil:
		s.incarnation = h.Incarnation
		return s, nil
	}
	if k := c.find(n); k != nil && !errors.Is(err, format.ErrNewer) {
		// The checkpoint knows all that the header said.
		a.damaged(Damage{File: s.path, Length: blockSize, What: "header: " + err.Error()})
		s.incarnation = k.incarnation
		return s, nil
	}
	a.other += s.size
	s.release()
	return nil, err
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
func (a *ASD) matches(c *checkpointed) bool {
	for i := range c.segments {
		k := &c.segments[i]
		if s := a.segments[k.number]; s != nil && (s.incarnation != k.incarnation || int64(k.done) > s.size) {
			return false
		}
	}
	return true
}

// begin takes over what the checkpoint says.
func (r *recovery) begin(c *checkpointed) {
	a := r.ASD
	for i := range c.segments {
		k := &c.segments[i]
		if s := a.segments[k.number]; s != nil {
			s.end, s.done, s.tomb, s.since = int64(k.done), int64(k.done), int64(k.tomb), k.since
		}
	}
	a.index.from(nil, func(key []byte, p place) bool {
		if s := a.segments[p.segment]; s != nil {
			s.live += p.cost(len(key))
		}
		return true
	})
	a.saved, a.savedSize = c.seq, c.size
	r.last, r.durable = c.seq, c.seq
}

// scan reads what the checkpoint does not have.
func (r *recovery) scan(c *checkpointed) error {
	var order []*segment
	for _, s := range r.segments {
		order = append(order, s)
	}
	slices.SortFunc(order, func(x, y *segment) int { return int(int64(x.number) - int64(y.number)) })
	covered := uint32(0)
	if c != nil && len(c.segments) > 0 {
		covered = c.segments[len(c.segments)-1].number
	}
	order = slices.DeleteFunc(order, func(s *segment) bool { return s.number < covered })
	for i, s := range order {
		limit := uint64(0)
		adjacent := false
		for _, next := range order[i+1:] {
			if limit = r.firstSeq(next); limit != 0 {
				adjacent = next.number == s.number+1
				break
			}
		}
		if err := r.scanSegment(s, limit, adjacent); err != nil {
			return err
		}
	}
	return nil
}

// firstSeq is that of the first batch of a segment, which was synced before the
// segment had its name; zero if it cannot be read.
func (r *recovery) firstSeq(s *segment) uint64 {
	sc := &scanner{file: s.file, incarnation: s.incarnation, size: s.size}
	rec, err := sc.record(blockSize)
	if err != nil || rec == nil || rec.Mark {
		return 0
	}
	return rec.Seq
}

// scanSegment reads a segment's batches up to limit, zero: to its end. adjacent:
// those with seqs up to limit are in it, or were.
func (r *recovery) scanSegment(s *segment, limit uint64, adjacent bool) error {
	sc := &scanner{file: s.file, incarnation: s.incarnation, size: s.size}
	end, err := sc.scan(s.done, r.last, limit, func(rec *Record) error {
		switch {
		case rec.Gap:
			r.damaged(Damage{File: s.path, Offset: rec.Offset, Length: rec.Length, What: fmt.Sprintf("batches behind %d are lost: %v", r.last, rec.Err)})
			return nil
		case !rec.Mark:
			r.last = rec.Seq
			r.tail = append(r.tail, pending{s, rec})
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
		// What is there of these was synced before the next segment began.
		r.settle(limit - 1)
	}
	return nil
}

// settle enters the batches that are known to have been synced.
func (r *recovery) settle(durable uint64) {
	r.durable = max(r.durable, durable)
	for len(r.tail) > 0 && r.tail[0].Seq <= r.durable {
		p := r.tail[0]
		r.tail = r.tail[1:]
		if p.Err != nil {
			r.damaged(Damage{File: p.segment.path, Offset: p.Offset, Length: p.Length, What: fmt.Sprintf("batch %d: %v", p.Seq, p.Err)})
		}
		r.enter(p)
	}
}

func (r *recovery) enter(p pending) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range p.Entries {
		r.enterLocked(p.segment, p.Seq, &p.Entries[i])
	}
	p.segment.done = p.Offset + p.Length
	r.appended += p.Length
}

// finish deals with the tail and with what was cut.
func (r *recovery) finish() error {
	a := r.ASD
	a.durable, a.nextSeq, a.seq = r.durable, r.durable+1, r.durable
	for i, p := range r.tail {
		err := p.Err
		if p.Seq != r.durable+1+uint64(i) {
			err = fmt.Errorf("batch %d follows %d", p.Seq, r.durable+uint64(i))
		}
		for j := 0; err == nil && j < len(p.Entries); j++ {
			err = p.Check(j)
		}
		if err != nil {
			a.opt.Logger.Info("asd: an unfinished batch is cut", "asd", a.identity.ID, "file", p.segment.path, "offset", p.Offset, "why", err)
			r.tail = r.tail[:i]
			break
		}
	}
	if len(r.tail) > 0 {
		r.numbersInUse()
		r.writeTail()
	}
	for _, s := range a.segments {
		if s.end > s.done { // what was cut
			s.end = s.done
		}
	}
	r.numbersInUse()
	r.reportLost()
	return nil
}

// numbersInUse keeps new segments from having the number of one that is gone but
// that the checkpoint speaks of.
func (r *recovery) numbersInUse() {
	r.index.from(nil, func(key []byte, p place) bool {
		r.lastNumber = max(r.lastNumber, p.segment)
		return true
	})
}

// reportLost reports the keys whose segments are gone.
func (r *recovery) reportLost() {
	lost := map[uint32]int{}
	r.index.from(nil, func(key []byte, p place) bool {
		if r.segments[p.segment] == nil {
			lost[p.segment]++
		}
		return true
	})
	for n, keys := range lost {
		r.damaged(Damage{File: path.Join(r.opt.Dir, segmentName(n)), What: fmt.Sprintf("the segment is missing or unreadable; %d keys are in it", keys)})
	}
}

// writeTail writes the tail again, to a new segment that gets its name when it
// has all of it. If that cannot be done the tail is left where it is: the
// kernel had it, and is asked once more to bring it to the medium.
func (r *recovery) writeTail() {
	a := r.ASD
	err := r.copyTail()
	if err == nil {
		return
	}
	a.seal()
	a.opt.Logger.Warn("asd: cannot write the last batches again", "asd", a.identity.ID, "dir", a.opt.Dir, "err", err)
	a.nextSeq = r.durable + 1
	for _, p := range r.tail {
		if err := p.segment.file.Datasync(); err != nil {
			a.fail(err)
		}
		r.enter(p)
		a.nextSeq, a.seq, a.durable = p.Seq+1, p.Seq, p.Seq
	}
}

func (r *recovery) copyTail() error {
	a := r.ASD
	batches := make([]*batch, len(r.tail))
	for i, p := range r.tail {
		b := &batch{}
		b.reset()
		for j := range p.Entries {
			e := &p.Entries[j]
			var v osd.Value
			if !e.Delete {
				var err error
				if v, err = p.s.value(e, nil); err != nil {
					return err
				}
			}
			b.add(entry{Key: e.Key, Delete: e.Delete, Size: e.Size, Seed: e.Seed, Epoch: e.Epoch, Since: e.Since}, v)
		}
		if err := a.tryAppend(b, false); err != nil {
			return err
		}
		batches[i] = b
	}
	if err := a.sync(); err != nil {
		return err
	}
	for _, b := range batches {
		a.publish(b)
	}
	return nil
}
