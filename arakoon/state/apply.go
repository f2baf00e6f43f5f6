package state

import (
	"bytes"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Outcome is what became of a command.
type Outcome struct {
	Index   uint64   // of the entry that it was applied with
	Results []Result // of each step
	Err     *Error   // or what failed; then nothing was done
}

// Applied is what became of the commands of an entry.
type Applied struct {
	Origin, Number uint64 // of the batch
	Outcomes       []Outcome
}

// ConfChange tells raft of a change of the members that is being applied, and returns
// the members that there are then.
type ConfChange func(e *pb.Entry) (*pb.ConfState, error)

// Apply applies entries, which follow those applied before. They are one batch, unless an
// entry has a mark: a batch ends behind it. After an error the state has stopped, and
// nothing is applied of the batch that has failed.
func (s *State) Apply(entries []*pb.Entry, change ConfChange) ([]Applied, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	var applied []Applied
	for len(entries) > 0 {
		n := 0
		var err error
		if applied, n, err = s.applyBatch(applied, entries, change); err != nil {
			return nil, err
		}
		entries = entries[n:]
	}
	return applied, nil
}

// applyBatch applies entries as one batch: all of them, or those up to one with a mark,
// whose image Pebble can give only at the end of a batch. It appends to applied what
// became of them, and returns how many they were.
func (s *State) applyBatch(applied []Applied, entries []*pb.Entry, change ConfChange) ([]Applied, int, error) {
	b := newWrites(s)
	defer b.close()
	next := s.meta // only Apply changes it
	events := s.opt.History.begin(next.at.Conf)
	defer s.opt.History.abort(events)
	b.track = events.recorded()
	n := 0
	for n < len(entries) && b.marks == 0 {
		e := entries[n]
		n++
		if e.GetIndex() != next.at.Index+1 {
			return nil, 0, s.stop(fmt.Errorf("entry %d is to follow entry %d", e.GetIndex(), next.at.Index))
		}
		a, err := s.entry(b, &next, e, change)
		if err != nil {
			return nil, 0, s.stop(fmt.Errorf("entry %d: %w", e.GetIndex(), err))
		}
		if a.Outcomes != nil {
			applied = append(applied, a)
		}
		next.at.Index, next.at.Term = e.GetIndex(), e.GetTerm()
		events.add(next.at.Index, b)
	}
	b.set(metaKey, appendMeta(nil, next))
	if err := b.apply(); err != nil {
		return nil, 0, s.stop(err)
	}
	if err := s.commit(next); err != nil {
		return nil, 0, err
	}
	if b.leased {
		s.leases.update(b)
	}
	s.opt.History.publish(events, next.at.Index)
	if b.marks > 0 && s.opt.OnMark != nil {
		s.opt.OnMark(s.imageOf(next))
	}
	return applied, n, nil
}

// commit makes what a batch has come to what is known of the state.
func (s *State) commit(next meta) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stopped(); err != nil {
		return err
	}
	for _, r := range next.left {
		s.gone[r.id] = r.index
	}
	next.left = nil
	s.meta = next
	return nil
}

// entry applies one entry to a batch. next becomes what is known after it.
func (s *State) entry(b *writes, next *meta, e *pb.Entry, change ConfChange) (Applied, error) {
	if e.GetType() != pb.EntryNormal {
		conf, err := change(e)
		if err != nil {
			return Applied{}, err
		}
		for _, id := range left(next.at.Conf, conf) {
			b.set(goneKey(id), appendGone(e.GetIndex()))
			next.left = append(next.left, removed{id, e.GetIndex()})
		}
		next.at.Conf = cloneConf(conf)
		return Applied{}, nil
	}
	if len(e.GetData()) == 0 {
		return Applied{}, nil
	}
	batch, err := DecodeBatch(e.GetData())
	if err != nil {
		return Applied{}, err
	}
	a := Applied{Origin: batch.Origin, Number: batch.Number, Outcomes: make([]Outcome, len(batch.Commands))}
	for i, c := range batch.Commands {
		// Clocks of proposers differ, and functions are promised that time does not
		// go backwards.
		next.time = max(next.time, c.Time)
		at := session{id: c.Session, request: c.Request, index: e.GetIndex(), position: uint32(i)}
		if a.Outcomes[i], err = s.command(b, c, at, next); err != nil {
			return a, fmt.Errorf("command %d: %w", i, err)
		}
		if s.only != 0 && s.only != batch.Origin {
			a.Outcomes[i] = Outcome{}
		}
	}
	return a, nil
}

