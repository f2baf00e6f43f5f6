package transport

import (
	"context"
	"sync"
	"syscall"

	"openvstorage/device"
)

// Writer takes writes that came together.
type Writer interface {
	// WriteGathered makes all writes of a batch, in order. If it would have to wait it
	// does nothing and returns EAGAIN. Data is valid until it returns.
	WriteGathered(batch []device.Span) syscall.Errno
}

// Gathered is what a write returns after Gather has taken it.
const Gathered = syscall.EINPROGRESS

// Bounds of a batch; a longer write gains nothing by company.
const (
	gatherWrite = 64 << 10
	gatherBytes = 1 << 20
)

// round is what a ring has brought at once. Its writes are gathered and made together,
// so that they cost the device one append.
type round struct {
	tried    chan struct{} // the cancel channel of its requests; never closed
	writes   []gathered
	spans    []device.Span // scratch
	batch    []int         // scratch: entries whose writes are in spans
	finished func(entry int, n uint32, e syscall.Errno)
}

type gathered struct {
	entry int
	to    Writer // nil once it is made
	span  device.Span
}

// tried is the cancel channel of requests of the device that must not wait. It
// is never closed.
var tried = make(chan struct{})

// rounds are the rounds whose requests must not wait, by the cancel channel of these
// requests.
var rounds sync.Map

func init() { rounds.Store((<-chan struct{})(tried), (*round)(nil)) }

// MayWait reports whether the request that ctx belongs to may wait for anything slower
// than memory. If it may not, and would have to, it returns EAGAIN. Then it is made
// again with a context for which MayWait is true.
func MayWait(ctx context.Context) bool {
	_, tried := rounds.Load(ctx.Done())
	return !tried
}

// Gather has a write be made together with others that came at the same time. It reports
// whether it took the write, which then returns Gathered.
func Gather(ctx context.Context, to Writer, off int64, data []byte) bool {
	v, _ := rounds.Load(ctx.Done())
	r, _ := v.(*round)
	if r == nil || len(data) > gatherWrite {
		return false
	}
	r.writes = append(r.writes, gathered{to: to, span: device.Span{Off: off, Data: data}})
	return true
}

func newRound(finished func(entry int, n uint32, e syscall.Errno)) *round {
	r := &round{tried: make(chan struct{}), finished: finished}
	rounds.Store((<-chan struct{})(r.tried), r)
	return r
}

func (r *round) close() { rounds.Delete((<-chan struct{})(r.tried)) }

// took notes which entry brought the write that was gathered last.
func (r *round) took(entry int) { r.writes[len(r.writes)-1].entry = entry }

// make makes all writes. Those to one Writer are made together, in the order in which
// they came.
func (r *round) make() {
	for i := range r.writes {
		to := r.writes[i].to
		if to == nil {
			continue
		}
		bytes := 0
		for k := i; k < len(r.writes); k++ {
			w := &r.writes[k]
			if w.to != to {
				continue
			}
			if bytes += len(w.span.Data); bytes > gatherBytes {
				break
			}
			r.spans, r.batch = append(r.spans, w.span), append(r.batch, k)
			w.to = nil
		}
		e := to.WriteGathered(r.spans)
		for _, k := range r.batch {
			r.finished(r.writes[k].entry, uint32(len(r.writes[k].span.Data)), e)
		}
		clear(r.spans)
		r.spans, r.batch = r.spans[:0], r.batch[:0]
	}
	clear(r.writes)
	r.writes = r.writes[:0]
}
