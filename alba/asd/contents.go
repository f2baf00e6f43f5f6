package asd

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"

	"openvstorage/alba/osd"
)

// contents is what the ASD holds: its segments, and where in them the newest value of
// each key is. It is all in memory; what is on the medium by then is the caller's affair.
type contents struct {
	// mu guards what follows, and of each segment the fields that say so. It is never
	// held during I/O, and by the writer only as long as it takes to enter a batch.
	mu       sync.RWMutex
	index    index
	segments map[uint32]*segment // that have a name
	seq      uint64              // of the newest batch in the index
	saved    uint64              // seq of the newest checkpoint
	appended int64               // bytes of batches since then
	died     uint64              // values that were deleted or replaced
	absent   uint64              // values in the index whose segments are gone
	unread   *unreadable         // batches that Open needed and the medium did not give; nil: none
	other    int64               // bytes of files named as segments that could not be opened
}

// place returns where the index says that a value is.
func (c *contents) place(key []byte) (place, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.index.get(key)
}

// moved reports whether a value is no longer where it was.
func (c *contents) moved(key []byte, p place) bool {
	q, ok := c.place(key)
	return !ok || q != p
}

// find returns where a value is, and the file, if it is open: it is to be released.
// If it is not, the segment's waiting has been raised by one.
func (c *contents) find(key []byte) (place, *segment, *handle, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	p, ok := c.index.get(key)
	s := c.segments[p.segment]
	switch {
	case (!ok || s == nil) && c.unread != nil:
		return place{}, nil, nil, fmt.Errorf("key %x: %w", key, c.unread)
	case !ok:
		return place{}, nil, nil, osd.ErrNotFound
	case s == nil:
		return place{}, nil, nil, &CorruptError{Key: bytes.Clone(key), File: segmentName(p.segment), What: "the segment is missing or unreadable"}
	}
	if h := s.handle.Load(); h != nil && h.acquire() {
		return p, s, h, nil
	}
	s.waiting.Add(1)
	return p, s, nil, nil
}

// stat returns what is known of keys. A value whose segment is gone is not found,
// unless the segment may be there and only cannot be read.
func (c *contents) stat(keys [][]byte) []osd.Info {
	list := make([]osd.Info, len(keys))
	c.mu.RLock()
	defer c.mu.RUnlock()
	for i, key := range keys {
		p, ok := c.index.get(key)
		if c.unread == nil && c.segments[p.segment] == nil {
			ok = false
		}
		list[i] = osd.Info{Key: bytes.Clone(key), Found: ok, Size: p.size, Epoch: p.epoch}
	}
	return list
}

// list returns up to limit keys from first on, before last unless that is nil, in order.
func (c *contents) list(first, last []byte, limit int) (list []osd.Info) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	c.index.from(first, func(key []byte, p place) bool {
		if len(list) == limit || last != nil && bytes.Compare(key, last) >= 0 {
			return false
		}
		list = append(list, osd.Info{Key: bytes.Clone(key), Found: true, Size: p.size, Epoch: p.epoch})
		return true
	})
	return list
}

// following returns the first key behind another and the size of its value; nil if
// there is none. Behind nil is the first of all.
func (c *contents) following(after []byte) (key []byte, size uint32) {
	first := append(bytes.Clone(after), 0)
	if after == nil {
		first = nil
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	c.index.from(first, func(k []byte, p place) bool {
		key, size = bytes.Clone(k), p.size
		return false
	})
	return key, size
}

// segment returns an open segment by its number, or nil.
func (c *contents) segment(number uint32) *segment {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.segments[number]
}

// publish makes a durable batch of a segment visible. work: there may be something to
// compact now, as the segment is new or values have died.
func (c *contents) publish(s *segment, b *batch) (work bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, known := c.segments[s.number]
	c.segments[s.number] = s
	c.seq = b.seq
	c.appended += b.size
	died := c.died
	for i := range b.entries {
		e := &b.entries[i]
		c.enterLocked(s, b.seq, &Entry{
			Key: e.Key, Delete: e.Delete, Size: e.Size, Offset: b.at + int64(e.Data), Table: b.at + int64(e.Table),
			Seed: e.Seed, Epoch: e.Epoch, Since: e.Since,
		})
	}
	s.done = b.at + b.size
	return !known || c.died != died
}

// enter puts a batch that recovery has read into the index.
func (c *contents) enter(s *segment, r *Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range r.Entries {
		c.enterLocked(s, r.Seq, &r.Entries[i])
	}
	s.done = r.Offset + r.Length
	c.appended += r.Length
}

// enterLocked puts an entry of a batch into the index. mu is held.
func (c *contents) enterLocked(s *segment, seq uint64, e *Entry) {
	if e.Delete {
		s.tomb += int64(entrySize + len(e.Key))
		s.since = max(s.since, e.Since)
		s.lastDelete = seq
		if old, had := c.index.remove(e.Key); had {
			c.diedLocked(old, len(e.Key))
		}
		return
	}
	p := s.place(e)
	s.live += p.cost(len(e.Key))
	if old, had := c.index.put(e.Key, p); had {
		c.diedLocked(old, len(e.Key))
	}
}

func (c *contents) diedLocked(p place, key int) {
	c.died++
	if s := c.segments[p.segment]; s != nil {
		s.live -= p.cost(key)
	} else if c.absent > 0 {
		c.absent--
	}
}

// grew notes how long a segment's file is at least, and by how much its batches reach
// further.
func (c *contents) grew(s *segment, batch, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.end += batch
	s.size = max(s.size, s.end, size)
}

// forget takes a segment out whose file is gone.
func (c *contents) forget(s *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.segments, s.number)
}

