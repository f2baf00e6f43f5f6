package asd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"openvstorage/alba/osd"
	"openvstorage/internal/wal"

	"golang.org/x/sys/unix"
)

// run is the writer: the only goroutine that appends. One batch is under way at
// a time: while it is synced the next one gathers. Writing that one already was
// measured to be no faster when the data goes past the page cache.
func (a *ASD) run() {
	defer close(a.stopped)
	var list []*request
	for {
		select {
		case r := <-a.queue:
			list = a.gather(list[:0], r)
			a.commit(list)
			clear(list)
		case <-a.stop:
			return
		}
	}
}

// gather takes what waits, as much as goes into a batch.
func (a *ASD) gather(list []*request, r *request) []*request {
	var size int64
	entries := 0
	for {
		if r.state.CompareAndSwap(waiting, taken) {
			list = append(list, r)
			size += r.bytes()
			entries += len(r.updates) + len(r.moves)
		}
		if size >= a.opt.BatchBytes || entries > entriesMax-osd.UpdatesMax {
			return list
		}
		select {
		case r = <-a.queue:
		default:
			return list
		}
	}
}

func (r *request) bytes() (n int64) {
	for i := range r.updates {
		if u := &r.updates[i]; !u.Delete {
			n += int64(len(u.Value.Data))
		}
	}
	for i := range r.moves {
		n += int64(len(r.moves[i].update.Value.Data))
	}
	return n
}

// commit makes the requests durable, those that may be, and answers all.
func (a *ASD) commit(list []*request) {
	a.write(list, false)
	for _, r := range list {
		r.done <- r.err
	}
}

// write enters the requests into a batch and writes it. On a disk that has no
// room, those that only delete are written once more, to the reserve.
func (a *ASD) write(list []*request, useReserve bool) {
	b := &a.batch
	b.reset()
	roll := false
	room, physical, err := a.roomFor(list)
	for _, r := range list {
		switch {
		case err != nil:
			r.err = err
		case r.roll:
			roll = true
			a.seal()
		case r.puts && b.length()+r.length() > room:
			r.err = fmt.Errorf("%w: %d bytes are left", osd.ErrFull, max(0, room-b.length()))
		case r.moves != nil && b.length()+r.length() > physical:
			r.err = fmt.Errorf("%w: %d bytes are left on the file system", osd.ErrFull, max(0, physical-b.length()))
		default:
			r.err = a.admit(b, r)
		}
	}
	if len(b.entries) == 0 && !roll {
		return
	}
	err = a.append(b, useReserve)
	if err == nil {
		err = a.sync()
	}
	if err == nil {
		a.publish(b)
		a.leaveMark()
		return
	}
	// What was decided about a request rested on those before it.
	noRoom := isNoRoom(err)
	var again []*request
	if noRoom {
		err = fmt.Errorf("%w: %w", osd.ErrFull, err)
	}
	for _, r := range list {
		r.err = err
		if !r.puts && r.moves == nil {
			again = append(again, r)
		}
	}
	if noRoom && !useReserve && len(again) > 0 && a.hasReserve() {
		a.write(again, true)
	}
}

func isNoRoom(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// length is about what a request adds to a batch, rather more.
func (r *request) length() int64 {
	n := r.bytes()
	return n + n/512 + int64(len(r.updates)+len(r.moves))*(blockSize+512) + blockSize
}

func (a *ASD) hasReserve() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.reserve > 0
}

// roomFor returns how many bytes of puts there is room for, and how many of what
// compaction writes: that may exceed the limit, but is not tried in vain, as a
// segment is given up when it cannot grow.
func (a *ASD) roomFor(list []*request) (room, physical int64, err error) {
	a.mu.RLock()
	used, reason := a.usedLocked(), a.reason
	a.mu.RUnlock()
	if reason != nil {
		return 0, 0, reason
	}
	// The name that is written to must still lead to a disk: one that is gone
	// from under the directory would swallow all that follows.
	name := a.opt.Dir
	if s := a.current; s != nil {
		name = s.path
	}
	switch _, err := a.opt.FS.Stat(name); {
	case errors.Is(err, fs.ErrNotExist):
		return 0, 0, a.fail(fmt.Errorf("the ASD's files are gone: %w", err))
	case err != nil:
		return 0, 0, err
	}
	need := int64(0)
	values := false
	for _, r := range list {
		values = values || r.puts || r.moves != nil
		need += r.bytes()
	}
	if !values {
		return 0, 0, nil
	}
	// What a recycled segment has left is counted as used already.
	left := int64(0)
	if s := a.current; s != nil && s.end+need+need/8+blockSize <= a.opt.SegmentBytes {
		left = s.size - s.end
	}
	limit, _, on, err := a.limits(used)
	if err != nil {
		return 0, 0, err
	}
	free := on.Free
	if spares := a.spareBytes(); spares > 0 && (int64(free)-spares < need+need/8+a.opt.reserveSize() || int64(used)+spares+need > int64(limit)) {
		a.dropSpares()
	}
	return min(max(0, int64(limit)-int64(used)), int64(free)) + left, int64(free) + left, nil
}

