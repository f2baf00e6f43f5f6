package volumedriver

import (
	"context"

	"openvstorage/sco"
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
}

// chooseGroup takes the oldest TLogs: one at least, more as long as what they
// need of the backend does not exceed what one TLog covers, so that no group
// keeps the buffer's files for long.
func (v *Volume) chooseGroup(ctx context.Context, closed []*writebuffer.TLog) (*group, error) {
	var g *group
	var need int64
	for _, t := range closed {
		for _, s := range t.SCOs() {
			n, err := v.needs(ctx, s)
			if err != nil {
				return nil, err
			}
			need += n
		}
		if g == nil {
			g = new(group)
		} else if need > v.host.buffer.TLogBytes() {
			break
		}
		g.tlogs = append(g.tlogs, t)
		g.scos = append(g.scos, t.SCOs()...)
		g.lastSeq = t.LastSeq
		for _, s := range t.SCOs() {
			g.lastSCO = max(g.lastSCO, s.Number)
		}
	}
	return g, nil
}

// needs estimates how many bytes of an SCO are to be stored.
func (v *Volume) needs(ctx context.Context, s *writebuffer.SCO) (int64, error) {
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

// objectOf builds the object of an SCO of the group without the clusters that
// the group itself overwrites.
//
// A cluster is overwritten within the group if the map now has its address in
// another SCO numbered up to the group's last: numbers rise with seq, so the
// newest write of that address is in the group. A rollback since breaks that
// argument, and then everything is stored: v.rolled is set before the map
// rolls back, so looking at it again afterwards catches one that came between.
func (v *Volume) objectOf(g *group, s *writebuffer.SCO, buf []byte) ([]byte, error) {
	if !v.seenBySnapshot(s) && v.rolledSeq() <= g.lastSeq {
		data, err := s.Object(buf, func(addr uint64, index int) bool {
			var now [1]sco.Location
			if !v.head.Lookup(addr, now[:]) {
				return true
			}
			l := now[0]
			return l == sco.At(v.self, s.Number, index) || l.Kind() != sco.KindData || l.Origin() != v.self || l.Number() > g.lastSCO
		})
		if err != nil || v.rolledSeq() <= g.lastSeq {
			return data, err
		}
	}
	return s.Object(buf, nil)
}

func (v *Volume) rolledSeq() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rolled
}
