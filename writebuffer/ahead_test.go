package writebuffer

import (
	"math"
	"testing"

	"openvstorage/tlog"
)

// TestFilesAheadOfTheCatalog: a catalog that was put back from a copy does not know where
// later epochs began. Of the files only those of the newest epoch count, in whatever order
// they are read: an entry that died when that epoch began is not mixed with what came after.
func TestFilesAheadOfTheCatalog(t *testing.T) {
	trim := func(seq, addr uint64) tlog.Entry { return tlog.Entry{Kind: tlog.KindTrim, Seq: seq, Addr: addr} }
	old := func(m *merge) { // the owner of the catalog: 12 was never synced, and died
		m.begun(5)
		m.add("a", 5, trim(11, 1))
		m.add("a", 5, trim(12, 2))
		m.durable(5, 11)
	}
	later := func(m *merge) { // the next one found 11, and went on
		m.begun(6)
		m.add("b", 6, trim(11, 1))
		m.add("b", 6, trim(12, 3))
		m.durable(6, 12)
	}
	for name, c := range map[string]struct {
		newest uint64
		files  []func(*merge)
		want   map[uint64]uint64 // addresses by seq
		clash  bool
	}{
		"older first":    {5, []func(*merge){old, later}, map[uint64]uint64{11: 1, 12: 3}, false},
		"newer first":    {5, []func(*merge){later, old}, map[uint64]uint64{11: 1, 12: 3}, false},
		"of the catalog": {5, []func(*merge){old}, map[uint64]uint64{11: 1, 12: 2}, false},
		"older than it":  {6, []func(*merge){old, later}, map[uint64]uint64{11: 1, 12: 2}, true}, // the catalog bounds them, which it does not here
	} {
		t.Run(name, func(t *testing.T) {
			opt := RecoverOptions{StoredSeq: 10, Newest: c.newest, Bound: func(uint64) uint64 { return math.MaxUint64 }}
			m := &merge{r: &Recovered{opt: opt, Durable: 10}, entries: map[uint64]tlog.Entry{}}
			for _, add := range c.files {
				add(m)
			}
			for seq, addr := range c.want {
				if e, ok := m.entries[seq]; !ok || e.Addr != addr {
					t.Errorf("seq %d is at %d, not %d", seq, e.Addr, addr)
				}
			}
			if len(m.entries) != len(c.want) || (m.clash != nil) != c.clash {
				t.Errorf("%d entries, %v", len(m.entries), m.clash)
			}
		})
	}

	// What the newest epoch no longer has in its files is missing; an older one does not
	// stand in for it.
	m := &merge{r: &Recovered{opt: RecoverOptions{StoredSeq: 10, Newest: 5, Bound: func(uint64) uint64 { return math.MaxUint64 }}, Durable: 10, Reached: 10}, entries: map[uint64]tlog.Entry{}}
	old(m)
	m.begun(6)
	m.add("b", 6, trim(12, 3))
	m.durable(6, 12)
	if err := m.walk(); err != nil || m.r.Damage == nil || !m.r.Incomplete || m.r.Reached != 10 {
		t.Errorf("%v, %+v", err, m.r)
	}
}
