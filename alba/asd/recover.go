package asd

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
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

	// What the medium does not give, and damage that may hide batches: see
	// unreadable.go.
	bad   int         // blocks that could not be read
	hole  *unreadable // the first that batches may be in
	floor uint64      // a seq that may have been used in what was seen last
	blind uint32      // highest segment of which nothing could be read
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
	switch {
	case err == nil:
	case isUnreadable(err), isDamage(err), medium(err):
		a.opt.Logger.Warn("asd: reading all segments", "asd", a.identity.ID, "dir", a.opt.Dir, "err", err)
		c = nil
	default:
		return err
	}
	r := &recovery{ASD: a}
	if c != nil {
		if err := r.openSegments(numbers, c); err != nil {
			return err
		}
		if !a.matches(c) {
			a.opt.Logger.Warn("asd: the checkpoint of the index is of other segments; reading all of them", "asd", a.identity.ID, "dir", a.opt.Dir)
			a.closeSegments()
			c = nil
			r = &recovery{ASD: a}
		}
	}
	if c == nil {
		a.index = index{}
		if err := r.openSegments(numbers, nil); err != nil {
			return err
		}
	}
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
		a.leave(s)
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
	a.accepting = slices.Contains(names, acceptName)
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

// openSegments opens the segments. One whose bytes are wrong is left alone and
// reported, and so are the values in it.
func (r *recovery) openSegments(numbers []uint32, c *checkpointed) error {
	a := r.ASD
	for _, n := range numbers {
		a.lastNumber = max(a.lastNumber, n)
		s, err := r.openSegment(n, c)
		switch {
		case err == nil:
			a.segments[n] = s
		case errors.Is(err, format.ErrNewer):
			return fmt.Errorf("%s: %w", segmentName(n), err)
		case isUnreadable(err):
			r.blind = n
			r.lacks(err, 0)
		case isDamage(err):
			r.blind = n
			a.damaged(Damage{File: path.Join(a.opt.Dir, segmentName(n)), What: "the segment is none: " + err.Error()})
		default:
			return err
		}
	}
	return nil
}