// all returns the segments, in any order.
func (c *contents) all() []*segment {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Collect(maps.Values(c.segments))
}

// stale reports whether the newest checkpoint lacks a batch.
func (c *contents) stale() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.seq != c.saved
}

// newest returns the seq of the newest batch in the index.
func (c *contents) newest() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.seq
}

// bytes returns the room that the segments take.
func (c *contents) bytes() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n := c.other
	for _, s := range c.segments {
		n += s.size
	}
	return n
}

// keys returns how many keys there are, and of how many of them the segment is gone.
func (c *contents) keys() (keys, absent uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return uint64(c.index.keys), c.absent
}

// unsaved returns the bytes of the batches that no checkpoint holds.
func (c *contents) unsaved() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.appended
}

// snapshot returns the segments, by number, and the seq that a checkpoint of them and of
// the index holds all of.
func (c *contents) snapshot() (seq uint64, list []savedSegment) {
	c.mu.RLock()
	list = make([]savedSegment, 0, len(c.segments))
	for _, s := range c.segments {
		list = append(list, savedSegment{s.number, uint32(s.tomb), s.incarnation, uint64(s.done), s.since})
	}
	seq = c.seq
	c.mu.RUnlock()
	slices.SortFunc(list, func(x, y savedSegment) int { return int(int64(x.number) - int64(y.number)) })
	return seq, list
}

// appendPlaces appends keys from first on, as a checkpoint has them, until b has so many
// bytes or more. It returns how many they were, and the key to go on with, nil: none.
func (c *contents) appendPlaces(b, first []byte, bytes int) (_ []byte, keys uint64, next []byte) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	c.index.from(first, func(key []byte, p place) bool {
		if len(b) >= bytes {
			next = append(first[:0], key...)
			return false
		}
		at := len(b)
		b = append(b, byte(len(key)))
		b = append(b, make([]byte, placeSize)...)
		p.put(b[at+1:])
		b = append(b, key...)
		keys++
		return true
	})
	return b, keys, next
}

// needsDelete reports whether a delete in a segment may still be needed: another segment
// that is no younger than the delete may hold what it deleted, or the checkpoint does.
// seq is the delete's. since is the segment that it was first written to: an older copy of
// the value can only be in that one or in one before it.
func (c *contents) needsDelete(s *segment, seq, since uint64) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.needsDeleteLocked(s, seq, since)
}

func (c *contents) needsDeleteLocked(s *segment, seq, since uint64) bool {
	if seq > c.saved {
		return true
	}
	for n := range c.segments {
		if n != s.number && uint64(n) <= since {
			return true
		}
	}
	return false
}

func (c *contents) needsDeletesLocked(s *segment) bool {
	return s.tomb > 0 && c.needsDeleteLocked(s, s.lastDelete, s.since)
}

// isEmpty reports whether nothing in a segment counts any more.
func (c *contents) isEmpty(s *segment) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return s.live == 0 && !c.needsDeletesLocked(s)
}

// compacted notes what compaction has left in a segment. stuck: something that counts,
// or may. missed: there may be entries that compaction has not seen.
func (c *contents) compacted(s *segment, missed bool) (left int64, stuck bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.stuck = s.live != 0 || missed && c.needsDeletesLocked(s)
	return s.live, s.stuck
}

// fileSize returns the length of a segment's file.
func (c *contents) fileSize(s *segment) int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return s.size
}

// checkpointed notes that a checkpoint that holds all up to a seq is on the medium. A
// failed one, not ok, is not tried again until as much has been written anew.
func (c *contents) checkpointed(seq uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.appended = 0
	if ok {
		c.saved = seq
	}
}
