package writebuffer

import (
	"errors"
	"fmt"

	"openvstorage/sco"
	"openvstorage/tlog"
)

// walk follows the entries from StoredSeq on and verifies the data of each write. Above
// Durable the first entry that is missing, or whose data is bad, ends the log: that is
// how an unsynced log ends. At or below Durable it is damage (O2).
func (m *merge) walk() error {
	r := m.r
	byNumber := make(map[sco.Number]*foundSCO, len(r.scos))
	for _, s := range r.scos {
		byNumber[s.number] = s
	}
	var damage []error
	for seq := r.opt.StoredSeq + 1; ; seq++ {
		e, ok := m.entries[seq]
		if !ok || seq == m.clashSeq {
			if seq <= r.Durable {
				r.Incomplete = true
				damage = append(damage, m.missing(seq))
			} else if len(m.entries) > len(r.Entries) {
				r.Cut = fmt.Sprintf("seq %d is missing", seq)
			}
			break
		}
		if e.Kind == tlog.KindWrite {
			bad, err := m.verify(e, byNumber[e.Location.Number()])
			if err != nil {
				return err
			}
			if bad != nil && seq > r.Durable {
				r.Cut = bad.Error()
				break
			}
			again := bad != nil && len(damage) > 0 && damage[len(damage)-1].Error() == bad.Error()
			if bad != nil && !again && len(damage) < damageMax {
				damage = append(damage, bad)
			}
			if s := byNumber[e.Location.Number()]; s != nil && s.err == nil {
				s.live = true
			}
		}
		r.Entries = append(r.Entries, e)
		r.Reached = seq
	}
	if len(damage) > 0 {
		r.Damage = fmt.Errorf("what was durable is damaged: %w", errors.Join(damage...))
	}
	return nil
}

// damageMax is how many damaged places are named.
const damageMax = 16

// missing names the files that should have held seq.
func (m *merge) missing(seq uint64) error {
	var errs []error
	for _, t := range m.r.tlogs {
		if t.err != nil {
			errs = append(errs, fmt.Errorf("%s at offset 0: %w", t.name, t.err))
		}
	}
	for _, s := range m.r.scos {
		if s.err != nil {
			errs = append(errs, fmt.Errorf("%s at offset 0: %w", s.name, s.err))
		}
	}
	if m.clash != nil {
		errs = append(errs, m.clash)
	}
	return errors.Join(append(errs, fmt.Errorf("seq %d is missing, %d is durable; the TLog ends in %s", seq, m.r.Durable, m.ends))...)
}

// verify checks the clusters of a write. bad says what is wrong with them; err says that
// they could not be read.
func (m *merge) verify(e tlog.Entry, s *foundSCO) (bad, err error) {
	if s == nil {
		return fmt.Errorf("%s is missing", e.Location.Number().Name()), nil
	}
	if s.err != nil {
		return fmt.Errorf("%s at offset 0: %w", s.name, s.err), nil
	}
	if err := m.load(s); err != nil {
		return nil, err
	}
	first, run := e.Location.Index(), int(e.Run)
	if first < 1 || first+run-1 > sco.Room(s.header.Capacity) {
		return &CorruptError{s.name, int64(first) * sco.ClusterSize, "an entry names blocks that are not there"}, nil
	}
	for i := range run {
		off := (first + i) * sco.ClusterSize
		if got, want := sco.Sum(m.data[off:off+sco.ClusterSize]), e.Sum(i); got != want {
			return &CorruptError{s.name, int64(off), fmt.Sprintf("CRC is %08x, not %08x", got, want)}, nil
		}
	}
	return nil, nil
}
