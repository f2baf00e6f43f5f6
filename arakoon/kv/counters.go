package kv

import (
	"context"
	"sync/atomic"
	"time"

	"openvstorage/internal/wire"
)

// counter counts requests of one operation.
type counter struct {
	done, failed, nanos, most atomic.Int64
}

func (c *counter) note(took time.Duration, failed bool) {
	if failed {
		c.failed.Add(1)
	}
	c.done.Add(1)
	c.nanos.Add(int64(took))
	for {
		most := c.most.Load()
		if int64(took) <= most || c.most.CompareAndSwap(most, int64(took)) {
			return
		}
	}
}

// OpStats are figures of one operation since the start of the server, over all groups.
type OpStats struct {
	Op     uint16
	Count  uint64        // answered, failures among them
	Failed uint64        // of them, or not allowed
	Total  time.Duration // that they took, without the wire
	Most   time.Duration // that one took
}

// Statistics are figures of a Server. On the wire: version u8, zero u8[3], bytes of answers
// on their way out u64, reads that touch the store u32, number of operations u32, and of
// each its number u16, count u64, failed u64, total and most in nanoseconds u64.
type Statistics struct {
	Held  int64 // bytes of answers on their way out
	Reads int   // that touch the store at the moment
	Ops   []OpStats
}

// Statistics returns the figures as they are now, of the operations that were used.
func (s *Server) Statistics() Statistics {
	out := Statistics{Held: s.answers.total(), Reads: len(s.slots)}
	for op := range s.ops {
		c := &s.ops[op]
		one := OpStats{uint16(op), uint64(c.done.Load()), uint64(c.failed.Load()), time.Duration(c.nanos.Load()), time.Duration(c.most.Load())}
		if one.Count > 0 || one.Failed > 0 {
			out.Ops = append(out.Ops, one)
		}
	}
	return out
}

// opStatsSize is that of one operation's figures on the wire.
const opStatsSize = 2 + 4*8

func (s *Statistics) append(dst []byte) []byte {
	dst = le.AppendUint64(append(dst, Version, 0, 0, 0), uint64(s.Held))
	dst = le.AppendUint32(le.AppendUint32(dst, uint32(s.Reads)), uint32(len(s.Ops)))
	for _, o := range s.Ops {
		dst = le.AppendUint64(le.AppendUint64(le.AppendUint16(dst, o.Op), o.Count), o.Failed)
		dst = le.AppendUint64(le.AppendUint64(dst, uint64(o.Total)), uint64(o.Most))
	}
	return dst
}

// ReadStatistics reads an answer.
func ReadStatistics(header []byte) (s Statistics, err error) {
	r := &reader{b: header}
	r.version(3)
	s.Held, s.Reads = int64(r.u64()), int(r.u32())
	n := r.u32()
	if uint64(n)*opStatsSize != uint64(len(r.b)) {
		r.fail("figures of %d operations in %d bytes", n, len(r.b))
	}
	for ; n > 0 && r.err == nil; n-- {
		var op uint16
		if b := r.take(2); b != nil {
			op = le.Uint16(b)
		}
		s.Ops = append(s.Ops, OpStats{op, r.u64(), r.u64(), time.Duration(r.u64()), time.Duration(r.u64())})
	}
	return s, r.end()
}

func (s *Server) statistics(_ context.Context, _ *Group, r *wire.Incoming) (wire.Answer, error) {
	b := reader{b: r.Header}
	b.version(0)
	if err := b.end(); err != nil {
		return wire.Answer{}, err
	}
	now := s.Statistics()
	return wire.Answer{Header: now.append(nil)}, nil
}
