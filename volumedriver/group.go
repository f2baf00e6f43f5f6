package volumedriver

import (
	"context"
	"slices"
	"time"

	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/writebuffer"
)

// group is a row of closed TLogs that reach the catalog in one put: whoever reads the
// backend sees all of them or none. So what a later TLog of the group overwrites of an
// earlier one need not be stored, because no state that anybody can reach has it. That is
// what a write buffer saves.
type group struct {
	tlogs  []*writebuffer.TLog
	scos   []*writebuffer.SCO // whose upload has not begun
	flying int                // uploads under way
	landed chan landing       // where they end; nobody waits to send
	// marks has which clusters of an SCO are to be stored; if it has none, all are.
	marks map[sco.Number]writebuffer.Marks
}

// last is the newest TLog of the group.
func (g *group) last() tlog.ID { return g.tlogs[len(g.tlogs)-1].ID }

// chooseGroup makes a group of the oldest closed TLogs. If patient is set it makes none, and
// returns nil, while the buffer has room for more overwrites.
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

// young reports whether even the oldest SCO may wait for overwrites. A vDisk to which
// little is written would keep it in the buffer for ever, if there were no such limit.
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

// mark notes which clusters of the group are to be stored: those that the group itself
// does not overwrite later. What is written behind the group does not count: a power cut
// may leave just the group.
//
// A rollback may bring back what was overwritten before it. So only what was written since
// the newest rollback counts as overwriting. The seq of a rollback is noted before the map
// rolls back, and the snapshot can only be deleted after that. So if a snapshot is rolled
// back to and deleted while mark asks what snapshots see, the seq has changed at the end,
// and everything is stored. A later rollback does no harm: the snapshot that it goes to
// is there already, and the SCOs that it sees are stored whole.
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

// addresses is a set of addresses of clusters, with a word for 64 neighbours. At
// addressesMax words, some 40 MiB, it takes no new ones; of clusters that it does not
// have, older versions are stored too, which costs space and does no harm.
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