func (r *recovery) openSegment(n uint32, c *checkpointed) (*segment, error) {
	a := r.ASD
	s := &segment{number: n, path: path.Join(a.opt.Dir, segmentName(n)), end: blockSize, done: blockSize}
	h, err := a.file(s)
	if medium(err) { // not even its inode; once more
		if h, err = a.file(s); medium(err) {
			return nil, &unreadable{file: s.path, cause: err}
		}
	}
	if err != nil {
		return nil, err
	}
	defer h.release(a.files)
	if s.size, err = h.file.Size(); err != nil {
		a.leave(s)
		return nil, err
	}
	err = r.identify(s, h.file)
	if k := c.find(n); k != nil && (isDamage(err) || isUnreadable(err)) {
		// The checkpoint knows all that the header said.
		a.damaged(Damage{File: s.path, Length: blockSize, What: "header: " + err.Error()})
		s.incarnation, err = k.incarnation, nil
	}
	if err != nil {
		a.other += s.size
		a.leave(s)
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
	case h.ASD != r.identity.ID:
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

// firstSeq is that of the first batch of a segment, which was synced before the
// segment had its name; zero if it is damaged or the medium does not give it.
func (r *recovery) firstSeq(s *segment) (uint64, error) {
	rec, err := r.scanner(s, s.size, new(int)).record(blockSize)
	if err != nil && !isDamage(err) && !isUnreadable(err) {
		return 0, err
	}
	if rec == nil || rec.Mark {
		return 0, nil
	}
	return rec.Seq, nil
}

// scanSegment reads a segment's batches up to limit, zero: to its end. adjacent:
// those with seqs up to limit are in it, or were.
func (r *recovery) scanSegment(s *segment, limit uint64, adjacent bool) error {
	end, err := r.scanner(s, s.size, &r.bad).scan(s.done, r.last, limit, func(rec *Record) error {
		switch {
		case isUnreadable(rec.Err) && limit != 0 && r.last+1 >= limit:
			return nil // all that counts of this segment has been read
		case rec.Gap && isUnreadable(rec.Err):
			r.lacks(rec.Err, uint64(rec.Length/blockSize))
			return nil
		case rec.Gap:
			r.damaged(Damage{File: s.path, Offset: rec.Offset, Length: rec.Length, What: fmt.Sprintf("batches behind %d are lost: %v", r.last, rec.Err)})
			return nil
		case !rec.Mark:
			r.last, r.floor = rec.Seq, 0
			r.tail = append(r.tail, pending{s, rec})
			if isUnreadable(rec.Err) {
				r.lacks(rec.Err, 0)
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
		if p.Err != nil && !isUnreadable(p.Err) {
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
	if err := r.cutTail(); err != nil {
		return err
	}
	r.numbersInUse()
	switch {
	case r.hole != nil && !a.accepting:
		a.unread = r.hole
		r.showTail(fmt.Errorf("%w; if that lasts, replace the disk, or make the file %s to go on without what lies there", r.hole, path.Join(a.opt.Dir, acceptName)))
	case len(r.tail) > 0:
		if err := r.writeTail(); err != nil {
			r.showTail(err)
		}
	}
	for _, s := range a.segments {
		if s.end > s.done { // what was cut
			s.end = s.done
		}
	}
	r.numbersInUse()
	r.reportLost()
	if a.reason != nil {
		return nil
	}
	// Numbers that may have been used in what cannot be read are not used again.
	if r.floor > a.seq {
		a.durable, a.nextSeq, a.seq = r.floor, r.floor+1, r.floor
	}
	return r.accept()
}

// cutTail cuts the tail where it is not whole: such a batch was not finished.
func (r *recovery) cutTail() error {
	for i, p := range r.tail {
		err := p.Err
		if p.Seq != r.durable+1+uint64(i) {
			err = fmt.Errorf("%w: batch %d follows %d", ErrFormat, p.Seq, r.durable+uint64(i))
		}
		for j := 0; err == nil && j < len(p.Entries); j++ {
			err = p.Check(j)
		}
		switch {
		case err == nil:
			continue
		case isUnreadable(err):
			// It may have been, and been acknowledged.
			r.lacks(err, 0)
			r.floor = max(r.floor, r.last)
		case !isDamage(err):
			return err
		}
		r.opt.Logger.Info("asd: an unfinished batch is cut", "asd", r.identity.ID, "file", p.segment.path, "offset", p.Offset, "why", err)
		r.tail = r.tail[:i]
		break
	}
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
		if r.unread == nil { // else they may be there
			r.absent += uint64(keys)
		}
		r.damaged(Damage{File: path.Join(r.opt.Dir, segmentName(n)), What: fmt.Sprintf("the segment is missing or unreadable; %d keys are in it", keys)})
	}
}

// writeTail writes the tail again, to a new segment that gets its name when it
// has all of it. A sync of the file where it is would tell nothing: one may have
// failed before, in this process or another, and the next succeeds all the same
// (rule P6). On a disk without room it goes to the reserve.
func (r *recovery) writeTail() error {
	a := r.ASD
	err := r.copyTail(false)
	if isNoRoom(err) && a.reason == nil {
		a.seal()
		a.nextSeq = r.durable + 1
		if again := r.copyTail(true); again == nil {
			return nil
		}
	}
	if err != nil {
		a.seal()
		return fmt.Errorf("the last batches cannot be written again: %w", err)
	}
	return nil
}

// showTail makes the ASD read-only, with the tail in the index: nobody knows
// whether it was acknowledged, nor whether the medium has it. It is decided when
// the ASD is opened anew.
func (r *recovery) showTail(why error) {
	r.fail(why)
	for _, p := range r.tail {
		r.enter(p)
	}
}

func (r *recovery) copyTail(useReserve bool) error {
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
		if err := a.tryAppend(b, useReserve); err != nil {
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