// command applies one command. If it is a session's last request once more, nothing is
// done and the result is the stored one. An error stops the member.
func (s *State) command(b *writes, c Command, at session, next *meta) (Outcome, error) {
	var none [16]byte
	if c.Session == none {
		return s.run(b, c.Body, at.index, next)
	}
	if known, ok := s.sessions.byID[c.Session]; ok {
		last := known.Value.(session).request
		switch {
		case c.Open && last == 0:
			return Outcome{Index: at.index}, nil
		case c.Open || c.Request < last:
			return Outcome{Index: at.index, Err: &Error{Code: CodeStale, Message: fmt.Sprintf("session %v has come to request %d", c.Session, last)}}, nil
		case c.Request == last:
			return s.recall(b, at)
		}
	} else if !c.Open {
		return Outcome{Index: at.index, Err: &Error{Code: CodeSessionExpired, Message: fmt.Sprintf("session %v is not open", c.Session)}}, nil
	}
	out := Outcome{Index: at.index}
	kind := byte(lastOpened)
	if c.Open {
		at.request = 0
	} else {
		var err error
		if out, err = s.run(b, c.Body, at.index, next); err != nil {
			return out, err
		}
		kind = lastDone
		if out.Err != nil {
			kind = lastFailed
		}
	}
	s.remember(b, at, kind, out)
	return out, nil
}

// remember stores the outcome of a session's request for a retry. A result that is too
// large is not stored: every session's is kept, and is part of each checkpoint.
func (s *State) remember(b *writes, at session, kind byte, out Outcome) {
	value := appendSession(nil, at, kind, out)
	if len(value) > ResultMax {
		value = appendSession(nil, at, lastLost, Outcome{})
	}
	s.sessions.use(at)
	if old, ok := s.sessions.expire(); ok {
		b.set(sessionKey(old), nil)
	}
	s.sessionCount.Store(int64(s.sessions.order.Len()))
	b.set(sessionKey(at.id), value)
}

// recall returns the outcome of a session's last request.
func (s *State) recall(b *writes, at session) (Outcome, error) {
	v, err := b.get(sessionKey(at.id))
	if err != nil {
		return Outcome{}, err
	}
	if v == nil {
		return Outcome{}, fmt.Errorf("%w: session %v is known, but not in the store", ErrCorrupt, at.id)
	}
	_, kind, out, err := decodeSession(v)
	if kind == lastLost {
		out.Err = &Error{Code: CodeResultLost, Message: fmt.Sprintf("request %d was applied; its result was over %d bytes and not kept", at.request, ResultMax)}
	}
	return out, err
}

// run runs a sequence. A panic stops the member, as an error does: a function that
// panics here would panic on each member, and at each start.
func (s *State) run(b *writes, body []byte, index uint64, next *meta) (out Outcome, err error) {
	out.Index = index
	t := &tx{under: b, time: next.time, index: index, conf: next.at.Conf, level: next.level, leases: next.leases, marks: b.marks, zones: next.zones, knows: s.opt.knows()}
	step := 0
	b.begin()
	defer func() {
		if err != nil || out.Err != nil {
			b.undo()
		}
	}()
	defer func() {
		switch p := recover().(type) {
		case nil:
		case abort:
			if out, err = (Outcome{Index: index, Err: p.result}), p.failure; p.result != nil {
				p.result.Step = step
			}
		default:
			err = Stop(fmt.Errorf("step %d: panic: %v", step, p))
		}
	}()
	results, failed := t.run(body, s.opt.Functions, &step)
	if failed != nil {
		failed.Step = step
		failed.Key = bytes.Clone(failed.Key)
		return Outcome{Index: index, Err: failed}, nil
	}
	out.Results = results
	next.level, next.leases, next.zones, b.marks = t.level, t.leases, t.zones, t.marks
	b.touch()
	return out, nil
}
