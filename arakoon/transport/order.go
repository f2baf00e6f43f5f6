package transport

import (
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Bounds of what came before the request that it follows.
const (
	heldMost      = flightMost
	heldBytesMost = 64 << 20
)

// order puts the requests of an ordered stream back in order. Within a connection each comes
// once, whatever passes what on the way; a run that has lost one is followed by a higher one.
type order struct {
	run    uint32
	number uint64 // of the next one
	held   map[uint64]arrived
	bytes  int // of held
}

// arrived is what a request brought.
type arrived struct {
	messages []*pb.Message
	size     int
}

// take takes a request. stale is how many messages are dropped for it: its own if its run is
// over, or those that waited in a run that is over now. What can be delivered then is had by
// next.
func (o *order) take(run uint32, number uint64, a arrived) (stale int, err error) {
	if run < o.run {
		return len(a.messages), nil
	}
	if run > o.run {
		for _, h := range o.held {
			stale += len(h.messages)
		}
		*o = order{run: run, held: map[uint64]arrived{}}
	}
	if _, twice := o.held[number]; twice || number < o.number {
		return stale, fmt.Errorf("%w: request %d of run %d came twice", ErrOrder, number, run)
	}
	if number != o.number && (len(o.held) >= heldMost || o.bytes+a.size > heldBytesMost) {
		return stale, fmt.Errorf("%w: %d requests of %d bytes wait for request %d", ErrOrder, len(o.held), o.bytes, o.number)
	}
	o.held[number] = a
	o.bytes += a.size
	return stale, nil
}

// next returns the messages that are next, if they are there.
func (o *order) next() ([]*pb.Message, bool) {
	a, ok := o.held[o.number]
	if !ok {
		return nil, false
	}
	delete(o.held, o.number)
	o.bytes -= a.size
	o.number++
	return a.messages, true
}
