package writebuffer

import (
	"iter"
	"sync/atomic"

	"openvstorage/sco"
)

// present are the SCOs of a log that can be read from the buffer. Readers find one
// without a lock; put and take are called one at a time, in the append section.
type present struct{ table atomic.Pointer[table] }

// find returns the SCO, nil if it is not in the buffer. It may be on its way out:
// whoever reads it acquires it first.
func (p *present) find(n sco.Number) *SCO { return p.table.Load().find(n) }

// all are the SCOs that are present at the time of the call, in order.
func (p *present) all() iter.Seq[*SCO] {
	scos := p.table.Load().scos
	return func(yield func(*SCO) bool) {
		for _, s := range scos {
			if s != nil && !yield(s) {
				return
			}
		}
	}
}

func (p *present) put(s *SCO) { p.table.Store(p.table.Load().with(s.Number, s)) }

func (p *present) take(n sco.Number) { p.table.Store(p.table.Load().with(n, nil)) }

func (p *present) clear() { p.table.Store(&table{}) }

// table finds SCOs by number without a lock: a slice from the lowest number
// on, replaced whole when an SCO comes or goes.
type table struct {
	base sco.Number
	scos []*SCO
}

func (t *table) find(n sco.Number) *SCO {
	if i := uint64(n - t.base); n >= t.base && i < uint64(len(t.scos)) {
		return t.scos[i]
	}
	return nil
}

// with returns a copy that has s, or without the SCO numbered n if s is nil.
func (t *table) with(n sco.Number, s *SCO) *table {
	low, high := n, n
	for i, o := range t.scos {
		if o == nil || o.Number == n {
			continue
		}
		low, high = min(low, t.base+sco.Number(i)), max(high, t.base+sco.Number(i))
	}
	next := &table{base: low, scos: make([]*SCO, high-low+1)}
	for _, o := range t.scos {
		if o != nil && o.Number != n {
			next.scos[o.Number-low] = o
		}
	}
	next.scos[n-low] = s
	return next
}

// Read fills p, whole clusters, from loc on in one SCO, verified. found is
// false if the SCO is not in the buffer. With wait false it returns
// disk.ErrWouldBlock if the medium would have to be waited for.
func (l *Log) Read(loc sco.Location, p []byte, wait bool) (found bool, err error) {
	s := l.present.find(loc.Number())
	if s == nil || !s.acquire() {
		return false, nil
	}
	err = s.read(p, loc.Index(), wait)
	s.release()
	return true, err
}

// Has reports whether the SCO is in the buffer.
func (l *Log) Has(n sco.Number) bool { return l.present.find(n) != nil }

// drop takes s out of those that can be read; its file is recycled with its last
// reader.
func (l *Log) drop(s *SCO) {
	a := l.section.enter()
	l.present.take(s.Number)
	a.leave()
	s.release()
}
