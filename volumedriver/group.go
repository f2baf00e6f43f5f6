package volumedriver

import (
	"context"
	"slices"
	"time"

	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/writebuffer"
)

// group is a row of closed TLogs that reach the catalog in one put: whoever
// reads the backend sees all of them or none. So what a later TLog of the group
// overwrites of an earlier one need not be stored: no state that anybody can
// reach has it. That is what a write buffer saves.
type group struct {
	tlogs  []*writebuffer.TLog
	scos   []*writebuffer.SCO // whose upload has not begun
	flying int                // uploads under way
	landed chan landing       // where they end; nobody waits to send
	// marks has what is to be stored of an SCO; without, all of it is.
	marks map[sco.Number]writebuffer.Marks
}

// last is the newest TLog of the group.
func (g *group) last() tlog.ID { return g.tlogs[len(g.tlogs)-1].ID }

// chooseGroup makes a group of the oldest TLogs. With patience it makes none while the
// buffer has room for more overwrites.
func (st *storer) chooseGroup(ctx context.Context, closed []*writebuffer.TLog, patient bool) (*group, error) {
	if len(closed) == 0 {
		return nil, nil
	}
	live := make([]int64, len(closed))
	var total, written int64
	for i, t := range closed {
		for _, s := range t.SCOs() {
			n, err := st.liveIn(ctx, s)
			if err != nil {
				return nil, err
			}
			live[i] += n
			written += s.Data()
		}
		total += live[i]
	}
	if patient && st.young(closed) && early(st.host.buffer.Fill(), written, total) {
		return nil, nil
	}
	next, last := st.checkpoints.waitAt(closed)
	n := groupLen(live, next, last, st.host.buffer.TLogBytes(), st.host.buffer.Bytes())
	g := &group{tlogs: closed[:n:n], landed: make(chan landing, st.host.opt.UploadSlots)}
	for _, t := range g.tlogs {
		g.scos = append(g.scos, t.SCOs()...)
	}
	st.mark(g)
	return g, nil
}

// young reports whether even the oldest SCO is one that may wait for overwrites:
// who does not write much would keep it here for ever.
func (st *storer) young(closed []*writebuffer.TLog) bool {
	scos := closed[0].SCOs()
	return len(scos) > 0 && time.Since(scos[0].SealedAt()) < 2*st.host.opt.IdleSeal
}

// liveIn estimates how many bytes of an SCO somebody can still read.
func (st *storer) liveIn(ctx context.Context, s *writebuffer.SCO) (int64, error) {
	if st.tree.sees(s) {
		return s.Data(), nil
	}
	c, known, err := st.m.Live(ctx, s.Number)
	if err != nil || !known {
		return s.Data(), err
	}
	return max(c.Live, 0) * sco.ClusterSize, nil
}

// mark notes which clusters of the group are to be stored: not those that the
// group itself writes again later. What is written behind the group counts for
// nothing: the group is a prefix, and a power cut may leave just that.
//
// A rollback may bring back what was overwritten before it, so only what was
// written since the last one overwrites. tree.rolled is set before the map rolls
// back, and a snapshot is deleted after: one that was rolled back to and deleted
// while this looked for what snapshots see has changed v.tree.rolled. A rollback
// later takes nothing away: a snapshot that sees clusters of the group was there
// before, and its SCOs are stored whole.
func (st *storer) mark(g *group) {
	g.marks = make(map[sco.Number]writebuffer.Marks, len(g.scos))
	rolled := st.tree.rolledSeq()
	later := make(addresses)
	for _, s := range slices.Backward(g.scos) {
		m := s.Mark(func(addr, seq uint64) bool {
			if seq <= rolled {
				return !later.has(addr)
			}
			return later.add(addr)
		})
		if !st.tree.sees(s) {
			g.marks[s.Number] = m
		}
	}
	if st.tree.rolledSeq() != rolled {
		clear(g.marks)
	}
}

// addresses is a set of clusters' addresses: a word for 64 neighbours. It takes no
// new words when it has addressesMax, some 40 MiB; what the group writes again
// over older ones is then stored too.
type addresses map[uint64]uint64

const addressesMax = 1 << 20

func (a addresses) has(addr uint64) bool { return a[addr/64]&(1<<(addr%64)) != 0 }

// add reports whether addr was not in the set.
func (a addresses) add(addr uint64) bool {
	word, found := a[addr/64]
	bit := uint64(1) << (addr % 64)
	if found || len(a) < addressesMax {
		a[addr/64] = word | bit
	}
	return word&bit == 0
}
