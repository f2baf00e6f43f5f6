package asd

import (
	"cmp"
	"maps"
	"slices"
)

// What recovery makes of the contents before anybody else has them. Once Open has
// returned none of this is called.

// open takes an open segment in.
func (c *contents) open(s *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.segments[s.number] = s
}

// unopened counts the room of a file named as a segment that could not be opened.
func (c *contents) unopened(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.other += bytes
}

// reset makes the contents empty, and returns the segments that were in it.
func (c *contents) reset() []*segment {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := slices.Collect(maps.Values(c.segments))
	clear(c.segments)
	c.index, c.other = index{}, 0
	return list
}

// load sets the index to that of a checkpoint.
func (c *contents) load(x *index) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index = *x
}

// restore takes over what a checkpoint says of the segments that are there. Its index
// has been loaded.
func (c *contents) restore(k *checkpointed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range k.segments {
		saved := &k.segments[i]
		if s := c.segments[saved.number]; s != nil {
			s.end, s.done, s.tomb, s.since = int64(saved.done), int64(saved.done), int64(saved.tomb), saved.since
		}
	}
	c.index.from(nil, func(key []byte, p place) bool {
		if s := c.segments[p.segment]; s != nil {
			s.live += p.cost(len(key))
		}
		return true
	})
	c.saved = k.seq
}

// inOrder returns the segments from a number on, by number.
func (c *contents) inOrder(from uint32) []*segment {
	list := slices.DeleteFunc(c.all(), func(s *segment) bool { return s.number < from })
	slices.SortFunc(list, func(x, y *segment) int { return cmp.Compare(x.number, y.number) })
	return list
}

// cut takes from each segment what lies behind the last batch that counts.
func (c *contents) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.segments {
		s.end = min(s.end, s.done)
	}
}

// resume sets the seq of the newest batch that counts.
func (c *contents) resume(seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq = seq
}

// setUnread notes that batches could not be read: a key that is not in the index may be there
// all the same.
func (c *contents) setUnread(u *unreadable) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unread = u
}

// highest returns the highest number of a segment that a value is in, or was.
func (c *contents) highest() (number uint32) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	c.index.from(nil, func(_ []byte, p place) bool {
		number = max(number, p.segment)
		return true
	})
	return number
}

// countAbsent returns how many keys have values in segments that are gone, by the
// segments' numbers. They are absent, unless batches could not be read: then the
// segments may be there.
func (c *contents) countAbsent() map[uint32]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	lost := map[uint32]int{}
	c.index.from(nil, func(_ []byte, p place) bool {
		if c.segments[p.segment] == nil {
			lost[p.segment]++
		}
		return true
	})
	for _, keys := range lost {
		if c.unread == nil {
			c.absent += uint64(keys)
		}
	}
	return lost
}
