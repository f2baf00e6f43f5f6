// Package pace bounds the bytes that maintenance moves, so that clients keep most of their
// speed. It does not know what disks can do, nor what clients want: it makes an experiment. For
// one window of time in eight maintenance rests, and what clients get then is compared with
// what they get beside maintenance. As long as they keep enough, maintenance becomes faster.
// While clients rest, it rests in one window of sixteen, or clients who get nothing could not
// be told from clients who want nothing; else nothing holds it back.
package pace

import "time"

// What the controller goes by.
const (
	Window = time.Second // of one measurement
	cycle  = 8           // windows, of which maintenance rests in one
	look   = 16          // the same while clients rest

	idleRate = 1 << 20 // bytes a second of clients, below which they rest
	keepMore = 0.88    // of their speed: while clients keep that, maintenance becomes faster
	keepLess = 0.80    // below that it becomes slower
	keepHalf = 0.60    // below that in one window it becomes slower at once
	faster   = 1.25    // times, after a cycle
	slower   = 0.6
)

// Controller decides how fast maintenance may be. It is a function of what it is told of each
// window; it is for one goroutine.
type Controller struct {
	least, most float64 // bytes a second; most 0: no bound
	alone       bool    // there are no clients, ever

	rate    float64 // in windows of work
	busy    bool    // clients are at work
	windows int     // of the cycle; 0: maintenance rests in it
	free    float64 // what clients get while maintenance rests, bytes a second
	beside  float64 // what they got beside it in this cycle, summed over windows
	gone    bool    // in the last window they got nothing: have they left?
}

// NewController makes a Controller that lets maintenance move at least so many bytes a second,
// whatever clients suffer, and at most so many; 0: as many as it can.
func NewController(least, most int64) *Controller {
	return &Controller{least: float64(least), most: float64(most), windows: 1}
}

// Rate is how many bytes a second maintenance may move in the window that begins. limited is
// false if there is no bound; 0 bytes mean that it rests.
func (c *Controller) Rate() (bytes float64, limited bool) {
	switch {
	case c.windows == 0 && !c.alone:
		return 0, true
	case !c.busy:
		return c.most, c.most > 0
	}
	return c.rate, true
}

// Passed tells of a window that has passed: how long it was, and how many bytes clients and
// maintenance have moved in it.
func (c *Controller) Passed(took time.Duration, clients, maintenance uint64) {
	if took <= 0 {
		return
	}
	got, did := float64(clients)/took.Seconds(), float64(maintenance)/took.Seconds()
	switch {
	case !c.busy && got < idleRate:
		c.windows = (c.windows + 1) % look
	case !c.busy:
		// Clients have come while nothing held maintenance back.
		if did > 0 {
			c.rate = c.within(did / 4)
		}
		c.rate = c.within(c.rate)
		c.busy, c.windows, c.beside, c.free = true, 0, 0, 0
	case c.windows == 0 || maintenance == 0:
		c.rested(got)
	default:
		c.worked(got)
	}
}

// rested takes what clients got while maintenance rested.
func (c *Controller) rested(got float64) {
	if c.windows > 0 { // it had nothing to do
		c.free = (c.free + got) / 2
		return
	}
	if c.free == 0 || c.gone && got < idleRate {
		c.free = got
	} else {
		c.free = (c.free + got) / 2
	}
	if c.busy = c.free >= idleRate; c.busy && c.gone {
		c.rate = c.within(c.rate * slower) // they were there, and got nothing
	}
	c.windows, c.beside, c.gone = 1, 0, false
}

// worked takes what clients got beside maintenance.
func (c *Controller) worked(got float64) {
	c.beside += got
	if c.gone = got < idleRate; c.gone {
		c.windows = 0 // maintenance rests at once, to see
		return
	}
	if got < keepHalf*c.free {
		c.rate = c.within(c.rate * slower)
	}
	if c.windows++; c.windows < cycle {
		return
	}
	kept := c.beside / (cycle - 1) / c.free
	switch {
	case kept >= keepMore:
		c.rate = c.within(c.rate * faster)
	case kept < keepLess:
		c.rate = c.within(c.rate * slower)
	}
	c.windows = 0
}

// within keeps a rate within its bounds.
func (c *Controller) within(rate float64) float64 {
	if c.most > 0 {
		rate = min(rate, c.most)
	}
	return max(rate, c.least, 1)
}
