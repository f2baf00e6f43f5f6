package asd

// What compaction decides by: values that were copied from the contents, and functions
// of them.

// load is what a segment holds.
type load struct {
	number     uint32
	size       int64  // bytes of the file
	live       int64  // bytes that live values take
	tomb       int64  // bytes that deletes take
	since      uint64 // highest segment that one of the deletes was first written to
	lastDelete uint64 // seq of the newest batch with a delete
	stuck      bool   // something in it could not be read
}

// survey is what all segments hold at one time.
type survey struct {
	loads  []load // in any order
	saved  uint64 // seq of the newest checkpoint
	newest uint32 // highest number of a segment
	oldest uint32 // lowest; 0: there is none
	second uint32 // lowest but one; 0: there is none
}

func (s *segment) loadLocked() load {
	return load{number: s.number, size: s.size, live: s.live, tomb: s.tomb, since: s.since, lastDelete: s.lastDelete, stuck: s.stuck}
}

// survey returns what the segments hold now.
func (c *contents) survey() *survey {
	c.mu.RLock()
	defer c.mu.RUnlock()
	v := &survey{loads: make([]load, 0, len(c.segments)), saved: c.saved}
	for _, s := range c.segments {
		v.add(s.loadLocked())
	}
	return v
}

func (v *survey) add(l load) {
	v.loads = append(v.loads, l)
	v.newest = max(v.newest, l.number)
	switch {
	case v.oldest == 0 || l.number < v.oldest:
		v.oldest, v.second = l.number, v.oldest
	case v.second == 0 || l.number < v.second:
		v.second = l.number
	}
}

// needsDeletes reports whether deletes in a segment may still be needed: an older
// segment may hold what they deleted, or the checkpoint does.
func (v *survey) needsDeletes(l *load) bool {
	older := v.oldest // than the deletes, and another one
	if older == l.number {
		older = v.second
	}
	return l.tomb > 0 && (l.lastDelete > v.saved || older != 0 && uint64(older) <= l.since)
}

// dead returns how many bytes of a segment hold nothing any more.
func (v *survey) dead(l *load) int64 {
	n := l.size - l.live - blockSize
	if v.needsDeletes(l) {
		n -= l.tomb
	}
	return max(n, 0)
}

// allDead returns the dead bytes of all segments.
func (v *survey) allDead() (n int64) {
	for i := range v.loads {
		n += v.dead(&v.loads[i])
	}
	return n
}

// newestIsDead reports whether most of the segment that was written last holds nothing
// any more.
func (v *survey) newestIsDead() bool {
	for i := range v.loads {
		if l := &v.loads[i]; l.number == v.newest {
			return l.size > 16*blockSize && v.dead(l) > l.size/2
		}
	}
	return false
}

// Parts of a segment that must be dead for it to be compacted. A copy costs as many
// bytes written as it leaves alive: where room is short, more of that is paid.
const (
	deadPart      = 0.5
	deadPartHurry = 0.1
)

// victim returns the number of the segment that is best compacted now, 0 if none is
// worth it. hurry: the disk is nearly full. used is what the ASD takes, in bytes.
func (v *survey) victim(hurry bool, used, segmentBytes int64) (number uint32) {
	least := deadPart
	if hurry {
		least = deadPartHurry
	}
	most := 0.0
	var tombs int64
	oldestStuck := false
	for i := range v.loads {
		l := &v.loads[i]
		if l.number == v.oldest {
			oldestStuck = l.stuck
		}
		if l.number == v.newest { // it may still be written to
			continue
		}
		if l.live == 0 && !v.needsDeletes(l) {
			return l.number // costs nothing
		}
		tombs += l.tomb
		dead := v.dead(l)
		part := float64(dead) / float64(l.size)
		if l.stuck || part < least || part <= most || dead < 2*blockSize {
			continue
		}
		number, most = l.number, part
	}
	// Deletes pile up as long as the oldest segment lives on.
	if number == 0 && tombs > used/50+segmentBytes && v.oldest != v.newest && !oldestStuck {
		return v.oldest
	}
	return number
}
