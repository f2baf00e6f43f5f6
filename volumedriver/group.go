package volumedriver

import (
	"context"

	"openvstorage/sco"
	"openvstorage/tlog"
	"openvstorage/writebuffer"
)

// group is a row of closed TLogs that reach the catalog in one put: whoever
// reads the backend sees all of them or none. So what a later TLog of the group
// overwrites of an earlier one need not be stored: no state that anybody can
// reach has it. That is what a write buffer saves.
type group struct {
	tlogs   []*writebuffer.TLog
	scos    []*writebuffer.SCO // still to be uploaded
	lastSCO sco.Number         // highest number of the group
	lastSeq uint64
	// marks has what is to be stored of an SCO; without, all of it is.
	marks map[sco.Number]writebuffer.Marks
}

// chooseGroup takes the oldest TLogs: one at least, more as long as little of
// them is live, so that no group keeps the buffer's files for long, and the
// garbage that it makes in the backend is soon collected.
//
// If little of all of them is live, it takes all: most was overwritten, and a
// group that ended earlier would store what the TLogs behind it overwrite.
func (v *Volume) chooseGroup(ctx context.Context, closed []*writebuffer.TLog) (*group, error) {
	if len(closed) == 0 {
		return nil, nil
	}
	live := make([]int64, len(closed))
	var total int64
	for i, t := range closed {
		for _, s := range t.SCOs() {
			n, err := v.liveIn(ctx, s)
			if err != nil {
				return nil, err
			}
			live[i] += n
		}
		total += live[i]
	}
	limit := v.host.buffer.TLogBytes()
	if little := v.host.buffer.Bytes() / 4; total <= little {
		limit = max(limit, little)
	}
	frozen := v.frozenAt()
	g := new(group)
	var sum int64
	for i, t := range closed {
		if sum += live[i]; i > 0 && sum > limit {
			break
		}
		g.tlogs = append(g.tlogs, t)
		g.scos = append(g.scos, t.SCOs()...)
		g.lastSeq = t.LastSeq
		for _, s := range t.SCOs() {
			g.lastSCO = max(g.lastSCO, s.Number)
		}
		if t.ID == frozen {
			break // the checkpoint there lets garbage go
		}
	}
	v.mark(g)
	return g, nil
}

// frozenAt is the TLog at whose end the next checkpoint waits to be committed, or
// 0.
func (v *Volume) frozenAt() tlog.ID {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.ahead) == 0 {
		return 0
	}
	return v.ahead[0].tlog
}

// liveIn estimates how many bytes of an SCO somebody can still read.
func (v *Volume) liveIn(ctx context.Context, s *writebuffer.SCO) (int64, error) {
	if v.seenBySnapshot(s) {
		return s.Size(), nil
	}
	c, known, err := v.m.Live(ctx, s.Number)
	if err != nil || !known {
		return s.Size(), err
	}
	return max(c.Live, 0) * sco.ClusterSize, nil
}

// seenBySnapshot reports whether a snapshot may see some of the SCO's
// clusters: it was taken when the SCO was open already.
func (v *Volume) seenBySnapshot(s *writebuffer.SCO) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, snap := range v.snapshots {
		if s.Number < snap.NextSCO && snap.Seq >= s.FirstSeq() {
			return true
		}
	}
	return false
}

// mark notes which clusters of the group are to be stored: not those that the
// group itself overwrites. It looks at once, when the group is chosen: later
// the map tells less and less, as it forgets who overwrote what first.
//
// A cluster is overwritten within the group if the map now has its address in
// another SCO numbered up to the group's last: numbers rise with seq, so the
// newest write of that address is in the group. A rollback since breaks that
// argument, and then everything is stored: v.rolled is set before the map
// rolls back, so looking at it again afterwards catches one that came between.
// A rollback after that takes nothing away: a snapshot that sees clusters of the
// group was there before, and its SCOs are stored whole.
func (v *Volume) mark(g *group) {
	g.marks = make(map[sco.Number]writebuffer.Marks, len(g.scos))
	if v.rolledSeq() > g.lastSeq {
		return
	}
	for _, s := range g.scos {
		if v.seenBySnapshot(s) {
			continue
		}
		g.marks[s.Number] = s.Mark(func(addr uint64, index int) bool {
			var now [1]sco.Location
			if !v.head.Lookup(addr, now[:]) {
				return true
			}
			l := now[0]
			return l == sco.At(v.self, s.Number, index) || l.Kind() != sco.KindData || l.Origin() != v.self || l.Number() > g.lastSCO
		})
	}
	if v.rolledSeq() > g.lastSeq {
		clear(g.marks)
	}
}

func (v *Volume) rolledSeq() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rolled
}
