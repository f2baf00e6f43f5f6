package transport

// Stats are counters since the mount, and gauges.
type Stats struct {
	Device uint64 // requests that came by the device
	Ring   uint64 // requests that came over an io_uring
	Waited uint64 // of both, those that went to a goroutine

	Waiting      int64 // requests with a goroutine now
	WaitingBytes int64 // of those that came by the device
	WaitingLimit int64 // what those may have: Options.Memory
	WaitingMax   int   // requests that may wait: entries of the rings, or by the device
	Stalled      int   // readers of the device, of two or one beside rings, that wait for room
	Queues       int   // rings
	RingBytes    int64 // that requests have room for in the rings; used as far as they were touched
}

// Stats returns the counters. They are read one by one, not at one instant.
func (c *Conn) Stats() Stats {
	s := Stats{Device: c.requests.Load(), Waited: c.waited.Load(), Waiting: c.inFlight.Load(), WaitingLimit: c.buffers.most, Queues: len(c.queues)}
	s.WaitingBytes, s.Stalled = c.buffers.heldNow(), c.waiting.deafNow()
	s.WaitingMax = c.buffers.max
	if len(c.queues) > 0 {
		s.WaitingMax = 0
	}
	for _, q := range c.queues {
		s.Ring += q.requests.Load()
		s.WaitingMax += len(q.entries)
		s.RingBytes += int64(len(q.entries)) * int64(c.room())
	}
	return s
}

// room is how much a request or its reply may bring.
func (c *Conn) room() int { return max(c.opt.MaxWrite, smallestRoom) }