// admit checks the asserts of a request as they are behind what the batch has
// already, and adds its updates.
func (a *ASD) admit(b *batch, r *request) error {
	for i := range r.asserts {
		s := &r.asserts[i]
		ok, err := a.holds(b, s)
		if err != nil {
			return err
		}
		if !ok {
			return &osd.AssertError{Key: bytes.Clone(s.Key)}
		}
	}
	for i := range r.updates {
		if u := &r.updates[i]; r.skip == nil || !r.skip[i] {
			if u.Delete {
				a.addDelete(b, u.Key)
			} else {
				b.add(entry{Key: u.Key, Size: uint32(len(u.Value.Data)), Seed: u.Value.Seed, Epoch: u.Value.Epoch}, u.Value)
			}
		}
	}
	for i := range r.moves {
		a.addMove(b, &r.moves[i])
	}
	return nil
}

// addDelete adds a delete of a key that is there.
func (a *ASD) addDelete(b *batch, key []byte) {
	i, ok := b.overlay[string(key)]
	if ok && b.entries[i].Delete {
		return
	}
	if !ok {
		if _, ok := a.place(key); !ok {
			return
		}
	}
	// append sets Since when it knows the segment.
	b.add(entry{Key: key, Delete: true}, osd.Value{})
}

// addMove adds what compaction writes again, if it still counts.
func (a *ASD) addMove(b *batch, m *move) {
	key := m.update.Key
	if _, ok := b.overlay[string(key)]; ok {
		return
	}
	p, ok := a.place(key)
	if m.update.Delete {
		if !ok {
			b.add(entry{Key: key, Delete: true, Since: m.since}, osd.Value{})
			b.moved = true
		}
		return
	}
	if ok && p == m.from {
		v := m.update.Value
		b.add(entry{Key: key, Size: uint32(len(v.Data)), Seed: v.Seed, Epoch: v.Epoch}, v)
		b.moved = true
	}
}

// place returns where the index says that a value is.
func (a *ASD) place(key []byte) (place, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.index.get(key)
}

// holds reports whether an assert holds.
func (a *ASD) holds(b *batch, s *osd.Assert) (bool, error) {
	if i, ok := b.overlay[string(s.Key)]; ok {
		e := &b.entries[i]
		switch s.Kind {
		case osd.Exists:
			return !e.Delete, nil
		case osd.Absent:
			return e.Delete, nil
		case osd.NotNewer:
			return e.Delete || e.Epoch <= s.Epoch, nil
		}
		return !e.Delete && bytes.Equal(b.values[i].Data, s.Value), nil
	}
	p, ok := a.place(s.Key)
	switch s.Kind {
	case osd.Exists:
		return ok, nil
	case osd.Absent:
		return !ok, nil
	case osd.NotNewer:
		return !ok || p.epoch <= s.Epoch, nil
	}
	if !ok || int(p.size) != len(s.Value) {
		return false, nil
	}
	have := a.buffer()
	defer a.putBuffer(have)
	var crcs [1]uint32
	if err := a.read(s.Key, 0, have[:p.size], crcs[:osd.Blocks(int(p.size))]); err != nil {
		return false, err
	}
	return bytes.Equal(have[:p.size], s.Value), nil
}

// append writes the batch behind the last one, in a new segment if it does not
// fit or if writing failed (rule P6).
func (a *ASD) append(b *batch, useReserve bool) error {
	if s := a.current; s != nil && (useReserve || s.end > blockSize && s.end+b.length() > a.opt.SegmentBytes) {
		a.seal()
	}
	for try := 0; ; try++ {
		err := a.tryAppend(b, useReserve)
		if err == nil {
			return nil
		}
		a.seal()
		if errors.Is(err, unix.EROFS) {
			return a.fail(err) // no other segment would do better
		}
		if isNoRoom(err) || try > 0 {
			return fmt.Errorf("write: %w", err)
		}
		a.opt.Logger.Warn("asd: a write failed; going on in another segment", "asd", a.identity.ID, "err", err)
	}
}

