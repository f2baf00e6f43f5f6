package raftlog

import (
	"fmt"
)

// Life is that of the group, as the log has it.
func (l *Log) Life() uint64 {
	l.w.Lock()
	defer l.w.Unlock()
	return l.life
}

// Renew raises the log's life and appends a round, which is short, in one step: both are in a
// segment of their own, and are made durable by the sync of that segment's name. So a power
// cut leaves the log as it was, or one of the later life with the round, and never the round
// in the old life. Nothing that the log holds is dropped. From then on it is refused to
// whoever opens it for an older life.
//
// Errors are as those of Append: while Err is nil, nothing has changed here, and a restart
// may find either log.
func (l *Log) Renew(life uint64, r Round) error {
	l.w.Lock()
	defer l.w.Unlock()
	if l.err != nil {
		return l.err
	}
	if life <= l.life {
		return fmt.Errorf("raftlog: renew %s: life %d does not come after life %d, which it has", l.opt.Dir, life, l.life)
	}
	var records []record
	for _, part := range split(r.Entries) {
		records = append(records, record{kind: kindEntries, entries: part})
	}
	if r.HardState != nil {
		records = append(records, record{kind: kindHardState, hard: r.HardState})
	}
	was := l.life
	l.life = life
	if err := l.roll(records); err != nil {
		l.life = was
		return err
	}
	return nil
}
