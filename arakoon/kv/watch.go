package kv

import (
	"context"
	"errors"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/wire"
)

// AppendWatch appends the header of a watch.
func AppendWatch(dst []byte, from uint64, wait time.Duration, bytes uint32, prefix []byte) []byte {
	dst = le.AppendUint64(append(dst, Version, 0, 0, 0), from)
	dst = le.AppendUint32(le.AppendUint32(dst, uint32(wait.Milliseconds())), bytes)
	return append(dst, prefix...)
}

func readWatch(header []byte) (from uint64, wait time.Duration, bytes uint32, prefix []byte, err error) {
	r := &reader{b: header}
	r.version(3)
	from, wait, bytes = r.u64(), time.Duration(r.u32())*time.Millisecond, r.u32()
	if wait > WatchMax*time.Second || bytes > PageMax {
		r.fail("a watch that waits for %v, for %d bytes; the limits are %d s and %d", wait, bytes, WatchMax, PageMax)
	}
	return from, wait, bytes, r.rest(), r.err
}

func appendEvents(dst []byte, e *arakoon.Events) []byte {
	dst = le.AppendUint32(le.AppendUint64(dst, e.Revision), uint32(len(e.List)))
	for _, one := range e.List {
		dst = appendBytes(appendBytes(append(dst, flag(one.Deleted, 1)), one.Key), one.Value)
	}
	return dst
}

// eventMin is the least that an event takes.
const eventMin = 1 + 4 + 4

// ReadEvents calls fn with the events of each revision in the body of an answer to a watch,
// until fn fails, with that error. They are parts of the body.
func ReadEvents(body []byte, fn func(arakoon.Events) error) error {
	r := &reader{b: body}
	for len(r.b) > 0 {
		e := arakoon.Events{Revision: r.u64()}
		n := r.number(eventMin)
		for ; n > 0 && r.err == nil; n-- {
			gone := r.u8()
			if gone > 1 {
				r.fail("an event of kind %d", gone)
			}
			one := arakoon.Event{Key: r.bytes(), Deleted: gone == 1}
			if v := r.bytes(); !one.Deleted {
				one.Value = v
			}
			e.List = append(e.List, one)
		}
		if r.err != nil {
			return r.err
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// errEnough ends a watch that has something to answer.
var errEnough = errors.New("enough")

// watch answers with the events from a revision on: at once if there are some, otherwise
// as soon as there are, or after the wait without any. The answer says where to go on, at
// this member or another one: all events up to there were told, in this answer or before.
func (s *Server) watch(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	from, wait, most, prefix, err := readWatch(r.Header)
	if err != nil {
		return wire.Answer{}, err
	}
	if most == 0 {
		most = PageSize
	}
	applied := g.Node.Applied()
	if from == 0 { // the client must know where it began before anything can be lost
		return wire.Answer{Header: appendWritten(nil, applied+1)}, nil
	}
	ctx, stop := context.WithTimeoutCause(ctx, wait, errEnough)
	defer stop()
	next := from
	var body []byte
	// What is gathered counts as an answer from the start: there may be as many watches as
	// requests, and each may gather a page. The answer counts what it has by itself.
	gathered := int64(0)
	who := whoAsks(r.Peer)
	defer func() { s.answers.add(who, -gathered) }()
	prefix = append([]byte(nil), prefix...)
	err = g.Node.Watch(ctx, prefix, from, func(e arakoon.Events) error {
		if len(e.List) > 0 {
			size := 0
			for _, one := range e.List {
				size += eventMin + len(one.Key) + len(one.Value)
			}
			switch {
			case size > wire.BodyMax/2-64 && len(body) > 0:
				return errEnough // an answer of its own
			case size+16 > wire.BodyMax:
				return &arakoon.ErrCompacted{First: e.Revision + 1} // no answer can hold it
			}
			if err := s.answers.full(r.Peer); err != nil {
				if len(body) > 0 {
					return errEnough
				}
				return err
			}
			body = appendEvents(body, &e)
			gathered += int64(size + 12)
			s.answers.add(who, int64(size+12))
		}
		next = max(next, e.Revision+1)
		// What was applied when the request came is told together; later revisions are
		// the next request's.
		if len(body) >= int(most) || len(body) > 0 && e.Revision >= applied {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) && !(errors.Is(err, context.DeadlineExceeded) && context.Cause(ctx) == errEnough) {
		return wire.Answer{}, err
	}
	return wire.Answer{Header: appendWritten(nil, next), Body: s.body(r.Peer, body), Sum: true}, nil
}
