package metadata

import (
	"context"
	"fmt"
	"sync/atomic"

	"openvstorage/sco"
)

// A live counter is one word, on disk:
//
//	bits 62-63  kind: 0 the SCO is unknown (the whole word is 0), 1 live, 2 dead
//	bits  0-61  live: clusters of the head that are in the SCO, plus 2^61
//	            dead: the seq from which on the head has none
//
// Counts are below zero only while a recount runs: clusters of the restored root may be
// overwritten before they are counted.
const (
	counterKindShift = 62
	counterLive      = 1
	counterDead      = 2
	counterMask      = 1<<counterKindShift - 1
	counterBias      = 1 << 61
)

func liveWord(count int64) uint64 {
	return counterLive<<counterKindShift | uint64(count+counterBias)&counterMask
}

func deadWord(seq uint64) uint64 { return counterDead<<counterKindShift | seq&counterMask }

// counterOf reads a word; an unknown or dead SCO counts 0.
func counterOf(w uint64) (live int64, deadSeq uint64, kind uint8) {
	switch kind = uint8(w >> counterKindShift); kind {
	case counterLive:
		return int64(w&counterMask) - counterBias, 0, kind
	case counterDead:
		return 0, w & counterMask, kind
	}
	return 0, 0, kind
}

// counters count, for each SCO of the vDisk's own, the clusters of the head that are in it.
// They are a tree of pages, like the map.
type counters struct {
	*pager

	live stem

	// Under pager.mu.
	liveRecent *page  // counter page used last
	liveBase   uint64 // its first SCO number
	recount    recount
	held       held
}

// counted reports whether l is in an SCO of the vDisk's own.
func (m *pager) counted(l sco.Location) bool {
	return l.Kind() == sco.KindData && l.Origin() == m.self
}

// resetLive empties the tree of counters. m.mu held.
func (m *counters) resetLive() {
	m.live.Store(&root{levels: 1, clusters: uint64(sco.MaxNumber) + 1})
	m.liveRecent = nil
	m.held = held{below: allCounted}
}

// ownCounter makes the page with n's counter one that may be changed. m.mu held.
func (m *counters) ownCounter(n sco.Number) (p, missing *page) {
	base := uint64(n) &^ (fanout - 1)
	if p = m.liveRecent; p != nil && m.liveBase == base && p.state == stateDirty && m.mutable(p) {
		return p, nil
	}
	if r := m.live.Load(); !r.holds(uint64(n)) {
		m.raise(&m.live, TreeLive, levelsFor(uint64(n)+1))
	}
	if p, missing = m.ownLeaf(&m.live, uint64(n), TreeLive); missing != nil {
		return nil, missing
	}
	m.liveRecent, m.liveBase = p, base
	return p, nil
}

// ownCounters does that for all counters that change when loc replaces the old words, so that
// adjust finds each of their pages in memory. m.mu held.
func (m *counters) ownCounters(old []uint64, loc sco.Location) (missing *page) {
	if m.counted(loc) {
		if _, missing = m.ownCounter(loc.Number()); missing != nil {
			return missing
		}
	}
	last := ^uint64(0)
	for _, w := range old {
		l := sco.Location(w)
		if !m.counted(l) || uint64(l.Number())>>fanoutLog2 == last {
			continue
		}
		last = uint64(l.Number()) >> fanoutLog2
		if _, missing = m.ownCounter(l.Number()); missing != nil {
			return missing
		}
	}
	return nil
}

// adjust adds delta to n's counter, whose page is owned. m.mu held.
func (m *counters) adjust(n sco.Number, delta int64) {
	p, _ := m.ownCounter(n)
	w := &p.leaf.Load()[uint64(n)&(fanout-1)]
	live, _, _ := counterOf(*w)
	live += delta
	m.held.follow(n, delta)
	p.touch()
	p.seq = m.seq
	if live == 0 && !m.recount.running() {
		atomic.StoreUint64(w, deadWord(m.seq))
		return
	}
	atomic.StoreUint64(w, liveWord(live))
}

// uncount takes the words' locations from the counters. m.mu held.
func (m *counters) uncount(old []uint64) { m.count(old, -1) }

