package nsm

// osdEntry is what a call knows of an OSD, and the OSD's counters as the call changes them.
type osdEntry struct {
	number              uint64
	usageKey, totalsKey []byte
	keys                [2*prefixSize + 3*8]byte // where they are
	osdRecord
	totals, totalsWas Totals
	usage, usageWas   Usage // of the namespace
}

// ledger is the OSDs that a call has to do with. Each is read once and written at most once,
// however many fragments the call moves.
type ledger struct {
	list []*osdEntry
	at   map[uint64]*osdEntry // once there are many; looked up, never ranged over
}

// ledgerMany is the number of OSDs above which a map finds them.
const ledgerMany = 16

func (l *ledger) find(osd uint64) *osdEntry {
	if l.at != nil {
		return l.at[osd]
	}
	for _, e := range l.list {
		if e.number == osd {
			return e
		}
	}
	return nil
}

func (l *ledger) add(e *osdEntry) {
	if l.list == nil {
		l.list = make([]*osdEntry, 0, ledgerMany/2)
	}
	l.list = append(l.list, e)
	switch {
	case l.at != nil:
		l.at[e.number] = e
	case len(l.list) > ledgerMany:
		l.at = make(map[uint64]*osdEntry, 2*len(l.list))
		for _, e := range l.list {
			l.at[e.number] = e
		}
	}
}

// osd returns the entry of an OSD.
func (s *space) osd(number uint64) (*osdEntry, error) {
	if e := s.osds.find(number); e != nil {
		return e, nil
	}
	e := &osdEntry{number: number}
	if _, err := load(s.tx, appendKey(e.keys[:0], tableOSD, number), &e.osdRecord); err != nil {
		return nil, err
	}
	e.usageKey = appendKey(e.keys[:0], tableUsage, s.id, number)
	e.totalsKey = appendKey(e.keys[len(e.usageKey):len(e.usageKey)], tableTotals, number)
	if _, err := load(s.tx, e.totalsKey, &e.totalsWas); err != nil {
		return nil, err
	}
	if _, err := load(s.tx, e.usageKey, &e.usageWas); err != nil {
		return nil, err
	}
	e.totals, e.usage = e.totalsWas, e.usageWas
	s.osds.add(e)
	return e, nil
}

// hold adds fragments of the namespace to what an OSD holds, or takes them off.
func (s *space) hold(osd uint64, up bool, by Usage) error {
	e, err := s.osd(osd)
	if err != nil {
		return err
	}
	if err := e.usage.shift(up, by, s.id, osd); err != nil {
		return err
	}
	return e.totals.Live.shift(up, by, 0, osd)
}

// saveCounters stores those counters of buckets and OSDs that have changed.
func (s *space) saveCounters() error {
	if err := s.saveBuckets(); err != nil {
		return err
	}
	for _, e := range s.osds.list {
		if e.usage != e.usageWas {
			if err := storeUnless(s.tx, e.usageKey, e.usage == Usage{}, &e.usage); err != nil {
				return err
			}
			e.usageWas = e.usage
		}
		if e.totals != e.totalsWas {
			if err := storeUnless(s.tx, e.totalsKey, e.totals == Totals{}, &e.totals); err != nil {
				return err
			}
			e.totalsWas = e.totals
		}
	}
	return nil
}