func (a *ASD) tryAppend(b *batch, useReserve bool) error {
	if a.current == nil {
		s, err := a.begin(b.length(), useReserve)
		if err != nil {
			return err
		}
		a.current = s
		a.lastNumber = s.number
	}
	s := a.current
	b.seq = a.nextSeq
	for i := range b.entries {
		if e := &b.entries[i]; e.Delete && e.Since == 0 {
			e.Since = uint64(s.number)
		}
	}
	b.layOut(s, s.end, a.durable)
	if err := b.write(s.file, s.end); err != nil {
		a.measure(s)
		return err
	}
	b.at = s.end
	a.nextSeq++
	a.mu.Lock()
	defer a.mu.Unlock()
	s.end += b.size
	s.size = max(s.size, s.end)
	return nil
}

// measure notes how long a file is that a write failed on.
func (a *ASD) measure(s *segment) {
	n, err := s.file.Size()
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.size = max(s.size, n)
}

// sync makes all that was appended to the current segment durable. If it
// fails, nothing is believed any more (rule P6).
func (a *ASD) sync() error {
	s := a.current
	a.stats.syncs.Add(1)
	if err := s.file.Datasync(); err != nil {
		return a.fail(err)
	}
	if s.temp != "" {
		if err := a.name(s); err != nil {
			return a.fail(err)
		}
	}
	return nil
}

// publish makes a batch that is durable visible.
func (a *ASD) publish(b *batch) {
	s := a.current
	a.durable = b.seq
	a.count(b)
	a.mu.Lock()
	_, known := a.segments[s.number]
	a.segments[s.number] = s
	a.seq = b.seq
	a.appended += b.size
	died := a.died
	for i := range b.entries {
		e := &b.entries[i]
		a.enterLocked(s, b.seq, &Entry{
			Key: e.Key, Delete: e.Delete, Size: e.Size, Offset: b.at + int64(e.Data), Table: b.at + int64(e.Table),
			Seed: e.Seed, Epoch: e.Epoch, Since: e.Since,
		})
	}
	s.done = b.at + b.size
	work := !known || a.died != died
	a.mu.Unlock()
	if !work {
		return
	}
	a.compact.Ring()
}

func (a *ASD) count(b *batch) {
	c := &a.stats
	c.batches.Add(1)
	if b.moved {
		c.compactBytes.Add(uint64(b.size))
		return
	}
	var values, deletes uint64
	for i := range b.entries {
		values += uint64(len(b.values[i].Data))
		if e := &b.entries[i]; e.Delete {
			deletes += uint64(entrySize + len(e.Key))
		}
	}
	c.valueBytes.Add(values)
	c.tombstoneBytes.Add(deletes)
	c.headBytes.Add(uint64(b.size) - values - deletes)
}

// leaveMark writes what is durable behind the last batch (rule O2). It is not
// synced; the next batch takes its place and says as much.
func (a *ASD) leaveMark() {
	s := a.current
	if s.end+blockSize > a.opt.SegmentBytes {
		return // the next segment will say so
	}
	clear(a.mark)
	wal.AppendHead(a.mark[:0], s.incarnation, wal.Record{Seq: a.nextSeq, Durable: a.durable, Kind: kindMark, Flags: wal.FlagSkippable})
	bufs := append(a.batch.bufs[:0], a.mark[:wal.HeadSize], a.mark[wal.HeadSize:])
	n, err := s.file.WritevAt(bufs, s.end)
	clear(bufs)
	a.stats.headBytes.Add(blockSize)
	a.mu.Lock()
	s.size = max(s.size, s.end+int64(n))
	a.mu.Unlock()
	if err != nil {
		a.seal() // nothing is appended behind a failed write
	}
}

// enterLocked puts an entry of a batch into the index. mu is held.
func (a *ASD) enterLocked(s *segment, seq uint64, e *Entry) {
	if e.Delete {
		s.tomb += int64(entrySize + len(e.Key))
		s.since = max(s.since, e.Since)
		s.lastDelete = seq
		if old, had := a.index.remove(e.Key); had {
			a.diedLocked(old, len(e.Key))
		}
		return
	}
	p := s.place(e)
	s.live += p.cost(len(e.Key))
	if old, had := a.index.put(e.Key, p); had {
		a.diedLocked(old, len(e.Key))
	}
}

func (a *ASD) diedLocked(p place, key int) {
	a.died++
	if s := a.segments[p.segment]; s != nil {
		s.live -= p.cost(key)
	} else if a.absent > 0 {
		a.absent--
	}
}

// cost is the room that a value takes in its segment.
func (p place) cost(key int) int64 {
	n := int64(entrySize + key + 4*osd.Blocks(int(p.size)))
	if packed(p.size) {
		return n + int64(p.size)
	}
	return n + roundUp(int64(p.size))
}