// count adds sign for every location of the words to its SCO's counter. Runs
// in one SCO cost one adjustment. m.mu held.
func (m *counters) count(old []uint64, sign int64) {
	var n sco.Number
	var run int64
	for _, w := range old {
		l := sco.Location(w)
		if !m.counted(l) {
			continue
		}
		if run > 0 && l.Number() != n {
			m.adjust(n, sign*run)
			run = 0
		}
		n = l.Number()
		run++
	}
	if run > 0 {
		m.adjust(n, sign*run)
	}
}

// setCounter changes n's word to what f makes of it.
func (m *counters) setCounter(seq uint64, n sco.Number, f func(w uint64) uint64) error {
	if n > sco.MaxNumber {
		return fmt.Errorf("metadata: vDisk %s: SCO number %d is too large", m.volume, n)
	}
	return m.change(context.Background(), func() (missing *page) {
		m.advance(seq)
		p, missing := m.ownCounter(n)
		if missing != nil {
			return missing
		}
		w := &p.leaf.Load()[uint64(n)&(fanout-1)]
		atomic.StoreUint64(w, f(*w))
		return nil
	})
}

// OpenSCO registers a new SCO of the vDisk, with no live cluster yet.
func (m *Map) OpenSCO(n sco.Number) error {
	return m.setCounter(0, n, func(w uint64) uint64 {
		if w == 0 {
			return liveWord(0)
		}
		return w
	})
}

// MarkDead registers an SCO that the counters do not know, and that has no cluster of the head:
// after a recount, a listing of the backend shows it. An SCO with live clusters is not changed.
func (m *Map) MarkDead(n sco.Number, seq uint64) error {
	return m.setCounter(0, n, func(w uint64) uint64 {
		if live, _, kind := counterOf(w); kind == counterDead || live != 0 {
			return w
		}
		return deadWord(seq)
	})
}

// Forget drops a dead SCO's counter, when the SCO is deleted.
func (m *Map) Forget(n sco.Number) error {
	var live int64
	err := m.setCounter(0, n, func(w uint64) uint64 {
		if live, _, _ = counterOf(w); live != 0 {
			return w
		}
		return 0
	})
	if err == nil && live != 0 {
		err = fmt.Errorf("metadata: vDisk %s: %s is to be forgotten but has %d live clusters", m.volume, n.Name(), live)
	}
	return err
}

// SCO is what the counters say of one SCO.
type SCO struct {
	Number  sco.Number
	Live    int64  // clusters of the head that are in it; too many while Reap has work left
	Dead    bool   // the head has had none since DeadSeq
	DeadSeq uint64 // a checkpoint that covers this seq does not need the SCO; snapshots may
}

// SCOs calls fn with every SCO that the counters know, in order, until fn returns false.
// Changes meanwhile may be seen or not. While Recounting, no SCO is dead. fn may call the map's
// methods.
func (m *Map) SCOs(ctx context.Context, fn func(SCO) bool) error {
	for addr := uint64(0); addr <= uint64(sco.MaxNumber); {
		w, _, end, err := m.find(ctx, &m.live, addr, TreeLive)
		if err != nil {
			return err
		}
		for i := 0; w != nil && i < fanout; i++ {
			if s, known := scoOf(sco.Number(addr&^(fanout-1)+uint64(i)), atomic.LoadUint64(&w[i])); known && !fn(s) {
				return nil
			}
		}
		addr = end
	}
	return nil
}

// Live returns what the counters say of one SCO; known is false if they do not know it.
func (m *Map) Live(ctx context.Context, n sco.Number) (s SCO, known bool, err error) {
	w, _, _, err := m.find(ctx, &m.live, uint64(n), TreeLive)
	if err != nil || w == nil {
		return SCO{Number: n}, false, err
	}
	s, known = scoOf(n, atomic.LoadUint64(&w[uint64(n)&(fanout-1)]))
	return s, known, nil
}

func scoOf(n sco.Number, w uint64) (s SCO, known bool) {
	live, deadSeq, kind := counterOf(w)
	return SCO{Number: n, Live: live, Dead: kind == counterDead, DeadSeq: deadSeq}, kind != 0
}
