package writebuffer

import (
	"container/list"
	"log/slog"
	"sync"

	"openvstorage/sco"
)

// evictable are the stored SCOs of a buffer, in the order in which they leave it when
// their files are needed: oldest first, and those whose objects are not at full width
// yet after all others (O5). Its lock is taken inside that of the pool; nothing is
// called under it.
type evictable struct {
	log *slog.Logger

	mu            sync.Mutex
	wide          *list.List // of *SCO
	narrow        *list.List // of *SCO: their objects are not at full width yet
	evictedNarrow int64      // how many of those were evicted
}

func newEvictable(log *slog.Logger) *evictable {
	return &evictable{log: log, wide: list.New(), narrow: list.New()}
}

// add puts a stored SCO behind the others of its width.
func (e *evictable) add(s *SCO, narrow bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.addLocked(s, narrow)
}

func (e *evictable) addLocked(s *SCO, narrow bool) {
	s.list = e.wide
	if narrow {
		s.list = e.narrow
	}
	s.element = s.list.PushBack(s)
}

// remove takes an SCO out, and reports whether it was in.
func (e *evictable) remove(s *SCO) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.removeLocked(s)
}

func (e *evictable) removeLocked(s *SCO) bool {
	if s.element == nil {
		return false
	}
	s.list.Remove(s.element)
	s.element, s.list = nil, nil
	return true
}

// first takes the SCO out that is to be evicted next, nil if there is none. It takes a
// narrow one only if narrow says so: somebody waits, or there is no room.
func (e *evictable) first(narrow bool) *SCO {
	e.mu.Lock()
	front := e.wide.Front()
	said := front != nil
	if front == nil {
		if front = e.narrow.Front(); front == nil || !narrow {
			e.mu.Unlock()
			return nil
		}
		e.evictedNarrow++
		said = e.evictedNarrow > 1
	}
	s := front.Value.(*SCO)
	e.removeLocked(s)
	e.mu.Unlock()
	if !said {
		e.log.Warn("write buffer: full; it has to drop data whose backend object is below full width")
	}
	return s
}

// count is how many SCOs there are of either width, and how many narrow ones were
// evicted.
func (e *evictable) count() (wide, narrow int, evictedNarrow int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.wide.Len(), e.narrow.Len(), e.evictedNarrow
}

func (e *evictable) empty() bool {
	wide, narrow, _ := e.count()
	return wide+narrow == 0
}

// narrowOf returns the narrow SCOs of a log, oldest first.
func (e *evictable) narrowOf(l *Log) (numbers []sco.Number) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for at := e.narrow.Front(); at != nil; at = at.Next() {
		if s := at.Value.(*SCO); s.log == l {
			numbers = append(numbers, s.Number)
		}
	}
	return numbers
}

// widen records that the object of an SCO is at full width.
func (e *evictable) widen(s *SCO) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.list == e.narrow && e.removeLocked(s) {
		e.addLocked(s, false)
	}
}
