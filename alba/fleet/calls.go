package fleet

import "time"

// units makes requests of different size comparable: it counts one for the request, and one
// for each MiB.
func units(bytes int) float64 { return 1 + float64(bytes)/(1<<20) }

// kind is a kind of request, each with an order and a speed of its own.
type kind int

const (
	reading kind = iota
	writing
	asking    // what is answered without the medium, mostly
	verifying // of as many whole values as were asked for
	kinds
)

var kindNames = [kinds]string{"a read", "a write", "a request", "a scrub"}

// call is a request under way. Calls are linked in the order in which they began.
type call struct {
	prev, next int32
	begun      int64 // tick
	at         time.Time
	bytes      int
}

// calls is the requests of one kind under way. Places in list are used again, so that in
// steady state nothing is allocated.
type calls struct {
	list        []call // 0 is the head of the ring
	free        []int32
	count       int
	bytes       int
	done        int64 // tick of the last that came back
	strikes     int
	firstStrike int64
	lastStrike  int64
	samples     int // that were not slow, since the last that was
}

func (c *calls) add(begun int64, at time.Time, bytes int) int32 {
	if len(c.list) == 0 {
		c.list = append(c.list, call{})
	}
	var i int32
	if n := len(c.free); n > 0 {
		i, c.free = c.free[n-1], c.free[:n-1]
	} else {
		i = int32(len(c.list))
		c.list = append(c.list, call{})
	}
	last := c.list[0].prev
	c.list[i] = call{prev: last, begun: begun, at: at, bytes: bytes}
	c.list[last].next, c.list[0].prev = i, i
	c.count++
	c.bytes += bytes
	return i
}

func (c *calls) remove(i int32) {
	k := c.list[i]
	c.list[k.prev].next, c.list[k.next].prev = k.next, k.prev
	c.free = append(c.free, i)
	c.count--
	c.bytes -= k.bytes
}

// oldest returns the request that has been under way for longest.
func (c *calls) oldest() *call {
	if c.count == 0 {
		return nil
	}
	return &c.list[c.list[0].next]
}

// strike notes a request that was slow.
func (c *calls) strike(now int64) {
	if c.strikes == 0 || now-c.lastStrike > ticks(idleAfter) {
		c.strikes, c.firstStrike = 0, now
	}
	c.strikes++
	c.lastStrike, c.samples = now, 0
}
