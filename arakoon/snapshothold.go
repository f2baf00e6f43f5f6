package arakoon

import (
	"log/slog"
	"time"

	"openvstorage/arakoon/state"
)

// watch starts the goroutine that looks after the snapshots and the members that got one.
// mu is held.
func (s *source) watch() {
	if s.watching {
		return
	}
	release, err := s.end.hold()
	if err != nil {
		return
	}
	s.watching = true
	s.end.run(s.loop)
	release()
}

func (s *source) loop() {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-s.end.stop:
			return
		case <-s.end.failed:
			return
		}
		if !s.look(time.Now()) {
			return
		}
	}
}

// look drops what nobody reads. It reports whether there is anything left to look at.
func (s *source) look(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	dropped := false
	for _, m := range append([]*made(nil), s.made...) {
		if now.Sub(m.read) > unreadMost {
			s.logger.Info("arakoon node drops a snapshot that nobody reads", slog.String("id", m.id.String()))
			s.drop(m)
			dropped = true
		}
	}
	if dropped {
		s.freed()
	}
	if len(s.behind) > 0 {
		s.work.put(snapshotLook{})
	}
	s.watching = len(s.made) > 0 || len(s.behind) > 0
	return s.watching
}

// sentTo notes that raft sends word of a snapshot to a member, and holds the log for that
// member. What it got earlier may still be under way: the log is held from the older one on,
// so that it need not be for nothing.
func (s *source) sentTo(member uint64, data []byte, now time.Time) {
	id, _, err := decodeSnapshotList(data)
	if err != nil {
		return // it is not of this source
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := false
	for _, m := range s.made {
		delete(m.sent, member)
		if m.id != id {
			continue
		}
		kept = true
		m.sent[member], m.read = true, now
		if s.behind[member] == nil {
			s.behind[member] = &follower{at: m.at}
		}
		s.behind[member].moved = now
		s.watch()
	}
	if !kept { // dropped since raft was given it
		s.work.put(snapshotFailed{member})
	}
}

// observe learns how far the log of each member is that raft knows, and how far it is
// committed. A member that has come as far as this one was at the last look has caught up.
// matches is nil if this member does not lead: it holds its log for nobody then.
func (s *source) observe(matches map[uint64]uint64, commit uint64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := len(s.behind)
	for id, f := range s.behind {
		match, known := matches[id]
		if match > f.match {
			f.match, f.moved = match, now
		}
		for _, m := range s.made {
			if m.sent[id] && m.read.After(f.moved) {
				f.moved = m.read
			}
		}
		switch {
		case !known, f.goal > 0 && match >= f.goal && match >= f.at.Index:
			delete(s.behind, id)
		case now.Sub(f.moved) > followMost:
			delete(s.behind, id)
			s.logger.Warn("arakoon node holds its log no more for a member that does not catch up", slog.Uint64("member", id), slog.Uint64("index", match))
		}
		f.goal = commit
	}
	if len(s.behind) < was {
		s.freed()
	}
}

// hold is the entry behind which the log must be kept, if there is one.
func (s *source) hold() (at state.Position, held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	least := func(p state.Position) {
		if !held || p.Index < at.Index {
			at, held = p, true
		}
	}
	if s.from != nil {
		least(*s.from)
	}
	for _, m := range s.made {
		if !m.letGo {
			least(m.at)
		}
	}
	for _, f := range s.behind {
		least(f.at)
	}
	return at, held
}

// letGo ends the hold of the log: it has grown by too much. A snapshot that is being fetched
// may be of no use then, and its members get another one.
func (s *source) letGo(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	members := make([]uint64, 0, len(s.behind))
	for id := range s.behind {
		members = append(members, id)
	}
	clear(s.behind)
	for _, m := range s.made {
		m.letGo = true
	}
	s.from = nil
	s.logger.Warn("arakoon node holds its log no more: members that fetch a snapshot are too slow and need another one",
		slog.Any("members", members), slog.Int64("bytes", bytes))
}
